"""Convolutions: work by hand, and the matrix products that they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.blocks import convolution_s, implicit_s
from llm_perf_model.ops.base import Cost, Live, Product
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Linear
from llm_perf_model.rates import ConvolutionRate
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec

from .strategies import ops, wholes

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


rates = st.builds(
    ConvolutionRate,
    flops_per_s=st.sampled_from((1e11, 3e12)),
    winograd_flops_per_s=st.sampled_from((0.0, 1e11, 3e12)),
    moved_bytes_per_s=st.sampled_from((1e11, 3e12)),
    columns=st.sampled_from((8.0, 32.0, 64.0)),
    channels=st.sampled_from((1.0, 8.0, 32.0)),
    split_s=st.sampled_from((0.0, 3e-6)),
    splits=st.sampled_from(((1.0,), (1.0, 4.0, 16.0))),
    copies=st.booleans(),
)
multiprocessors = st.sampled_from((1.0, 16.0, 108.0))
threes = st.builds(
    lambda c, k, side, number: (
        Convolution(c, k, 9.0, side**2, c * side**2, 1.0, 4.0, 4.0, position_rows=side, winograd=True),
        samples(number),
    ),
    wholes(1, 300),
    wholes(1, 300),
    wholes(1, 60),
    wholes(1, 9),
)
"""3 x 3 filters with stride 1 and padding 1 on square maps."""


def form_s(op: Convolution, batch: Batch, rate: ConvolutionRate, sms: float) -> float:
    """Seconds of arithmetic and copies, with memory at 1 TB/s and starts of 4 us."""
    form = convolution_s(op, batch, op.cost(batch).hbm_bytes / 1e12, rate, sms, 4e-6)
    return float(form.busy_s + 4e-6 * form.kernels)


@given(convolutions, rates, multiprocessors, wholes(1, 9), wholes(1, 9))
def test_more_samples_or_positions_compute_no_faster(
    op: Convolution, rate: ConvolutionRate, sms: float, number: float, more: float
) -> None:
    """Few positions do not fill a tile of Winograd's forms, which are taken where they do: more may then be faster."""
    fast = form_s(op, samples(number), rate, sms)
    assert form_s(op, samples(number + more), rate, sms) >= fast
    assume(not op.winograd)
    assert form_s(replace(op, positions=op.positions + more), samples(number), rate, sms) >= fast


@given(threes, rates, multiprocessors, wholes(1, 99))
def test_more_channels_compute_no_faster(
    drawn: tuple[Convolution, Batch], rate: ConvolutionRate, sms: float, more: float
) -> None:
    op, batch = drawn
    fast = form_s(op, batch, rate, sms)
    assert form_s(replace(op, out_channels=op.out_channels + more), batch, rate, sms) >= fast
    places = op.in_values / op.in_channels
    deeper = replace(op, in_channels=op.in_channels + more, in_values=(op.in_channels + more) * places)
    assert form_s(deeper, batch, rate, sms) >= fast


@given(threes, rates, multiprocessors)
def test_other_forms_are_taken_only_where_they_are_faster_and_save_arithmetic(
    drawn: tuple[Convolution, Batch], rate: ConvolutionRate, sms: float
) -> None:
    op, batch = drawn
    form = convolution_s(op, batch, 0.0, rate, sms, 4e-6)
    plain = convolution_s(replace(op, winograd=False), batch, 0.0, rate, sms, 4e-6)
    assert form.flops <= plain.flops == op.cost(batch).flops
    assert form.busy_s + 4e-6 * form.kernels <= plain.busy_s + 4e-6 * plain.kernels
    if rate.winograd_flops_per_s == 0.0:
        assert form == plain


def test_transforms_of_whole_tiles_save_as_the_paper_says() -> None:
    """36 products for 4 x 4 x 9, or 16 for 2 x 2 x 9: 4 and 2.25 times less arithmetic (Lavin and Gray, 2015)."""
    op = Convolution(64.0, 64.0, 9.0, 56.0 * 56, 64 * 56.0 * 56, 1.0, 4.0, 4.0, position_rows=56.0, winograd=True)
    for side, saved in ((2.0, 2.25), (4.0, 4.0)):
        product = op.winograd_product(samples(8.0), side)
        assert product == Product(8 * (56 / side) ** 2, 64.0, 64.0, (side + 2) ** 2)
        flops = 2.0 * product.groups * product.rows * product.columns * product.depth
        assert saved * flops == op.cost(samples(8.0)).flops


def test_a_map_that_tiles_do_not_fill_is_computed_to_their_edge() -> None:
    """5 x 3 positions are 2 x 1 tiles of 4 x 4."""
    op = Convolution(8.0, 8.0, 9.0, 15.0, 8 * 15.0, 1.0, 4.0, 4.0, position_rows=5.0, winograd=True)
    assert op.winograd_product(samples(3.0), 4.0).rows == 3 * 2


def test_narrow_products_fill_blocks_by_hand() -> None:
    """3 x 64 positions and 6 channels on blocks of 64 x 32: 3 in one wave, 75 deep, at 1 TFLOP/s."""
    rate = ConvolutionRate(1e12, 0.0, 1e12, 32.0, 1.0, 0.0, (1.0,), copies=False)
    assert implicit_s(Product(192.0, 6.0, 75.0), 1e12, rate, 80.0) == 75 * 2 * 64 * 32 / 1e12
    assert implicit_s(Product(192.0, 6.0, 75.0), 1e12, rate, 2.0) == 2 * (75 * 2 * 64 * 32 / 1e12)


def test_channels_are_padded_at_each_place_and_small_groups_are_joined() -> None:
    """3 channels compute as 8; 32 groups of 4 as 16 pairs of 8 with zeros between them."""
    rate = ConvolutionRate(1e12, 0.0, 1e12, 8.0, 8.0, 0.0, (1.0,), copies=False)
    block_s = 2 * 64 * 8 * 9 * 8 / 1e12
    first = Convolution(3.0, 8.0, 9.0, 64.0, 3 * 64.0, 1.0, 2.0, 2.0)
    assert convolution_s(first, samples(1.0), 0.0, rate, 1.0, 0.0).compute_s == block_s
    grouped = Convolution(128.0, 128.0, 9.0, 64.0, 128 * 64.0, 32.0, 2.0, 2.0)
    assert convolution_s(grouped, samples(1.0), 0.0, rate, 1.0, 0.0).compute_s == pytest.approx(16 * block_s, rel=1e-12)


@given(threes, rates, multiprocessors)
def test_an_array_is_its_numbers(drawn: tuple[Convolution, Batch], rate: ConvolutionRate, sms: float) -> None:
    op, _ = drawn
    numbers = np.array([1.0, 2.0, 7.0])
    many = convolution_s(op, Batch.uniform(numbers, 1.0, 0.0), numbers / 1e5, rate, sms, 4e-6)
    for index, number in enumerate(numbers):
        one = convolution_s(op, samples(float(number)), float(number) / 1e5, rate, sms, 4e-6)
        for several, single in zip(many, one, strict=True):
            assert np.broadcast_to(several, 3)[index] == pytest.approx(single, rel=1e-12)


@pytest.mark.parametrize(("precision", "copied"), [("w16a16", True), ("tf32", False), ("fp32", False)])
def test_channels_last_is_never_slower(precision: str, copied: bool) -> None:
    """Tensor units take narrow channels of a place together; wide values are taken in either order."""
    generic = load(EngineSpec, "generic-fused")
    numbers = [1, 8, 64]
    first, last = (
        lpm.estimate(
            "resnet18",
            gpu="rtx-3080ti",
            engine=generic.model_copy(update={"image_layout": layout}),
            precision=precision,
            batch_size=numbers,
        )
        for layout in ("channels_first", "channels_last")
    )
    slower = np.asarray(first.total_s) - np.asarray(last.total_s)
    assert np.all(slower > 0.0) if copied else np.all(slower == 0.0)


@given(convolutions, wholes(1, 9))
def test_eight_bits_move_no_more_than_sixteen(op: Convolution, number: float) -> None:
    narrow, wide = (replace(op, weight_bytes=b, activation_bytes=b).cost(samples(number)) for b in (1.0, 2.0))
    assert narrow.hbm_bytes < wide.hbm_bytes
    assert narrow.flops == wide.flops


def test_positions_far_apart_read_no_more_than_they_touch() -> None:
    """One value of each 4 x 4 is read by a 1 x 1 filter with stride 4."""
    op = Convolution(8.0, 8.0, 1.0, 4.0, 8 * 64.0, 1.0, 2.0, 2.0)
    assert op.cost(samples(1.0)).activation_bytes == (8 * 4 + 8 * 4) * 2.0


@pytest.mark.parametrize("number", [1.0, 5.0])
def test_samples_of_one_token_or_tokens_of_one_sequence_are_the_same(number: float) -> None:
    assert SMALL.cost(samples(number)) == SMALL.cost(Batch.uniform(1.0, number, 0.0))
    assert SMALL.kv_bytes_per_token == 0.0
    assert not SMALL.grows
