"""Everything that a report shows of a finished bundle: noise, evaluation, the paper's tables, times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.strict_json import read_json, write_json
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.analysis.right_answers import pack_right
from lraee_calibration_data import Dataset
from lraee_exporters.graphs.exit import TOKEN_INPUTS, HeadInput
from lraee_exporters.parity import StageParity
from lraee_toolchain.config.options import Precision
from lraee_toolchain.data.disk_need import GIGABYTE, gigabytes
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.early_exit.exits import candidates
from lraee_toolchain.early_exit.routing import ROUTING, SavedRouting
from lraee_toolchain.early_exit.rows import largest
from lraee_toolchain.early_exit.task import Material
from lraee_toolchain.evaluation.bundle import evaluate_bundle
from lraee_toolchain.evaluation.latency import THREADS, measure_latency
from lraee_toolchain.evaluation.method_table import Runnable, measure_methods
from lraee_toolchain.evaluation.metrics import (
    Ablations,
    Evaluation,
    FrontPoint,
    Latency,
    Metrics,
    PrecisionRow,
    Precisions,
)
from lraee_toolchain.evaluation.paper_tables import FRONTIER, GoodArray, head_study, measure_ways
from lraee_toolchain.evaluation.risk_check import measure_risk
from lraee_toolchain.evaluation.saturation import Saturation, full_depth_of, measure_saturation
from lraee_toolchain.evaluation.setting import MergedTower, Setting, Tower
from lraee_toolchain.parts.schedules import load_schedules
from lraee_toolchain.quantization.noise import NoiseProfile, pathological
from lraee_toolchain.stages.exits import Stages

INT8: tuple[Precision, ...] = ("dynamic INT8", "naive INT8", "strong INT8")
ALL: tuple[Precision, ...] = ("FP32", *INT8)
"""In the order of the report's rows."""

T = TypeVar("T")


def measure(
    stages: Stages,
    bundle: Path,
    exits: Path,
    precision: Precision,
    *,
    parity: tuple[StageParity, ...],
    noise: NoiseProfile | None,
) -> Metrics:
    """Measure what the configuration asks for.

    Args:
        stages: the model, its splits and its parts.
        bundle: the finished bundle.
        exits: its exits' stage.
        precision: of the bundle.
        parity: of the float graphs.
        noise: of the bundle's precision; None for FP32.
    """
    config, read = stages.config, stages.read
    metrics = Metrics(
        parity=parity,
        supervision=stages.supervision,
        noise={} if noise is None else {precision: noise},
        images={"evaluation": 0} | read.images,
        skipped=read.skipped,
        passed_over=read.passed_over,
        notices=tuple(read.notices),
        evaluation=None,
        precisions=None,
        ablations=None,
        latency=None,
    )
    if stages.splits.evaluation is None or stages.is_random:
        return metrics
    study = Study(stages, stages.splits.evaluation, bundle, exits, precision)
    return dataclasses.replace(
        metrics,
        evaluation=study.evaluate(),
        noise=study.noise() if config.precisions or config.ablations else metrics.noise,
        precisions=study.precisions() if config.precisions else None,
        ablations=study.ablate() if config.ablations else None,
        latency=study.latency() if config.ablations else None,
        saturation=study.saturation() if config.no_saturation and (config.precisions or config.ablations) else None,
    )


class Study:
    """Measurements on the evaluation split, each a stage of the work folder."""

    def __init__(self, stages: Stages, evaluation: Dataset, bundle: Path, exits: Path, precision: Precision) -> None:
        """Nothing is measured yet.

        Args:
            stages: the model, its splits and its parts.
            evaluation: labelled images.
            bundle: the finished bundle.
            exits: its exits' stage.
            precision: of the bundle.
        """
        self._stages, self._bundle, self._exits, self._precision = stages, bundle, exits, precision
        self._evaluation = evaluation
        self._pixels = stages.pixels(evaluation, views=1)
        self.rows = load_pixel_set(self._pixels)
        self.classes: NDArray[np.int64] = stages.classes(evaluation)[self.rows.source]

    def evaluate(self) -> Evaluation:
        """Measure every policy of the bundle, run by the runtime."""
        stages, given = self._stages, self._stages.given
        parts = [] if given is None else [given.float_parts]
        if given is not None and self._precision != "FP32" and (stages.config.precisions or stages.config.ablations):
            parts.append(given.parts(self._precision))
        before = [given.answers(self._evaluation, folder, views=1) for folder in parts if given is not None]
        teacher = stages.answers(self._evaluation, stages.float_parts, views=1)
        return self._measure(
            Evaluation,
            "evaluation",
            {"bundle": self._bundle.name, "given": [folder.name for folder in parts]},
            lambda: evaluate_bundle(self._bundle, self.rows.pixels, self.classes, teacher, before),
        )

    def noise(self) -> dict[Precision, NoiseProfile]:
        """Measure the noise profile of every INT8 precision."""
        return {name: self._stages.noise(self._stages.parts(name)) for name in INT8}

    def precisions(self) -> Precisions:
        """Measure every precision at full depth: what quantization alone costs."""
        right = {name: self._right(self._stages.parts(name)) for name in ALL}
        rows = tuple(
            PrecisionRow(
                precision=name,
                accuracy=mean_over_images(good),
                difference_to_float=mean_over_images(good - right["FP32"]),
            )
            for name, good in right.items()
        )
        return Precisions(images=len(self.classes), rows=rows)

    def _right(self, parts: Path, stages: Stages | None = None) -> NDArray[np.float64]:
        """(images,) 1 where full depth of these parts is right; they are of the bundle's tower unless `stages` says."""
        answers = (stages or self._stages).answers(self._evaluation, parts, views=1)
        return np.asarray(largest(answers.probabilities) == self.classes, np.float64)

    def saturation(self) -> Saturation:
        """Measure what it costs that no product of the bundle saturates."""
        stages, after = self._stages, self._stages.parts(self._precision)
        before = stages.parts(self._precision, saturation=True)

        def compare() -> Saturation:
            return measure_saturation(
                full_depth_of(stages.chain(before, threads=THREADS)),
                full_depth_of(stages.chain(after, threads=THREADS).without_saturation()),
                self.rows.pixels,
                (self._right(before), self._right(after)),
                threads=THREADS,
            )

        return self._measure(Saturation, "saturation", {"before": before.name, "after": after.name}, compare)

    def ablate(self) -> Ablations:
        """Measure the paper's tables, every method at matched FLOPs, and the check of risk control."""
        stages = self._stages
        parts = {name: stages.parts(name) for name in ALL}
        materials = {name: self._splits(name, parts[name]) for name in self._routed}  # memory-mapped
        noise, given = self.noise(), stages.given
        full = {name: self._right(folder) for name, folder in parts.items()}
        before = None if given is None else self._right(given.float_parts, given)
        key = {
            "parts": [folder.name for folder in parts.values()],
            "routed": self._routed,
            "kinds": sorted(self._kinds.items()),
            "given": given and given.float_parts.name,
            "exits": self._exits.name,
            "seeds": stages.config.seeds,
            "merged": [dataclasses.asdict(schedule) for schedule in stages.schedules],
            "frontier": FRONTIER,
        }
        return self._measure(Ablations, "ablations", key, lambda: self._tables(parts, materials, noise, (full, before)))

    def _splits(self, name: Precision, parts: Path) -> tuple[Material, Material, Material]:
        """Give heads', gating and evaluation split of one precision, with all tokens where some head reads them.

        The features of the bundle's precision are those that its exits were fitted with.
        """
        stages, read = self._stages, self._read_tokens
        there = name == self._precision and bool(stages.token_blocks)
        route = stages.route(parts, tokens=read or there)
        heads, gating = route.heads, route.gating
        if not read:
            heads, gating = heads.without_tokens(), gating.without_tokens()
        return heads, gating, self._material(parts, tokens=read)

    @cached_property
    def _kinds(self) -> dict[int, HeadInput]:
        """What the heads of all candidates read, where ``--reads auto`` chose it: every fit takes the same.

        Where all tokens of all towers of the tables take too much of the disk, every fit tries pooled heads alone: many
        fits would each run the tower again in every epoch.
        """
        stages = self._stages
        if stages.config.reads != "auto":
            return {}
        saved = read_json(SavedRouting, self._exits / ROUTING)
        kinds = {one.block: one.reads for one in saved.candidates}
        need = stages.table_token_bytes(len(self._routed) + len(stages.schedules))
        if need <= stages.config.disk_limit * GIGABYTE or set(kinds.values()).isdisjoint(TOKEN_INPUTS):
            return kinds
        stages.progress.notice(
            "the tables take pooled heads alone, weaker than those of the bundle: all tokens that they would read take "
            f"{gigabytes(need)}, and --disk-limit is {stages.config.disk_limit:g}; give {math.ceil(need / GIGABYTE)} "
            "or more"
        )
        return {}

    @property
    def _routed(self) -> tuple[Precision, ...]:
        """Precisions that exits are fitted on for the tables."""
        return ALL if self._stages.config.tables == "all" else (self._precision,)

    @property
    def _read_tokens(self) -> bool:
        """Whether some head of the tables reads all tokens."""
        return not {self._stages.config.reads, *self._kinds.values()}.isdisjoint(TOKEN_INPUTS)

    def _tables(
        self,
        parts: dict[Precision, Path],
        materials: dict[Precision, tuple[Material, Material, Material]],
        noise: dict[Precision, NoiseProfile],
        at_full_depth: tuple[dict[Precision, GoodArray], GoodArray | None],
    ) -> Ablations:
        """Measure the tables; `at_full_depth` is what every precision answers right, and the tower as given."""
        stages, main = self._stages, self._precision
        full, before = at_full_depth
        is_tuned = stages.given is not None
        task = dataclasses.replace(stages.task(parts[main]), kinds=self._kinds)
        setting = Setting(task=task, advance=stages.progress.steps(None), is_tuned=is_tuned)
        tower = dataclasses.replace(Tower.of(main, *materials[main]), merged=self._merged(parts[main]))
        ways = measure_ways(
            tower,
            full,
            {name: partial(Tower.of, name, *found) for name, found in materials.items() if name != main},
            setting,
            given=before,
        )
        runnable = Runnable(
            tower=stages.tower, chain=stages.chain(parts[main]), parts=parts[main], pixels=self.rows.pixels
        )
        ratios = {block.block: block.information_to_noise for block in noise[main].blocks}
        blocks = candidates("auto", stages.tower.depth)
        return Ablations(
            images=len(self.classes),
            seeds=stages.config.seeds,
            precision=main,
            main=ways.main(ALL),
            methods=measure_methods(tower, setting, ways.routings, runnable, ratios),
            factorial=ways.factorial(),
            frontier=ways.frontier(),
            quadrants=ways.quadrants(),
            selectivity=ways.selectivity(),
            fronts=tuple(
                tuple(FrontPoint(accuracy=point.accuracy, saved=point.saved) for point in routing.front)
                for routing in ways.routings
            ),
            exits_kept=tuple(tuple(trained.block for trained in routing.exits) for routing in ways.routings),
            heads=head_study(tower, setting),
            risk=measure_risk(tower, setting),
            pruned={name: tuple(pathological(profile, blocks)) for name, profile in noise.items()},
            routed_right=tuple(pack_right(good) for good in ways.of("routed").good),
        )

    def _merged(self, parts: Path) -> tuple[MergedTower, ...]:
        """Give the exported precision under every merging schedule."""
        stages, folder = self._stages, self._stages.merged_parts(parts)
        read = self._read_tokens
        found = []
        for schedule in () if folder is None else load_schedules(folder):
            route = stages.route(parts, tokens=bool(stages.token_blocks), schedule=schedule)
            pool = route.heads.joined(route.gating)
            evaluation = stages.material(self._evaluation, parts, views=1, tokens=read, schedule=schedule)
            found.append(
                MergedTower(
                    schedule=schedule.name,
                    costs=route.costs,
                    pool=pool if read else pool.without_tokens(),
                    evaluation=dataclasses.replace(evaluation, classes=self.classes),
                )
            )
        return tuple(found)

    def latency(self) -> Latency:
        """Time the rows of T1 against each other."""
        chain = self._stages.chain(self._stages.float_parts, threads=THREADS)
        return self._measure(
            Latency,
            "latency",
            {"bundle": self._bundle.name},
            lambda: measure_latency(self._bundle, chain, self.rows.pixels, main=self._precision),
        )

    def _measure(self, kind: type[T], name: str, key: dict[str, Any], measured: Callable[[], T]) -> T:
        """Keep what `measured` returns as JSON in a stage."""

        def write(folder: Path) -> None:
            write_json(measured(), folder / f"{name}.json")

        folder = self._stages.work.stage(name, {**key, "pixels": self._pixels.name}, write)
        return read_json(kind, folder / f"{name}.json")

    def _material(self, parts: Path, *, tokens: bool) -> Material:
        material = self._stages.material(self._evaluation, parts, views=1, tokens=tokens)
        return dataclasses.replace(material, classes=self.classes)
