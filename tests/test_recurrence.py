"""Recurrent layers: the work of their steps, and time that no batch hides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.ops.base import Cost, Live, Product
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.node import Node
from llm_perf_model.ops.recurrence import CELLS, Recurrence
from llm_perf_model.rates import Machine, RecurrentRate
from llm_perf_model.roofline import Step, step_s

from .strategies import wholes

SMALL = Recurrence(5.0, gates=4.0, steps=3.0, tensors=7.0, weight_bytes=4.0, activation_bytes=2.0, extra=20.0)
recurrences = st.builds(
    Recurrence,
    hidden=wholes(1, 3000),
    gates=st.sampled_from([cell.gates for cell in CELLS.values()]),
    steps=wholes(1, 300),
    tensors=st.sampled_from((2.0, 7.0)),
    weight_bytes=st.sampled_from((2.0, 4.0)),
    activation_bytes=st.sampled_from((2.0, 4.0)),
)


def samples(number: float) -> Batch:
    return Batch.uniform(number, 1.0, 0.0)


CARD = {"gpu": "v100-sxm-16gb", "engine": "generic-fused", "precision": "fp32"}
MACHINE: Machine = lpm.estimate("custom-lstm", **CARD).case.machine


def timed(op: Recurrence, batch: Batch) -> Step:
    node = Node("steps", "recurrent", op, kernels=op.kernels)
    return step_s(node, batch, node.cost(batch), MACHINE)


def device_s(op: Recurrence, number: float) -> float:
    step = timed(op, samples(number))
    return float(step.busy_s + step.start_s)


def test_cost_by_hand() -> None:
    """4 x 25 weights in each of 3 steps and 20 biases once; 7 tensors of 5 values a step and sequence."""
    assert SMALL.cost(samples(2.0)) == Cost(
        flops=2.0 * 2 * 3 * 100, weight_bytes=(3 * 100 + 20) * 4.0, activation_bytes=2 * 3 * 7 * 5 * 2.0
    )
    assert SMALL.product(samples(2.0)) == Product(2.0, 20.0, 5.0)
    assert (SMALL.parameters, SMALL.stored_weight_bytes) == (120.0, 480.0)
    assert SMALL.live == Live((7 + 2 * 5) * 5 * 2.0)  # beside a step the gates and outputs of two others
    assert SMALL.kernels == 2 * 3


@given(recurrences, wholes(1, 128), wholes(2, 9))
def test_steps_follow_each_other(op: Recurrence, number: float, times: float) -> None:
    """Twice the steps take twice the time, whatever the batch; none starts before the one before has ended."""
    longer = replace(op, steps=op.steps * times)
    assert device_s(longer, number) == pytest.approx(times * device_s(op, number), rel=1e-9)
    assert MACHINE.recurrent is not None
    assert device_s(op, number) >= op.steps * MACHINE.recurrent.step_s


@given(recurrences, wholes(1, 128), wholes(1, 128))
def test_more_sequences_or_units_take_no_less(op: Recurrence, number: float, more: float) -> None:
    assert device_s(op, number + more) >= device_s(op, number)
    assert device_s(replace(op, hidden=op.hidden + more), number) >= device_s(op, number)


def test_an_array_is_its_numbers() -> None:
    numbers = np.array([1.0, 16.0, 128.0])
    many = timed(replace(SMALL, hidden=512.0), Batch.uniform(numbers, 1.0, 0.0))
    for index, number in enumerate(numbers):
        one = timed(replace(SMALL, hidden=512.0), samples(float(number)))
        assert np.asarray(many.busy_s)[index] == pytest.approx(one.busy_s, rel=1e-12)


def test_a_step_of_a_small_layer_is_its_own_time_and_little_else() -> None:
    """256 units, 16 sequences, 150 steps: 4.54 ms on a V100 (DeepBench, fp32)."""
    op = Recurrence(256.0, *CELLS["lstm"][:1], 150.0, CELLS["lstm"].tensors, 4.0, 4.0)
    assert isinstance(MACHINE.recurrent, RecurrentRate)
    assert 150 * MACHINE.recurrent.step_s > 0.5 * device_s(op, 16.0)
    assert device_s(op, 16.0) == pytest.approx(4.542e-3, rel=0.2)
