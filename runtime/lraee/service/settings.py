"""Holds the settings of a service: where it listens, and how much it accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from reprlib import repr as short

from lraee.checks import check_count, is_count, is_number
from lraee.errors import SettingsError

MB = 1_000_000
"""Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Holds the settings of a service.

    Raises:
        SettingsError: a field is out of its range.
    """

    host: str = "127.0.0.1"
    """Address to listen at; the default is reached from this machine alone."""
    port: int = 8000
    """Port to listen at; 0 takes any that is free."""
    token: str | None = None
    """What clients must send as ``Authorization: Bearer TOKEN``; None asks for nothing."""
    batch_size: int = 8
    """Images that run together at most."""
    time_limit_s: float = 2.0
    """Seconds from when a request was read until it is answered. Requests that would wait longer are refused."""
    queue: int = 64
    """Images that are accepted and not yet answered, at most."""
    body_bytes: int = 16 * MB
    """Size of the body of a request at most."""
    body_time_s: float = 10.0
    """Seconds that a client may take to send the head of a request, and again to send its body."""
    images: int = 16
    """Images of one request at most."""
    labels: int = 1000
    """Labels of one request at most."""
    label_sets: int = 32
    """Sets of labels whose embeddings are kept."""
    connections: int = 512
    """Connections that are open at a time at most."""

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise SettingsError(f"host is {short(self.host)}, wanted an address such as 127.0.0.1")
        if not is_count(self.port, 0, 65535):
            raise SettingsError(f"port is {short(self.port)}, wanted 0 to 65535, a whole number")
        if self.token is not None and not (isinstance(self.token, str) and is_token(self.token)):
            raise SettingsError("the token is not what a header may hold; wanted 16 or more visible ASCII characters")
        for name in ("batch_size", "queue", "body_bytes", "images", "labels", "label_sets", "connections"):
            check_count(name, getattr(self, name))
        if self.images > self.queue:
            raise SettingsError(f"images is {self.images}, wanted at most the queue, which has {self.queue} places")
        for name in ("time_limit_s", "body_time_s"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < math.inf:
                raise SettingsError(f"{name} is {short(value)}, wanted seconds above 0")


def is_token(text: str) -> bool:
    """Tell whether a text may be a token: long enough not to be guessed, and what a header may hold.

    >>> is_token("correct-horse-battery"), is_token("short"), is_token("with a blank inside it")
    (True, False, False)
    """
    return len(text) >= 16 and all("!" <= letter <= "~" for letter in text)
