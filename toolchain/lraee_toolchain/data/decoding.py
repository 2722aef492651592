"""Decode and preprocess images on several threads, in the order and to the bytes of one.

Threads are enough: Pillow decodes and resizes, and the system reads files, without Python's global lock. They need no
second copy of the data set, an error is the one that one thread would meet first, and nothing can outlive the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from lraee.bundle.preprocessing import Preprocessing
from lraee.ort.threads import usable_cores
from lraee_calibration_data import Dataset, Loaded, load_pixels

CHUNK = 64
"""Images that one thread decodes before the next takes its turn; bounds memory."""

FEW_IMAGES = 512
"""Fewer images are decoded on one thread unless more are asked for."""

MOST_WORKERS = 8
"""Threads at most where none are asked for: what is left to Python runs on one of them at a time."""


def decoding_workers(workers: int | None, images: int) -> int:
    """Choose the threads that decode: those asked for, else one for each usable core where there are many images."""
    if workers is not None:
        return workers
    return min(usable_cores(), MOST_WORKERS) if images >= FEW_IMAGES else 1


def decode(dataset: Dataset, preprocessing: Preprocessing, *, workers: int | None = None) -> Iterator[Loaded]:
    """Yield the pixels of a data set in its order, at most `CHUNK` images at a time.

    Args:
        dataset: images to read.
        preprocessing: of the tower.
        workers: threads; None chooses by `decoding_workers`. At 1 none is started.

    Raises:
        DataError: an image cannot be read and the data set refuses such; the first in its order.
    """
    pieces, threads = dataset.batches(CHUNK), decoding_workers(workers, len(dataset))
    if threads == 1:
        yield from (load_pixels(dataset, preprocessing, piece) for piece in pieces)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[Future[Loaded]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(load_pixels, dataset, preprocessing, piece))
            if len(waiting) > threads:  # one more than the threads, so that none waits while the first is written
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also after an error or Ctrl-C: what has begun ends within a piece, nothing else begins
        pool.shutdown(cancel_futures=True)
