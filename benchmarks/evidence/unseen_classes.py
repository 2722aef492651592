"""Measure what tuning the trunk costs at full depth on classes that it does not see, over four folds.

    python benchmarks/evidence/unseen_classes.py run --model FOLDER --pool ZIP --test ZIP --labels FILE [--fold K]...
    python benchmarks/evidence/unseen_classes.py assemble [--check]    # unseen-classes.json and .md from the records

`make evidence-unseen` runs all folds that have no record yet, about half an hour each on two cores, then assembles;
interrupted, the same command goes on. Run one fold at a time. No photo of the data set comes into any record.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from part_records import PhotosError
from photos import NEEDED, data_of, write_texts
from unseen_folds import FOLDS, RECORDS, FoldRunner
from unseen_tables import assembled, markdown, recorded

from lraee.errors import LraeeError

FOLDER = Path(__file__).resolve().parent


def write(records: Path, target: Path, *, check: bool) -> int:
    """Write the assembled files, or compare them with those that are there; the number that differ."""
    if not (found := recorded(records)):
        print("no fold is recorded; nothing to assemble")
        return 0
    whole = assembled(found)
    if whole["missing"]:
        print(f"missing: {', '.join(f'fold {fold}' for fold in whole['missing'])}")
    texts = {
        target / "unseen-classes.json": json.dumps(whole, indent=1) + "\n",
        target / "unseen-classes.md": markdown(whole),
    }
    return write_texts(texts, script="unseen_classes.py", check=check)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "assemble"))
    for name, words in NEEDED.items():
        parser.add_argument(f"--{name}", help=words)
    parser.add_argument("--fold", action="append", default=[], help="only this one, from 1; may be repeated")
    parser.add_argument("--folds", type=int, default=FOLDS, help="into how many the labels are divided")
    parser.add_argument("--out", type=Path, default=Path("out/unseen"), help="bundles and work folders")
    parser.add_argument("--records", type=Path, default=RECORDS, help="records of the folds")
    parser.add_argument("--target", type=Path, default=FOLDER, help="folder of unseen-classes.json and .md")
    parser.add_argument("--more", default="", help="further options of the tuning export: '--adapt-epochs 1'")
    parser.add_argument("--check", action="store_true", help="assemble: only say whether the files are up to date")
    options = parser.parse_args()
    try:
        if options.what == "run":
            runner = FoldRunner(
                data=data_of(options),
                out=options.out,
                records=options.records,
                folds=options.folds,
                more=tuple(shlex.split(options.more)),
            )
            for fold in numbers(options.fold) or range(1, options.folds + 1):
                runner.run(fold)
        return 1 if write(options.records, options.target, check=options.check) else 0
    except (PhotosError, LraeeError) as error:
        print(f"unseen_classes.py: {error}", file=sys.stderr)
        return 1


def numbers(given: list[str]) -> list[int]:
    """Read the numbers of folds, several in one text with blanks between them.

    Raises:
        PhotosError: one is no number.
    """
    words = [word for text in given for word in text.split()]
    if wrong := [word for word in words if not word.isdecimal()]:
        raise PhotosError(f"--fold is {wrong[0]!r}, wanted a number from 1")
    return [int(word) for word in words]


if __name__ == "__main__":
    sys.exit(main())
