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

if _TYPE_CHECKING:
    from .importers.foreign import import_file
    from .importers.huggingface.loading import import_hf
    from .importers.onnx import import_onnx
    from .importers.results.imported import import_results
    from .planning.answer import Plan, plan
    from .sweeping.cells import Cells
    from .sweeping.grid import Sweep
    from .sweeping.run import sweep
    from .validation.run import calibrate, validate

_LATER = {
    "calibrate": "validation.run",
    "validate": "validation.run",
    "import_file": "importers.foreign",
    "import_hf": "importers.huggingface.loading",
    "import_onnx": "importers.onnx",
    "import_results": "importers.results.imported",
    "Plan": "planning.answer",
    "plan": "planning.answer",
    "Cells": "sweeping.cells",
    "Sweep": "sweeping.grid",
    "sweep": "sweeping.run",
}
"""Name -> its module, for names that start-up does not wait for."""

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
    "import_results",
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
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
