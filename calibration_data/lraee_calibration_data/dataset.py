"""Reads the images of a folder or a zip as one sequence, labelled by their folders or not.

The same loader serves calibration (photos, no labels), training and evaluation (labels). Files are read when asked
for; only names and digests are kept.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError, ImageError
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import Pixels, read_image
from lraee_calibration_data.digest import picture_digest
from lraee_calibration_data.files import Files, open_files
from lraee_calibration_data.image_formats import why_unreadable
from lraee_calibration_data.layout import layout_of

Unreadable = Literal["skip", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Names one image of a data set, with its label."""

    key: str
    """Path relative to the folder or inside the zip, with forward slashes."""
    label: str | None
    """Name of the image's folder, or None if the data set is not labelled."""


class Dataset:
    """Holds a sequence of images with a fixed order. It may be read from several threads.

    Attributes:
        source: The folder or zip.
        samples: What it holds, sorted by key.
        labels: Sorted names of the classes; empty if unlabelled. A subset keeps those of the whole, so that a
            class has the same index in every split.
        unreadable: What `load_pixels` does with files that cannot be decoded.
        obstacle: Where there are folders that look like classes, the images that do not lie in them, so that nothing
            is labelled; otherwise empty.
    """

    def __init__(
        self,
        source: Path,
        files: Files,
        samples: tuple[Sample, ...],
        labels: tuple[str, ...],
        unreadable: Unreadable,
        obstacle: str = "",
    ) -> None:
        """Hold what `open_dataset` found; call that instead."""
        self.source = source
        self.samples = samples
        self.labels = labels
        self.unreadable: Unreadable = unreadable
        self.obstacle = obstacle
        self._files = files
        self._digests: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"Dataset({str(self.source)!r}, {len(self)} images, {len(self.labels)} labels)"

    @property
    def targets(self) -> NDArray[np.int64]:
        """int64 (len,): the index of each sample's label in `labels`; raises DataError if there are none."""
        if not self.labels:
            met = f"; {self.obstacle}" if self.obstacle else ""
            raise DataError(
                f"{self.source} has no labels{met}; put the images into one folder per class: <class>/<image>, "
                "at least two classes, and no image beside the class folders"
            )
        position = {label: index for index, label in enumerate(self.labels)}
        return np.array([position[sample.label or ""] for sample in self.samples], dtype=np.int64)

    @property
    def passed_over(self) -> Mapping[str, int]:
        """The number of files of the source that are not images, by the end of their names, the most first."""
        return self._files.passed_over

    @property
    def without_images(self) -> tuple[str, ...]:
        """Folders of the source that hold no image, at any depth; of nested ones the outermost."""
        return self._files.without_images

    @property
    def fingerprint(self) -> str:
        """SHA-256 over keys, labels and picture digests: equal for a folder and a zip of the same images."""
        state = hashlib.sha256("\0".join(self.labels).encode())
        for index, sample in enumerate(self.samples):
            state.update(f"\n{sample.key}\0{sample.label or ''}\0{self.digest(index)}".encode(errors="surrogateescape"))
        return state.hexdigest()

    def name(self, index: int) -> str:
        """Give what messages call a sample: the path of its file, or `archive.zip:member`."""
        return f"{self.source}{'/' if self.source.is_dir() else ':'}{self.samples[index].key}"

    def read_bytes(self, index: int) -> bytes:
        """Read the content of a file as it is stored; raises ImageError naming it."""
        return self._files.read(self.samples[index].key)

    def read(self, index: int) -> Pixels:
        """Decode one image: uint8 (height, width, 3), RGB; raises ImageError naming the file."""
        return read_image(self.read_bytes(index), name=self.name(index))

    def digest(self, index: int) -> str:
        """Compute the SHA-256, in hexadecimal, that tells whether two files hold the same picture; see
        `picture_digest`.

        Raises:
            ImageError: The file cannot be read from disk or archive, and the data set refuses such files. If it
                skips them, each counts as another picture.
        """
        key = self.samples[index].key
        if key not in self._digests:
            try:
                content = self.read_bytes(index)
            except ImageError as error:
                if self.unreadable == "refuse":
                    raise ImageError(f"{error}; remove the file", setting="unreadable") from error
                content = f"unreadable {self.name(index)}".encode(errors="surrogateescape")
            self._digests[key] = picture_digest(content)
        return self._digests[key]

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """Select the samples at `indices`, in that order; the subset shares files and digests with this data set."""
        chosen = copy(self)
        chosen.samples = tuple(self.samples[index] for index in indices)
        return chosen

    def batches(self, batch_size: int) -> Iterator[range]:
        """Yield consecutive index ranges of at most `batch_size`, to pass to `load_pixels`."""
        for start in range(0, len(self), batch_size):
            yield range(start, min(start + batch_size, len(self)))


class Loaded(NamedTuple):
    """Holds what `load_pixels` gives."""

    pixels: Pixels
    """uint8 (len(indices), image_size, image_size, 3), RGB."""
    indices: tuple[int, ...]
    """The samples that were read, in the order asked for."""
    skipped: tuple[tuple[str, str], ...]
    """Key and reason of each sample that was not."""


def open_dataset(source: Path, *, unreadable: Unreadable = "refuse") -> Dataset:
    """Open a folder or a zip of images, at any depth; `lraee_calibration_data.image_formats` lists what is one.

    Images in at least two folders, none of which contains another, are labelled by the name of their folder:
    `<anything>/<class>/<image>`.

    Args:
        source: A folder or a zip.
        unreadable: What `load_pixels` does with a file that cannot be decoded: `refuse` raises, `skip` omits it
            and names it.

    Raises:
        DataError: The source is missing, empty, encrypted, or neither folder nor zip; a folder in it may not be read,
            or a link leads nowhere.
    """
    files = open_files(source)
    layout = layout_of(files.keys)
    samples = tuple(Sample(key=key, label=label) for key, label in zip(files.keys, layout.labels, strict=True))
    labels = tuple(sorted({label for label in layout.labels if label is not None}))
    return Dataset(source, files, samples, labels, unreadable, obstacle=layout.obstacle)


def with_reason(error: ImageError, key: str) -> ImageError:
    """Extend the error of a file that could not be read with what this Pillow lacks where that is the cause."""
    reason = why_unreadable(key)
    return ImageError(f"{error}; {reason}") if reason else error


def load_pixels(dataset: Dataset, preprocessing: Preprocessing, indices: Sequence[int] | None = None) -> Loaded:
    """Read and preprocess some images, by default all; memory grows with their number (0.15 MB each at 224).

    Raises:
        DataError: A file cannot be decoded and the data set refuses such files.
    """
    wanted = range(len(dataset)) if indices is None else indices
    size = preprocessing.image_size
    pixels = np.empty((len(wanted), size, size, 3), dtype=np.uint8)
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for index in wanted:
        try:
            pixels[len(kept)] = preprocess(dataset.read_bytes(index), preprocessing, name=dataset.name(index))
        except ImageError as error:
            named = with_reason(error, dataset.samples[index].key)
            if dataset.unreadable == "refuse":
                raise DataError(f"{named}; remove the file", setting="unreadable") from error
            skipped.append((dataset.samples[index].key, str(named)))
        else:
            kept.append(index)
    return Loaded(pixels[: len(kept)], tuple(kept), tuple(skipped))
