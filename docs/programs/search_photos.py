"""Finds photos by a text or by another photo, with an index on disk that follows the folder.

    python search_photos.py photos                    # only brings the index up to date
    python search_photos.py photos "tabby cat"
    python search_photos.py photos photos/cat.jpg     # photos that resemble this one

Each run embeds new and changed photos, and drops those that are gone. The index is one file next to the folder. It is
saved every few seconds and replaced as a whole, so a killed run loses seconds of work. Needs lraee's extra ``image``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from difflib import get_close_matches
from logging import warning
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

import lraee
from lraee.arrays import FloatArray
from lraee.reading import Reading
from lraee.search import SearchIndex

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}

Entries = dict[str, tuple[list[int], FloatArray]]  # by the path of each photo: size and time of change; embedding


def photos(folder: Path) -> dict[str, list[int]]:
    """Give size and time of change of each photo of a folder and its subfolders, but of nothing hidden."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file())
    found = {str(path.relative_to(folder)): path.stat() for path in paths}
    return {name: [at.st_size, at.st_mtime_ns] for name, at in found.items() if "/." not in f"/{name}"}


def read(index: Path, bundle: str) -> Entries:
    """Read what an index says of the photos; nothing if another bundle made it."""
    try:
        with index.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about, rows = json.loads(file["about"].item()), file["embeddings"]
        return {n: (s, row) for (n, s), row in zip(about["photos"], rows, strict=True) if about["bundle"] == bundle}
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        sys.exit(f"{index} is not an index of this program ({error}); remove it, or give another --index")


def write(index: Path, bundle: str, entries: Entries) -> None:
    """Write an index under another name, and rename it when it is on the disk."""
    about = {"bundle": bundle, "photos": [(name, state) for name, (state, _) in entries.items()]}
    part = index.with_name(f"{index.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, about=json.dumps(about).encode(), embeddings=[row for _, row in entries.values()])
        file.flush()
        os.fsync(file.fileno())
    part.replace(index)


def update(model: lraee.Model, folder: Path, index: Path) -> Entries:
    """Bring the index up to date. A folder without photos changes nothing: its disk may not be mounted."""
    bundle, found = model.bundle.manifest_sha256, photos(folder)
    known = read(index, bundle) if index.exists() else {}
    entries = {name: entry for name, entry in known.items() if found.get(name) == entry[0]}
    waiting, due = [name for name in found if name not in entries], time.monotonic()
    try:
        for answer in model.classify_stream((folder / n for n in waiting), policy=lraee.Full(), on_error=warning):
            entries[waiting[answer.position]] = found[waiting[answer.position]], answer.embedding
            if (begun := time.monotonic()) > due:
                write(index, bundle, entries)
                due = time.monotonic() + max(2, 20 * (time.monotonic() - begun))  # saving takes 5 % of the time at most
    finally:
        if found and (waiting or len(entries) < len(known)):
            write(index, bundle, entries)
    return entries


def query(model: lraee.Model, text: str) -> FloatArray:
    """Embed a photo or a text; without a text tower, the text must be one of the bundle's labels."""
    if os.path.isfile(text):
        return model.embed([text])
    if model.manifest.text is not None:
        return model.embed_text([text])
    if text not in model.labels:
        sys.exit(f"{text} is not a label; near ones are {', '.join(get_close_matches(text, model.labels, cutoff=0))}")
    return model.bundle.label_embeddings[[model.labels.index(text)]]


def main() -> None:
    """Update the index, and search it."""
    parser = argparse.ArgumentParser(description="Find photos by a text or by another photo.")
    parser.add_argument("folder", type=Path, help="folder of photos, with its subfolders")
    parser.add_argument("query", nargs="?", help="a text, or the path of a photo; without it the index is updated")
    parser.add_argument("--top", type=int, default=10, help="how many photos to print (10)")
    parser.add_argument("--bundle", default="photo-clip", help="folder of a bundle, or the name of a shipped one")
    parser.add_argument("--index", type=Path, help="file of the index; by default FOLDER.BUNDLE.npz")
    told = parser.parse_args()
    index = told.index or Path(f"{told.folder.resolve()}.{Path(told.bundle).stem}.npz")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that what is done is saved
    try:
        model = lraee.load(told.bundle, reading=Reading(exif_orientation=True, reduce_jpeg=True))
        entries = update(model, told.folder, index)
        if not entries:
            sys.exit(f"{told.folder} has no photos that can be read")
        if told.query is not None:
            found = SearchIndex.build(np.array([row for _, row in entries.values()]))
            best = found.search(query(model, told.query), top=told.top)
            for row, score in zip(best.rows[0], best.scores[0], strict=True):
                sys.stdout.buffer.write(os.fsencode(f"{score:.3f}  {told.folder / list(entries)[row]}\n"))
    except (lraee.LraeeError, OSError, KeyboardInterrupt) as error:
        sys.exit(f"error: {str(error) or 'interrupted; what is done is saved'}")


if __name__ == "__main__":
    main()
