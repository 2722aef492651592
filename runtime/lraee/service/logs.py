"""Writes the log: one JSON object a line on stderr, without pictures, addresses or tokens.

A thread of its own writes, so that a reader that is slow or stopped delays no answer. What does not fit into its queue
is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from lraee.errors import shortened

MOST_WAITING = 10_000
"""Lines that wait to be written."""

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
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._write, name="lraee-log", daemon=True)
        self._thread.start()

    def event(self, event: str, level: str = "info", **fields: object) -> None:
        """Write an event with its fields; messages are shortened."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = {name: value for name, value in fields.items() if value is not None}
        if isinstance(message := fields.get("message"), str):
            fields["message"] = shortened(message, LONGEST_MESSAGE)
        try:
            self._lines.put_nowait(json.dumps({"time": now, "level": level, "event": event, **fields}))
        except queue.Full:
            self._dropped()

    def close(self) -> None:
        """Write what waits, for a second at most, and end the thread."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=1.0)
        self._thread.join(1.0)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):  # nobody reads any more; answers go on
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
        with suppress(OSError, ValueError):
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
