"""The work folder: each stage's result under a key of all its inputs, written whole or not at all.

A stage that is found is not computed again, so an interrupted export resumes. A stage is written into a temporary
folder, synced and renamed; a crash at any moment leaves either nothing or the finished stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path


def key_of(inputs: Mapping[str, object]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of JSON-able inputs."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sync_tree(folder: Path) -> None:
    """Force a folder's files and names to disk, so that a rename after it never shows half of them."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WorkFolder:
    """Stage results below one folder."""

    def __init__(self, root: Path, notify: Callable[[str, bool], None] | None = None) -> None:
        """Open or create the folder.

        Args:
            root: the folder.
            notify: called before each stage with its name and whether its result was found.
        """
        self.root = root
        self._notify = notify
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(".writing-*"):
            shutil.rmtree(stale, ignore_errors=True)

    def stage(self, name: str, inputs: Mapping[str, object], make: Callable[[Path], None]) -> Path:
        """The folder of a stage's result, made by ``make(folder)`` unless it is there.

        Args:
            name: of the stage.
            inputs: everything the result depends on, JSON-able.
            make: writes the result into the empty folder it is given.
        """
        target = self.root / f"{name}-{key_of({'stage': name, **inputs})}"
        found = target.is_dir()
        if self._notify is not None:
            self._notify(name, found)
        if found:
            return target
        writing = self.root / f".writing-{target.name}"
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        try:
            make(writing)
            sync_tree(writing)
            writing.rename(target)
        finally:
            shutil.rmtree(writing, ignore_errors=True)  # of a stage that raised; a finished one is not here any more
        _sync(self.root)
        return target
