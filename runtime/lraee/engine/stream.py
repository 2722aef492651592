"""Continuous batching: runs a long stream of images in full batches, although images leave at any depth.

A batch that loses images at every exit ends nearly empty, and a nearly empty batch uses the cores badly. Here, images
that do not exit queue after that block until a full batch is waiting; new images take the places of those that left.
After each batch, the next one is

1. the deepest queue that holds a full batch; else
2. the queue of the image that has waited longest, full or not, if it must be answered now (`max_lag`); else
3. new images from the input; else, at its end,
4. the shallowest queue that is not empty, so that its images join those of deeper queues.

Differs from `lraee.engine.continuous` in that it takes images from an iterable as they are needed, in the thread of its
caller. Both run batches with `lraee.engine.stations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lraee.checks import check_count, is_count
from lraee.engine.orchestrator import Answers, Tower
from lraee.engine.sized_tokens import Tokens
from lraee.engine.stations import Stations, traveller
from lraee.errors import ImageError
from lraee.policies.base import Route

T = TypeVar("T")


def check_stream_settings(batch_size: int, max_lag: int) -> None:
    """Refuse a batch that could never be full.

    Raises:
        ImageError: the lag is not a whole number from 1 on, or the batch size not one from 1 to the lag.
    """
    check_count("max_lag", max_lag, ImageError)
    if not is_count(batch_size, 1, max_lag):
        raise ImageError(f"batch_size is {batch_size}, wanted 1 to max_lag, which is {max_lag}")


def run_stream(
    tower: Tower[Tokens],
    pixels: Iterable[NDArray[np.uint8] | None],
    bind: Callable[[], Route],
    *,
    batch_size: int,
    max_lag: int,
    on_part: Callable[[str, int], None] | None = None,
) -> Iterator[tuple[int, Answers]]:
    """Run images until the input ends; each answer is yielded as soon as it is known.

    At most `max_lag` images lie between the first without an answer and the last that was read. At most
    ``batch_size - 1`` of them wait after each exit, each with tokens of ``4 * tokens * width`` bytes, and one batch
    runs. Between two answers no shared buffer is in use, so the same thread may make other calls.

    Args:
        tower: the parts.
        pixels: (size, size, 3) uint8 each; taken `batch_size` at a time, when they are needed. None is an image that
            could not be read: it has a place and gets no answer.
        bind: makes the route of one image.
        batch_size: images that run together.
        max_lag: how many images may be read from an image on before it is answered; at least `batch_size`.
        on_part: called after each part with its name and the number of images it ran for.

    Yields:
        Place of the image in the input, counted from 0, and its answer as a batch of one.
    """
    stations = Stations(tower, batch_size, on_part or (lambda part, images: None))
    source, read = enumerate(pixels), 0
    while True:
        block = stations.deepest_full()
        if block is None:
            oldest = min(((one.position, at) for at, one in stations.travellers()), default=(read, 0))
            if read + batch_size - oldest[0] > max_lag:
                block = oldest[1]
        if block is None:
            if batch := list(islice(source, batch_size)):
                read += len(batch)
                there = [(place, image) for place, image in batch if image is not None]
                if there:
                    yield from stations.enter(
                        [traveller(place, bind(), tower) for place, _ in there], [image for _, image in there]
                    )
                continue
            block = stations.shallowest()
        if block is None:
            return
        yield from stations.leave_for(block)


def in_order(answers: Iterable[tuple[int, T]], missing: set[int] | None = None) -> Iterator[T]:
    """Yield answers in the order of the images, and hold back those that come early.

    >>> list(in_order([(1, "b"), (0, "a"), (3, "d")], missing={2}))
    ['a', 'b', 'd']

    Args:
        answers: place of each, counted from 0, and the answer itself.
        missing: places that get no answer. It may grow while answers come, if a place is in it before any later one is
            answered; places that were passed are taken out.
    """
    ready: dict[int, T] = {}
    missing = set() if missing is None else missing
    due = 0
    for position, answer in answers:
        ready[position] = answer
        while due in ready or due in missing:
            if due in missing:
                missing.remove(due)
            else:
                yield ready.pop(due)
            due += 1
