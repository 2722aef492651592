"""What a source of images gives: a position, a name and the content of each, in an order that never changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lraee.errors import ImageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image of a source."""

    position: int
    """Its place in the source, counted from 0."""
    name: str
    """Its name in the source; in a Parquet file several may have the same."""
    called: str
    """What messages call it: the name with the source before it."""
    content: bytes | ImageError
    """The encoded image, or why it cannot be read."""


class Source(Protocol):
    """A sequence of images with a fixed order."""

    @property
    def fingerprint(self) -> str:
        """Hash of names, sizes and whatever else tells that the images are the same without reading them."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def items(self, start: int, stop: int) -> Iterator[Item]:
        """Read the images from position `start` up to `stop`, in order."""
        ...
