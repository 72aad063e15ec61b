"""The array type that this package speaks; shape, range and order are said where a function takes or gives one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
