"""Operators of maps: convolutions, pools, means and batch norms, with the places where their windows stand."""

from __future__ import annotations

from ..specs.layer import Conv, GlobalPool, Pool, Shape
from .axes import plain
from .program import Op
from .reading import Reading


def _sides(values: tuple[int, ...] | None, count: int) -> tuple[int, int]:
    """Numbers of height and width; a signal is a map of height 1."""
    found = tuple(values) if values else (1,) * count
    return (1, found[0]) if count == 1 else (found[0], found[1])


def _one_or_both(values: tuple[int, int]) -> int | tuple[int, int]:
    return values[0] if values[0] == values[1] else values


def _window(reading: Reading, op: Op, kernel: Shape) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], Shape]:
    """Kernel, stride, dilation and padding (top, left, bottom, right) of a window."""
    count = len(kernel)
    if count > 2 or not reading.as_map():
        raise op.refused("takes channels, height and width, or channels and values of a signal")
    kernel, stride, dilation = (
        _sides(values, count) for values in (kernel, op.attributes.get("strides"), op.attributes.get("dilations"))
    )
    pads = tuple(op.attributes.get("pads") or (0,) * 2 * count)
    before, after = _edges(pads[:count]), _edges(pads[count:])
    padding = [0, 0, 0, 0]
    places = (1, *op.made[2:]) if count == 1 else op.made[2:]
    for side, (size, made) in enumerate(zip(reading.shape[1:], places, strict=True)):
        reach = dilation[side] * (kernel[side] - 1) + 1
        begun, ended = before[side] + reading.padding[side], after[side] + reading.padding[side + 2]
        missing = (made - 1) * stride[side] + reach - size
        same = str(op.attributes.get("auto_pad", "")).removeprefix("SAME_")
        if same in {"UPPER", "LOWER"}:
            begun = (max(missing, 0) + (same == "LOWER")) // 2
        padding[side], padding[side + 2] = begun, max(ended, missing - begun)  # a last window may begin before the end
    reading.padding = (0, 0, 0, 0)
    return kernel, stride, dilation, tuple(padding)


def _edges(values: tuple[int, ...]) -> tuple[int, int]:
    return (0, values[0]) if len(values) == 1 else (values[0], values[1])


def _shortest(padding: Shape) -> int | tuple[int, int] | tuple[int, int, int, int]:
    top, left, bottom, right = padding
    if (top, left) == (bottom, right):
        return _one_or_both((top, left))
    return top, left, bottom, right


def convolution(reading: Reading, op: Op) -> None:
    """Filters; over one value a channel, a product of features."""
    if 1 not in op.constants:
        raise op.refused("its filters are no weights")
    channels, _, *kernel = op.constants[1].shape
    groups, bias = op.attributes.get("group", 1), 2 in op.constants
    if len(reading.shape) == 1 and groups == 1 and set(kernel) == {1} and reading.holds("f"):
        reading.axes = (reading.axes[0], "f")
        reading.product(op, channels, bias)
        reading.axes = ("n", "f", *("" for _ in kernel))
        return
    window, stride, dilation, padding = _window(reading, op, tuple(kernel))
    layer = Conv(
        kind="conv",
        channels=channels,
        kernel=_one_or_both(window),
        stride=_one_or_both(stride),
        padding=_shortest(padding),
        dilation=_one_or_both(dilation),
        groups=groups,
        bias=bias,
    )
    reading.add(layer, ("n", "c", *"hw"[2 - len(kernel) :]))


def pool(reading: Reading, op: Op) -> None:
    """The largest or the mean value of windows."""
    kernel = tuple(op.attributes["kernel_shape"])
    window, stride, dilation, padding = _window(reading, op, kernel)
    if dilation != (1, 1):
        raise op.refused("dilated pools are no layer")
    layer = Pool(
        kind="max_pool" if op.kind == "MaxPool" else "average_pool",
        kernel=_one_or_both(window),
        stride=_one_or_both(stride),
        padding=_shortest(padding),
    )
    reading.add(layer, ("n", "c", *"hw"[2 - len(kernel) :]))


def global_pool(reading: Reading, op: Op) -> None:
    """One value of each channel."""
    if not reading.as_map():
        raise op.refused("takes channels, height and width")
    reading.add(GlobalPool(kind="global_pool"), ("n", "f", *("" for _ in op.made[2:])))


def mean(reading: Reading, op: Op) -> None:
    """The mean of places, or of steps."""
    rank = len(op.given)
    given = op.constants[1].values.reshape(-1).tolist() if 1 in op.constants else op.attributes.get("axes")
    reduced = {axis % rank for axis in given or range(rank)}
    over = sorted("".join(plain([reading.axes[axis] for axis in reduced], reading.sizes)))
    whole = sorted("".join(plain(("h", "w") if len(reading.shape) == 3 else ("t",), reading.sizes)))
    if len(reading.shape) < 2 or over != whole or any("n" in reading.axes[axis] for axis in reduced):
        raise op.refused("a mean is a layer over all places of a map, or all steps of a sequence")
    kept = ["" if axis in reduced else name for axis, name in enumerate(reading.axes)]
    if not op.attributes.get("keepdims", 1):
        kept = [name for axis, name in enumerate(kept) if axis not in reduced]
    reading.add(GlobalPool(kind="global_pool"), tuple(name.replace("c", "f") for name in kept))


def batch_norm(reading: Reading, op: Op) -> None:
    """A scale and a shift of each channel."""
    if reading.axes[1:2] not in {("c",), ("f",)}:
        raise op.refused("normalises an axis that holds neither channels nor features")
    reading.norm()


def pad(reading: Reading, op: Op) -> None:
    """Zeros around a map, which the next window takes over."""
    values = op.constants[1].values if 1 in op.constants else op.attributes.get("pads")
    rank = len(op.given)
    if values is None or not reading.as_map() or rank != 4 or op.attributes.get("mode", "constant") != "constant":
        raise op.refused("only zeros around a map of channels, height and width can be told as a layer")
    edges = [int(value) for value in values]
    if any(edges[:2] + edges[4:6]) or min(edges) < 0:
        raise op.refused("pads samples or channels")
    reading.padding = (edges[2], edges[3], edges[6], edges[7])
