"""Convolutions: work by hand, and the matrix products that they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_perf_model.blocks import product_s
from llm_perf_model.ops.base import Cost, Live, Product
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Linear
from llm_perf_model.rates import BlockRate

from .strategies import block_rates, ops, wholes

WIDTHS = {"weight_bytes": 1.0, "activation_bytes": 2.0}
SMALL = Convolution(4.0, 6.0, window=9.0, positions=16.0, in_values=4 * 64.0, groups=1.0, **WIDTHS)
"""3 x 3 filters with stride 2 and padding 1 from 4 x 8 x 8 to 6 x 4 x 4."""

convolutions = ops(Convolution).map(lambda op: replace(op, in_channels=4.0 * op.in_channels))  # type: ignore[attr-defined, type-var]


def samples(number: float) -> Batch:
    return Batch.uniform(number, 1.0, 0.0)


def test_cost_by_hand() -> None:
    """216 weights, used at 16 positions of 3 samples; 256 values read and 96 written each."""
    assert SMALL.filters == SMALL.parameters == 4 * 9 * 6
    assert SMALL.cost(samples(3.0)) == Cost(
        flops=2.0 * 3 * 16 * 216, weight_bytes=216.0, activation_bytes=3 * (256 + 96) * 2.0
    )
    assert SMALL.product(samples(3.0)) == Product(rows=3 * 16.0, columns=6.0, depth=36.0, groups=1.0)


def test_weights_beside_the_filters_are_kept_and_read() -> None:
    """Biases, and scales and shifts of a norm: three for each of 6 channels."""
    more = replace(SMALL, extra=18.0, weight_bytes=2.0)
    assert more.parameters == 216 + 18
    assert more.stored_weight_bytes == more.cost(samples(1.0)).weight_bytes == 2.0 * (216 + 18)
    assert more.cost(samples(1.0)).flops == SMALL.cost(samples(1.0)).flops
    assert more.product(samples(1.0)) == SMALL.product(samples(1.0))


def test_two_groups_have_half_the_filters_each() -> None:
    halved, batch = replace(SMALL, groups=2.0), samples(3.0)
    assert halved.filters == 2 * (2 * 9 * 3) == SMALL.filters / 2.0
    assert halved.cost(batch).flops == SMALL.cost(batch).flops / 2.0
    assert halved.cost(batch).activation_bytes == SMALL.cost(batch).activation_bytes
    assert halved.product(batch) == Product(rows=48.0, columns=3.0, depth=18.0, groups=2.0)


def test_a_filter_for_each_channel_sees_no_other_channel() -> None:
    depthwise = Convolution(8.0, 8.0, window=9.0, positions=16.0, in_values=8 * 16.0, groups=8.0, **WIDTHS)
    assert depthwise.filters == 8 * 9
    assert depthwise.product(samples(1.0)) == Product(rows=16.0, columns=1.0, depth=9.0, groups=8.0)


def test_what_is_alive_is_input_and_output() -> None:
    assert SMALL.live == Live((256 + 96) * 2.0)
    assert SMALL.live.bytes(samples(3.0)) == SMALL.cost(samples(3.0)).activation_bytes


@given(wholes(1, 9), wholes(1, 300), wholes(1, 96), wholes(1, 96), st.booleans())
def test_windows_of_one_value_are_a_product_over_the_positions(
    number: float, positions: float, d_in: float, d_out: float, bias: bool
) -> None:
    """A 1 x 1 convolution over n positions is a dense layer over n tokens."""
    op = Convolution(d_in, d_out, 1.0, positions, positions * d_in, 1.0, extra=bias * d_out, **WIDTHS)
    dense, tokens = Linear(d_in, d_out, 1.0, 2.0, bias=bias), Batch.uniform(number, positions, 0.0)
    assert op.cost(samples(number)) == dense.cost(tokens)
    assert op.product(samples(number)) == dense.product(tokens)
    assert (op.parameters, op.stored_weight_bytes) == (dense.parameters, dense.stored_weight_bytes)
    assert op.live.bytes(samples(number)) == dense.live.bytes(tokens)


@given(convolutions, wholes(1, 9))
def test_the_products_have_the_flops_of_the_filters(op: Convolution, number: float) -> None:
    product = op.product(samples(number))
    assert 2.0 * product.groups * product.rows * product.columns * product.depth == op.cost(samples(number)).flops
    assert product.groups * product.columns == op.out_channels
    assert product.groups * product.columns * product.depth == op.filters


@given(convolutions, wholes(1, 9), wholes(2, 9))
def test_only_weights_do_not_grow_with_the_samples(op: Convolution, number: float, times: float) -> None:
    one, many = op.cost(samples(number)), op.cost(samples(number * times))
    assert many.flops == times * one.flops
    assert many.activation_bytes == times * one.activation_bytes
    assert many.weight_bytes == one.weight_bytes == op.stored_weight_bytes


@given(convolutions, block_rates(), st.sampled_from((1.0, 16.0, 108.0)), wholes(1, 9), wholes(1, 9))
def test_more_samples_or_positions_compute_no_faster(
    op: Convolution, rate: BlockRate, sms: float, number: float, more: float
) -> None:
    larger = replace(op, positions=op.positions + more)
    fast = product_s(op.product(samples(number)), rate, sms)
    assert product_s(op.product(samples(number + more)), rate, sms) >= fast
    assert product_s(larger.product(samples(number)), rate, sms) >= fast


@pytest.mark.parametrize("number", [1.0, 5.0])
def test_samples_of_one_token_or_tokens_of_one_sequence_are_the_same(number: float) -> None:
    assert SMALL.cost(samples(number)) == SMALL.cost(Batch.uniform(1.0, number, 0.0))
    assert SMALL.kv_bytes_per_token == 0.0
    assert not SMALL.grows
