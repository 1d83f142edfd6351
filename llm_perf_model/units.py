"""SI values as people read them: the only place where prefixes appear."""

from __future__ import annotations

from typing import Final

_TIMES: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BINARY: Final = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_DECIMAL: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


_ROUNDS_TO_ONE: Final = 0.9995 - 1e-12


def seconds(value: float) -> str:
    """`0.0621` as `62.1 ms`."""
    return _scaled(value, _TIMES)


def interval_of_seconds(value: float, low: float, high: float) -> str:
    """`0.0621, 0.0578, 0.0669` as `62.1 ms  [57.8, 66.9]`: the bounds in the unit of the value."""
    text = seconds(value)
    factor = next(factor for factor, unit in _TIMES if text.endswith(f" {unit}"))
    return f"{text}  [{_three_digits(low / factor)}, {_three_digits(high / factor)}]"


def _three_digits(value: float) -> str:
    digits = 0 if value >= 99.95 or value == 0.0 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"


def binary_bytes(value: float) -> str:
    """`4.3e9` as `4.00 GiB`."""
    return _scaled(value, _BINARY)


def decimal(value: float, unit: str) -> str:
    """`3.12e14` with `FLOP` as `312 TFLOP`."""
    return _scaled(value, tuple((factor, f"{prefix}{unit}") for factor, prefix in _DECIMAL))


def dollars(value: float) -> str:
    """`0.1417` as `$0.142`."""
    return f"${value:.3g}" if value < 100.0 else f"${value:.0f}"


def percent(fraction: float) -> str:
    """`0.671` as `67 %`; one digit more below ten."""
    return f"{100.0 * fraction:.1f} %" if fraction < 0.0995 else f"{100.0 * fraction:.0f} %"


def _scaled(value: float, table: tuple[tuple[float, str], ...]) -> str:
    """Three significant digits with the largest unit that does not exceed the rounded value."""
    factor, unit = next((row for row in table if abs(value) / row[0] >= _ROUNDS_TO_ONE), table[-1])
    scaled = value / factor
    if 0.0 < abs(scaled) < _ROUNDS_TO_ONE:
        return f"{scaled:.3g} {unit}".rstrip()
    digits = 0 if abs(scaled) >= 99.95 or scaled == 0.0 else 1 if abs(scaled) >= 9.995 else 2
    return f"{scaled:.{digits}f} {unit}".rstrip()
