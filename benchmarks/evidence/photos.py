"""Measure what early exits gain on natural photos: the trunk as given and tuned, with every rival at the same FLOPs.

    python benchmarks/evidence/photos.py parts                       # parts, their hours, and which are recorded
    python benchmarks/evidence/photos.py run --model FOLDER --pool ZIP --test ZIP --labels FILE [--part NAME]...
    python benchmarks/evidence/photos.py assemble [--check]          # photos.json and photos.md from the records

`make evidence-photos` runs all parts that have no record yet, then assembles. Each part is an export of one to two
hours on two cores; interrupted, the same command goes on. No photo of the data set comes into any record.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from part_records import PhotosError, write_whole
from photo_accounting import assembled
from photo_parts import PARTS, RECORDS, Data, Runner, chosen, recorded
from photo_tables import markdown

from lraee.errors import LraeeError

FOLDER = Path(__file__).resolve().parent
NEEDED = {
    "model": "an open_clip folder",
    "pool": "a zip of photos to learn from, in a folder for each label",
    "test": "a zip of other photos, likewise",
    "labels": "a file with one label a line",
}


def data_of(options: argparse.Namespace) -> Data:
    """Check that all inputs were given.

    Raises:
        PhotosError: one was not.
    """
    missing = [name for name in NEEDED if not getattr(options, name)]
    if missing:
        words = "; ".join(f"PHOTO_{name.upper()}= ({NEEDED[name]})" for name in missing)
        raise PhotosError(f"the photos are not part of the project: give {words}, as in make evidence-photos PHOTO_...")
    return Data(**{name: Path(getattr(options, name)) for name in NEEDED})


def list_parts(records: Path) -> None:
    """Print every part with its hours."""
    found = recorded(records)
    for part in PARTS:
        there = found.get(part.name)
        state = f"recorded, took {there['hours']:.2f} h" if there else f"missing, about {part.hours:g} h"
        print(f"{part.name:22} {part.words}: {state}")


def write(records: Path, target: Path, *, check: bool) -> int:
    """Write the assembled files, or compare them with those that are there; the number that differ."""
    if not (found := recorded(records)):
        print("no part is recorded; nothing to assemble")
        return 0
    whole = assembled(found)
    texts = {"photos.json": json.dumps(whole, indent=1) + "\n", "photos.md": markdown(whole)}
    return write_texts({target / name: text for name, text in texts.items()}, script="photos.py", check=check)


def write_texts(texts: Mapping[Path, str], *, script: str, check: bool) -> int:
    """Write assembled files, or say how those that are there come to agree with the records; how many differ."""
    wrong = 0
    for path, text in texts.items():
        if not check:
            write_whole(path, text)
            print(f"wrote {path}")
        elif not path.is_file() or path.read_text("utf-8") != text:
            print(f"{path} differs from what the parts say; run: python benchmarks/evidence/{script} assemble")
            wrong += 1
    return wrong


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "run", "assemble"))
    for name, words in NEEDED.items():
        parser.add_argument(f"--{name}", help=words)
    parser.add_argument("--part", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("out/photos"), help="bundles, reports, work folders")
    parser.add_argument("--records", type=Path, default=RECORDS, help="records of the parts")
    parser.add_argument("--target", type=Path, default=FOLDER, help="folder of photos.json and photos.md")
    parser.add_argument("--more", default="", help="further options of lraee-export, to try it out: '--seeds 1'")
    parser.add_argument("--more-tuning", default="", help="the same for parts that tune the trunk")
    parser.add_argument("--check", action="store_true", help="assemble: only say whether the files are up to date")
    options = parser.parse_args()
    try:
        if options.what == "parts":
            list_parts(options.records)
            return 0
        if options.what == "run":
            runner = Runner(
                data=data_of(options),
                out=options.out,
                records=options.records,
                more=tuple(shlex.split(options.more)),
                more_tuning=tuple(shlex.split(options.more_tuning)),
            )
            parts = list(chosen([name for given in options.part for name in given.split()]))
            for part in parts:
                runner.run(part)
            runner.clear(parts)
        return 1 if write(options.records, options.target, check=options.check) else 0
    except (PhotosError, LraeeError) as error:
        print(f"photos.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
