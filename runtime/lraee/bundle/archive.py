"""A bundle as one zip file: written by ``python -m lraee zip``, unpacked into a folder of its own when it is opened.

ONNX Runtime maps weights from files, so an archive is unpacked, into a temporary folder that goes when the bundle is no
longer used. An archive is data from elsewhere: of its entries only those are written that the manifest in it names,
with the sizes that it says, under plain names; nothing else of it is believed.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from lraee.bundle.files import unreadable
from lraee.bundle.manifest import MANIFEST_NAME, Manifest
from lraee.bundle.manifest_file import decode_manifest, manifest_bytes
from lraee.errors import BundleError

LARGEST_MANIFEST = 16 * 2**20
"""Bytes; the manifest is read before anything is known of the others."""

LARGEST_BUNDLE = 8 * 2**30
"""Bytes of all files together; a CLIP as large as any takes less than a quarter."""

MOST_ENTRIES = 2000

BLOCK = 2**20

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

TIME = (1980, 1, 1, 0, 0, 0)
"""Of every entry, so that the bytes depend on the bundle alone."""


def write_archive(folder: Path, manifest: Manifest, path: Path) -> None:
    """Write the files of a bundle that was verified into one archive, uncompressed, the manifest first.

    Args:
        folder: of the bundle.
        manifest: of it.
        path: to write, whole or not at all.

    Raises:
        BundleError: the archive cannot be written.
    """
    half = path.with_name(f".{path.name}.half")
    try:
        with zipfile.ZipFile(half, "w") as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST_NAME, TIME), manifest_bytes(folder))
            for entry in sorted(manifest.files, key=lambda one: one.name):
                info = zipfile.ZipInfo(entry.name, TIME)
                info.file_size = entry.size_bytes
                with (folder / entry.name).open("rb") as source, archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target, BLOCK)
        half.replace(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); give another place") from error
    finally:
        half.unlink(missing_ok=True)


class Unpacked:
    """Holds an archive's files in a temporary folder for as long as it lives."""

    def __init__(self, path: Path) -> None:
        """Unpack an archive.

        Args:
            path: of a zip file.

        Raises:
            BundleError: it is no archive of a bundle, is damaged, or does not fit on the disk.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                entries = _entries(archive, path.name)
                content = _manifest(archive, entries, path.name)
                wanted = _wanted(decode_manifest(content), entries, path.name)
                self._write(archive, wanted, content)
        except (
            zipfile.BadZipFile,
            zipfile.LargeZipFile,
            zlib.error,
            NotImplementedError,
            EOFError,
            ValueError,
        ) as error:
            raise BundleError(f"{path.name} is no zip file, or damaged ({error}); copy or write it again") from error
        except OSError as error:
            raise unreadable(path, path.name, error) from error

    def _write(self, archive: zipfile.ZipFile, wanted: Mapping[str, zipfile.ZipInfo], manifest: bytes) -> None:
        """Write the files into a new temporary folder."""
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="lraee-"))
            remove = weakref.finalize(self, _remove, self.folder, os.getpid())
        except OSError as error:
            raise _no_room(error) from error
        try:
            (self.folder / MANIFEST_NAME).write_bytes(manifest)
            for name, info in wanted.items():
                with archive.open(info) as source, (self.folder / name).open("xb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
        except BaseException as error:
            remove()
            if isinstance(error, OSError):
                raise _no_room(error) from error
            raise


def _no_room(error: OSError) -> BundleError:
    return BundleError(
        f"the archive cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}); free some of it, or name "
        "another folder in TMPDIR"
    )


def _remove(folder: Path, owner: int) -> None:
    """Remove a temporary folder, but not in a child that was forked, whose parent still reads from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _entries(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    """List the files of an archive by their name within the bundle; one folder may stand around all of them.

    Raises:
        BundleError: there are too many, two of one name, or one that is no plain file in that folder.
    """
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_ENTRIES:
        raise BundleError(f"{where} has {len(infos):,} files, more than any bundle; wanted one that lraee wrote")
    around = next((info.filename[: -len(MANIFEST_NAME)] for info in infos if _is_manifest(info.filename)), "")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removeprefix(around)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not info.filename.startswith(around) or "/" in name or "\\" in name or kind not in (0, stat.S_IFREG):
            raise BundleError(
                f"{where}: {info.filename!r} is not a plain file beside {MANIFEST_NAME}; it is not opened"
            )
        if name in found:
            raise BundleError(f"{where} has {name!r} twice; it is not opened")
        if info.flag_bits & 1 or info.compress_type not in METHODS:
            raise BundleError(f"{where}: {name!r} is encrypted or compressed in a way that is not read; zip it again")
        found[name] = info
    return found


def _manifest(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], where: str) -> bytes:
    """Take the manifest off the entries and read it.

    Raises:
        BundleError: there is none, or it is larger than any.
    """
    info = entries.pop(MANIFEST_NAME, None)
    if info is None:
        raise BundleError(f"{where} has no {MANIFEST_NAME}; wanted a file that python -m lraee zip wrote")
    if info.file_size > LARGEST_MANIFEST:
        raise BundleError(f"{where}: {MANIFEST_NAME} has {info.file_size:,} bytes, more than any has")
    return archive.read(info)


def _is_manifest(name: str) -> bool:
    """Tell whether a path in the archive is that of the manifest, at its top or in one folder."""
    folder, _, last = name.rpartition("/")
    return last == MANIFEST_NAME and "/" not in folder and folder not in (".", "..")


def _wanted(manifest: Manifest, entries: Mapping[str, zipfile.ZipInfo], where: str) -> dict[str, zipfile.ZipInfo]:
    """Choose the entries that the manifest names.

    Raises:
        BundleError: one is missing or has another size, or all together are too large.
    """
    total = sum(entry.size_bytes for entry in manifest.files)
    if total > LARGEST_BUNDLE:
        raise BundleError(f"{where} holds a bundle of {total:,} bytes, wanted at most {LARGEST_BUNDLE:,}")
    wanted = {}
    for entry in manifest.files:
        info = entries.get(entry.name)
        if info is None:
            raise BundleError(f"{entry.name} is missing from {where}; the archive is incomplete, write it again")
        if info.file_size != entry.size_bytes:
            raise BundleError(
                f"{where}: {entry.name} has {info.file_size} bytes, the manifest says {entry.size_bytes}; the archive "
                "is damaged, write it again"
            )
        wanted[entry.name] = info
    return wanted
