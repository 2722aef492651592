"""Lower bounds on latency: the tower's GEMMs alone, and a single read of all its weights.

Both run in the same rounds as the rows, so that the ratio of the chain to them is measured under the same conditions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.bundle.manifest import TowerInfo
from lraee.ort.sessions import SessionSettings, make_session
from lraee_benchmarks.rows.baseline_files import checked_baseline

FloorPart = Literal["gemm", "read"]

FLOOR_PARTS: tuple[FloorPart, ...] = ("gemm", "read")
"""In the order of their columns, which come after those of the rows."""


def weight_bytes(floor: Path) -> int:
    """Give the size of the GEMMs' weights, scales and biases; `floor` is the graph they belong to."""
    return os.path.getsize(floor.with_suffix(".data"))


def open_floor(bundle: Bundle, part: FloorPart, settings: SessionSettings, *, batch: int) -> Callable[[int], object]:
    """Open what is timed; it is given the index of a batch, which it does not look at.

    Raises:
        BundleError: the floor's graph is not there, or cannot be loaded.
    """
    path = checked_baseline(bundle, "floor")
    if part == "read":
        return MemoryRead(weight_bytes(path), settings.thread_count)
    return BareGemms(make_session(path, settings), bundle.manifest.tower, batch)


class BareGemms:
    """Every GEMM of the tower once, in order, each into one of a few buffers that stay in cache.

    GEMMs of one shape write to the same buffer, which is not read again: multiplying is all that takes time.
    """

    def __init__(self, session: ort.InferenceSession, tower: TowerInfo, batch: int) -> None:
        """Bind inputs and outputs once.

        Args:
            session: of ``floor.onnx``.
            tower: gives the number of rows of one image.
            batch: images.
        """
        rows = {
            "patch_rows": batch * (tower.tokens - 1 if tower.pooling == "cls" else tower.tokens),
            "token_rows": batch * tower.tokens,
            "image_rows": batch,
        }
        random = np.random.default_rng(0)
        self._session = session
        self._binding = session.io_binding()
        self._arrays: list[NDArray[np.generic]] = []
        for entry in session.get_inputs():
            shape = (rows[entry.shape[0]], entry.shape[1])
            levels = random.integers(0, 256, shape, np.uint8)
            given = levels if entry.type == "tensor(uint8)" else (levels / np.float32(128) - 1).astype(np.float32)
            self._arrays.append(given)
            self._binding.bind_ortvalue_input(entry.name, ort.OrtValue.ortvalue_from_numpy(given))
        buffers: dict[tuple[int, int], ort.OrtValue] = {}
        outputs = session.get_outputs()
        for entry in outputs:
            shape = (rows[entry.shape[0]], entry.shape[1])
            if shape not in buffers:
                self._arrays.append(np.empty(shape, np.float32))
                buffers[shape] = ort.OrtValue.ortvalue_from_numpy(self._arrays[-1])
            self._binding.bind_ortvalue_output(entry.name, buffers[shape])
        self.count = len(outputs)

    def __call__(self, batch: int = 0) -> None:
        """Multiply once."""
        self._session.run_with_iobinding(self._binding)


class MemoryRead:
    """Reads as many bytes as the weights have, once, each thread its share.

    numpy's maximum over whole numbers goes as fast as memory gives them, and lets go of Python's lock.
    """

    def __init__(self, size_bytes: int, threads: int) -> None:
        numbers = np.random.default_rng(0).integers(0, 1 << 62, max(size_bytes // 8, threads), np.int64)
        self._shares = np.array_split(numbers, threads)
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def __call__(self, batch: int = 0) -> int:
        """Read; this thread takes the first share."""
        if self._others is None:
            return int(self._shares[0].max())
        waiting = [self._others.submit(share.max) for share in self._shares[1:]]
        return max(int(self._shares[0].max()), *(int(one.result()) for one in waiting))
