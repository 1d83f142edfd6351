"""Models of the catalogue: counts and caches that are documented, and the page that lists them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_perf_model.errors import SpecError
from llm_perf_model.graph.stack import active_parameters, build, kv_bytes_per_token
from llm_perf_model.ops.node import Graph
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

ROOT = Path(__file__).resolve().parents[1]


def graph_of(name: str, precision: str = "w16a16", tp: int = 1) -> Graph:
    return build(load(ModelSpec, name), load(EngineSpec, "ideal"), load(PrecisionSpec, precision), tp)


def test_the_catalogue_is_as_large_as_asked_for() -> None:
    assert len(names(ModelSpec)) >= 150
    assert len(names(GpuSpec)) >= 60


PUBLISHED = [name for name in names(ModelSpec) if load(ModelSpec, name).active_parameters is not None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_token_passes_is_what_is_published(name: str) -> None:
    model = load(ModelSpec, name)
    assert active_parameters(graph_of(name), model.active_counts) == pytest.approx(model.active_parameters, rel=0.02)


def test_published_counts_of_active_weights_are_there() -> None:
    asked = """
    deepseek-v3 qwen3-30b-a3b qwen3-235b-a22b mixtral-8x7b gpt-oss-20b gpt-oss-120b llama-4-scout glm-4.5 kimi-k2 dbrx
    phi-3.5-moe olmoe-1b-7b
    """
    assert set(asked.split()) <= set(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("deepseek-v3", 70_272),  # DeepSeek-V3 report: 70.272 KB a token; 61 x (512 + 64) x 2
        ("deepseek-v2", 69_120),  # 60 x (512 + 64) x 2, a fiftieth of the 2 x 60 x 128 x 128 x 2 of all heads
        ("llama-3-70b", 327_680),  # DeepSeek-V3 report, for the shape of Llama 3: 2 x 80 x 8 x 128 x 2
        ("llama-3.1-405b", 516_096),  # the same report: 516.096 KB
        ("qwen2.5-72b", 327_680),  # the same report: 327.680 KB
        ("mistral-7b-v0.1", 131_072),  # 2 x 32 x 8 x 128 x 2
        ("gemma-2-9b", 344_064),  # 2 x 42 x 8 x 256 x 2
        ("gemma-2-27b", 376_832),  # 2 x 46 x 16 x 128 x 2
        ("gpt-oss-20b", 49_152),  # 2 x 24 x 8 x 64 x 2
        ("gpt-oss-120b", 73_728),  # 2 x 36 x 8 x 64 x 2
        ("minimax-text-01", 40_960),  # its 10 layers of attention alone: 2 x 10 x 8 x 128 x 2
        ("jamba-1.5-mini", 16_384),  # its 4 layers of attention alone: 2 x 4 x 8 x 128 x 2
        ("qwen3-next-80b-a3b", 24_576),  # its 12 layers of attention alone: 2 x 12 x 2 x 256 x 2
        ("mamba-2.8b", 0),
        ("mamba2-2.7b", 0),
        ("falcon-mamba-7b", 0),
    ],
)
def test_a_token_adds_to_the_cache_what_is_documented(name: str, kv_bytes: float) -> None:
    assert kv_bytes_per_token(graph_of(name)) == kv_bytes


def test_a_latent_cache_is_the_same_on_every_rank() -> None:
    assert kv_bytes_per_token(graph_of("deepseek-v3", tp=8)) == kv_bytes_per_token(graph_of("deepseek-v3"))


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax-m2"),
        ("zhipuai/GLM-5", "glm-5"),
        ("OpenLlama 3B", "open-llama-3b"),
        ("mlperf/mixtral-8x7b", "mixtral-8x7b"),
        ("mlperf/bert-99.9", "bert-large"),
        ("microsoft/Phi-3-small-8k-instruct", "phi-3-small-8k"),
        ("Qwen/Qwen3-VL-235B-A22B-Instruct-FP8", "qwen3-vl-235b-a22b"),
    ],
)
def test_the_name_of_a_checkpoint_finds_its_shape(called: str, name: str) -> None:
    assert load(ModelSpec, called).name == name


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.mark.usefixtures("scripts")
def test_the_page_of_the_catalogue_is_that_of_the_files() -> None:
    """`python scripts/write_catalogue.py` writes it."""
    from write_catalogue import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page()


LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}


@pytest.mark.usefixtures("scripts")
def test_a_model_file_is_written_from_a_config_and_a_published_count(tmp_path: Path) -> None:
    from write_model import model_data

    data = model_data(LLAMA, "mine", "me/Mine", {"parameters": 8.03e9}, ("me/Mine-Instruct",))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    model, known = load(ModelSpec, str(path)), load(ModelSpec, "llama-3.1-8b")
    assert (model.layers, model.hidden, model.vocab) == (known.layers, known.hidden, known.vocab)
    assert (model.parameters, model.aliases) == (8.03e9, ("me/Mine", "me/Mine-Instruct"))
    assert [source.title for source in model.sources] == ["me/Mine config.json", "me/Mine model page"]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("count", [7.9e9, 8.2e9])
def test_a_count_that_the_config_does_not_sum_to_is_refused(count: float) -> None:
    from write_model import model_data

    told = f"me/Mine: parameters is {count:.4g} but the config's weights sum to 8.03e+09"
    with pytest.raises(SpecError, match=re.escape(told)):
        model_data(LLAMA, "mine", "me/Mine", {"parameters": count}, ())
