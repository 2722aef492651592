"""Classifies, embeds or extracts features of many images on several cores or machines, with Ray Data.

A list of images is cut into shards. Each shard becomes one Parquet file, written whole or not at all, and a rerun goes
on from those that are there. Workers run the functions that a program runs by itself (`lraee.Model.classify_stream`,
`lraee.Model.run_pixels`, `lraee_toolchain.early_exit.features.extract_features`), so their answers are the same. Images
never pass through Ray: it hands out numbers of shards, and each worker reads its own images and writes its own file.

Needs the extra ``ray``. Modules that import Ray or pyarrow are imported by `api` once it knows that both are installed.

May import: durable, early_exit, parts.
"""

from lraee_toolchain.ray.api import classify, embed, features, read_features
from lraee_toolchain.ray.config import RunSummary, Settings, ShardReport

__all__ = ["RunSummary", "Settings", "ShardReport", "classify", "embed", "features", "read_features"]
