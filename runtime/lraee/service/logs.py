"""Writes the log: one JSON object a line on stderr, without pictures, addresses or tokens.

A thread of its own writes several times a second, so that a reader that is slow or stopped delays no answer, and no
request wakes another thread for its line. What does not fit into the queue is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from lraee.errors import shortened

MOST_WAITING = 10_000
"""Lines that wait to be written."""

EVERY_S = 0.1
"""Seconds between two looks into the queue."""

LONGEST_MESSAGE = 500
"""Characters of a message in the log."""


class JsonLog:
    """Takes events from any thread and writes them."""

    def __init__(self, stream: TextIO | None = None, dropped: Callable[[], None] = lambda: None) -> None:
        """Start the thread.

        Args:
            stream: to write to; None takes stderr.
            dropped: called for each line that was lost.
        """
        self._stream = sys.stderr if stream is None else stream
        self._dropped = dropped
        self._lines: deque[str] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="lraee-log", daemon=True)
        self._thread.start()

    def event(self, event: str, level: str = "info", **fields: object) -> None:
        """Write an event with its fields; messages are shortened."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = {name: value for name, value in fields.items() if value is not None}
        if isinstance(message := fields.get("message"), str):
            fields["message"] = shortened(message, LONGEST_MESSAGE)
        if len(self._lines) < MOST_WAITING:
            self._lines.append(json.dumps({"time": now, "level": level, "event": event, **fields}))
        else:
            self._dropped()

    def close(self) -> None:
        """Write what waits, for a second at most, and end the thread."""
        self._closing.set()
        self._thread.join(1.0)

    def _write(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._closing.wait(EVERY_S)
            with suppress(OSError, ValueError):  # nobody reads any more; answers go on
                while self._lines:
                    self._stream.write(f"{self._lines.popleft()}\n")
                self._stream.flush()


class LibraryLog(logging.Handler):
    """Passes what libraries log on to a `JsonLog`."""

    def __init__(self, log: JsonLog) -> None:
        """Take warnings and errors."""
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        error = record.exc_info[1] if record.exc_info else None
        kind = None if error is None else f"{type(error).__name__}: {error}"
        self._log.event(
            "library", record.levelname.lower(), source=record.name, message=record.getMessage(), error=kind
        )
