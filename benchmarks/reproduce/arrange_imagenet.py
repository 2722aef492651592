"""Lay a copy of ImageNet-1K (ILSVRC2012) out for `lraee-export`: train, calibration and val, a folder for each class.

    python arrange_imagenet.py --train TRAIN --val VAL [--truth TRUTH] --out imagenet

Folders are named by WordNet id (`n01440764`), which `lraee-export --labels imagenet` matches with CLIP's class names.
Of each class a share of the training images is taken, chosen by a hash of the file's name, and one more for
calibration. A picture that was taken before, for val or for another class, is passed over: no picture serves two
purposes.

Needs the packages of the base install of `lraee` and the standard library. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lraee.errors import DataError
from lraee_calibration_data import imagenet_synsets
from lraee_calibration_data.digest import picture_digest

SYNSETS = frozenset(imagenet_synsets())

SHARE = 0.1
"""Of the training images: 128,117 of 1,281,167 in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image file, read when asked for and while its archive is open."""

    name: str
    """`n01440764_18.JPEG`, `ILSVRC2012_val_00000293.JPEG`."""
    read: Callable[[], bytes]


@dataclass(slots=True)
class Layout:
    """The folder that is being written, and what is in it."""

    root: Path
    counts: dict[str, int] = field(default_factory=dict)
    """Images by purpose."""
    digests: set[str] = field(default_factory=set)
    """Of all pictures that serve a purpose."""
    passed_over: int = 0
    """Training images that were not taken because their picture serves one already."""

    def take(self, picture: Picture, purpose: str, synset: str) -> bool:
        """Write one image to ``<purpose>/<synset>/``, unless the picture was taken before."""
        content = picture.read()
        if self.remember(content):
            self.passed_over += 1
            return False
        self.write(picture.name, content, purpose, synset)
        return True

    def remember(self, content: bytes) -> bool:
        """Note that a picture is used; gives whether it was known."""
        digest = picture_digest(content)
        known = digest in self.digests
        self.digests.add(digest)
        return known

    def write(self, name: str, content: bytes, purpose: str, synset: str) -> None:
        """Write one image to ``<purpose>/<synset>/``."""
        folder = self.root / purpose / synset
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        self.counts[purpose] = self.counts.get(purpose, 0) + 1


def in_folder(folder: Path) -> list[Picture]:
    """The JPEG files of a folder, by name."""
    return [Picture(name=path.name, read=path.read_bytes) for path in sorted(folder.iterdir()) if is_jpeg(path.name)]


def in_tar(archive: tarfile.TarFile) -> list[Picture]:
    """The JPEG files of an archive, by name."""

    def reader(member: tarfile.TarInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            file = archive.extractfile(member)
            assert file is not None  # only files are listed
            return file.read()

        return read

    members = [member for member in archive if member.isfile() and is_jpeg(member.name)]
    pictures = [Picture(name=PurePosixPath(member.name).name, read=reader(member)) for member in members]
    return sorted(pictures, key=lambda picture: picture.name)


def is_jpeg(name: str) -> bool:
    """Whether a name ends like a JPEG's, and is not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in {".jpeg", ".jpg"} and not path.name.startswith(".")


def classes_of(source: Path) -> Iterator[tuple[str, list[Picture]]]:
    """WordNet id and images of each class.

    Args:
        source: ``ILSVRC2012_img_train.tar``, or a folder with a folder or a .tar for each class.

    Raises:
        DataError: it is neither, or holds something that is no class of ImageNet.
    """
    if source.is_file():
        with tarfile.open(source) as outer:
            for member in outer:
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    yield checked(PurePosixPath(member.name).stem, source), in_tar(inner)
    elif source.is_dir():
        for path in sorted(source.iterdir()):
            if path.is_dir():
                yield checked(path.name, source), in_folder(path)
            elif path.suffix == ".tar":
                with tarfile.open(path) as archive:
                    yield checked(path.stem, source), in_tar(archive)
    else:
        raise DataError(f"{source} does not exist; give ILSVRC2012_img_train.tar or the folder it was unpacked to")


def checked(synset: str, source: Path) -> str:
    """The WordNet id, if it is one of ImageNet-1K's."""
    if synset not in SYNSETS:
        raise DataError(
            f"{source} holds {synset!r}, which is none of the 1,000 WordNet ids of ImageNet-1K; move it away"
        )
    return synset


def read_truth(path: Path) -> dict[str, str]:
    """WordNet id by the name of the validation image, without suffix.

    Args:
        path: ``LOC_val_solution.csv`` of the Kaggle distribution, or a text with one WordNet id a line, in the order of
            the images.

    Raises:
        DataError: it is neither.
    """
    text = path.read_text("utf-8")
    if text.startswith("ImageId,PredictionString"):
        rows = csv.DictReader(text.splitlines())
        return {row["ImageId"]: checked(row["PredictionString"].split()[0], path) for row in rows}
    lines = text.split()
    if lines and all(re.fullmatch(r"[0-9]{1,4}", line) for line in lines):
        raise DataError(
            f"{path} has numbers, whose meaning stands in the devkit's meta.mat; turn them into WordNet ids first, as "
            "the README next to this script shows, or give LOC_val_solution.csv"
        )
    return {f"ILSVRC2012_val_{row:08d}": checked(line, path) for row, line in enumerate(lines, start=1)}


def arrange_val(source: Path, truth: Path | None, layout: Layout) -> None:
    """Sort the validation images, or link to a folder where they are sorted already.

    Raises:
        DataError: the source is missing, or an image has no truth.
    """
    if source.is_dir() and not in_folder(source):
        for _, pictures in classes_of(source):
            for picture in pictures:
                layout.remember(picture.read())
            layout.counts["val"] = layout.counts.get("val", 0) + len(pictures)
        (layout.root / "val").symlink_to(source.resolve())
        return
    if truth is None:
        raise DataError(f"the images of {source} are not in class folders; say with --truth which is of which class")
    synsets = read_truth(truth)
    if source.is_dir():
        sort_val(in_folder(source), synsets, truth, layout)
    elif source.is_file():
        with tarfile.open(source) as archive:
            sort_val(in_tar(archive), synsets, truth, layout)
    else:
        raise DataError(f"{source} does not exist; give ILSVRC2012_img_val.tar or the folder it was unpacked to")


def sort_val(pictures: Sequence[Picture], synsets: Mapping[str, str], truth: Path, layout: Layout) -> None:
    """Write validation images below their class; all of them, also a picture that is there twice."""
    for picture in pictures:
        synset = synsets.get(PurePosixPath(picture.name).stem)
        if synset is None:
            raise DataError(f"{truth} does not say of which class {picture.name} is; it belongs to other images")
        content = picture.read()
        layout.remember(content)
        layout.write(picture.name, content, "val", synset)


def arrange_train(source: Path, layout: Layout, *, share: float, calibration: int) -> None:
    """Take `calibration` images and then `share` of each class, in the order of a hash of their names."""
    for synset, pictures in classes_of(source):
        wanted = {"calibration": calibration, "train": max(1, round(share * len(pictures)))}
        for picture in sorted(pictures, key=lambda picture: hashlib.sha256(picture.name.encode()).digest()):
            purpose = next((name for name, count in wanted.items() if count > 0), None)
            if purpose is None:
                break
            wanted[purpose] -= layout.take(picture, purpose, synset)


def arrange(train: Path, val: Path, truth: Path | None, out: Path, *, share: float, calibration: int) -> Layout:
    """Write the whole layout next to `out` and give it its name when it is complete.

    Raises:
        DataError: a source is missing or damaged, or `out` exists.
    """
    if out.exists():
        raise DataError(f"{out} exists; remove it, or choose another --out")
    if not 0 < share <= 1:
        raise DataError(f"--share is {share}, wanted above 0 and up to 1")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    layout = Layout(partial)
    try:
        arrange_val(val, truth, layout)
        arrange_train(train, layout, share=share, calibration=calibration)
    except tarfile.TarError as error:
        raise DataError(f"an archive is damaged or no tar: {error}; download it again") from error
    partial.rename(out)
    return layout


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, arrange, say what came out."""
    parser = argparse.ArgumentParser(prog="arrange_imagenet.py", description="Lay ImageNet-1K out for lraee-export.")
    parser.add_argument("--train", type=Path, required=True, help="ILSVRC2012_img_train.tar, or where it was unpacked")
    parser.add_argument("--val", type=Path, required=True, help="ILSVRC2012_img_val.tar, or where it was unpacked")
    parser.add_argument("--truth", type=Path, help="LOC_val_solution.csv, or one WordNet id a line; for unsorted val")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--share", type=float, default=SHARE, help="of the training images of each class")
    parser.add_argument("--calibration", type=int, default=1, help="training images of each class for calibration")
    options = parser.parse_args(arguments)
    try:
        layout = arrange(**vars(options))
    except (DataError, OSError) as error:
        sys.exit(f"arrange_imagenet.py: {error}")
    for purpose, count in sorted(layout.counts.items()):
        print(f"{options.out / purpose}: {count:,} images")
    print(f"passed over, because the picture was taken already: {layout.passed_over:,}")


if __name__ == "__main__":
    main()
