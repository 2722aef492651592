"""Opens a bundle on disk: a folder with a manifest that holds name, size and hash of every file.

Checked when it is opened: the manifest, that every file is there with its size, and the labels. Checked before a
part's session is made: the hashes of its files and that its external data stays inside the folder. `verify` checks
everything at once. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.archive import Unpacked
from lraee.bundle.external_data import external_locations
from lraee.bundle.files import is_folder, read_file, real_file, sha256_of
from lraee.bundle.linked_graph import LinkedGraph, linked_graph
from lraee.bundle.manifest import MANIFEST_NAME, Manifest, PartEntry
from lraee.bundle.manifest_file import decode_manifest, manifest_bytes
from lraee.bundle.strict_json import decode, parse
from lraee.errors import BundleError

SHIPPED = Path(__file__).parents[1] / "bundles"
"""Bundles inside the wheel: ``photo-clip.lraee`` and ``reference.lraee``."""

_ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9})\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """Holds what ``labels.json`` says."""

    names: tuple[str, ...]
    """In the order of the rows of the embeddings."""
    templates: tuple[str, ...]
    """Prompts with ``{}`` for the name, averaged."""


def find_bundle(name: str | Path) -> Path:
    """Find a bundle: the path of its folder or zip file, or the name of a shipped one (``photo-clip``, ``reference``).

    A folder that has the name of a shipped bundle is taken instead of it where it holds a manifest; `taken_instead`
    says so. Any other path, such as ``./reference``, never means a shipped bundle.

    Raises:
        BundleError: there is no such folder or file, or a folder on the way to it may not be read.
    """
    if not isinstance(name, str | os.PathLike):
        raise BundleError(f"the bundle is a {type(name).__name__}, wanted the path of a folder written by lraee-export")
    path, shipped = Path(name), _shipped(name)
    if is_folder(path) and (shipped is None or _has_manifest(path)):
        return path
    if shipped is None and path.suffix == ".zip" and path.is_file():
        return path
    if shipped is not None:
        return shipped
    known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.lraee"))) or "none"
    raise BundleError(
        f"{name} is not a folder; wanted a bundle written by lraee-export, its zip file, or a shipped one ({known})"
    )


def taken_instead(name: str | Path) -> str | None:
    """Say which bundle is meant by a name that a folder and a shipped bundle share; None for any other name.

    For programs that take the name from a person.
    """
    path, shipped = Path(name), _shipped(name)
    if shipped is None or not is_folder(path):
        return None
    if _has_manifest(path):
        return (
            f"{name} is taken to be the folder {path.absolute()}, not the shipped bundle of that name; "
            f"for the shipped one, give {shipped}"
        )
    return f"{name} is taken to be the shipped bundle; the folder {path.absolute()} has no {MANIFEST_NAME}"


def _shipped(name: str | Path) -> Path | None:
    """Find the folder of the shipped bundle with this name; None where there is none."""
    if not isinstance(name, str) or name != Path(name).name:
        return None
    folder = SHIPPED / f"{name}.lraee"
    return folder if os.path.isdir(folder) else None  # Path.is_dir raises for names that no file can have


def _has_manifest(folder: Path) -> bool:
    """Tell whether there is a manifest, or a folder that may not be read: opening it then says so."""
    try:
        os.lstat(folder / MANIFEST_NAME)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


class Bundle:
    """Holds a bundle folder after its manifest was read and all its files were found.

    Links are followed once, when it is opened: what is hashed later is the very file that is then read. They may lead
    anywhere, as those of a Hugging Face cache do, since no file is used before its hash was found right.

    Copies and pickles hold the path and the hash of the manifest, and open the bundle again.
    """

    def __init__(self, folder: Path, *, expected_sha256: str | None = None) -> None:
        """Read the manifest and look for the files.

        Args:
            folder: of the bundle, or its zip file, which is unpacked; relative paths and links are resolved now.
            expected_sha256: refuse a manifest with another hash.

        Raises:
            BundleError: a file is missing, cannot be read, or has another size; the manifest is not what is wanted.
        """
        self.place = folder.resolve()
        """The folder, or the zip file that it was unpacked from."""
        self._unpacked = Unpacked(self.place) if self.place.is_file() else None
        self.folder = self.place if self._unpacked is None else self._unpacked.folder
        """Where the files lie."""
        content = manifest_bytes(self.folder)
        self.manifest_sha256 = hashlib.sha256(content).hexdigest()
        """In hexadecimal digits. The manifest holds the hashes of all other files, so this is one for the bundle."""
        if expected_sha256 not in (None, self.manifest_sha256):
            raise BundleError(
                f"the bundle {self.place} has changed since the model was copied or pickled: {MANIFEST_NAME} has "
                f"SHA-256 {self.manifest_sha256[:12]}…, wanted {str(expected_sha256)[:12]}…; load it again"
            )
        self.manifest: Manifest = decode_manifest(content)
        self._entries = {entry.name: entry for entry in self.manifest.files}
        self._real: dict[str, Path] = {}
        for entry in self.manifest.files:
            self._real[entry.name], size = real_file(self.folder / entry.name, entry.name)
            if size != entry.size_bytes:
                raise BundleError(
                    f"{entry.name} has {size} bytes, the manifest says {entry.size_bytes}; "
                    "the bundle is damaged, export it again"
                )

    def __reduce__(self) -> tuple[Callable[..., Bundle], tuple[str, str, str]]:
        inside = self.place.parent == SHIPPED.resolve()
        return _reopened, (self.place.name if inside else "", str(self.place), self.manifest_sha256)

    def checked(self, name: str) -> Path:
        """Check the hash of a file, and give the path where it really lies.

        Raises:
            BundleError: it differs from the manifest's SHA-256, or cannot be read any more.
        """
        path = self._real[name]
        self._check_hash(name, sha256_of(path, name))
        return path

    def content(self, name: str) -> bytes:
        """Read a file and check its hash; errors as `checked`."""
        content = read_file(self._real[name], name)
        self._check_hash(name, hashlib.sha256(content).hexdigest())
        return content

    def _check_hash(self, name: str, digest: str) -> None:
        if digest != self._entries[name].sha256:
            raise BundleError(
                f"{name} has SHA-256 {digest[:12]}…, the manifest says {self._entries[name].sha256[:12]}…; "
                "the bundle is damaged, export it again"
            )

    def checked_part(self, part: PartEntry) -> Path | LinkedGraph:
        """Check graph and weights of a part, and give what its session is made from; no data path leaves the folder.

        This is a path. Where graph or weights are links, it is the graph's content with the files that they lead to:
        ONNX Runtime opens weights through links in some versions and layouts only.
        """
        content = self.content(part.graph)
        allowed = {part.data} if part.data is not None else {entry.data for entry in self.manifest.parts}
        named = external_locations(content, part.graph)
        for location in sorted(named):
            if location not in allowed:
                raise BundleError(
                    f"{part.graph}: external data is at {location!r}, wanted one of the bundle's own weight files"
                )
        for name in sorted(name for name in allowed if name is not None):
            self.checked(name)
        path = self.folder / part.graph
        real = {name: self._real[name] for name in named}
        if all(self._real[name] == self.folder / name for name in (part.graph, *named)):
            return path
        return linked_graph(content, real, path)

    def verify(self) -> None:
        """Check every hash and every external data path of the bundle."""
        for part in self.manifest.parts:
            if part.data is not None:
                self.checked_part(part)
        for part in self.manifest.parts:
            if part.data is None:
                allowed = {entry.data for entry in self.manifest.parts}
                outside = external_locations(self.content(part.graph), part.graph) - allowed
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
        """The names and templates of the exported labels, read and checked once."""
        name = self.manifest.labels.names
        try:
            text = self.content(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{name} is not UTF-8 text; the bundle is damaged, export it again") from error
        labels = decode(LabelFile, parse(text, name), name)
        if len(labels.names) != self.manifest.labels.count:
            raise BundleError(
                f"{name}: names has {len(labels.names)} labels, the manifest says {self.manifest.labels.count}"
            )
        return labels

    @cached_property
    def label_embeddings(self) -> NDArray[np.float32]:
        """The text embeddings of the exported labels, (labels, embed_dim) float32 of unit length, read once."""
        name = self.manifest.labels.embeddings
        array = _read_array(name, self.content(name), (self.manifest.labels.count, self.manifest.tower.embed_dim))
        with np.errstate(all="ignore"):  # a length that overflows or is NaN is not 1 either
            lengths = np.sqrt(np.einsum("ld,ld->l", array, array))
            are_units = bool((np.abs(lengths - 1) <= 1e-3).all())
        if not are_units:
            raise BundleError(f"{name}: a row is not of unit length; export the bundle again")
        return array

    def merges(self, name: str) -> list[str]:
        """Read the lines of the tokenizer's file `name`, two tokens each.

        Raises:
            BundleError: a line is something else.
        """
        try:
            lines = self.content(name).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise BundleError(f"{name} is not UTF-8 text; the bundle is damaged, export it again") from error
        for number, line in enumerate(lines, start=1):
            if line.count(" ") != 1:
                raise BundleError(
                    f"{name}: line {number} is {line[:40]!r}, wanted two tokens with a blank between them"
                )
        return lines


def _reopened(shipped: str, folder: str, manifest_sha256: str) -> Bundle:
    """Open the bundle that a pickle names; a shipped one is found in the package, wherever that is installed."""
    return Bundle(SHIPPED / shipped if shipped else Path(folder), expected_sha256=manifest_sha256)


def _read_array(name: str, content: bytes, wanted: tuple[int, int]) -> NDArray[np.float32]:
    """Read a float32 array as ``numpy.save`` writes it; numpy's reader would evaluate its header."""
    header = _ARRAY_HEADER.match(content)
    if header is None or header.end() != 10 + int.from_bytes(header[1], "little"):
        raise BundleError(f"{name} is not a float32 array as numpy.save writes it; export the bundle again")
    shape = (int(header[2]), int(header[3]))
    if shape != wanted:
        raise BundleError(f"{name} has shape {shape}, wanted {wanted}; export the bundle again")
    if len(content) - header.end() != 4 * shape[0] * shape[1]:
        raise BundleError(f"{name} ends early or goes on after its array; export the bundle again")
    return np.frombuffer(content, np.float32, offset=header.end()).reshape(shape)
