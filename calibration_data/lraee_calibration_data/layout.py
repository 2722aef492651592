"""Finds out whether images lie in class folders, and names the files because of which they do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lraee.labels.label_set import normal_form


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Holds the labels that folders give."""

    labels: tuple[str | None, ...]
    """One for each key; all None where the folders do not look like classes."""
    obstacle: str = ""
    """Where there are class folders and an image that lies in none of them, or deeper: which; otherwise empty."""


def layout_of(keys: Sequence[str]) -> Layout:
    """Find the label of each key: the name of its folder, if the folders look like classes.

    They do when images lie in at least two folders and none of these folders contains another of them. Otherwise
    nothing is labelled.

    Args:
        keys: relative POSIX paths of images.

    >>> layout_of(("a/cat/1.png", "a/dog/1.png")).labels
    ('cat', 'dog')
    >>> layout_of(("1.png", "dog/1.png", "dog/2.png")).obstacle
    '1.png lies beside folders of images'
    """
    parents = {PurePosixPath(key).parent for key in keys}
    outer = {ancestor for parent in parents for ancestor in parent.parents if ancestor in parents}
    if len(parents) >= 2 and not outer:
        return Layout(labels=tuple(normal_form(PurePosixPath(key).parent.name) for key in keys))
    return Layout(labels=(None,) * len(keys), obstacle=_obstacle(keys, outer) if outer else "")


def _obstacle(keys: Sequence[str], outer: set[PurePosixPath]) -> str:
    """Name the smaller group: images beside folders of images, or images in folders inside a folder of images."""
    beside = [key for key in keys if PurePosixPath(key).parent in outer]
    inside = [key for key in keys if not outer.isdisjoint(PurePosixPath(key).parent.parents)]
    fewer = beside if len(beside) <= len(inside) else inside
    more = f" and {len(fewer) - 1} more" if len(fewer) > 1 else ""
    verb = "lie" if more else "lies"
    if fewer is beside:
        return f"{fewer[0]}{more} {verb} beside folders of images"
    return f"{fewer[0]}{more} {verb} in a folder inside another folder of images"
