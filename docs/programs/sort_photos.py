"""Sorts photos into a folder for each label; a photo without a clear label goes to the folder ``unsure``.

    python sort_photos.py photos sorted --dry-run    # only prints where each photo would go
    python sort_photos.py photos sorted              # copies; a second run copies only what is not there yet
    python sort_photos.py photos sorted --move

No file is ever overwritten: where a name is taken, the photo gets a number. A photo that cannot be read stays where it
is, stderr names it, and the exit status is 1. The program needs lraee with its extra ``image``.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import escape
from itertools import count
from pathlib import Path

import lraee
from lraee.reading import Reading

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}


def photos(folder: Path, target: Path) -> Iterator[Path]:
    """Yield the photos of a folder and its subfolders, but nothing hidden and nothing of the target."""
    for place, folders, names in os.walk(folder, onerror=lambda error: print(f"skipped: {error}", file=sys.stderr)):
        at = Path(place)
        folders[:] = sorted(n for n in folders if n[0] != "." and (at / n).resolve() != target.resolve())
        yield from (at / n for n in sorted(names) if n[0] != "." and Path(n).suffix.lower() in SUFFIXES)


def folder_name(label: str) -> str:
    """Turn a label into a name that every file system allows: ``cat/dog`` becomes ``cat_dog``."""
    return re.sub(r'[\x00-\x1f\\/:*?"<>|]', "_", label).strip(" .") or "_"


def store(photo: Path, folder: Path, *, move: bool) -> Path | None:
    """Copy or move a photo into a folder, and return its new path; None if the folder already holds a copy of it.

    The file gets its final name when it is complete, so an interruption leaves no half of a photo.
    """
    folder.mkdir(parents=True, exist_ok=True)
    same_name = [folder / photo.name, *folder.glob(f"{escape(photo.stem)}-*{photo.suffix}")]
    if not move and any(path.is_file() and filecmp.cmp(photo, path, shallow=False) for path in same_name):
        return None
    handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as copy, photo.open("rb") as original:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fsync(copy.fileno())
        with suppress(OSError):  # some file systems cannot store permissions
            shutil.copystat(photo, part)
        for number in count(1):
            target = folder / (photo.name if number == 1 else f"{photo.stem}-{number}{photo.suffix}")
            with suppress(FileExistsError):
                target.touch(exist_ok=False)  # reserves the name, also against other programs
                os.replace(part, target)
                break
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    if move:
        photo.unlink()
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Sort the photos, and return the exit status."""
    parser = argparse.ArgumentParser(description="Sort photos into a folder for each label.")
    parser.add_argument("photos", type=Path, help="folder to read, with its subfolders")
    parser.add_argument("sorted", type=Path, help="folder to write; it is made if it does not exist")
    parser.add_argument("--bundle", default="photo-clip", help="folder of a bundle, or the name of a shipped one")
    parser.add_argument("--labels", help="other labels, with commas between them; the bundle needs a text tower")
    parser.add_argument("--at-least", type=float, default=0.5, help="probability that a label needs (0.5)")
    parser.add_argument("--move", action="store_true", help="move photos instead of copying them")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, and print where photos would go")
    told = parser.parse_args(arguments)
    if not told.photos.is_dir() or told.photos.resolve() == told.sorted.resolve():
        parser.error(f"{told.photos} is not a folder, or it is the folder to write, too")
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # prints names that are not UTF-8
    done, left = Counter[str](), list[str]()
    try:
        model = lraee.load(told.bundle, reading=Reading(exif_orientation=True, reduce_jpeg=True))
        if told.labels:
            model.set_labels([label.strip() for label in told.labels.split(",")])
        found = list(photos(told.photos, told.sorted))
        for answer in model.classify_stream(found, top=1, max_lag=64, on_error=lambda e: left.append(str(e.__cause__))):
            photo, sure = found[answer.position], answer.score >= told.at_least
            folder = told.sorted / (folder_name(answer.label) if sure else "unsure")
            try:
                target = folder / photo.name if told.dry_run else store(photo, folder, move=told.move)
            except OSError as error:
                left.append(f"{photo}: {error}")
                continue
            done["unsure" if sure else "sure"] += target is not None
            print(f"{photo} -> {target or f'already in {folder}'} ({answer.label}, {answer.score:.2f})", flush=True)
    except lraee.LraeeError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        left.append("interrupted; the same command goes on")
    for reason in left:
        print(f"left: {reason}", file=sys.stderr)
    print(f"{done.total()} photos sorted, {done['unsure']} of them unsure; {len(left)} left", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
