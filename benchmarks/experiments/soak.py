"""Run a model for long from many threads: count answers that differ from a single-threaded run, and watch memory.

    python benchmarks/experiments/soak.py reference --images 100000 --threads 8

Threads take turns with `classify`, `classify_batch` and `classify_stream` under several policies, over images made from
a seed. Every answer is compared with that of one thread alone. Exit status 1 when one differs or memory grew by more
than the limit after the first tenth of the images.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.policies import Confidence, Patience
from lraee_benchmarks.device.memory import measure_memory

Key = tuple[str, int, bool]
"""What must not depend on threads: label, exit block, left early."""

PIECE = 32
"""Images of one call of a thread."""


def make_images(count: int, size: int, seed: int) -> list[NDArray[np.uint8]]:
    """Smooth random pictures: brightness and colours differ, so that they leave at different depths."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (4, 4, 3)).astype(np.float32)
        steps = np.linspace(0, 3, size)
        low, share = np.floor(steps).astype(int).clip(0, 2), (steps - np.floor(steps).clip(0, 2)).astype(np.float32)
        rows = coarse[low] * (1 - share[:, None, None]) + coarse[low + 1] * share[:, None, None]
        whole = rows[:, low] * (1 - share[:, None]) + rows[:, low + 1] * share[:, None]
        images.append(np.ascontiguousarray(whole.astype(np.uint8)))
    return images


def make_policies(model: lraee.Model) -> list[lraee.Policy]:
    """Those that the bundle can follow, without deadlines: they answer by the clock."""
    policies: list[lraee.Policy] = [lraee.Full()]
    if model.manifest.default_point is not None:
        policies.append(lraee.Adaptive())
    if exits := model.manifest.exits:
        policies += [lraee.ExitAt(exits[0].block), Confidence(0.6)]
    if len(exits) > 1:
        policies.append(Patience(1))
    return policies


def keys_of(predictions: Sequence[lraee.Prediction]) -> list[Key]:
    """Extract what is compared of each prediction."""
    return [(one.label, one.exit_block, one.early) for one in predictions]


def ways(model: lraee.Model) -> list[Callable[[Sequence[NDArray[np.uint8]], lraee.Policy], list[lraee.Prediction]]]:
    """List all ways of classifying."""
    return [
        lambda images, policy: [model.classify(image, policy=policy) for image in images],
        lambda images, policy: model.classify_batch(images, policy=policy),
        lambda images, policy: list(model.classify_stream(images, policy=policy)),
    ]


class Soak:
    """The work, shared by all threads."""

    def __init__(self, model: lraee.Model, pool: list[NDArray[np.uint8]], total: int) -> None:
        """Answers of one thread alone are found first.

        Args:
            model: loaded.
            pool: the images, used again and again.
            total: how many images to run.
        """
        self.model, self.pool, self.total = model, pool, total
        self.policies, self.ways = make_policies(model), ways(model)
        self.wanted = [keys_of(model.classify_batch(pool, policy=policy)) for policy in self.policies]
        self.done = 0
        self.wrong = 0
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._turns = itertools.count()

    def work(self) -> None:
        """One thread, until all is done or any thread failed."""
        try:
            while self.done < self.total and not self.errors:
                self._piece(next(self._turns))
        except BaseException as error:
            self.errors.append(error)  # raised again by the main thread
            raise

    def _piece(self, turn: int) -> None:
        which = turn % len(self.policies)
        way = self.ways[turn // len(self.policies) % len(self.ways)]
        size = 1 + turn % PIECE  # batches of every size
        start = turn * 7 % (len(self.pool) - size)
        got = keys_of(way(self.pool[start : start + size], self.policies[which]))
        wrong = sum(one != other for one, other in zip(got, self.wanted[which][start : start + size], strict=True))
        with self._lock:
            self.done += size
            self.wrong += wrong

    def run(self, threads: int) -> Iterator[int]:
        """Start the threads; gives the number of images that are done, once in a while."""
        workers = [threading.Thread(target=self.work, daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.05)
            yield self.done
        for worker in workers:
            worker.join()
        if self.errors:
            raise self.errors[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run and print; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", help="bundle folder, or 'reference'")
    parser.add_argument("--images", type=int, default=100_000, help="how many in all (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="threads that classify (default: %(default)s)")
    parser.add_argument("--session-threads", type=int, default=1, help="threads of a session (default: %(default)s)")
    parser.add_argument("--memory", choices=["normal", "low"], default="normal", help="as in lraee.load")
    parser.add_argument("--different", type=int, default=200, help="different images, above 32 (default: %(default)s)")
    parser.add_argument("--growth-mb", type=float, default=16.0, help="allowed growth of RSS (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.different <= PIECE or min(options.images, options.threads, options.session_threads) < 1:
        parser.error(f"--different must be above {PIECE}, other numbers at least 1")

    model = lraee.load(options.bundle, threads=options.session_threads, memory=options.memory, preload=True)
    soak = Soak(model, make_images(options.different, model.manifest.preprocessing.image_size, seed=1), options.images)
    settled: int | None = None
    start = shown = time.monotonic()
    for done in soak.run(options.threads):
        if settled is None and done >= options.images / 10:
            settled = measure_memory().rss_bytes
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{done:,} images, {soak.wrong} wrong, RSS {measure_memory().rss_bytes / 1e6:.1f} MB", flush=True)
    seconds, memory = time.monotonic() - start, measure_memory()
    growth = (memory.rss_bytes - (settled if settled is not None else memory.rss_bytes)) / 1e6
    names = ", ".join(type(policy).__name__ for policy in soak.policies)
    blocks = ", ".join(map(str, sorted({block for keys in soak.wanted for _, block, _ in keys})))
    print(f"{soak.done:,} images in {seconds:.0f} s through {options.threads} threads: {soak.wrong} wrong answers")
    print(f"policies {names}; images left after blocks {blocks}")
    print(
        f"RSS grew by {growth:+.1f} MB after the first tenth, to {memory.rss_bytes / 1e6:.1f} MB "
        f"(peak {memory.peak_rss_bytes / 1e6:.1f} MB)"
    )
    return int(soak.wrong > 0 or growth > options.growth_mb)


if __name__ == "__main__":
    sys.exit(main())
