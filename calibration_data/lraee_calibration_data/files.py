"""Lists and reads the image files of a folder or a zip; the only place that knows which of the two it is.

Nothing is extracted: a member's name is a key and never becomes a path on disk. Files that are not images are counted
by the ends of their names, so that nothing vanishes unnoticed.
"""

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from lraee.errors import DataError, ImageError
from lraee_calibration_data.image_formats import SUFFIXES, is_image_name
from lraee_calibration_data.words import passed_over_words

MAX_MEMBER_BYTES = 2**29
"""A member of a zip that says it unpacks to more is refused: 512 MiB, twice an uncompressed image of the most pixels
that are decoded. A zip packs a thousand times as much of nothing into a small file."""

HIDDEN = "hidden"
CIRCULAR = "link to a folder around it"
PLAIN = "without an ending"


class Files(Protocol):
    """Gives the image files of one source, also to several threads."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Relative POSIX paths, sorted by code point, so that the order is the same on every machine."""

    @property
    def passed_over(self) -> Mapping[str, int]:
        """How many files are not images, by the end of their names, the most first; a hidden folder counts as one."""

    @property
    def without_images(self) -> tuple[str, ...]:
        """Folders that hold no image, also not in a folder inside them; of nested ones the outermost, sorted."""

    def read(self, key: str) -> bytes:
        """Return the content of one file; raises ImageError naming it."""


class _Listing:
    """Collects what is found while a source is listed."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.folders: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._hidden: set[str] = set()

    def add(self, key: str) -> None:
        """Take a file for an image, or count it."""
        if is_image_name(key):
            self.keys.append(key)
        else:
            suffix = os.path.splitext(key)[1].lower()
            self._counts[suffix if len(suffix) > 1 else PLAIN] += 1

    def hide(self, key: str) -> None:
        """Count a hidden file or folder once, however often it occurs."""
        self._hidden.add(key)

    def count(self, kind: str) -> None:
        """Count something that is not read."""
        self._counts[kind] += 1

    @property
    def passed_over(self) -> dict[str, int]:
        counts = self._counts | Counter({HIDDEN: len(self._hidden)} if self._hidden else {})
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def without_images(self) -> tuple[str, ...]:
        used = _with_outer({key.rpartition("/")[0] for key in self.keys})
        empty = _with_outer(self.folders) - used
        return tuple(sorted(folder for folder in empty if folder.rpartition("/")[0] not in empty))


class FolderFiles:
    """Gives the image files in a folder, at any depth; links to folders are followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = _list_folder(folder)
        self.keys = tuple(sorted(found.keys))
        self.passed_over: Mapping[str, int] = found.passed_over
        self.without_images = found.without_images

    def read(self, key: str) -> bytes:
        """Return the content of the file `key`; raises ImageError naming it."""
        path = self.folder / key
        try:
            return path.read_bytes()
        except OSError as error:
            reason = f"it links to {os.readlink(path)}, which is not there" if _is_broken(path) else error.strerror
            raise ImageError(f"{path} cannot be read: {reason}") from error


class ZipFiles:
    """Gives the image files in a zip archive, read in place. zipfile locks each read, so threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{path} is damaged or not a zip: {error}; give a folder or a zip of images") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        found = _Listing()
        for member in self._archive.infolist():
            name = _name_of(member)
            key = name.rstrip("/")
            parts = PurePosixPath(key).parts
            if hidden := next((depth for depth, part in enumerate(parts, start=1) if _is_hidden(part)), 0):
                found.hide("/".join(parts[:hidden]))
                continue
            found.folders.add(key if name.endswith("/") else key.rpartition("/")[0])
            if name.endswith("/"):
                continue
            is_image = is_image_name(key)
            if not is_image and stat.S_ISLNK(member.external_attr >> 16):
                raise DataError(
                    f"{path}:{key} is a link, and images in it would be missing; pack what it leads to, or take it "
                    "out of the zip"
                )
            found.add(key)
            if not is_image:
                continue
            if member.flag_bits & 1:
                raise DataError(f"{path} is encrypted ({key}); unpack it with its password and give the folder")
            if key in self._members:
                raise DataError(f"{path} holds {key} twice; pack it again without duplicates")
            self._members[key] = member
        self.keys = tuple(sorted(self._members))
        self.passed_over: Mapping[str, int] = found.passed_over
        self.without_images = found.without_images

    def read(self, key: str) -> bytes:
        """Return the content of the member `key`; raises ImageError naming it."""
        member = self._members[key]
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ImageError(f"{self.path}:{key} cannot be read: it is a link; pack the files that links lead to")
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
        DataError: There is nothing there, it may not be read, it is neither, it is encrypted, or it holds no image.
    """
    files: FolderFiles | ZipFiles
    try:
        if source.is_dir():
            files = FolderFiles(source)
        elif source.is_file():
            files = ZipFiles(source)
        else:
            raise DataError(f"{source} does not exist; give a folder or a zip of images")
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}; give a folder or a zip of images") from error
    if not files.keys:
        wanted = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        met = f"; it has {passed_over_words(files.passed_over)}" if files.passed_over else ""
        raise DataError(f"{source} holds no image ({wanted}){met}; hidden files and archives inside it are not opened")
    return files


def _list_folder(folder: Path) -> _Listing:
    """Walk a folder; links are followed unless they lead to a folder that they lie in.

    Raises:
        DataError: A folder cannot be listed, or a link that may be a folder of images leads nowhere.
    """
    found = _Listing()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while waiting:
        relative, around = waiting.pop()
        try:
            with os.scandir(folder / relative) as entries:
                listed = list(entries)
        except OSError as error:
            raise DataError(
                f"{folder / relative} cannot be listed: {error.strerror}; its images would be missing: let it be read, "
                "or take it out of the data"
            ) from error
        for entry in listed:
            key = f"{relative}{entry.name}"
            if _is_hidden(entry.name):
                found.hide(key)
                continue
            if not _is_folder(entry):
                if entry.is_symlink() and not is_image_name(key) and _is_broken(Path(entry.path)):
                    raise DataError(
                        f"{entry.path} links to {os.readlink(entry.path)}, which is not there; images in it would "
                        "be missing: correct the link or remove it"
                    )
                found.add(key)
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(around[-1], entry.name)
            if any(outer == real or Path(outer).is_relative_to(real) for outer in around):
                found.count(CIRCULAR)
                continue
            found.folders.add(key)
            waiting.append((f"{key}/", (*around, real)))
    return found


def _is_hidden(part: str) -> bool:
    """Tell whether one part of a path hides what lies there: a dot before it, or the litter of macOS's archives."""
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def _with_outer(folders: set[str]) -> set[str]:
    """Add to folders, by their relative paths, all that they lie in except the source itself."""
    every: set[str] = set()
    for folder in folders:
        while folder and folder not in every:
            every.add(folder)
            folder = folder.rpartition("/")[0]
    return every


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def _is_broken(path: Path) -> bool:
    """Tell whether a path is a link to nothing."""
    return path.is_symlink() and not os.path.exists(path)


def _name_of(member: zipfile.ZipInfo) -> str:
    """Read a member's path with forward slashes.

    Names without the mark of UTF-8 are decoded as code page 437 by zipfile; macOS and some others write UTF-8 without
    the mark, which is what bytes that are valid UTF-8 are taken for.
    """
    name = member.filename
    if not member.flag_bits & 0x800 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = member.filename
    return name.replace("\\", "/")
