"""Chooses the Fashion-MNIST images that are shipped and packs them: the generator of `fashion_mnist/`.

    python -m lraee_calibration_data.build_archives POOL_ZIP TEST_ZIP OUT

Both inputs hold `<name>/<class>/<id>.png`, made from the training and the test half of Fashion-MNIST. Of each class
the images with the smallest SHA-256 are taken: a choice that depends on nothing but the images. The output is the
same, byte for byte, on every machine: members are sorted, stored without compression (PNG is compressed already) and
dated 1980-01-01. `sample.npy` holds some of the test images decoded, for installs without Pillow.
"""

import argparse
import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from lraee.errors import DataError
from lraee_calibration_data.dataset import open_dataset

POOL_PER_CLASS = 600
TEST_PER_CLASS = 200
SAMPLE_PER_CLASS = 50


def build(source: Path, target: Path, per_class: int) -> tuple[str, ...]:
    """Write `target` with `per_class` images of each class of `source`; give the names of its members.

    Raises:
        DataError: A class has fewer images.
    """
    by_class: dict[str, dict[str, str]] = defaultdict(dict)
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                digest = hashlib.sha256(archive.read(name)).hexdigest()
                by_class[PurePosixPath(name).parent.name][digest] = name
        for label, images in by_class.items():
            if len(images) < per_class:
                raise DataError(f"{source} has {len(images)} images of class {label!r}; wanted {per_class}")
        chosen = sorted(
            images[digest] for images in by_class.values() for digest in sorted(images)[:per_class]
        )  # fmt: skip
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
            for name in chosen:
                member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                member.create_system = 3  # Unix, also when this runs elsewhere
                member.external_attr = 0o644 << 16
                packed.writestr(member, archive.read(name))
    return tuple(chosen)


def build_sample(source: Path, target: Path) -> None:
    """Write the first `SAMPLE_PER_CLASS` images of each class of `source` as uint8 (images, 28, 28)."""
    dataset = open_dataset(source)
    rows = [
        i for label in range(len(dataset.labels)) for i in np.flatnonzero(dataset.targets == label)[:SAMPLE_PER_CLASS]
    ]
    np.save(target, np.stack([dataset.read(int(row))[:, :, 0] for row in rows]), allow_pickle=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and build both archives."""
    parser = argparse.ArgumentParser(prog="python -m lraee_calibration_data.build_archives")
    parser.add_argument("pool_zip", type=Path)
    parser.add_argument("test_zip", type=Path)
    parser.add_argument("out", type=Path, help="folder for pool.zip, test.zip and sample.npy")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    build(options.pool_zip, options.out / "pool.zip", POOL_PER_CLASS)
    build(options.test_zip, options.out / "test.zip", TEST_PER_CLASS)
    build_sample(options.out / "test.zip", options.out / "sample.npy")


if __name__ == "__main__":
    main()
