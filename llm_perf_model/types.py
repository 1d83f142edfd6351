"""`Num` is a float or an array, `Mask` a bool or an array of them; those of one call broadcast together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[np.float64]
    MaskArray: TypeAlias = npt.NDArray[np.bool_]
    Column: TypeAlias = npt.NDArray[Any]
    CountArray: TypeAlias = npt.NDArray[np.int64]
else:  # importing numpy.typing takes a tenth of the start-up
    Array = MaskArray = Column = CountArray = np.ndarray

Num: TypeAlias = float | Array
Mask: TypeAlias = bool | MaskArray
