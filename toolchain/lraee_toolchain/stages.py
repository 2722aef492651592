"""The results that an export and its report share: model, pixels, parts, cached features, noise."""

from __future__ import annotations

import dataclasses
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lraee.bundle.strict_json import read_json, write_json
from lraee_calibration_data import Dataset
from lraee_exporters.graphs.exit import HEAD_INPUTS, TOKEN_INPUTS, flops_of_exit
from lraee_exporters.int8.linear import ActivationRange
from lraee_exporters.labels import embed_labels
from lraee_toolchain.array_file import save_array
from lraee_toolchain.config import Precision
from lraee_toolchain.data.disk_need import bytes_left
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.early_exit.exits import candidates
from lraee_toolchain.early_exit.features import (
    Teacher,
    extract_embeddings,
    extract_features,
    load_features,
    load_teacher,
)
from lraee_toolchain.early_exit.task import Costs, ExitTask, FloatArray, Material
from lraee_toolchain.early_exit.token_heads.room import GIGABYTE, TokenRoom
from lraee_toolchain.early_exit.token_heads.saved import load_heads
from lraee_toolchain.early_exit.token_heads.sources import TowerTokens, shard_bytes
from lraee_toolchain.inputs import Inputs
from lraee_toolchain.parts.build import build_float, load_parts
from lraee_toolchain.parts.runner import Chain
from lraee_toolchain.parts.text import build_text_part
from lraee_toolchain.quantization.calibration import calibrate
from lraee_toolchain.quantization.dynamic import build_dynamic
from lraee_toolchain.quantization.noise import NoiseProfile, diagnose
from lraee_toolchain.quantization.quantizers import build_int8, build_int8_strong

NOISE_IMAGES = 512
"""Images of the gating split that the noise profile is measured on."""


class Stages(Inputs):
    """What is made from the inputs of an export, each result computed when it is first asked for and kept on disk."""

    learned_heads: Path | None = None
    """Folder with the exit heads that learned with the trunk, where it was tuned."""

    @cached_property
    def text_folder(self) -> Path | None:
        """The text tower's part, or None without one."""
        precision = self.config.text
        if precision == "none":
            return None
        inputs = {
            "weights": [self.fingerprint, self.model.source_sha256],
            "labels": dataclasses.asdict(self.label_set),
            "precision": precision,
        }
        return self.work.stage(
            "text", inputs, lambda folder: build_text_part(self.model, self.label_set, precision, folder)
        )

    @cached_property
    def label_folder(self) -> Path:
        """The labels' embeddings as a file."""
        key: dict[str, Any] = {"tower": self.fingerprint, "labels": dataclasses.asdict(self.label_set)}
        given = self.given_labels
        if given is not None:
            key |= {"given": self.given_labels_sha256}

        def embed(folder: Path) -> None:
            save_array(folder / "labels.npy", embed_labels(self.model, self.label_set) if given is None else given)

        return self.work.stage("labels", key, embed)

    @cached_property
    def labels(self) -> FloatArray:
        """(labels, embed_dim) unit embeddings."""
        return np.asarray(np.load(self.label_folder / "labels.npy"))

    @cached_property
    def float_parts(self) -> Path:
        """The tower's float32 parts."""
        return self.work.stage("float", {"tower": self.fingerprint}, lambda folder: build_float(self.tower, folder))

    def forget_torch(self) -> None:
        """Free the torch model, half a gigabyte, once text, labels and float parts are made and parity is proved."""
        _ = self.text_folder, self.labels, self.float_parts
        self.model = dataclasses.replace(self.model, torch_model=None)

    def chain(self, parts: Path, *, threads: int | None = None) -> Chain:
        """Open the tower of a parts folder."""
        labels = np.ascontiguousarray(self.labels.T)
        sigmoid = self.tower.logit_bias is not None
        return Chain(parts, self.tower.depth, labels, self.tower.logit_scale, sigmoid=sigmoid, threads=threads)

    def parts(self, precision: Precision) -> Path:
        """Build the tower's parts at one precision."""
        if precision == "FP32":
            return self.float_parts
        float_parts = self.float_parts
        if precision == "dynamic INT8":
            return self.work.stage(
                "dynamic", {"parts": float_parts.name}, lambda folder: build_dynamic(float_parts, folder)
            )
        config = self.config
        pixels = self.pixels(self.splits.calibration, views=self.splits.views)
        if precision == "strong INT8":
            return self.work.stage(
                "int8",
                {"parts": float_parts.name, "pixels": pixels.name, "quantizer": "strong"},
                lambda folder: build_int8_strong(
                    self.tower,
                    self.chain(float_parts),
                    load_pixel_set(pixels).pixels,
                    folder,
                    advance=self.progress.steps(self.tower.depth),
                ),
            )
        method = {"method": config.ranges, "percentile": config.percentile}

        def find_ranges(folder: Path) -> None:
            images = load_pixel_set(pixels).pixels
            found = calibrate(
                self.chain(float_parts), images, folder, method=config.ranges, percentile=config.percentile
            )
            write_json(found, folder / "ranges.json")

        def build(folder: Path) -> None:
            build_int8(self.tower, read_json(dict[str, ActivationRange], ranges / "ranges.json"), folder)

        inputs = {"parts": float_parts.name, "pixels": pixels.name, **method}
        ranges = self.work.stage("ranges", inputs, find_ranges)
        return self.work.stage("int8", {"ranges": ranges.name, "quantizer": "naive"}, build)

    def material(self, dataset: Dataset, tower_parts: Path, *, views: int, tokens: bool = False) -> Material:
        """Extract a split's features from a tower, with the float tower's answers.

        Args:
            dataset: the split.
            tower_parts: the tower.
            views: of each image.
            tokens: whether heads may read all tokens, which lie on disk where `token_room` grants it.
        """
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels)
        key: dict[str, Any] = {"parts": tower_parts.name, "pixels": pixels.name, "labels": self.label_folder.name}
        shards = self._shards(key, len(rows.pixels)) if tokens else ()
        if shards:
            key["tokens"] = shards

        def extract(folder: Path) -> None:
            extract_features(
                self.chain(tower_parts),
                rows.pixels,
                folder,
                class_token=self.tower.has_class_token,
                shards=shards,
                advance=self.progress.steps(len(rows.pixels)),
            )

        features = load_features(self.work.stage("features", key, extract))
        if tokens and not shards:
            features = dataclasses.replace(features, tokens=TowerTokens(self.chain(tower_parts), rows.pixels))
        teacher = self.answers(dataset, self.float_parts, views=views)
        classes = None
        if self.supervision == "labels" and dataset.labels:
            classes = self.classes(dataset)[rows.source]
        return Material(features=features, teacher=teacher, classes=classes)

    @cached_property
    def token_room(self) -> TokenRoom:
        """What decides which tokens lie on disk, where everything else that the export writes has room first."""
        root = self.work.root
        return TokenRoom(
            round(self.config.disk_limit * GIGABYTE),
            lambda: shutil.disk_usage(root).free - bytes_left(self.disk_need, root),
            self.progress.notice,
        )

    @cached_property
    def token_blocks(self) -> tuple[int, ...]:
        """Blocks after which heads may read all tokens; none where no head does, or where weights are random."""
        config, depth = self.config, self.tower.depth
        if config.reads not in ("auto", *TOKEN_INPUTS) or (config.reads == "auto" and self.is_random):
            return ()
        blocks = set(candidates(config.exits, depth, is_random=self.is_random))
        if config.ablations and config.reads in TOKEN_INPUTS:
            blocks |= set(candidates("auto", depth))  # PABEE exits after each of them
        return tuple(sorted(blocks))

    def _shards(self, key: dict[str, Any], images: int) -> tuple[int, ...]:
        """List the blocks whose tokens are kept on disk with the features of `key`: all of `token_blocks`, or none."""
        blocks = self.token_blocks
        size = shard_bytes(images, len(blocks), tokens=self.tower.tokens, width=self.tower.width)
        place = self.work.place("features", {**key, "tokens": blocks})
        what = f"{images:,} images after {len(blocks)} blocks"
        granted = self.token_room.grant(place.name, size, what=what, found=place.is_dir())
        return blocks if granted else ()

    def answers(self, dataset: Dataset, parts: Path, *, views: int) -> Teacher:
        """Compute what a tower answers at full depth; the float tower's answers teach."""
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels).pixels

        def run(folder: Path) -> None:
            extract_embeddings(self.chain(parts), rows, folder, advance=self.progress.steps(len(rows)))

        key = {"parts": parts.name, "pixels": pixels.name, "labels": self.label_folder.name}
        return load_teacher(self.work.stage("answers", key, run))

    def costs(self, tower_parts: Path) -> Costs:
        """Count the FLOPs of the parts and of every kind of exit."""
        flops = {p.name: p.flops + p.flops_per_label * len(self.labels) for p in load_parts(tower_parts)}
        tower = self.tower
        similarity = 2 * tower.embed_dim * len(self.labels)
        rank = self.config.heads.rank_below(tower.width)
        exits = {
            reads: similarity
            + flops_of_exit(
                reads,
                token_count=tower.tokens,
                width=tower.width,
                embed_dim=tower.embed_dim,
                class_token=tower.has_class_token,
                rank=rank if reads in TOKEN_INPUTS else None,
            )
            for reads in HEAD_INPUTS
        }
        return Costs(
            stem=flops["stem"],
            block=flops["block_01"] if tower.depth > 1 else 0,
            last=flops[f"block_{tower.depth:02d}"],
            exits=exits,
            tail=flops["tail"],
            depth=tower.depth,
        )

    def task(self, tower_parts: Path) -> ExitTask:
        """What exits of these parts are fitted for."""
        return ExitTask(
            labels=self.labels,
            logit_scale=self.tower.logit_scale,
            costs=self.costs(tower_parts),
            config=self.config,
            int8=self.config.precision == "int8",
            seed=self.config.seed,
            is_random=self.is_random,
            learned={} if self.learned_heads is None else load_heads(self.learned_heads),
        )

    def noise(self, tower_parts: Path) -> NoiseProfile:
        """Measure the noise of the INT8 tower, on images that gates and thresholds are fitted on too."""
        pixels = self.pixels(self.splits.gating, views=1)

        def measure(folder: Path) -> None:
            rows = load_pixel_set(pixels).pixels[:NOISE_IMAGES]
            advance = self.progress.steps(len(rows))
            profile = diagnose(
                (self.chain(self.float_parts), self.chain(tower_parts)),
                rows,
                label_embeddings=self.labels,
                class_token=self.tower.has_class_token,
                advance=advance,
            )
            write_json(profile, folder / "noise.json")

        inputs = {"float": self.float_parts.name, "parts": tower_parts.name, "pixels": pixels.name}
        return read_json(NoiseProfile, self.work.stage("noise", inputs, measure) / "noise.json")

    def split_material(self, tower_parts: Path, *, tokens: bool = False) -> tuple[Material, Material]:
        """Give the material of the heads' and gating splits; `tokens` as in `material`."""
        views = self.splits.views
        heads = self.material(self.splits.heads, tower_parts, views=views, tokens=tokens)
        return heads, self.material(self.splits.gating, tower_parts, views=1, tokens=tokens)

    def promise_material(self, tower_parts: Path, *, tokens: bool = False) -> Material | None:
        """Give the material of the split that the promised point is tested on, if one was asked for."""
        if self.splits.promise is None:
            return None
        return self.material(self.splits.promise, tower_parts, views=1, tokens=tokens)
