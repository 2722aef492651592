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
from lraee_toolchain.early_exit.token_heads.sources import shard_name
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
        self._tower, self._labels = bundle.manifest.tower, bundle.manifest.labels.count
        self._chain = bundle_chain(bundle, threads=job.threads)
        self._out, self._token_blocks = job.out, job.settings.token_blocks

    def table(self, rows: Rows) -> tuple[Any, dict[str, list[int]]]:
        """See `lraee_toolchain.ray.answers.Work.table`."""
        pixels = [one for one in rows.decoded() if one is not None]
        shapes = self._shapes()
        arrays = {name: np.empty((0, *shape), _type_of(name)) for name, shape in shapes.items()}
        if pixels:
            with tempfile.TemporaryDirectory(prefix=WRITING, dir=self._out) as name:
                folder, class_token = Path(name), "class_token" in shapes
                extract_features(
                    self._chain, np.stack(pixels), folder, class_token=class_token, shards=self._token_blocks
                )
                arrays = {name: np.load(folder / f"{name}.npy") for name in shapes}
        columns = {name: rows.spread(array) for name, array in arrays.items()}
        return pa.table({**rows.columns(), **columns}), shapes

    def _shapes(self) -> dict[str, list[int]]:
        """Give the shape of each array without its first axis, images."""
        tower = self._tower
        shapes = {"patch_mean": [tower.blocks, tower.width], "variance": [tower.blocks]}
        shapes |= {"class_token": [tower.blocks, tower.width]} if tower.pooling == "cls" else {}
        shapes |= {"embedding": [tower.embed_dim], "probabilities": [self._labels]}
        return shapes | {shard_name(block): [tower.tokens, tower.width] for block in self._token_blocks}


def _type_of(name: str) -> type[np.floating[Any]]:
    return np.float16 if name.startswith("tokens_") else np.float32
