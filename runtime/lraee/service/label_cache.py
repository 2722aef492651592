"""Keeps the embeddings of the labels that requests name, those used last, so that a set is embedded once.

Nothing of it is shared with the model's own labels, and a request holds the set that it uses: it stays whole although
the cache has dropped it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lraee.engine.parts import Parts
from lraee.service.problems import Problem

Names = tuple[str, ...]

MOST_WAITING = 8
"""Sets that wait to be embedded; the text tower takes long."""

MOST_LABELS = 20_000
"""Labels of all sets that are kept: 40 MB of embeddings of 512 numbers."""


class LabelCache:
    """Gives the parts that classify among some labels; runs on the event loop, and embeds in a thread of its own."""

    def __init__(self, embed: Callable[[Names], Parts], *, sets: int, noted: Callable[[bool], None]) -> None:
        """Begin with no labels.

        Args:
            embed: embeds labels; raises a LabelsError where it cannot.
            sets: that are kept at most.
            noted: is told of each request for labels whether they were there.
        """
        self._embed, self._sets, self._noted = embed, sets, noted
        self._kept: OrderedDict[Names, Parts] = OrderedDict()
        self._coming: dict[Names, asyncio.Future[Parts]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lraee-labels")

    def __len__(self) -> int:
        """Count the sets that are kept."""
        return len(self._kept)

    async def parts(self, names: Names) -> Parts:
        """Give the parts for some labels, in this order.

        Raises:
            LabelsError: the labels cannot be embedded; this is not remembered.
            Problem: 429, too many other sets wait to be embedded.
        """
        if (kept := self._kept.get(names)) is not None:
            self._kept.move_to_end(names)
            self._noted(True)
            return kept
        self._noted(False)
        coming = self._coming.get(names)
        if coming is None:
            if len(self._coming) >= MOST_WAITING:
                raise Problem(429, "too many sets of labels wait to be embedded; ask again", retry_after_s=1)
            coming = asyncio.get_running_loop().run_in_executor(self._thread, self._embed, names)
            self._coming[names] = coming
            coming.add_done_callback(lambda done: self._done(names, done))
        return await asyncio.shield(coming)  # others may wait for it too

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _done(self, names: Names, done: asyncio.Future[Parts]) -> None:
        del self._coming[names]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[names] = done.result()
        total = sum(map(len, self._kept))
        while len(self._kept) > self._sets or (total > MOST_LABELS and len(self._kept) > 1):
            dropped, _ = self._kept.popitem(last=False)
            total -= len(dropped)
