"""Answers images: decodes them in a few threads, and submits them to the batches that all requests share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.engine.continuous import ContinuousBatching
from lraee.engine.orchestrator import Answers
from lraee.engine.parts import Parts
from lraee.errors import LraeeError, ServiceError
from lraee.images.preprocess import pixels as preprocess
from lraee.labels.matrix import Labels
from lraee.model import Model
from lraee.ort.threads import usable_cores
from lraee.policies import Full, Policy, Route
from lraee.policies.base import bind
from lraee.prediction import Prediction, prediction_of
from lraee.service.admission import Admission
from lraee.service.bodies import check_format
from lraee.service.label_cache import LabelCache, Names
from lraee.service.metrics import Metrics
from lraee.service.options import Options
from lraee.service.problems import Problem, problem_of
from lraee.service.settings import ServiceSettings

MOST_DECODERS = 4
"""Threads that decode at most: each may hold an image of the largest size."""

SMALL_BYTES = 262_144
"""Of an image that the thread of the batches may decode: large ones would hold up those that come meanwhile."""

OVERTAKEN_SHARE = 0.25
"""Of the time limit after which an image goes before all that came later: where a board takes long for one image, new
images would otherwise overtake those in deep blocks until their time is up."""

WARM_ROUNDS = 3
"""Times that each batch size is run before images are accepted."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """Holds one image of a request and its route, whose deadline counts already."""

    image: bytes
    name: str
    route: Route


class Answering:
    """Answers the images of all requests with one model."""

    def __init__(self, model: Model, settings: ServiceSettings, metrics: Metrics) -> None:
        """Start the threads; sessions are made by `warm`.

        Args:
            model: whose labels and policy are the defaults.
            settings: the limits.
            metrics: are told of all that happens.
        """
        self.model, self.settings, self.metrics = model, settings, metrics
        self.admission = Admission(settings)
        self._batches = ContinuousBatching(
            model.parts.under,
            batch_size=settings.batch_size,
            max_wait_s=OVERTAKEN_SHARE * settings.time_limit_s,
            on_part=metrics.part,
        )
        self._decoders = ThreadPoolExecutor(min(MOST_DECODERS, usable_cores()), thread_name_prefix="lraee-decode")
        self._labels = LabelCache(self._embedded, sets=settings.label_sets, noted=metrics.labels)
        self._warmed = threading.Event()
        self._stopping = False

    @property
    def state(self) -> str:
        """One of the words of `lraee.service.schemas.Health`; images are accepted where it is ``ready``."""
        if self._stopping:
            return "stopping"
        if not self._warmed.is_set():
            return "starting"
        return "ready" if self._batches.is_alive else "failed"

    def check_ready(self) -> None:
        """Refuse images while the service starts, and after it has failed.

        While it stops, those that still come on open connections are answered.

        Raises:
            Problem: 503.
        """
        if not (self._warmed.is_set() and self._batches.is_alive):
            raise Problem(503, f"the service is {self.state}; ask again later", retry_after_s=1)

    def warm(self) -> None:
        """Make all sessions, run a batch of every size, and begin to accept images.

        Raises:
            BundleError: a part is damaged.
        """
        self.model.warm()
        size = self.model.manifest.preprocessing.image_size
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        for policy in dict.fromkeys((Full(), self.model.policy)):
            for count in (*range(1, self.settings.batch_size + 1), *([self.settings.batch_size] * WARM_ROUNDS)):
                began = time.perf_counter()
                for answer in [self._submit(self.model.parts, noise, self._bind(policy)) for _ in range(count)]:
                    answer.result()
                self.admission.learn((time.perf_counter() - began) / count)
        if self.model.manifest.text is not None:
            self.model.embed_text(["a photo"])
        self._warmed.set()

    def stop(self) -> None:
        """Say from now on that the service is not ready; requests that were accepted are answered."""
        self._stopping = True

    def close(self) -> None:
        """Answer what was accepted, and end the threads."""
        self.stop()
        self._decoders.shutdown(cancel_futures=True)
        self._labels.close()
        self._batches.close()

    async def classify(self, images: Sequence[bytes], options: Options) -> list[Prediction | Problem]:
        """Answer the images of one request, each with a prediction or a problem of its own.

        The caller has had them accepted by `admission`.

        Raises:
            Problem: 429 or 503, there is no answer in time.
            LabelsError: the labels of the request cannot be embedded.
        """
        names = ["the image"] if len(images) == 1 else [f"images[{place}]" for place in range(len(images))]
        bound = [_Bound(*one, self._bind(options.policy)) for one in zip(images, names, strict=True)]
        try:
            async with asyncio.timeout(self.settings.time_limit_s):
                parts = self.model.parts if options.labels is None else await self._labels.parts(options.labels)
                if len(bound) == 1:
                    return [await self._one(bound[0], parts, options.top)]
                return await asyncio.gather(*(self._one(one, parts, options.top) for one in bound))
        except TimeoutError as error:
            raise Problem(
                503,
                f"there is no answer within {self.settings.time_limit_s:g} s; ask again later, for fewer images, or "
                "with deadline_ms",
                retry_after_s=self.admission.wait_s,
            ) from error

    async def _one(self, bound: _Bound, parts: Parts, top: int) -> Prediction | Problem:
        try:
            check_format(bound.image)
            answers = await self._decoded_and_run(bound, parts)
        except LraeeError as error:
            return self._refused(problem_of(error))
        except Problem as problem:
            return self._refused(problem)
        except MemoryError:
            return self._refused(Problem(503, "there is not enough memory; ask again later", retry_after_s=1))
        self.metrics.answered(int(answers.exit_block[0]), bool(answers.early[0]))
        return prediction_of(answers, 0, self.model.manifest, parts.labels, top=top)

    def _decoded_and_run(self, bound: _Bound, parts: Parts) -> asyncio.Future[Answers]:
        """Decode an image and submit it from the thread that decoded it: the loop wakes up for the answer alone.

        Where no other image is under way, a small one is decoded by the thread of the batches itself.
        """
        if not self._batches.pending and len(bound.image) <= SMALL_BYTES:
            return asyncio.wrap_future(self._submit(parts, lambda: self._read(bound), bound.route))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answers] = loop.create_future()
        submitted: list[Future[Answers]] = []

        def work() -> None:
            try:
                pixels = self._read(bound)
                if done.cancelled():
                    return
                future = self._submit(parts, pixels, bound.route)
            except Exception as error:  # raised again where the answer is awaited
                _tell(loop, _fail, done, error)
                return
            submitted.append(future)
            if done.cancelled():
                future.cancel()
            future.add_done_callback(lambda finished: _tell(loop, _settle, done, finished))

        try:
            job = self._decoders.submit(work)
        except RuntimeError as error:  # its threads were ended
            raise ServiceError("the service is stopping; ask another one, or later") from error

        def cancel(ended: asyncio.Future[Answers]) -> None:
            if ended.cancelled():
                job.cancel()
                for future in submitted:
                    future.cancel()

        done.add_done_callback(cancel)
        return done

    def _refused(self, problem: Problem) -> Problem:
        self.metrics.refused(problem.status)
        return problem

    def _read(self, bound: _Bound) -> NDArray[np.uint8]:
        began = time.perf_counter()
        pixels = preprocess(bound.image, self.model.manifest.preprocessing, name=bound.name, reading=self.model.reading)
        self.metrics.decoded(time.perf_counter() - began)
        return pixels

    def _bind(self, policy: Policy) -> Route:
        return bind(policy, self.model.manifest)

    def _submit(
        self, parts: Parts, pixels: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]], route: Route
    ) -> Future[Answers]:
        return self._batches.submit(parts.for_route(route), pixels, route)

    def _embedded(self, names: Names) -> Parts:
        labels: Labels = self.model.embed_labels(names)
        return self.model.parts.with_labels(labels)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *given: object) -> None:
    """Call on the loop what settles a future, unless the loop is closed: then nobody waits for it."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *given)


def _fail(done: asyncio.Future[Answers], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _settle(done: asyncio.Future[Answers], finished: Future[Answers]) -> None:
    if done.done() or finished.cancelled():
        done.cancel()
    elif (error := finished.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(finished.result())
