"""Decides which requests are accepted: as many as can be answered in time, and as many bytes as fit into memory.

The time that an image would wait is the number of images before it, times the seconds that one took lately while there
was something to do. A request is refused where this would use up more than a share of the time limit, so that accepted
requests are answered within it although images differ. All of it runs on the event loop, so nothing is locked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lraee.service.problems import Problem
from lraee.service.settings import ServiceSettings

WAIT_SHARE = 0.5
"""Of the time limit that an image may wait. The rest is for images that take longer than most."""

BODIES_HELD = 8
"""Bodies of the largest size that may be in memory at a time."""

WINDOW_IMAGES = 32
"""Images after which the time of one is estimated again."""

NEWEST = 0.5
"""Weight of the newest estimate."""

KEPT_BODY_BYTES = 65536
"""What a body may hold without being counted: the server reads as much ahead."""


class Admission:
    """Counts images and bytes that were accepted, and refuses what would be too many."""

    def __init__(self, settings: ServiceSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing accepted.

        Args:
            settings: the limits.
            clock: gives seconds.
        """
        self._settings, self._clock = settings, clock
        self.image_s = 0.0
        """Seconds that one image takes while there is something to do; 0 before the first estimate."""
        self.images = 0
        """Images that are accepted and not yet answered."""
        self.body_bytes = 0
        """Bytes of bodies in memory."""
        self._busy_since = 0.0
        self._busy_s = 0.0
        self._answered = 0

    @property
    def wait_s(self) -> float:
        """Seconds until an image that came now would be answered."""
        return (self.images + 1) * self.image_s

    def check(self, images: int = 1) -> None:
        """Refuse images that would wait too long, or for which there is no place.

        Raises:
            Problem: 429, with the seconds until there may be a place.
        """
        if not self.images:
            return  # nothing is before them, however long they take
        if self.images + images > self._settings.queue:
            raise Problem(
                429,
                f"{self.images} images are waiting, and at most {self._settings.queue} may; ask again later",
                retry_after_s=self.wait_s,
            )
        wait, most = (self.images + images) * self.image_s, WAIT_SHARE * self._settings.time_limit_s
        if wait > most:
            raise Problem(
                429,
                f"{self.images} images are waiting, which takes {wait:.2f} s, and at most {most:.2f} s are accepted; "
                "ask again later",
                retry_after_s=wait - most,
            )

    @contextmanager
    def accepted(self, images: int) -> Iterator[Callable[[int], None]]:
        """Count images as accepted until the end of the block.

        Yields:
            Is called with the number of those that were answered, from which their time is estimated.

        Raises:
            Problem: as `check`.
        """
        self.check(images)
        if not self.images:
            self._busy_since = self._clock()
        self.images += images
        try:
            yield self._count
        finally:
            self.images -= images
            now = self._clock()
            self._busy_s += now - self._busy_since
            self._busy_since = now
            self._estimate()

    def _count(self, answered: int) -> None:
        self._answered += answered

    def _estimate(self) -> None:
        if self._answered >= WINDOW_IMAGES:
            self.learn(self._busy_s / self._answered)
            self._busy_s, self._answered = 0.0, 0

    def learn(self, image_s: float) -> None:
        """Take an estimate of the seconds of one image into account."""
        self.image_s += (image_s - self.image_s) * (NEWEST if self.image_s else 1.0)

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes of one body, which is in memory until the end of the block.

        Yields:
            Is called with the bytes that have come; it raises a Problem, 429, where bodies take too much memory.
        """
        held = 0

        def add(count: int) -> None:
            nonlocal held
            if held + count > KEPT_BODY_BYTES and self.body_bytes + count > BODIES_HELD * self._settings.body_bytes:
                raise Problem(429, "the bodies of other requests take all memory for them; ask again", retry_after_s=1)
            held += count
            self.body_bytes += count

        try:
            yield add
        finally:
            self.body_bytes -= held
