"""Resizes with ONNX Runtime's `Resize`, for boards without Pillow and frames of another size than the model's.

Bicubic on uint8 is a port of Pillow's with float32 weights: 1 level apart in about 1 of 10,000 values
(`benchmarks/experiments/photos.py`). An error of the first axis that several neighbours share grows to 2 levels in the
second. This was seen in small images alone, so numpy resizes their first axis, exactly. Bilinear is not offered: its
weights round differently, in 1.4 % of values. `bicubic.onnx` is written by `lraee_exporters.graphs.resize`.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from lraee.images.read import Pixels
from lraee.images.resize.numpy_resize import heights_first, resize_first
from lraee.ort.forking import no_fork_meanwhile
from lraee.ort.sessions import SessionSettings, global_thread_pool_is_set, make_session

SMALL = 4
"""An image is small if it has less than this many times the wanted pixels."""

GRAPH = Path(__file__).with_name("bicubic.onnx")


def resize_bicubic(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize uint8 pixels (height, width, 3) with ONNX Runtime's bicubic filter."""
    rows, columns = pixels.shape[:2]
    if rows * columns < SMALL * width * height:
        pixels = resize_first(pixels, width, height, "bicubic")
    elif heights_first(pixels, width, height):  # ONNX Runtime does not
        pixels = _run(pixels, columns, height)
    return _run(pixels, width, height)


def _run(pixels: Pixels, width: int, height: int) -> Pixels:
    size = np.array([height, width], np.int64)
    resized: Pixels = _session().run(None, {"pixels": pixels[None], "size": size})[0][0]
    return resized


@cache
def _session() -> ort.InferenceSession:
    """Make one session for the process: without a pool, it may be shared by threads and survives a fork.

    With the process-wide pool it does not, since that has no threads in a forked child.
    """
    pool: Literal["session", "global"] = "global" if global_thread_pool_is_set() else "session"
    with no_fork_meanwhile():
        return make_session(GRAPH, SessionSettings(threads=1, thread_pool=pool))
