"""Memory of all devices of a layer split together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

import llm_perf_model as lpm
from llm_perf_model.case import Case
from llm_perf_model.graph.stack import weights_bytes
from llm_perf_model.split import split_allocated_bytes
from llm_perf_model.validation.compare import Score, Validation
from llm_perf_model.validation.mapping import MEMORY_METRICS

from .strategies import cases, wholes


def allocated(model: str, stages: int, batch_size: int = 16, input_len: int = 1024, precision: str = "w16a16") -> float:
    layout = {"gpu": "rtx-a6000", "engine": "pytorch-forward", "layer_split": stages, "precision": precision}
    e = lpm.estimate(model, **layout, batch_size=batch_size, input_len=input_len, output_len=1)
    return float(split_allocated_bytes(e.case, e.workload.batch_size, e.workload.input_len))


@given(cases(), wholes(1, 64), wholes(1, 500))
def test_it_is_the_weights_and_a_share_of_each_token(case: Case, batch_size: float, input_len: float) -> None:
    found = split_allocated_bytes(case, batch_size, input_len)
    each = split_allocated_bytes(case, 1.0, 1.0) - weights_bytes(case.graph)
    assert found == pytest.approx(weights_bytes(case.graph) + batch_size * input_len * each, rel=1e-9)
    assert found > weights_bytes(case.graph)


@given(cases(), wholes(1, 64), wholes(1, 500))
def test_each_stage_holds_its_input_and_output(case: Case, batch_size: float, input_len: float) -> None:
    row_bytes = 2.0 * case.model.hidden * case.precision.activation_bytes
    whole = split_allocated_bytes(case, batch_size, input_len) - weights_bytes(case.graph)
    logits = whole - batch_size * input_len * case.layout.layer_split * row_bytes
    values = logits / (batch_size * input_len * case.model.vocab)
    wide = case.model.wide_logits
    returned = 0.0 if case.model.tied_embeddings else 4.0 if wide else case.precision.activation_bytes
    assert values == pytest.approx(case.precision.activation_bytes + 4.0 * wide + returned, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "hidden", "vocab", "value_bytes"),
    [
        ("opt-1.3b", 2048, 50272, 2),  # tied: the logits lie where they are computed
        ("llama-2-7b", 4096, 32000, 2 + 4 + 4),  # cast, and returned to the first device
    ],
)
@pytest.mark.parametrize("stages", [2, 8])
def test_by_hand(model: str, hidden: int, vocab: int, value_bytes: int, stages: int) -> None:
    weights = weights_bytes(lpm.estimate(model, engine="pytorch-forward", output_len=1).case.graph)
    by_hand = weights + 16 * 1024 * (2 * stages * hidden * 2 + vocab * value_bytes)
    assert allocated(model, stages) == pytest.approx(by_hand, rel=1e-14)


def test_wide_activations_are_not_cast_narrower() -> None:
    """32-bit logits beside their cast and their return."""
    more = allocated("llama-2-7b", 2, 16, 1024, "fp32") - allocated("llama-2-7b", 2, 16, 512, "fp32")
    assert more == 16 * 512 * (2 * 2 * 4096 * 4 + 32000 * (4 + 4 + 4))


def test_arrays_hold_what_scalars_give() -> None:
    e = lpm.estimate("opt-1.3b", gpu="rtx-a6000", engine="pytorch-forward", layer_split=8, output_len=1)
    many = split_allocated_bytes(e.case, np.array([1.0, 16.0]), np.array([7.0, 1024.0]))
    assert many.tolist() == [split_allocated_bytes(e.case, 1.0, 7.0), split_allocated_bytes(e.case, 16.0, 1024.0)]


def _of_eight(held: Validation) -> list[Score]:
    return [
        score
        for score in held.scores
        if Path(score.record.file).name == "forward_16x1024_a5000_a6000.csv"
        and score.record.metric in MEMORY_METRICS
        and score.record.n_devices == 8
    ]


def test_memory_of_forward_passes_on_eight_devices_as_measured(held: Validation) -> None:
    """Page "Benchmark" of AICrossSim: six models over eight RTX A5000 and eight RTX A6000, allocated bytes."""
    scores = _of_eight(held)
    assert len(scores) == 12
    assert all(score.mapped.request["layer_split"] == 8 for score in scores)
    assert np.mean([abs(score.error) for score in scores]) <= 0.06
    assert np.mean([abs(score.error) for score in scores if "opt" in score.record.model]) <= 0.01
