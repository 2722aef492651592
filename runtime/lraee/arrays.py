"""Names the array types that several modules exchange."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
"""float32; each docstring that uses it gives the shape."""
