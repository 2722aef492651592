"""Extracts features from the parts of a bundle with the function that an export uses, and lays them out as a table.

The last block of a bundle that merges nothing computes the class token alone where there is one. Its mean patch and
variance are then 0, as `extract_features` has them under a merging schedule; no exit stands there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lraee.bundle.folder import Bundle
from lraee_toolchain.early_exit.features import extract_features
from lraee_toolchain.parts.runner import Chain
from lraee_toolchain.parts.scheduled import ScheduledParts
from lraee_toolchain.ray.answers import Rows
from lraee_toolchain.ray.config import Job
from lraee_toolchain.ray.shards import WRITING


def bundle_chain(bundle: Bundle, *, threads: int) -> Chain:
    """Open the parts of a bundle, merging nothing, as a chain that features are extracted from; its files are verified.

    Args:
        bundle: opened.
        threads: that run one operator.

    Raises:
        BundleError: a file is damaged.
    """
    bundle.verify()
    manifest = bundle.manifest
    labels = np.ascontiguousarray(bundle.label_embeddings.T)
    sigmoid = manifest.probabilities == "sigmoid"
    depth = manifest.tower.blocks
    chain = Chain(bundle.folder, depth, labels, manifest.logit_scale, sigmoid=sigmoid, threads=threads)
    blocks = tuple(Path(manifest.part(name).graph).stem for name in chain.names)
    chain = chain if manifest.saturates else chain.without_saturation()
    unmerged = ScheduledParts(name="none", merged=(0,) * depth, blocks=blocks, tail="tail")
    return chain.under(unmerged, bundle.folder)


class Extract:
    """Extracts what heads, gates and thresholds learn from, at full depth."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        bundle = Bundle(job.bundle)
        self.preprocessing = bundle.manifest.preprocessing
        self._tower = bundle.manifest.tower
        self._chain = bundle_chain(bundle, threads=job.threads)
        self._out, self._token_blocks = job.out, job.settings.token_blocks

    def table(self, rows: Rows) -> tuple[Any, dict[str, list[int]]]:
        """See `lraee_toolchain.ray.answers.Work.table`."""
        pixels = [one for one in rows.decoded() if one is not None]
        columns = rows.columns()
        if not pixels:
            return pa.table(columns), {}
        with tempfile.TemporaryDirectory(prefix=WRITING, dir=self._out) as name:
            folder = Path(name)
            extract_features(
                self._chain,
                np.stack(pixels),
                folder,
                class_token=self._tower.pooling == "cls",
                shards=self._token_blocks,
            )
            shapes = {}
            for path in sorted(folder.glob("*.npy")):
                array = np.load(path)
                shapes[path.stem] = list(array.shape[1:])
                columns[path.stem] = rows.spread(array)
        return pa.table(columns), shapes
