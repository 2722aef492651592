"""A bundle on disk: a folder whose every file is named, sized and hashed in its manifest.

Checked when it is opened: the manifest, that every file is there with its size, and the labels. Checked before a
part's session is made: the hashes of its files and that its external data stays inside the folder. `verify` checks
everything at once. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.errors import BundleError
from lraee.manifest import Manifest, PartEntry, read_manifest
from lraee.onnx_wire import external_locations
from lraee.strict_json import decode, parse

SHIPPED = Path(__file__).parent / "bundles"
"""Bundles inside the wheel: ``reference.lraee``."""

_ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9})\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """``labels.json``."""

    names: tuple[str, ...]
    """In the order of the rows of the embeddings."""
    templates: tuple[str, ...]
    """Prompts with ``{}`` for the name, averaged."""


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle: a path, or the name of one that is shipped (``reference``).

    Raises:
        BundleError: there is no such folder.
    """
    if not isinstance(name, str | os.PathLike):
        raise BundleError(f"the bundle is a {type(name).__name__}, wanted the path of a folder written by lraee-export")
    path = Path(name)
    if os.path.isdir(path):  # Path.is_dir raises for names that no file can have
        return path
    shipped = SHIPPED / f"{name}.lraee"
    if isinstance(name, str) and name == Path(name).name and os.path.isdir(shipped):
        return shipped
    known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.lraee"))) or "none"
    raise BundleError(f"{name} is no folder; wanted a bundle written by lraee-export, or a shipped one ({known})")


class Bundle:
    """A bundle folder whose manifest has been read and whose files are all there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self._entries = {entry.name: entry for entry in self.manifest.files}
        for entry in self.manifest.files:
            path = folder / entry.name
            if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                raise BundleError(f"{entry.name} links to a file outside the bundle folder; copy the file instead")
            if not path.is_file():
                raise BundleError(
                    f"{entry.name} is missing from {folder.name}; the bundle is incomplete, export it again"
                )
            if (size := path.stat().st_size) != entry.size_bytes:
                raise BundleError(
                    f"{entry.name} has {size} bytes, the manifest says {entry.size_bytes}; "
                    "the bundle is damaged, export it again"
                )

    def checked(self, name: str) -> Path:
        """The path of a file whose hash has just been found right.

        Raises:
            BundleError: it differs from the manifest's SHA-256, or cannot be read any more.
        """
        path = self.folder / name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(
                f"{name} cannot be read ({error.strerror}); the bundle is damaged, export it again"
            ) from error
        if digest != self._entries[name].sha256:
            raise BundleError(
                f"{name} has SHA-256 {digest[:12]}…, the manifest says {self._entries[name].sha256[:12]}…; "
                "the bundle is damaged, export it again"
            )
        return path

    def checked_part(self, part: PartEntry) -> Path:
        """The path of a part's graph, with graph and weights found right and no data path leaving the folder."""
        path = self.checked(part.graph)
        allowed = {part.data} if part.data is not None else {entry.data for entry in self.manifest.parts}
        for location in sorted(external_locations(path.read_bytes(), part.graph)):
            if location not in allowed:
                raise BundleError(
                    f"{part.graph}: external data is at {location!r}, wanted one of the bundle's own weight files"
                )
        for name in sorted(name for name in allowed if name is not None):
            self.checked(name)
        return path

    def verify(self) -> None:
        """Check every hash and every external data path of the bundle."""
        for part in self.manifest.parts:
            if part.data is not None:
                self.checked_part(part)
        for part in self.manifest.parts:
            if part.data is None:
                allowed = {entry.data for entry in self.manifest.parts}
                outside = external_locations(self.checked(part.graph).read_bytes(), part.graph) - allowed
                if outside:
                    raise BundleError(
                        f"{part.graph}: external data is at {min(outside)!r}, outside the bundle's weight files"
                    )
        parts = {name for part in self.manifest.parts for name in (part.graph, part.data)}
        for entry in self.manifest.files:
            if entry.name not in parts:
                self.checked(entry.name)

    @cached_property
    def labels(self) -> LabelFile:
        """Names and templates of the exported labels."""
        name = self.manifest.labels.names
        try:
            text = self.checked(name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{name} is no UTF-8 text; the bundle is damaged, export it again") from error
        labels = decode(LabelFile, parse(text, name), name)
        if len(labels.names) != self.manifest.labels.count:
            raise BundleError(
                f"{name}: names has {len(labels.names)} labels, the manifest says {self.manifest.labels.count}"
            )
        return labels

    @cached_property
    def label_embeddings(self) -> NDArray[np.float32]:
        """(labels, embed_dim) float32 unit text embeddings of the exported labels."""
        name = self.manifest.labels.embeddings
        array = _read_array(self.checked(name), (self.manifest.labels.count, self.manifest.tower.embed_dim))
        with np.errstate(all="ignore"):  # what overflows or is no number is not of unit length either
            lengths = np.sqrt(np.einsum("ld,ld->l", array, array))
            are_units = bool((np.abs(lengths - 1) <= 1e-3).all())
        if not are_units:
            raise BundleError(f"{name}: a row is not of unit length; export the bundle again")
        return array

    def merges(self, name: str) -> list[str]:
        """Lines of the tokenizer's file `name`, two tokens each.

        Raises:
            BundleError: a line is something else.
        """
        try:
            lines = self.checked(name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise BundleError(f"{name} is no UTF-8 text; the bundle is damaged, export it again") from error
        for number, line in enumerate(lines, start=1):
            if line.count(" ") != 1:
                raise BundleError(
                    f"{name}: line {number} is {line[:40]!r}, wanted two tokens with a blank between them"
                )
        return lines


def _read_array(path: Path, wanted: tuple[int, int]) -> NDArray[np.float32]:
    """A float32 array as ``numpy.save`` writes it; numpy's own reader evaluates the header and believes its shape."""
    content = path.read_bytes()
    header = _ARRAY_HEADER.match(content)
    if header is None or header.end() != 10 + int.from_bytes(header[1], "little"):
        raise BundleError(f"{path.name} is no float32 array as numpy.save writes it; export the bundle again")
    shape = (int(header[2]), int(header[3]))
    if shape != wanted:
        raise BundleError(f"{path.name} has shape {shape}, wanted {wanted}; export the bundle again")
    if len(content) - header.end() != 4 * shape[0] * shape[1]:
        raise BundleError(f"{path.name} ends early or goes on behind its array; export the bundle again")
    return np.frombuffer(content, np.float32, offset=header.end()).reshape(shape)
