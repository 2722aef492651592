"""Keep what `make evidence` measured, and compare a new run with it.

    python benchmarks/evidence/evidence.py images out     # pool.zip and test.zip: the shipped images and those here
    python benchmarks/evidence/evidence.py compare out
    python benchmarks/evidence/evidence.py record out

`compare` names every figure of the reports in a folder that differs from the recorded one; two runs with one seed on
one machine differ in nothing. `record` replaces the recorded figures by those of the folder. Times are left out of
both: they never repeat to the last digit. After `record`, run `make figures`, which writes the documents from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
SHIPPED_IMAGES = ROOT / "calibration_data" / "lraee_calibration_data" / "fashion_mnist"
STUDIES = ("evidence", "outliers", "b32-outliers")
"""Reports that `make evidence` and `make evidence-b32` write, by name."""

TIMES = ("latency", "saturation")
"""Keys of metrics.json that hold times."""

IMAGES = {"evaluation": "right", "ablations": "routed_right"}
"""What of metrics.json tells images apart, by section; figures are compared without it."""


def join_images(folder: Path) -> None:
    """Write ``pool.zip`` (10,000 images) and ``test.zip`` (5,000): those that the package ships, and the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pool.zip", "test.zip"):
        archives = [zipfile.ZipFile(source / name) for source in (SHIPPED_IMAGES, FOLDER / "images")]
        members = sorted((member.filename, archive) for archive in archives for member in archive.infolist())
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as joined:
            for member, archive in members:
                joined.writestr(zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0)), archive.read(member))


def metrics_of(report: Path) -> dict[str, Any]:
    """What a report measured, without times and without what single images were."""
    metrics: dict[str, Any] = json.loads((report / "metrics.json").read_text("utf-8"))
    for section, key in IMAGES.items():
        (metrics.get(section) or {}).pop(key, None)
    return {key: value for key, value in metrics.items() if key not in TIMES}


def recorded(study: str) -> dict[str, Any]:
    """The recorded figures of a study."""
    found: dict[str, Any] = json.loads((FOLDER / f"{study}.json").read_text("utf-8"))
    return found


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Every place where two JSON values differ.

    >>> list(differences({"a": [1, 2]}, {"a": [1, 3]}))
    ['/a/1: 2 was recorded, now 3']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}/{number}")
    elif old != new:
        yield f"{where}: {old} was recorded, now {new}"


def compare(folder: Path) -> int:
    """Print what differs; the number of differences."""
    count, compared = 0, 0
    for study in STUDIES:
        report = folder / f"{study}.report"
        if not report.is_dir():
            print(f"{study}: not measured in {folder}")
            continue
        compared += 1
        if not (FOLDER / f"{study}.json").is_file():
            print(f"{study}: nothing is recorded")
            continue
        found = list(differences(recorded(study), metrics_of(report)))
        count += len(found)
        print(f"{study}: {len(found)} figures differ from the recorded ones")
        print("\n".join(f"  {line}" for line in found[:20]))
    if not compared:
        raise SystemExit(f"{folder} holds none of the reports of make evidence; run it first, or name another folder")
    return count


def record(folder: Path) -> None:
    """Replace the recorded figures by those in a folder."""
    for study in STUDIES:
        if not (folder / f"{study}.report").is_dir() and not (FOLDER / f"{study}.json").is_file():
            raise SystemExit(f"{study} is neither recorded nor in {folder}; run make evidence and make evidence-b32")
    for study in STUDIES:
        report = folder / f"{study}.report"
        if report.is_dir():
            text = json.dumps(metrics_of(report), separators=(",", ":")) + "\n"
            (FOLDER / f"{study}.json").write_text(text, "utf-8")
            (FOLDER / f"{study}.md").write_text((report / "report.md").read_text("utf-8"), "utf-8")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("images", "compare", "record"))
    parser.add_argument("folder", type=Path, help="where reports and images are, as out")
    arguments = parser.parse_args()
    if arguments.what == "compare":
        return 1 if compare(arguments.folder) else 0
    act = join_images if arguments.what == "images" else record
    act(arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
