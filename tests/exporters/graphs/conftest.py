"""What tests of several parts compare with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lraee_exporters.graphs.pooling.merging import MergeForm

Array = npt.NDArray[Any]


@pytest.fixture
def merged_by_definition() -> Callable[[dict[str, Array], MergeForm], tuple[Array, Array]]:
    """Merges `tokens` by `keys` and `sizes`, as an exit part has them, and gives tokens and sizes."""
    return merged


def merged(given: dict[str, Array], form: MergeForm) -> tuple[Array, Array]:
    """arXiv 2210.09461, section 3, one image and one pair at a time, in float64."""
    images, sizes_left = [], []
    for image, tokens in enumerate(given["tokens"].astype(np.float64)):
        keys = given["keys"][:, image].astype(np.float64).mean(axis=1)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        sizes = given["sizes"][image, :, 0] if "sizes" in given else np.ones(form.token_count)
        firsts, seconds = list(range(0, form.token_count, 2)), list(range(1, form.token_count, 2))
        pairs = []
        for first in firsts:
            if first == 0 and form.class_token:
                continue
            similarities = [float(keys[first] @ keys[second]) for second in seconds]
            pairs.append((-max(similarities), first, seconds[int(np.argmax(similarities))]))
        goes = {first: partner for _, first, partner in sorted(pairs)[: form.merged]}
        kept = [first for first in firsts if first not in goes]
        members = [[token] for token in kept]
        members += [[second, *(first for first, partner in goes.items() if partner == second)] for second in seconds]
        images.append([np.average(tokens[group], axis=0, weights=sizes[group]) for group in members])
        sizes_left.append([sizes[group].sum() for group in members])
    return np.array(images), np.array(sizes_left)[..., None]
