"""Devices from the system files of aiconfigurator [1]_.

.. [1] NVIDIA, "AIConfigurator", https://github.com/ai-dynamo/aiconfigurator, `systems/*.yaml`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..specs.gpu import Peak
from .devices import Device
from .facts import facts
from .stated import Stated

TOOL: Final = "aiconfigurator"
MARKS: Final = frozenset({"gpu", "node"})
"""Fields by which a file is known."""

_PEAKS: Final[Mapping[Peak, str]] = {
    "tensor_int8": "gpu.int8_tc_flops",
    "tensor_fp8": "gpu.fp8_tc_flops",
    "tensor_fp4": "gpu.fp4_tc_flops",
}
_HALF: Final = ("gpu.bfloat16_tc_flops", "gpu.float16_tc_flops")


def device_of(where: str, data: Mapping[str, Any]) -> Device:
    """The device of a system file, in SI units; a peak that it leaves out is one that the device does not have."""
    every = Stated.of(where, TOOL, data).fields
    stated = Stated(where, TOOL, {key: value for key, value in every.items() if not _is_placeholder(key, value)})
    half = next((value for value in map(stated.positive, _HALF) if value is not None), None)
    if half is None:
        raise stated.refuse(f"{_HALF[0]} is missing from this file of {TOOL}")
    narrow = {peak: stated.positive(key) for peak, key in _PEAKS.items()}
    told: dict[Peak, float] = {peak: value for peak, value in narrow.items() if value is not None}
    ranks, generation = _ranks(stated), _generation(stated)
    return Device(
        stated=stated,
        name=Path(where).stem,
        hbm_bytes=stated.needed("gpu.mem_capacity"),
        hbm_bytes_per_s=stated.needed("gpu.mem_bw"),
        peak_flops_per_s={"tensor_fp16": half, "tensor_bf16": half, **told},
        lacks=frozenset(peak for peak in _PEAKS if peak not in told),
        tdp_w=stated.positive("gpu.power"),
        generation=generation,
        fabric_bytes_per_s=stated.positive("node.intra_node_bw"),
        ranks=ranks,
        host_bytes_per_s=stated.positive("node.pcie_bw"),
    )


def _is_placeholder(key: str, value: Any) -> bool:
    """Whether a peak is written as one that there is not."""
    return key.endswith("_flops") and isinstance(value, int | float) and value <= 0


def _ranks(stated: Stated) -> int | None:
    """Devices that reach each other at the rate inside a node: those of a rack where it is as fast between nodes."""
    rack, node = stated.count("node.num_gpus_per_rack"), stated.count("node.num_gpus_per_node")
    as_fast = stated.positive("node.inter_node_bw") == stated.positive("node.intra_node_bw")
    return rack if rack is not None and as_fast else node


def _generation(stated: Stated) -> str | None:
    version = stated.count("gpu.sm_version")
    if version is None:
        return None
    known = facts("generations")
    if str(version) not in known:
        problem = f"gpu.sm_version is {version}, of no generation with coefficients"
        raise stated.refuse(f"{problem}; known: {', '.join(known)}")
    return str(known[str(version)])
