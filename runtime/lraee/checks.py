"""Checks of what a program passes in, shared by the functions that people call.

A wrong type is refused where it is given, with what was wanted: further on it would be an error of numpy or ONNX
Runtime that names neither, or would silently mean something else.
"""

from __future__ import annotations

import os
import sys
from numbers import Integral, Real
from reprlib import repr as short
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from lraee.errors import LraeeError, SettingsError
from lraee.ort.cpu import available_cores

THREADS_PER_CORE = 4
"""At most. With 32 for each of two cores the reference takes 15 s to begin, with 128 a minute."""


def is_count(value: object, least: int = 1, most: int = sys.maxsize) -> TypeGuard[int]:
    """Tell whether `value` is a whole number from `least` to `most`, of Python or numpy, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether `value` is a real number, of Python or numpy, perhaps infinite or NaN, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def check_count(name: str, value: object, error: type[LraeeError] = SettingsError) -> None:
    """Refuse all but a whole number from 1 on.

    Raises:
        LraeeError: of the type `error`.
    """
    if not is_count(value):
        raise error(f"{name} is {short(value)}, wanted at least 1, a whole number")


def check_choice(name: str, value: object, allowed: tuple[Any, ...]) -> None:
    """Refuse all but one of a few words.

    Raises:
        SettingsError: it is something else.
    """
    if value not in allowed:
        raise SettingsError(f"{name} is {short(value)}, wanted {' or '.join(map(repr, allowed))}")


def check_threads(threads: object) -> None:
    """Refuse far more threads than the machine has cores: every session starts them, and they wait for one another.

    Raises:
        SettingsError: it is neither None nor a whole number from 1 to `THREADS_PER_CORE` for each core.
    """
    most = THREADS_PER_CORE * max(os.cpu_count() or 1, available_cores())  # PYTHON_CPU_COUNT changes the first
    if threads is not None and not is_count(threads, 1, most):
        raise SettingsError(
            f"threads is {short(threads)}, wanted a whole number from 1 to {most}, {THREADS_PER_CORE} for each core of "
            "this machine; without it the number is chosen by the cores and the model"
        )


def array_words(value: object) -> str:
    """Describe an array by dtype and shape, or any other object by its type, for messages."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"a {type(value).__name__}, no array"


def is_real_array(value: object, axes: int) -> TypeGuard[NDArray[np.floating]]:
    """Tell whether `value` is an array of real numbers, all finite also as float32, with `axes` axes."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.ndim != axes:
        return False
    limit = float(np.finfo(np.float32).max)
    return not value.size or (-limit <= float(value.min()) and float(value.max()) <= limit)  # NaN is neither
