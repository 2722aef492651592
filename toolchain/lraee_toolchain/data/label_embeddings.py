"""Read the labels' embeddings from a file, for an image tower whose text tower is not in the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.errors import LabelsError


def read_label_embeddings(path: Path, names: Sequence[str], embed_dim: int) -> NDArray[np.float32]:
    """Read one embedding a label, in the order of the labels, and scale each to unit length.

    Args:
        path: `.npy` file of numbers, (labels, embed_dim); opened without pickles.
        names: the labels.
        embed_dim: length of the image tower's embedding.

    Returns:
        float32 (labels, embed_dim), rows of unit length.

    Raises:
        LabelsError: The file is missing or no such array, or a row is zero or not finite.
    """
    try:
        embeddings = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LabelsError(
            f"--label-embeddings {path} cannot be read as an array; wanted a .npy file with {len(names)} rows of "
            f"{embed_dim} numbers, as numpy.save writes it"
        ) from error
    wanted = f"one row of {embed_dim} numbers for each of the {len(names)} labels of --labels"
    if not isinstance(embeddings, np.ndarray):
        raise LabelsError(f"--label-embeddings {path} holds several arrays; wanted one .npy with {wanted}")
    if embeddings.dtype.kind not in "fiu" or embeddings.shape != (len(names), embed_dim):
        raise LabelsError(f"--label-embeddings {path} holds {embeddings.dtype} {embeddings.shape}, wanted {wanted}")
    rows = embeddings.astype(np.float64)  # squares of large float32 numbers are finite there
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if unusable := np.flatnonzero(~(np.isfinite(length) & (length > 0))).tolist():
        name = names[unusable[0]]
        raise LabelsError(
            f"--label-embeddings {path}: the row of {name!r} is zero or not finite; embed the labels again"
        )
    unit: NDArray[np.float32] = (rows / length).astype(np.float32)
    return unit
