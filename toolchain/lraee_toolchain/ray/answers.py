"""What a worker does with the images of one shard: classify or embed them, and lay the answers out as a table.

Batches are cut inside a shard, so that what a shard holds does not depend on the number of workers or on their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ImageError
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import Pixels
from lraee.loading import load
from lraee.policies import Full
from lraee.policies.base import bind, schedule_of
from lraee.policies.spec import parse_policy
from lraee.prediction import Prediction
from lraee.reading import Reading
from lraee_calibration_data import with_reason
from lraee_toolchain.ray.config import Job
from lraee_toolchain.ray.items import Item


class Rows:
    """Decodes the images of a shard one after the other, and keeps what every row says of its image."""

    def __init__(self, items: Iterable[Item], preprocessing: Preprocessing, reading: Reading) -> None:
        self.positions: list[int] = []
        self.names: list[str] = []
        self.errors: list[str | None] = []
        self.read_bytes = 0
        self._items, self._preprocessing, self._reading = items, preprocessing, reading

    @property
    def readable(self) -> list[int]:
        """Rows, counted from 0, of the images that could be read, among those that were decoded so far."""
        return [row for row, error in enumerate(self.errors) if error is None]

    def decoded(self) -> Iterator[Pixels | None]:
        """Give the model's square of pixels of each image; None for one that cannot be read."""
        for item in self._items:
            self.positions.append(item.position)
            self.names.append(item.name)
            try:
                pixels = self._decode(item)
            except ImageError as error:
                self.errors.append(str(with_reason(error, item.name)))
                yield None
            else:
                self.errors.append(None)
                yield pixels

    def _decode(self, item: Item) -> Pixels:
        if isinstance(item.content, ImageError):
            raise item.content
        self.read_bytes += len(item.content)
        return preprocess(item.content, self._preprocessing, name=item.called, reading=self._reading)

    def columns(self) -> dict[str, Any]:
        """Give the columns that all kinds of output have."""
        return {
            "position": pa.array(self.positions, pa.int64()),
            "name": pa.array(self.names, pa.string()),
            "error": pa.array(self.errors, pa.string()),
        }

    def spread(self, values: NDArray[Any]) -> Any:
        """Lay out arrays (readable images, ...) as a column of lists, null for images that could not be read.

        Not as lists of a fixed size: several releases of Arrow cannot read those where one is null.
        """
        size = math.prod(values.shape[1:])
        begins = np.cumsum([0] + [size if error is None else 0 for error in self.errors])
        missing = np.array([*(error is not None for error in self.errors), False])
        offsets = pa.array(begins.astype(np.int32), mask=missing)
        return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).reshape(-1)))


class Work(Protocol):
    """Computes the table of a shard; made once for each worker."""

    preprocessing: Preprocessing

    def table(self, rows: Rows) -> tuple[Any, dict[str, list[int]]]:
        """Decode and compute the images of a shard.

        Returns:
            One row for each image, and the shape of each column of lists that is an array.
        """
        ...


class Classify:
    """Classifies in full batches, as `lraee.Model.classify_stream` does."""

    def __init__(self, job: Job) -> None:
        settings = job.settings
        policy = None if settings.policy is None else parse_policy(settings.policy)
        self._model = load(job.bundle, threads=job.threads, policy=policy, reading=settings.reading)
        self._settings = settings
        self._schedule = schedule_of(bind(self._model.policy, self._model.manifest))
        self.preprocessing = self._model.manifest.preprocessing

    def table(self, rows: Rows) -> tuple[Any, dict[str, list[int]]]:
        """See `Work.table`."""
        stream = (pixels for pixels in rows.decoded() if pixels is not None)
        size, top = self._settings.batch_size, self._settings.top
        answers = list(self._model.classify_stream(stream, batch_size=size, top=top, max_lag=max(1024, size)))
        found: list[Prediction | None] = [None] * len(rows.errors)
        for row, answer in zip(rows.readable, answers, strict=True):
            found[row] = answer
        return pa.table({**rows.columns(), **self._columns(found)}), {}

    def _columns(self, found: list[Prediction | None]) -> dict[str, Any]:
        def column(kind: Any, values: Iterable[Any]) -> Any:
            return pa.array(list(values), kind)

        return {
            "label": column(pa.string(), (one and one.label for one in found)),
            "probability": column(pa.float32(), (one and one.score for one in found)),
            "exit_block": column(pa.int32(), (one and one.exit_block for one in found)),
            "early": column(pa.bool_(), (one and one.early for one in found)),
            "gate": column(pa.float32(), (one and one.gate for one in found)),
            "flops": column(pa.int64(), (one and one.flops for one in found)),
            "schedule": column(pa.string(), (one and self._schedule for one in found)),
            "top_labels": column(pa.list_(pa.string()), (one and [label for label, _ in one.top] for one in found)),
            "top_probabilities": column(
                pa.list_(pa.float32()), (one and [value for _, value in one.top] for one in found)
            ),
        }


class Embed:
    """Embeds batch by batch, as `lraee.Model.embed_answers` does."""

    def __init__(self, job: Job) -> None:
        settings = job.settings
        policy = Full() if settings.policy is None else parse_policy(settings.policy)
        self._model = load(job.bundle, threads=job.threads, policy=policy, reading=settings.reading)
        self._batch_size = settings.batch_size
        self.preprocessing = self._model.manifest.preprocessing

    def table(self, rows: Rows) -> tuple[Any, dict[str, list[int]]]:
        """See `Work.table`."""
        embeddings = [np.empty((0, self._model.manifest.tower.embed_dim), np.float32)]
        blocks = [np.empty(0, np.int32)]
        for batch in batches(rows.decoded(), self._batch_size):
            answers = self._model.run_pixels(batch)
            embeddings.append(answers.embedding)
            blocks.append(answers.exit_block)
        embedding = np.concatenate(embeddings)
        left = iter(np.concatenate(blocks).tolist())
        exit_block = pa.array([next(left) if error is None else None for error in rows.errors], pa.int32())
        table = pa.table({**rows.columns(), "embedding": rows.spread(embedding), "exit_block": exit_block})
        return table, {"embedding": [embedding.shape[1]]}


def batches(decoded: Iterable[Pixels | None], size: int) -> Iterator[NDArray[np.uint8]]:
    """Stack every `size` images, those that cannot be read among them and then left out; no batch is empty."""
    waiting: list[Pixels | None] = []
    for pixels in decoded:
        waiting.append(pixels)
        if len(waiting) == size:
            yield from _stacked(waiting)
            waiting = []
    yield from _stacked(waiting)


def _stacked(waiting: list[Pixels | None]) -> Iterator[NDArray[np.uint8]]:
    there = [pixels for pixels in waiting if pixels is not None]
    if there:
        yield np.stack(there)
