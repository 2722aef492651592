"""Write the evaluation images that an export held back into an archive, for `lraee-bench` and for the device.

Exits are surer of images that they learned from. A latency measured on those would be too low, so whoever times the
bundle needs the others as files.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Collection
from pathlib import Path

from lraee_calibration_data import Dataset

ARCHIVE = "images.zip"

RECORD = "evaluation.json"


def save_held_back(dataset: Dataset, folder: Path, *, skipped: Collection[str] = ()) -> None:
    """Write ``images.zip``, with a folder for each label, and ``evaluation.json``, which names where each came from.

    Members are called by number, since a file's name may be none that a zip can hold. The same images give the same
    bytes.

    Args:
        dataset: labelled images that were held back.
        folder: empty.
        skipped: paths in the source of images that could not be decoded; they are left out.

    Raises:
        ImageError: a file cannot be read any more.
    """
    names = {}
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:  # photos are compressed already
        for index, sample in enumerate(dataset.samples):
            if sample.key in skipped:
                continue
            name = f"{sample.label}/{index:06}{os.path.splitext(sample.key)[1].lower()}"
            archive.writestr(zipfile.ZipInfo(name), dataset.read_bytes(index))
            names[name] = sample.key
    record = {"source": dataset.source.name, "images": names}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
