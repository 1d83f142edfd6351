"""Half widths of intervals from the errors of rows that were left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def half_width(logs: Any, level: float) -> float | None:
    """The split-conformal half width: of n sizes of log(estimate / measurement), the ceil((n + 1) level)-th smallest.

    None where so few rows promise no such level [1]_.

    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", Springer, 2005.
    """
    rank = math.ceil((len(logs) + 1) * level)
    return float(np.sort(np.abs(logs))[rank - 1]) if rank <= len(logs) else None
