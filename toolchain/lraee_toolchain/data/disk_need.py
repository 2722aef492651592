"""How much room an export takes in its work folder, from sizes alone, and whether the disk has it.

Counted is what grows with the images: pixels, the towers' features and answers, and what lies there for a while.
Tokens that heads read are not: `lraee_toolchain.early_exit.token_heads.room` grants them what is left. Parts and graphs
are estimated from the tower's weights. Memory does not grow so: all arrays are memory-mapped, and some rows are read
at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lraee.disk import free_bytes
from lraee.errors import ExportError
from lraee_exporters.tower import Tower
from lraee_toolchain.config.options import ExportConfig

GIGABYTE = 10**9

TRAINED = ("heads", "gating", "promise")
"""Splits whose features exits are fitted on."""

TABLE_SPLITS = ("heads", "gating", "evaluation")
"""Splits whose features the comparison table reads."""

TABLE_PRECISIONS = 4
"""Precisions of the comparison table."""

WEIGHT_COPIES = 4
"""Float weights, dynamic, naive and strong INT8 with their observed forms, and the bundle, in float weights."""

TUNING_COPIES = 8
"""More of them where the trunk is tuned: a checkpoint (weights and two moments) and the one that replaces it, the tuned
model, and its float parts."""

SAMPLE_ROWS = 2**14
"""Tokens at most that the strong quantizer keeps of each input of a block."""

SAMPLES = 29
"""What lies there of them together, in multiples of the width: three sets of 7, and the largest input in float64."""

STORED = ("pixels-*", "features-*", "answers-*")
"""Stages of the work folder whose arrays are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the need depends on."""

    rows: Mapping[str, int]
    """Rows of pixels by split, views included."""
    image_size: int
    tokens: int
    """Of the tower, the class token included."""
    blocks: int
    width: int
    embed_dim: int
    labels: int
    class_token: bool
    weights: int
    """Numbers of the tower."""

    @classmethod
    def of(cls, tower: Tower, rows: Mapping[str, int], labels: int) -> Sizes:
        """Take the sizes of a tower.

        Args:
            tower: to be exported.
            rows: by split, only of those that are used.
            labels: number of labels.
        """
        block = 12 * tower.width**2
        return cls(
            rows=rows,
            image_size=tower.preprocessing.image_size,
            tokens=tower.tokens,
            blocks=tower.depth,
            width=tower.width,
            embed_dim=tower.embed_dim,
            labels=labels,
            class_token=tower.has_class_token,
            weights=tower.depth * block,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNeed:
    """Bytes in the work folder, by what takes them."""

    pixels: int
    features: int
    """Features and answers of every precision."""
    meanwhile: int
    """The most that lies there for a while: tokens of the calibration images, logits of the gating images."""
    weights: int

    @property
    def total(self) -> int:
        """The most that lies there at one time."""
        return self.pixels + self.features + self.meanwhile + self.weights

    @property
    def words(self) -> str:
        """Say what takes the room."""
        arrays = f"{gigabytes(self.pixels)} of pixels, {gigabytes(self.features)} of features"
        return (
            f"{gigabytes(self.total)}: {arrays}, {gigabytes(self.meanwhile + self.weights)} of other arrays and weights"
        )


def disk_need(sizes: Sizes, config: ExportConfig) -> DiskNeed:
    """Count the bytes that an export writes into its work folder.

    Args:
        sizes: of images and tower.
        config: says which towers run on which splits.
    """
    rows = sizes.rows
    an_answer = 4 * (sizes.embed_dim + sizes.labels)
    an_image = 4 * sizes.blocks * (sizes.width * (1 + sizes.class_token) + 1) + an_answer

    def of(*splits: str) -> int:
        return sum(rows.get(split, 0) for split in splits)

    trains = config.exits != "none"
    main = {*TRAINED} if trains else set()
    read = main | {*TABLE_SPLITS} if config.ablations else main
    features = an_image * of(*read) * (1 + len(config.merge_tokens))  # without merging, and under each schedule
    if config.ablations:
        features += an_image * (TABLE_PRECISIONS - 1) * of(*TABLE_SPLITS)
    answers = an_answer * of(*main, "evaluation")
    if trains and config.heads.teacher_views > 1:  # means over several views
        answers += an_answer * of("heads", "gating")
    if config.adapt is not None:  # of the trunk as given, too
        answers *= 2
    if config.precisions or config.ablations:  # every precision, INT8 of the trunk as given, and as usually quantized
        more = (config.adapt is not None) + config.no_saturation
        answers += an_answer * (TABLE_PRECISIONS - 1 + more) * of("evaluation")
    strong = config.quantizer == "strong" or config.precisions or config.ablations
    kept = 0 if config.precision == "fp32" else (2 if strong else 1)
    tokens = 4 * sizes.tokens * sizes.width * of("calibration") * kept
    if kept == 2:
        tokens += 4 * SAMPLES * sizes.width * min(SAMPLE_ROWS, sizes.tokens * of("calibration"))
    logits = 4 * sizes.labels * of("gating") if trains else 0
    return DiskNeed(
        pixels=3 * sizes.image_size**2 * of(*rows),
        features=features + answers,
        meanwhile=max(tokens, logits),
        weights=4 * (WEIGHT_COPIES + (0 if config.adapt is None else TUNING_COPIES)) * sizes.weights,
    )


def arrays_there(work: Path) -> int:
    """Count the bytes of finished arrays in a work folder, which a resumed export does not write again."""
    found = (path for stages in STORED for path in work.glob(f"{stages}/*.npy"))
    return sum(path.stat().st_size for path in found if not path.name.startswith("tokens_"))


def bytes_left(need: DiskNeed, work: Path) -> int:
    """Count what an export has still to write."""
    return max(need.total - arrays_there(work), 0)


def check_room(need: DiskNeed, work: Path, *, ablations: bool) -> str | None:
    """Refuse an export whose work folder has too little room; give a sentence on it where it takes a gigabyte or more.

    Args:
        need: of the whole export.
        work: folder; what lies there already is not needed again.
        ablations: whether the comparison table takes most of it.

    Raises:
        ExportError: the disk has less room.
    """
    left, free = bytes_left(need, work), free_bytes(work)
    if free is not None and left > free:
        without = "; without --ablations it needs less" if ablations else ""
        raise ExportError(
            f"{work} has {gigabytes(free)} free, this export needs {gigabytes(left)} more there (of {need.words}); "
            f"make room or give another --work{without}"
        )
    if left < GIGABYTE:
        return None
    return f"the work folder takes up to {need.words}" + ("" if free is None else f"; {gigabytes(free)} are free")


def gigabytes(size_bytes: int) -> str:
    """Write a size for people.

    >>> gigabytes(2_340_000_000), gigabytes(150_000_000), gigabytes(7_000_000)
    ('2.3 GB', '0.2 GB', '7 MB')
    """
    large = size_bytes >= GIGABYTE // 10
    return f"{size_bytes / GIGABYTE:.1f} GB" if large else f"{math.ceil(size_bytes / 10**6)} MB"
