"""The work folder: each stage's result under a key of all its inputs, written whole or not at all.

A stage that is found is not computed again, so an interrupted export resumes. A stage is written into a temporary
folder, synced and renamed; a crash at any moment leaves either nothing or the finished stage.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

from lraee.errors import ExportError
from lraee_toolchain.durable import sync, sync_tree, writing

PACKAGES = ("lraee", "numpy", "onnx", "onnxruntime", "open_clip_torch", "torch")
"""Packages whose versions are part of every stage's key."""


def key_of(inputs: Mapping[str, object]) -> str:
    """Hash JSON-able inputs: the first 16 hexadecimal digits of their SHA-256."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unusable(root: Path, error: OSError) -> ExportError:
    """Name both options: without --work the folder lies next to the target."""
    return ExportError(f"the work folder {root} cannot be used ({error.strerror}); give another --work or --out")


class WorkFolder:
    """Keeps stage results in one folder; as a context manager it is locked against other exports."""

    def __init__(self, root: Path, notify: Callable[[str, bool], None] | None = None) -> None:
        """Open or create the folder.

        Args:
            root: the folder.
            notify: called before each stage with its name and whether its result was found.

        Raises:
            ExportError: the folder cannot be made.
        """
        self.root = root
        self._notify = notify
        self._versions = {name: version(name) for name in PACKAGES}
        self._lock: int | None = None
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(root, error) from error

    def __enter__(self) -> WorkFolder:
        """Lock the folder and remove what a killed export was writing.

        Raises:
            ExportError: another export uses it, or nothing can be written there.
        """
        try:
            self._lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unusable(self.root, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise ExportError(
                f"{self.root} is in use by another export; wait for it, or give another --work"
            ) from error
        for stale in self.root.glob(".writing-*"):
            shutil.rmtree(stale, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock; a process that dies is unlocked by the system."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def place(self, name: str, inputs: Mapping[str, object]) -> Path:
        """Name the folder of a stage's result, whether or not it is there; arguments as `stage` has them."""
        return self.root / f"{name}-{key_of({'stage': name, 'versions': self._versions, **inputs})}"

    def stage(self, name: str, inputs: Mapping[str, object], make: Callable[[Path], None]) -> Path:
        """Give the folder of a stage's result, made by ``make(folder)`` unless it is there.

        Args:
            name: name of the stage.
            inputs: everything the result depends on, JSON-able.
            make: writes the result into the empty folder it is given.
        """
        target = self.place(name, inputs)
        found = target.is_dir()
        if self._notify is not None:
            self._notify(name, found)
        if found:
            return target
        half = self.root / f".writing-{target.name}"
        shutil.rmtree(half, ignore_errors=True)
        try:
            with writing(f"the stage '{name}'", self.root, self._advice()):
                half.mkdir()
                make(half)
                sync_tree(half)
                half.rename(target)
                sync(self.root)
            shutil.rmtree(self._begun(target), ignore_errors=True)
        finally:
            shutil.rmtree(half, ignore_errors=True)  # of a stage that raised; a finished one is not here any more
        return target

    def begun(self, name: str, inputs: Mapping[str, object]) -> Path:
        """Give a folder in which a stage of hours keeps what it has done; it stays when the process is killed.

        It is empty at first, and removed when the stage is finished. What is written there must be whole or not at all.

        Args:
            name: name of the stage.
            inputs: as for `stage`.
        """
        folder = self._begun(self.place(name, inputs))
        folder.mkdir(exist_ok=True)
        return folder

    def _begun(self, target: Path) -> Path:
        return self.root / f".begun-{target.name}"

    def _advice(self) -> str:
        """Advise what to do if a stage cannot be written; asked before it is made, while the folder is readable."""
        kept = sum(1 for path in self.root.glob("[!.]*") if path.is_dir())
        resumes = f"; finished stages are kept ({kept} here), and the same command goes on from them"
        return f"give another --work{resumes if kept else ''}"
