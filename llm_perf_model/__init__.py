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
from .cells import Cells
from .errors import (
    InfeasibleError,
    LlmPerfModelError,
    OutOfMemoryError,
    RequestError,
    SpecError,
    UnknownNameError,
)
from .estimate import Estimate
from .grid import Sweep
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
from .sweep import sweep

if _TYPE_CHECKING:
    from .importers.foreign import import_file
    from .importers.huggingface.loading import import_hf
    from .importers.onnx import import_onnx
    from .planning.answer import Plan, plan
    from .validation.run import calibrate, validate

__version__ = "0.1.0"

__all__ = [
    "Capacity",
    "Cells",
    "CollectiveSpec",
    "EngineSpec",
    "Estimate",
    "GpuSpec",
    "InfeasibleError",
    "KernelSpec",
    "LayoutSpec",
    "LinkSpec",
    "LlmPerfModelError",
    "ModelSpec",
    "NetworkSpec",
    "OutOfMemoryError",
    "Plan",
    "PowerSpec",
    "PrecisionSpec",
    "PriceSpec",
    "RequestError",
    "SpecError",
    "Sweep",
    "TariffSpec",
    "UnknownNameError",
    "WorkloadSpec",
    "__version__",
    "calibrate",
    "collectives",
    "engines",
    "estimate",
    "gpus",
    "import_file",
    "import_hf",
    "import_onnx",
    "kernels",
    "links",
    "memory",
    "models",
    "networks",
    "plan",
    "powers",
    "precisions",
    "prices",
    "sweep",
    "tariffs",
    "validate",
]


def __getattr__(name: str) -> object:
    """Names that start-up does not wait for."""
    if name in {"calibrate", "validate"}:
        from .validation import run

        return getattr(run, name)
    if name == "import_hf":
        from .importers.huggingface import loading

        return loading.import_hf
    if name == "import_file":
        from .importers import foreign

        return foreign.import_file
    if name == "import_onnx":
        from .importers import onnx

        return onnx.import_onnx
    if name in {"Plan", "plan"}:
        from .planning import answer

        return getattr(answer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
