"""Models of rows whose column names a family: by another column, or by the order of a table's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_perf_model.validation import conventions
from llm_perf_model.validation.compare import validate_records
from llm_perf_model.validation.naming import named
from llm_perf_model.validation.records import Problem, Record

from .rows import record

DLE = {"source": "NVIDIA_DeepLearningExamples", "device": "v100", "output_len": 0}


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One table of a family of three."""
    given = ({"model": "^family$", "models_in_order": ["a", "b", "c"]},)
    monkeypatch.setattr(conventions, "_rules", lambda: given)
    conventions._merged.cache_clear()
    yield
    conventions._merged.cache_clear()


def models(rows: Any) -> list[str]:
    return [row.model for row in named(rows) if isinstance(row, Record)]


def table(*batches: int, **changes: Any) -> list[Record]:
    return [record(model="family", batch=batch, **changes) for batch in batches]


@pytest.mark.usefixtures("rules")
def test_a_block_ends_where_sizes_no_longer_grow() -> None:
    assert models(table(1, 2, 4, 1, 2, 2)) == ["a", "a", "a", "b", "b", "c"]


@pytest.mark.usefixtures("rules")
def test_the_input_length_grows_before_the_batch() -> None:
    rows = [record(model="family", batch=b, input_len=s) for s, b in ((128, 1), (128, 8), (384, 1), (128, 1), (64, 9))]
    assert models(rows) == ["a", "a", "a", "b", "c"]


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("batches", [(1, 2, 4), (1, 2, 1, 2), (1, 1, 1, 1)])
def test_rows_keep_their_name_unless_there_are_as_many_blocks_as_models(batches: tuple[int, ...]) -> None:
    assert set(models(table(*batches))) == {"family"}


@pytest.mark.usefixtures("rules")
def test_columns_and_precisions_of_a_table_are_told_apart_and_keep_their_places() -> None:
    times, rates = table(1, 2, 1, 1), table(1, 1, 2, 1, metric="throughput", unit="samples/s")
    narrow = table(4, 3, 2, w_dtype="fp32")
    mixed = [row for rows in zip(times, rates, strict=True) for row in rows] + [Problem("f", 9, "unreadable"), *narrow]
    assert models(mixed) == ["a", "a", "a", "b", "b", "b", "c", "c", "a", "b", "c"]
    assert isinstance(named(mixed)[8], Problem)


@given(st.lists(st.sampled_from(["test-13b", "resnet50"]), max_size=8))
def test_rows_of_other_sources_are_left_as_they_are(names: list[str]) -> None:
    rows = [record(model=name, line=line) for line, name in enumerate(names)]
    assert named(rows) == rows


# What ships.


def test_four_blocks_of_a_family_are_its_variants_in_the_order_of_the_table() -> None:
    rows = table(*(1, 256) * 4, engine="PyTorch", input_len=None)
    from_table = models([record(**vars_of(row), **DLE) for row in rows])
    variants = ("b0", "b4", "widese-b0", "widese-b4")
    assert from_table == [f"efficientnet-{variant}" for variant in variants for _ in range(2)]


def vars_of(row: Record) -> dict[str, Any]:
    return {"model": "efficientnet", "batch": row.batch, "engine": row.engine, "input_len": None}


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("BERT-LARGE FP16", "bert-large"),
        ("BERT-Large FP32", "bert-large"),
        ("BERTLarge FP16", "bert-large"),
        ("BERT-Base FP32", "bert-base"),
        ("", "BERT"),
    ],
)
def test_the_heading_of_a_table_names_the_size(heading: str, model: str) -> None:
    note = f'column "Latency-Average(ms)"; section "SQuAD v1.1"; context "{heading}"'
    assert models([record(model="BERT", engine="TensorFlow2", note=note, **DLE)]) == [model]


def test_what_cannot_be_named_or_compared_is_listed_with_its_reason() -> None:
    rows = [
        record(model="efficientnet", engine="PyTorch", metric="latency_ms", **DLE),
        record(model="bert-base", engine="TensorFlow", metric="latency_ms", **DLE),
        record(model="SSD", engine="PyTorch", metric="throughput", unit="", **DLE),
    ]
    assert [item.reason for item in validate_records(rows).unmapped] == [
        "unknown model 'efficientnet'",
        "a mean that holds the first runs, in which kernels are compiled",
        "unknown model 'SSD'",
    ]
