"""Divides a data set by source picture, so that no picture is trained on under one name and tested on under another.

Pictures are ordered by a hash of seed and content, not by a random generator: the split does not depend on file names,
on their order, on the platform or on the version of a library. Crops and other augmentation come after the split.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from lraee.errors import DataError
from lraee_calibration_data.dataset import Dataset


def split(dataset: Dataset, fractions: Mapping[str, float], seed: int) -> dict[str, tuple[int, ...]]:
    """Divide a data set, with the classes of a labelled one spread evenly over the splits.

    Every picture gets a position between 0 and 1, evenly spaced within its class, and the line is cut at the
    fractions: the sizes are right for the whole, and to about one picture for each class.

    Args:
        dataset: Its files are read once for their digests.
        fractions: Share of the source pictures of each split, e.g. `{"train": 0.8, "test": 0.2}`. A sum below 1
            leaves pictures out.
        seed: Another seed gives another division.

    Returns:
        Sorted indices of each split. Files that hold the same picture are in the same split, all of them.

    Raises:
        DataError: The fractions are not above 0 with a sum of at most 1, or a split would be empty.
    """
    if not fractions or min(fractions.values()) <= 0 or sum(fractions.values()) > 1 + 1e-9:
        raise DataError(f"fractions are {dict(fractions)}; wanted numbers above 0 with a sum of at most 1")
    pictures: dict[str, list[int]] = defaultdict(list)
    for index in range(len(dataset)):
        pictures[dataset.digest(index)].append(index)

    strata: dict[str, list[str]] = defaultdict(list)
    for digest, indices in pictures.items():
        strata[min(dataset.samples[index].label or "" for index in indices)].append(digest)
    positions: list[tuple[float, str]] = []
    for label, digests in strata.items():
        offset = _unit_interval(f"{seed}\0{label}")
        digests.sort(key=lambda digest: (_unit_interval(f"{seed}\0{digest}"), digest))
        positions.extend(((rank + offset) / len(digests), digest) for rank, digest in enumerate(digests))
    positions.sort()

    splits: dict[str, tuple[int, ...]] = {}
    share = 0.0
    start = 0
    for name, fraction in fractions.items():
        share += fraction
        end = min(round(share * len(positions)), len(positions))
        if end == start:
            raise DataError(
                f"split {name!r} would be empty: {fraction:g} of the {len(positions)} different pictures "
                f"in {dataset.source}; give more images or a larger fraction"
            )
        splits[name] = tuple(sorted(index for _, digest in positions[start:end] for index in pictures[digest]))
        start = end
    return splits


def check_disjoint(splits: Mapping[str, Dataset]) -> None:
    """Check that no two of several data sets (or subsets) hold the same picture, under whatever name.

    Raises:
        DataError: Two do; the message names them and one picture.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name, dataset in splits.items():
        for index in range(len(dataset)):
            digest = dataset.digest(index)
            other, file = seen.setdefault(digest, (name, dataset.name(index)))
            if other != name:
                raise DataError(
                    f"{other!r} and {name!r} share a picture: {file} is the same as {dataset.name(index)}; "
                    "remove it from one of them, or divide one source with split()"
                )


def _unit_interval(text: str) -> float:
    """Map a text to a number in [0, 1) that looks random and depends on the text alone."""
    content = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(content[:6], "big") / 2**48
