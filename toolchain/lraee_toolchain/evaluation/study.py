"""What the report shows of a finished bundle on images that no other step has seen: evaluation, tables, times."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.strict_json import encode
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_calibration_data import Dataset
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.early_exit.routing import Material, candidates
from lraee_toolchain.evaluation.bundle import evaluate_bundle
from lraee_toolchain.evaluation.latency import THREADS, measure_latency
from lraee_toolchain.evaluation.method_table import measure_methods, steps_of_methods
from lraee_toolchain.evaluation.paper_tables import (
    Setting,
    Tower,
    concatenate,
    interval_json,
    measure_evidence,
    steps_of,
)
from lraee_toolchain.evaluation.risk_study import STEPS_OF_PROMISES, measure_promises
from lraee_toolchain.quantization.noise import pathological
from lraee_toolchain.stages import Precision, Stages

INT8: tuple[Precision, ...] = ("dynamic INT8", "naive INT8", "strong INT8")


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

    def evaluate(self) -> Any:
        """Every policy of the bundle, run by the runtime."""
        teacher = self._stages.answers(self._evaluation, self._stages.float_parts, views=1)
        return self._measure(
            "evaluation",
            {"bundle": self._bundle.name},
            lambda: evaluate_bundle(self._bundle, self.rows.pixels, self.classes, teacher),
        )

    def noise(self) -> Any:
        """The noise profile of every INT8 precision."""
        return {name: encode(self._stages.noise(self._stages.parts(name))) for name in INT8}

    def precisions(self) -> Any:
        """Every precision at full depth: what quantization alone costs."""
        right = {name: self._right(self._stages.parts(name)) for name in ("FP32", *INT8)}
        return {
            "images": len(self.classes),
            "rows": [
                {
                    "name": name,
                    "accuracy": interval_json(mean_over_images(good)),
                    "difference_to_float": interval_json(mean_over_images(good - right["FP32"])),
                }
                for name, good in right.items()
            ],
        }

    def _right(self, parts: Path) -> NDArray[np.float64]:
        """(images,) 1 where full depth of these parts is right."""
        answers = self._stages.answers(self._evaluation, parts, views=1)
        return np.asarray(answers.probabilities.argmax(axis=1) == self.classes, np.float64)

    def ablate(self) -> Any:
        """The paper's tables, every method at matched FLOPs, and the promise."""
        stages, config = self._stages, self._stages.config
        parts = {name: stages.parts(name) for name in ("FP32", *INT8)}
        main = parts[self._precision]
        setting = Setting(
            labels=stages.labels, logit_scale=stages.tower.logit_scale, costs=stages.costs(main), config=config
        )
        materials = {  # memory-mapped
            name: (*stages.split_material(folder), self._material(folder)) for name, folder in parts.items()
        }
        noise = stages.noise(main)

        def measure() -> Any:
            count = steps_of(len(parts)) + steps_of_methods(config.seeds) + STEPS_OF_PROMISES
            advance = self._stages.progress.steps(count)
            tower = _tower(self._precision, *materials[self._precision])
            others = {str(n): partial(_tower, n, *found) for n, found in materials.items() if n != tower.name}
            tables, routings = measure_evidence(tower, others, setting, order=list(parts), advance=advance)
            tables["comparisons"] = measure_methods(
                tower,
                setting,
                routings,
                chain=stages.chain(main),
                parts=main,
                pixels=self.rows.pixels,
                information_to_noise={block.block: block.information_to_noise for block in noise.blocks},
                advance=advance,
            )
            tables["promise"] = measure_promises(tower, setting, advance=advance)
            blocks = candidates("auto", stages.tower.depth)
            tables["pruned"] = {name: pathological(stages.noise(parts[name]), blocks) for name in INT8}
            return tables

        key = {
            "parts": [folder.name for folder in parts.values()],
            "exits": self._exits.name,
            "seeds": config.seeds,
        }
        return self._measure("ablations", key, measure)

    def latency(self) -> Any:
        """The rows of the comparison table against each other."""
        chain = self._stages.chain(self._stages.float_parts, threads=THREADS)
        return self._measure(
            "latency",
            {"bundle": self._bundle.name},
            lambda: measure_latency(self._bundle, chain, self.rows.pixels, main=self._precision),
        )

    def _measure(self, name: str, key: dict[str, Any], measure: Callable[[], Any]) -> Any:
        """What `measure` returns, kept as JSON in a stage."""

        def write(folder: Path) -> None:
            (folder / f"{name}.json").write_text(json.dumps(measure(), indent=1))

        stage = self._stages.work.stage(name, {**key, "pixels": self._pixels.name}, write)
        return json.loads((stage / f"{name}.json").read_text())

    def _material(self, parts: Path) -> Material:
        material = self._stages.material(self._evaluation, parts, views=1)
        return dataclasses.replace(material, classes=self.classes)


def _tower(name: str, heads: Material, gating: Material, evaluation: Material) -> Tower:
    """One precision with the material of every split, that for training read into memory."""
    return Tower(
        name=name,
        pool=concatenate(heads, gating),
        gate_count=len(gating.features.embedding),
        evaluation=evaluation,
    )
