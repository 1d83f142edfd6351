"""The house rules, read from the source: layers, vocabulary, sizes, state and units in names."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

import llm_perf_model
from llm_perf_model.specs.catalog import names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.network import NetworkSpec

PACKAGE = llm_perf_model.__name__
ROOT = Path(llm_perf_model.__file__).resolve().parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "data" not in path.relative_to(ROOT).parts
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}
EVERY_MODULE = pytest.mark.parametrize("module", list(FILES))

RANKS = {
    "types": 0,
    "numeric": 1,
    "errors": 0,
    "units": 0,
    "version": 0,
    "identity": 0,
    "specs": 2,
    "ops": 2,
    "report": 2,
    "pictures": 3,
    "graph": 3,
    "importers": 5,
    "rates": 3,
    "cost": 3,
    "machine": 4,
    "blocks": 4,
    "layers": 4,
    "casts": 4,
    "exchange": 4,
    "energy": 4,
    "liveness": 4,
    "allocation": 5,
    "roofline": 5,
    "placement": 5,
    "case": 6,
    "generate": 6,
    "peak": 6,
    "images": 7,
    "frontier": 7,
    "split": 7,
    "intervals": 7,
    "breakdown": 7,
    "plots": 7,
    "speculation": 7,
    "handover": 7,
    "techniques": 8,
    "provenance": 7,
    "estimate": 8,
    "sizing": 9,
    "summary": 9,
    "listing": 9,
    "capacity": 10,
    "api": 11,
    "sweeping": 12,
    "planning": 12,
    "validation": 12,
    "measuring": 13,
    "__init__": 14,
    "flags": 12,
    "commands": 14,
    "cli": 15,
    "__main__": 16,
}
"""Module, or folder with all its modules -> rank: a module imports only lower ranks, or its own folder."""

LIBRARIES = {
    "numpy": {
        "types", "numeric", "specs", "ops", "exchange", "roofline", "generate", "peak", "breakdown", "cost", "estimate",
        "sizing", "summary", "capacity", "api", "validation", "importers", "techniques", "images", "speculation",
        "sweeping", "planning", "pictures", "plots",
    },
    "pydantic": {"specs", "importers", "flags", "sweeping"},
    "pandas": {"sweeping"},
    "xarray": {"sweeping"},
    "distributed": {"sweeping"},
    "pyarrow": {"report"},
    "fire": {"cli"},
    "rich": {"report"},
    "scipy": {"validation"},
    "matplotlib": {"pictures"},
    "onnx": {"importers"},
    "google": {"importers"},
    "huggingface_hub": {"importers"},
    "gguf": {"importers"},
    "yaml": {"importers"},
    "torch": {"measuring"},
    "transformers": {"measuring"},
    "onnxruntime": {"measuring"},
    "pynvml": {"measuring"},
    "bitsandbytes": {"measuring"},
}  # fmt: skip
"""Library -> the rooms that may import it."""

LONGEST_FUNCTION = 40
LONGEST_MODULE = 300


def _room(module: str) -> str:
    return module.partition(".")[0]


def _imports(module: str) -> Iterator[str]:
    """Modules that a module imports, those of this package by their name inside it."""
    parts = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
    parts = [] if module == "__init__" else parts
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.removeprefix(f"{PACKAGE}.")
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else []
            target = [*base, *(node.module or "").removeprefix(PACKAGE).strip(".").split(".")]
            target = [part for part in target if part]
            for alias in node.names:
                whole = ".".join([*target, alias.name])
                yield whole if whole in FILES else ".".join(target) or "__init__"


def _own_imports(module: str) -> set[str]:
    return {name for name in _imports(module) if name in FILES} - {module}


def test_every_module_has_a_rank_and_every_rank_a_module() -> None:
    assert {_room(module) for module in FILES} == RANKS.keys()


def test_imports_are_found() -> None:
    assert _own_imports("graph.stack") >= {"graph.parts", "ops.dense", "specs.model"}
    assert _own_imports("ops.dense") == {"ops.base", "ops.batch"}
    assert _own_imports("ops.elementwise") == {"types", "ops.base", "ops.batch"}
    assert _own_imports("__main__") == {"cli"}
    assert "api" in _own_imports("__init__")


@EVERY_MODULE
def test_a_module_imports_only_lower_ranks(module: str) -> None:
    for imported in _own_imports(module):
        same_folder = _room(imported) == _room(module) and "." in module
        assert same_folder or RANKS[_room(imported)] < RANKS[_room(module)], f"{module} imports {imported}"


def test_no_module_imports_itself_through_others() -> None:
    reached: dict[str, set[str]] = {module: _own_imports(module) for module in FILES}
    for middle in FILES:
        for module, beyond in reached.items():
            if middle in beyond:
                reached[module] = beyond | reached[middle]
    assert [module for module, beyond in reached.items() if module in beyond] == []


@pytest.mark.parametrize(
    ("room", "others"), [("ops", {"specs", "report"}), ("specs", {"ops", "report"}), ("report", {"ops", "specs"})]
)
def test_rooms_of_the_same_rank_do_not_know_each_other(room: str, others: set[str]) -> None:
    for module in FILES:
        if _room(module) == room:
            assert {_room(name) for name in _own_imports(module)} & others == set(), module


def test_only_graphs_the_machine_and_what_allocates_join_specs_and_ops() -> None:
    """And records of timed operators, which are nodes without a graph."""
    imported = {module: _own_imports(module) - {"ops.node"} for module in FILES}  # many hand on a graph as a whole
    joining = {module for module in FILES if {"specs", "ops"} <= {_room(name) for name in imported[module]}}
    assert {module for module in joining if _room(module) != "graph"} == {
        "layers", "machine", "liveness", "allocation", "validation.operators", "validation.layer_operators",
        "validation.stacks",
    }  # fmt: skip


@EVERY_MODULE
def test_a_library_is_imported_only_where_it_belongs(module: str) -> None:
    for imported in _imports(module):
        top = imported.split(".")[0]
        if imported in FILES or top in sys.stdlib_module_names or top == "__future__":
            continue
        assert _room(module) in LIBRARIES[top], f"{module} imports {top}"


def test_rooms_of_libraries_exist() -> None:
    assert {room for rooms in LIBRARIES.values() for room in rooms} <= RANKS.keys()


# Vocabulary.

_GENERIC = """
a16 ada attention base cache cnn code coder command cpu custom dynamic eager encoder fast fcn forward fused generic gpu
hf inference int8 large linear llm lstm mamba mamba2 medium mha micro mini moe mqa neo next open pro server serving
small super test text tiny vision
"""
GENERIC = set(_GENERIC.split())
"""Words in catalogue names that name no product."""

_COMPANIES = """
nvidia amd intel google meta openai mistral vllm tensorrt trt deepspeed lmdeploy sglang llamacpp ollama huggingface
transformers megatron cuda rocm nvlink nccl hopper ampere volta turing geforce tesla quadro radeon instinct habana
"""
COMPANIES = set(_COMPANIES.split())

ALLOWED: dict[str, set[str]] = {
    "specs.request": {"a100-sxm-40gb", "fastertransformer"},  # defaults of a request
    "commands.estimates": {"a100-sxm-40gb", "fastertransformer"},  # the same, as the flags show them
    "specs.gpu": {"nvidia", "amd", "intel", "google", "sxm", "pcie", "nvl", "oam"},  # vendors, forms
    "specs.base": {"ideal"},  # a kind of engine
    "__init__": {"importers.huggingface.loading"},  # a module
    "importers.counted": {"ideal"},  # the engine that adds nothing to a model
    "importers.aiconfigurator": {"node.pcie_bw"},  # a key of its files
    "measuring.floors": {"ideal"},  # the engine that loses nothing
    "measuring.backends": {"tensorrt", "torch_tensorrt"},  # a backend, and its package
    "measuring.environment": {"cuda", "tensorrt"},  # what torch was built for, and packages whose version is noted
    "importers.results.trtllm": {"trtllm"},  # the tool whose files it reads
    "importers.results.optimum": {  # the same, and keys and a word of its files
        "optimum",
        "environment.optimum_benchmark_version",
        "backend.torch_dtype",
        "backend.torch_compile",
        "pytorch",
    },
}
"""Module -> whole strings that name a product there."""


@cache
def _products() -> set[str]:
    words = {
        word
        for kind in (ModelSpec, NetworkSpec, GpuSpec, EngineSpec)
        for name in names(kind)
        for word in re.split(r"[-.]", name)
    }
    return {word for word in words if re.search(r"[a-z]{2}|^[a-z]+\d", word)} - GENERIC | COMPANIES


FRAMEWORK = {"pytorch", "torchscript", "autocast", "jit", "meta", "seed", "nvml"}
"""Words of the library torch and of counters, for the room that runs models with them."""


def _foreign(module: str) -> set[str]:
    """Products that a module is not to name: all but the libraries that it may import, and words of these."""
    libraries = {library for library, rooms in LIBRARIES.items() if _room(module) in rooms}
    return _products() - libraries - (FRAMEWORK if _room(module) == "measuring" else set())


def _docstrings(tree: ast.AST) -> set[int]:
    """Strings that stand alone: docstrings of modules, classes, functions and fields."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def _strings(module: str) -> Iterator[str]:
    tree = TREES[module]
    apart = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in apart:
            yield node.value


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def test_words_of_products_are_known() -> None:
    assert {"a100", "h100", "rtx", "llama", "gpt3", "fastertransformer", "mi300x", "vllm", "resnet50"} <= _products()


@EVERY_MODULE
def test_code_names_no_product(module: str) -> None:
    named = {text for text in _strings(module) if _words(text) & _foreign(module)}
    assert named - ALLOWED.get(module, set()) == set()


@EVERY_MODULE
def test_identifiers_name_no_product(module: str) -> None:
    found = set()
    for node in ast.walk(TREES[module]):
        identifier = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
        if isinstance(identifier, str):
            found |= set(_words(identifier.replace("_", " "))) & _foreign(module)
    assert found - {"ideal"} == set()  # an adjective too: `ideal_s`


def test_every_allowance_is_used() -> None:
    for module, allowed in ALLOWED.items():
        assert allowed - set(_strings(module)) == set()


# State, output and size.


@EVERY_MODULE
def test_only_the_command_line_prints(module: str) -> None:
    called = {
        node.func.id
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "print" not in called or module == "cli"
    assert called & {"input", "breakpoint", "exec", "eval", "hasattr"} == set()


@EVERY_MODULE
def test_only_export_writes_files(module: str) -> None:
    written = {
        node.attr
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute)
        and node.attr in {"write_text", "write_bytes", "mkstemp", "savetxt", "to_csv"}
    }
    assert written == set() or module == "report.export"


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS = {"list", "dict", "set", "defaultdict", "OrderedDict", "Counter", "deque", "bytearray"}
CHANGERS = {
    "append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add", "discard", "sort"
}  # fmt: skip


def _is_mutable(value: ast.expr | None) -> bool:
    made = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in MAKERS
    return made or isinstance(value, MUTABLE)


def _globals(module: str) -> dict[str, bool]:
    """Names bound at the top of a module -> whether the value could be changed in place."""
    bound: dict[str, bool] = {}
    for node in TREES[module].body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name):
                bound[target.id] = _is_mutable(node.value)  # type: ignore[union-attr]
    return bound


@EVERY_MODULE
def test_no_global_is_rebound_or_changed(module: str) -> None:
    top = _globals(module)
    for node in ast.walk(TREES[module]):
        assert not isinstance(node, ast.Global | ast.Nonlocal), f"line {node.lineno}"
        changed = None
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            changed = node.func.value
        elif isinstance(node, ast.AugAssign):
            changed = node.target
        if isinstance(changed, ast.Name):
            assert changed.id not in top, f"{changed.id} is changed in line {node.lineno}"


@EVERY_MODULE
def test_a_global_table_is_a_constant(module: str) -> None:
    tables = {name for name, mutable in _globals(module).items() if mutable and name != "__all__"}
    assert {name for name in tables if not name.isupper()} == set()


@EVERY_MODULE
def test_no_default_argument_is_mutable(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            assert not any(_is_mutable(default) for default in [*node.args.defaults, *node.args.kw_defaults])


def _doc_lines(node: ast.AST) -> int:
    alone = _docstrings(node)
    return sum(
        (child.end_lineno or child.lineno) - child.lineno + 1
        for child in ast.walk(node)
        if isinstance(child, ast.Constant) and id(child) in alone
    )


@EVERY_MODULE
def test_functions_are_short(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _doc_lines(node)
            assert lines <= LONGEST_FUNCTION, f"{node.name}: {lines} lines"


@EVERY_MODULE
def test_modules_are_short(module: str) -> None:
    text = FILES[module].read_text(encoding="utf-8").splitlines()
    code = [line for line in text if line.strip() and not line.strip().startswith("#")]
    assert len(code) - _doc_lines(TREES[module]) <= LONGEST_MODULE


@EVERY_MODULE
def test_a_module_says_what_it_is(module: str) -> None:
    doc = ast.get_docstring(TREES[module])
    is_marker = FILES[module].name == "__init__.py" and not TREES[module].body
    assert doc or is_marker
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", FILES[module].read_text(encoding="utf-8"))


# Units.

SUFFIX = re.compile(
    r"(^|_)(s|bytes|bytes_per_s|flops|flops_per_s|hz|w|j|tokens|tokens_per_s|efficiency|utilisation|per_value|bits"
    r"|bits_per_s_per_pin|per_clock_per_sm|len|bytes_per_token|token_j|cycles|per_cycle|ratio|fraction"
    r"|usd|usd_per_hour|usd_per_gpu_hour|usd_per_kwh|usd_per_request)$"
)
_COUNTS = """
acceptance activation_vectors active_parameters arrival_variation attention_blocks attention_dp attention_window batch
batch_axis batch_size beams bias blocks buckets bundles cache_tensors calls cells channels columns comm_steps computed
concurrency conv_window convolution_columns copied cores count counts cp cp_nodes crossings cv d_in d_out decay_rank
decode_steps depth deviation deviations devices dilation directions dispatched dp elasticities embedding_width
encoder_layer_count ended entry_dim ep error estimated executions expected_tokens_per_step expert_imbalance expert_tp
experts experts_per_token exposed_exponentials extra factor fast_head_dims features filters frames fullest gate_rank
gates given group_size groups half_width half_widths head_dim heads hidden high image image_size images imbalance
in_channels in_values inner input input_shape input_variation intermediate interval_level joint_variation k kept
kernel kernels key_dim key_heads key_rows kv_heads kv_rank latent launch_year launched layer layer_count layer_split
layers learned_rows least length limit line links logit_cap low m made max_batch_size max_context max_devices
max_positions max_replica_devices mean mean_batch_size measured median mel_bins merged met micro_batches missing most
multiply_adds n n_devices nearest network_steps new node_ranks nodes noise nope_dim norms num_beams number offload_kv
offload_weights out_channels out_groups out_rank output_variation overallocation oversubscription p90 padding
parameters parts pass_sequences passes past patch patches percentile position_buckets position_rows positions pp
prefill_chunk prefill_replicas prefill_tp projector projectors pue q_rank query_rows ranks rates repeats repeats_least
repeats_most replica_devices replica_ranks replicas requests residual_streams residuals rest rope_dim rows samples
scalar score_rows seen seqs shape shapes share shared shared_intermediate sharers side_rows size sizes slices sms
softmax_tensors source source_positions speedup splits spread stage_nodes stage_ranks stages state step_rank steps
stored stride tapped tensors text_columns tiles token_share token_types tokens_per_expert tokens_per_step touches tp
tp_and_pp tp_nodes tuned_shapes updates value value_dim value_heads values visited visited_share visits vocab warmup
weights width window working_ranks worst x y
"""
COUNTS = set(_COUNTS.split())
"""Numbers without a unit: counts, shapes, dimensionless, and tokens or positions by another word."""


def _is_number(hint: Any) -> bool:
    """Whether a value of this type is, or holds, a number (classes of the package speak for themselves)."""
    origin = get_origin(hint)
    if origin is np.ndarray:
        return "bool" not in repr(hint)
    if hint in (int, float):
        return True
    if origin in (Callable, typing.Literal, None) or origin is types.NoneType:
        return False
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _is_number(get_args(hint)[1])
    return any(_is_number(part) for part in get_args(hint) if part is not Ellipsis)


def _classes() -> Iterator[type]:
    for module in FILES:
        if module == "__main__":
            continue
        loaded = importlib.import_module(PACKAGE if module == "__init__" else f"{PACKAGE}.{module}")
        for value in vars(loaded).values():
            if inspect.isclass(value) and value.__module__ == loaded.__name__:
                yield value


def _fields(kind: type) -> set[str]:
    if issubclass(kind, BaseModel):
        return set(kind.model_fields)
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    return set(getattr(kind, "_fields", ()))


def _numbers(kind: type) -> Iterator[str]:
    hints = typing.get_type_hints(kind, include_extras=False)
    yield from (name for name in _fields(kind) if _is_number(hints[name]))
    for name, value in vars(kind).items():
        getter = (
            value.fget if isinstance(value, property) else value.func if isinstance(value, cached_property) else None
        )
        if getter and _is_number(typing.get_type_hints(getter).get("return")):
            yield name


NUMBERS = sorted({(kind.__qualname__, name) for kind in _classes() for name in _numbers(kind) if name[0] != "_"})


def test_numeric_fields_are_found() -> None:
    assert {
        ("GpuSpec", "peak_flops_per_s"), ("GpuSpec", "memory_bus_bits"), ("LayerGroup", "count"), ("Cost", "flops"),
        ("Request", "flops_efficiency"), ("Power", "design_w"), ("Memory", "peak_bytes"), ("Estimate", "ttft_s"),
        ("Linear", "d_in"), ("EngineSpec", "kernel_start_s"), ("Node", "kernels"), ("Line", "time_s"),
        ("Live", "token_bytes"), ("Pool", "tokens"), ("Allocation", "overallocation"), ("Alternatives", "devices"),
        ("Cost", "usd_per_request"), ("Offer", "usd_per_hour"), ("TariffSpec", "pue"), ("PowerSpec", "idle_fraction"),
        ("Conv", "stride"), ("Convolution", "in_values"), ("NetworkSpec", "multiply_adds"), ("Request", "input_shape"),
    } <= set(NUMBERS)  # fmt: skip
    assert not {name for _, name in NUMBERS} & {"name", "title", "kind", "op", "layout", "sources", "fits"}
    assert ("Linear", "bias") not in NUMBERS


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_ends_in_its_unit_or_is_a_count(kind: str, name: str) -> None:
    assert SUFFIX.search(name) or name in COUNTS, f"{kind}.{name}"


def test_every_listed_count_is_a_number_of_the_package() -> None:
    assert COUNTS - {name for _, name in NUMBERS} == set()


def test_no_listed_count_has_a_unit() -> None:
    assert [name for name in COUNTS if SUFFIX.search(name)] == []


def test_no_name_of_the_package_hides_a_builtin() -> None:
    hidden = {name for name in vars(llm_perf_model) if name in vars(builtins) and not name.startswith("__")}
    assert hidden == set()
