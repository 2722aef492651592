"""The results that an export and its report share: model, pixels, parts, cached features, noise."""

from __future__ import annotations

import dataclasses
import shutil
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lraee.bundle.strict_json import read_json, write_json
from lraee_calibration_data import Dataset
from lraee_exporters.graphs.exit import HEAD_INPUTS, TOKEN_INPUTS, HeadInput, flops_of_exit
from lraee_toolchain.data.disk_need import TABLE_SPLITS, bytes_left
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.early_exit.exits import candidates
from lraee_toolchain.early_exit.features import (
    extract_features,
    load_features,
)
from lraee_toolchain.early_exit.routing import Routing, exit_suffix
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material, MergedCosts, Route
from lraee_toolchain.early_exit.token_heads.room import GIGABYTE, TokenRoom
from lraee_toolchain.early_exit.token_heads.saved import load_heads
from lraee_toolchain.early_exit.token_heads.sources import TowerTokens, shard_bytes
from lraee_toolchain.parts.build import ExitsOfRoute, load_parts
from lraee_toolchain.parts.scheduled import ScheduledParts
from lraee_toolchain.parts.schedules import load_schedules, tokens_after
from lraee_toolchain.quantization.noise import NoiseProfile, diagnose
from lraee_toolchain.stages.tower import TowerStages

NOISE_IMAGES = 512
"""Images of the gating split that the noise profile is measured on."""


class Stages(TowerStages):
    """What is made from the inputs of an export, each result computed when it is first asked for and kept on disk."""

    learned_heads: Path | None = None
    """Folder with the exit heads that learned with the trunk, where it was tuned."""

    def material(
        self,
        dataset: Dataset,
        tower_parts: Path,
        *,
        views: int,
        tokens: bool = False,
        schedule: ScheduledParts | None = None,
        lessons: bool = False,
    ) -> Material:
        """Extract a split's features from a tower, with the float tower's answers.

        Args:
            dataset: the split.
            tower_parts: the tower.
            views: of each image.
            tokens: whether heads may read all tokens, which lie on disk where `token_room` grants it.
            schedule: under which tokens are merged; None merges nothing.
            lessons: whether the answers are those to learn from, which may be means over several views.
        """
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels)
        key: dict[str, Any] = {"parts": tower_parts.name, "pixels": pixels.name, "labels": self.label_folder.name}
        chain, unmerged = self.chain(tower_parts), None
        if schedule is not None:
            merged = self.merged_parts(tower_parts)
            assert merged is not None
            key["merged"], chain = schedule.merged, chain.under(schedule, merged)
            unmerged = self.material(dataset, tower_parts, views=views, tokens=tokens).features.probabilities
        shards = self._shards(key, len(rows.pixels)) if tokens else ()
        if shards:
            key["tokens"] = shards

        def extract(folder: Path) -> None:
            extract_features(
                chain,
                rows.pixels,
                folder,
                class_token=self.tower.has_class_token,
                shards=shards,
                advance=self.progress.steps(len(rows.pixels)),
            )

        features = load_features(self.work.stage("features", key, extract))
        if tokens and not shards:
            features = dataclasses.replace(features, tokens=TowerTokens(chain, rows.pixels))
        teach = self.lessons if lessons else partial(self.answers, parts=self.float_parts)
        teacher = teach(dataset, views=views)
        classes = None
        if self.supervision == "labels" and dataset.labels:
            classes = self.classes(dataset)[rows.source]
        return Material(features=features, teacher=teacher, classes=classes, unmerged=unmerged)

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

    def table_token_bytes(self, towers: int) -> int:
        """Count the bytes on disk of all tokens that the tables would read in so many towers and merging schedules."""
        images = sum(self.rows.get(split, 0) for split in TABLE_SPLITS)
        return towers * shard_bytes(images, len(self.token_blocks), tokens=self.tower.tokens, width=self.tower.width)

    def _shards(self, key: dict[str, Any], images: int) -> tuple[int, ...]:
        """List the blocks whose tokens are kept on disk with the features of `key`: all of `token_blocks`, or none."""
        blocks = self.token_blocks
        size = shard_bytes(images, len(blocks), tokens=self.tower.tokens, width=self.tower.width)
        place = self.work.place("features", {**key, "tokens": blocks})
        what = f"{images:,} images after {len(blocks)} blocks"
        granted = self.token_room.grant(place.name, size, what=what, found=place.is_dir())
        return blocks if granted else ()

    def costs(self, tower_parts: Path, schedule: ScheduledParts | None = None) -> Costs:
        """Count the FLOPs of the parts and of every kind of exit, under a schedule if there is one."""
        tower = self.tower
        merged_parts = None if schedule is None else self.merged_parts(tower_parts)
        parts = [*load_parts(tower_parts), *(() if merged_parts is None else load_parts(merged_parts))]
        flops = {part.name: part.flops + part.flops_per_label * len(self.labels) for part in parts}
        merged = None
        if schedule is not None:
            merged = MergedCosts(
                blocks=tuple(flops[name] for name in schedule.blocks),
                exits=tuple(map(self._exit_costs, tokens_after(tower.tokens, schedule.merged))),
                tail=flops[schedule.tail],
            )
        return Costs(
            stem=flops["stem"],
            block=flops["block_01"] if tower.depth > 1 else 0,
            last=flops[f"block_{tower.depth:02d}"],
            exits=self._exit_costs(tower.tokens),
            tail=flops["tail"],
            depth=tower.depth,
            merged=merged,
        )

    def _exit_costs(self, tokens: int) -> dict[HeadInput, int]:
        """Count the FLOPs of every kind of exit on so many tokens."""
        tower, rank = self.tower, self.config.heads.rank_below(self.tower.width)
        similarity = 2 * tower.embed_dim * len(self.labels)
        return {
            reads: similarity
            + flops_of_exit(
                reads,
                token_count=tokens,
                width=tower.width,
                embed_dim=tower.embed_dim,
                class_token=tower.has_class_token,
                rank=rank if reads in TOKEN_INPUTS else None,
            )
            for reads in HEAD_INPUTS
        }

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

    def exits_of(self, routing: Routing, schedule: str | None) -> ExitsOfRoute:
        """Give what the parts of the exits are built from, without merging or under a schedule."""
        merged = next((one.merged for one in self.schedules if one.name == schedule), None)
        return ExitsOfRoute(
            weights={one.block: one.weights(self.tower.logit_bias) for one in routing.exits_under(schedule)},
            tokens=None if merged is None else tokens_after(self.tower.tokens, merged),
            suffix=exit_suffix(schedule),
        )

    def route(
        self, tower_parts: Path, *, tokens: bool = False, promise: bool = False, schedule: ScheduledParts | None = None
    ) -> Route:
        """Give what exits of the parts are fitted on, without merging or under a schedule.

        Args:
            tower_parts: the tower.
            tokens: as in `material`.
            promise: whether a promised point is tested, where one was asked for.
            schedule: under which tokens are merged; None merges nothing.
        """
        splits = self.splits
        proving = splits.promise if promise else None
        material = partial(self.material, tower_parts=tower_parts, tokens=tokens, schedule=schedule)
        return Route(
            costs=self.costs(tower_parts, schedule),
            heads=material(splits.heads, views=splits.views, lessons=True),
            # With labels they say who is right; without, the better answers do.
            gating=material(splits.gating, views=1, lessons=self.supervision == "label-free"),
            promise=None if proving is None else material(proving, views=1),
            schedule=None if schedule is None else schedule.name,
        )

    def routes(self, tower_parts: Path, *, tokens: bool = False, promise: bool = False) -> list[Route]:
        """Give the `route` that merges nothing, then that of every schedule."""
        merged = self.merged_parts(tower_parts)
        schedules = (None, *(() if merged is None else load_schedules(merged)))
        return [self.route(tower_parts, tokens=tokens, promise=promise, schedule=one) for one in schedules]
