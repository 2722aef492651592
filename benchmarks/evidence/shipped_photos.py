"""Put a photo bundle into the package, and record what its export measured.

    python benchmarks/evidence/shipped_photos.py out/shipped/photo-clip.lraee

`make bundle-photos` exports it. The record, photo_clip.json, belongs to the bundle by the hash of its manifest; a test
compares them, and the model card's table is made from it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from part_records import ran_on, read_json, write_whole

from lraee.bundle.folder import SHIPPED, Bundle
from lraee.commands.info import size_bytes

NAME = "photo-clip"
RECORD = Path(__file__).with_name("photo_clip.json")

LARGEST_BYTES = 26_000_000
"""Of the shipped bundle."""


def record_of(bundle: Bundle, metrics: dict[str, Any]) -> dict[str, Any]:
    """Keep what the model card shows.

    Args:
        bundle: that was exported.
        metrics: content of its report's ``metrics.json``.
    """
    manifest, evaluation = bundle.manifest, metrics["evaluation"]
    rows = [row for row in evaluation["rows"] if row["kind"] in ("full", "adaptive")]
    return {
        "manifest_sha256": bundle.manifest_sha256,
        "size_bytes": size_bytes(manifest),
        "exits": [{"block": exit.block, "reads": exit.reads, "accuracy": exit.accuracy} for exit in manifest.exits],
        "images": evaluation["images"],
        "given": evaluation["given"],
        "rows": rows,
        "adaptation": metrics["adaptation"],
        **ran_on(),
    }


def main() -> None:
    """Check the size, write the record and replace the shipped bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    path = parser.parse_args().bundle
    bundle = Bundle(path)
    bundle.verify()
    size = size_bytes(bundle.manifest)
    if size > LARGEST_BYTES:
        parser.error(f"{path} has {size:,} bytes, at most {LARGEST_BYTES:,} are shipped; export fewer exits")
    record = record_of(bundle, dict(read_json(path.with_suffix(".report") / "metrics.json")))
    target = SHIPPED / f"{NAME}.lraee"
    fresh = target.with_name(f".{target.name}.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(path, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    write_whole(RECORD, json.dumps(record, indent=1) + "\n")
    print(f"{target}: {size / 1e6:.1f} MB, recorded in {RECORD.name}")


if __name__ == "__main__":
    main()
