"""How long a language model takes on a device, how much memory it needs and why, from specs alone."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .api import (
    collectives,
    engines,
    estimate,
    gpus,
    kernels,
    links,
    memory,
    models,
    networks,
    powers,
    precisions,
    prices,
    tariffs,
)
from .capacity import Capacity
from .errors import (
    InfeasibleError,
    LlmPerfModelError,
    OutOfMemoryError,
    RequestError,
    SpecError,
    UnknownNameError,
)
from .estimate import Estimate
from .specs.collective import CollectiveSpec
from .specs.engine import EngineSpec
from .specs.gpu import GpuSpec
from .specs.kernels import KernelSpec
from .specs.layout import LayoutSpec
from .specs.link import LinkSpec
from .specs.model import ModelSpec
from .specs.network import NetworkSpec
from .specs.power import PowerSpec
from .specs.precision import PrecisionSpec
from .specs.price import PriceSpec, TariffSpec
from .specs.workload import WorkloadSpec
from .version import __version__

if _TYPE_CHECKING:
    from .importers.foreign import import_file
    from .importers.huggingface.loading import import_hf
    from .importers.onnx import import_onnx
    from .importers.results.imported import import_results
    from .measuring.limits import measure_device
    from .measuring.measured import Measured
    from .measuring.method import Method
    from .measuring.operator_run import measure_ops
    from .measuring.run import measure
    from .planning.answer import Plan, plan
    from .sweeping.cells import Cells
    from .sweeping.crossovers import Crossovers, crossovers
    from .sweeping.folder import SweepFolder, read_sweep
    from .sweeping.grid import Sweep
    from .sweeping.run import search, sweep, write_sweep
    from .sweeping.sensitivity import Sensitivity, sensitivity
    from .validation.run import calibrate, validate

_LATER = {
    "calibrate": "validation.run",
    "validate": "validation.run",
    "import_file": "importers.foreign",
    "import_hf": "importers.huggingface.loading",
    "import_onnx": "importers.onnx",
    "Measured": "measuring.measured",
    "Method": "measuring.method",
    "measure": "measuring.run",
    "measure_device": "measuring.limits",
    "measure_ops": "measuring.operator_run",
    "import_results": "importers.results.imported",
    "Plan": "planning.answer",
    "plan": "planning.answer",
    "Cells": "sweeping.cells",
    "Crossovers": "sweeping.crossovers",
    "crossovers": "sweeping.crossovers",
    "Sweep": "sweeping.grid",
    "SweepFolder": "sweeping.folder",
    "read_sweep": "sweeping.folder",
    "search": "sweeping.run",
    "sweep": "sweeping.run",
    "write_sweep": "sweeping.run",
    "Sensitivity": "sweeping.sensitivity",
    "sensitivity": "sweeping.sensitivity",
}
"""Name -> its module, for names that start-up does not wait for."""

__all__ = [
    "Capacity",
    "Cells",
    "CollectiveSpec",
    "Crossovers",
    "EngineSpec",
    "Estimate",
    "GpuSpec",
    "InfeasibleError",
    "KernelSpec",
    "LayoutSpec",
    "LinkSpec",
    "LlmPerfModelError",
    "Measured",
    "Method",
    "ModelSpec",
    "NetworkSpec",
    "OutOfMemoryError",
    "Plan",
    "PowerSpec",
    "PrecisionSpec",
    "PriceSpec",
    "RequestError",
    "Sensitivity",
    "SpecError",
    "Sweep",
    "SweepFolder",
    "TariffSpec",
    "UnknownNameError",
    "WorkloadSpec",
    "__version__",
    "calibrate",
    "collectives",
    "crossovers",
    "engines",
    "estimate",
    "gpus",
    "import_file",
    "import_hf",
    "import_onnx",
    "import_results",
    "kernels",
    "links",
    "measure",
    "measure_device",
    "measure_ops",
    "memory",
    "models",
    "networks",
    "plan",
    "powers",
    "precisions",
    "prices",
    "read_sweep",
    "search",
    "sensitivity",
    "sweep",
    "tariffs",
    "validate",
    "write_sweep",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
