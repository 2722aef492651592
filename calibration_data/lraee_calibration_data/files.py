"""Lists and reads the image files of a folder or a zip; the only place that knows which of the two it is.

Nothing is extracted: a member's name is a key and never becomes a path on disk.
"""

import os
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from lraee.errors import DataError, ImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""File names that count as images, in small or capital letters."""

MAX_MEMBER_BYTES = 2**29
"""A member of a zip that says it unpacks to more is refused: 512 MiB, twice an uncompressed image of the most pixels
that are decoded. A zip packs a thousand times as much of nothing into a small file."""


class Files(Protocol):
    """The image files of one source. May be read from several threads."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Relative POSIX paths, sorted by code point, so that the order is the same on every machine."""

    def read(self, key: str) -> bytes:
        """Return the content of one file; raises ImageError naming it."""


class FolderFiles:
    """Image files in a folder, at any depth; links to folders are followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = tuple(sorted(_walk(folder)))

    def read(self, key: str) -> bytes:
        """Return the content of the file `key`; raises ImageError naming it."""
        try:
            return (self.folder / key).read_bytes()
        except OSError as error:
            raise ImageError(f"{self.folder / key} cannot be read: {error.strerror}") from error


class ZipFiles:
    """Image files in a zip archive, read in place. zipfile locks each read, so threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{path} is damaged or not a zip: {error}; give a folder or a zip of images") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            key = member.filename.replace("\\", "/")
            if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16) or not is_image_key(key):
                continue
            if member.flag_bits & 1:
                raise DataError(f"{path} is encrypted ({key}); unpack it with its password and give the folder")
            if key in self._members:
                raise DataError(f"{path} holds {key} twice; pack it again without duplicates")
            self._members[key] = member
        self.keys = tuple(sorted(self._members))

    def read(self, key: str) -> bytes:
        """Return the content of the member `key`; raises ImageError naming it."""
        member = self._members[key]
        if member.file_size > MAX_MEMBER_BYTES:  # zipfile gives no more than that, whatever the stream holds
            raise ImageError(
                f"{self.path}:{key} would unpack to {member.file_size:,} bytes, wanted at most {MAX_MEMBER_BYTES:,}; "
                "take it out of the zip"
            )
        try:
            return self._archive.read(member)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as error:
            raise ImageError(f"{self.path}:{key} cannot be read: {error}") from error


def open_files(source: Path) -> Files:
    """Open a folder or a zip.

    Raises:
        DataError: There is nothing there, it is neither, it is encrypted, or it holds no image.
    """
    files: FolderFiles | ZipFiles
    if source.is_dir():
        files = FolderFiles(source)
    elif source.is_file():
        files = ZipFiles(source)
    else:
        raise DataError(f"{source} does not exist; give a folder or a zip of images")
    if not files.keys:
        wanted = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise DataError(f"{source} holds no image ({wanted}); hidden files and archives inside it are not opened")
    return files


def is_image_key(key: str) -> bool:
    """Whether a relative path names an image that is neither hidden nor an archive's litter.

    >>> is_image_key("cats/Tom.JPG"), is_image_key("cats/.Tom.jpg"), is_image_key("__MACOSX/cats/Tom.jpg")
    (True, False, False)
    """
    path = PurePosixPath(key)
    hidden = any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def labels_from_keys(keys: tuple[str, ...]) -> tuple[str | None, ...]:
    """The label of each key: the name of its folder, if the folders look like classes.

    They do when images lie in at least two folders and none of these folders contains another of them. Otherwise
    nothing is labelled.

    >>> labels_from_keys(("a/cat/1.png", "a/dog/1.png"))
    ('cat', 'dog')
    >>> labels_from_keys(("1.png", "dog/1.png"))
    (None, None)
    """
    parents = {PurePosixPath(key).parent for key in keys}
    nested = any(ancestor in parents for parent in parents for ancestor in parent.parents)
    if len(parents) < 2 or nested:
        return (None,) * len(keys)
    return tuple(unicodedata.normalize("NFC", PurePosixPath(key).parent.name) for key in keys)


def _walk(folder: Path) -> list[str]:
    keys: list[str] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        real_root = Path(os.path.realpath(root))
        # A link to a folder that contains it would never end.
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and not (
                os.path.islink(os.path.join(root, name))
                and real_root.is_relative_to(os.path.realpath(os.path.join(root, name)))
            )
        ]
        relative = Path(root).relative_to(folder)
        paths = ((relative / name).as_posix() for name in names)
        keys.extend(key for key in paths if is_image_key(key))
    return keys
