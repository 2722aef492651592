"""The stages that make a tower: labels, schedules, parts of every precision, and what it answers at full depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.strict_json import read_json, write_json
from lraee_benchmarks.device.description import describe_device
from lraee_calibration_data import Dataset
from lraee_exporters.graphs.tail import float_tail
from lraee_exporters.int8.linear import ActivationRange
from lraee_exporters.labels import embed_labels
from lraee_toolchain.array_file import save_array
from lraee_toolchain.config.options import Precision
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.data.teacher_views import view
from lraee_toolchain.early_exit.features import (
    Teacher,
    extract_averaged,
    extract_embeddings,
    load_teacher,
)
from lraee_toolchain.early_exit.task import FloatArray
from lraee_toolchain.parts.block_times import THREADS, BlockTimes
from lraee_toolchain.parts.build import build_float, float_blocks
from lraee_toolchain.parts.runner import Chain
from lraee_toolchain.parts.saved_weights import TowerWeights, load_weights
from lraee_toolchain.parts.schedule_choice import choose_schedules
from lraee_toolchain.parts.scheduled import NamedSchedule
from lraee_toolchain.parts.schedules import build_schedules
from lraee_toolchain.parts.text import build_text_part
from lraee_toolchain.quantization.calibration import calibrate
from lraee_toolchain.quantization.dynamic import build_dynamic
from lraee_toolchain.quantization.quantizers import build_int8, build_int8_strong
from lraee_toolchain.stages.inputs import Inputs


class TowerStages(Inputs):
    """The model's labels and parts, each made when it is first asked for and kept on disk."""

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
    def schedules(self) -> tuple[NamedSchedule, ...]:
        """The merging schedules that were asked for, or were found best on the calibration images."""
        wishes = self.config.merge_tokens
        if not wishes:
            return ()
        pixels = self.pixels(self.splits.calibration, views=self.splits.views)

        def choose(folder: Path) -> None:
            images = load_pixel_set(pixels).pixels
            advance = self.progress.steps(None)
            times = BlockTimes(self.tower) if self.config.merge_for == "latency" else None
            write_json(choose_schedules(self.model, wishes, images, advance, times), folder / "schedules.json")

        inputs = {
            "tower": self.fingerprint,
            "pixels": pixels.name,
            "wishes": wishes,
            "for": self.config.merge_for,
            "machine": self.merging_machine,
        }
        return read_json(tuple[NamedSchedule, ...], self.work.stage("schedules", inputs, choose) / "schedules.json")

    @property
    def merging_machine(self) -> str | None:
        """The machine that schedules are chosen for by their time; None where they are chosen by FLOPs."""
        if self.config.merge_for == "flops":
            return None
        device = describe_device()
        features = ", ".join(device.int8_features) or "no instructions for INT8 products"
        return f"{device.model}, {features}, {THREADS} thread"

    def merged_parts(self, parts: Path) -> Path | None:
        """Build the graphs of all schedules from the weights of parts that merge nothing; None without schedules."""
        schedules = self.schedules
        if not schedules:
            return None

        def build(folder: Path) -> None:
            if parts == self.float_parts:
                weights = TowerWeights(blocks=float_blocks(self.tower), tail=float_tail(self.tower))
            else:
                weights = load_weights(parts)
            build_schedules(self.tower, weights, parts, folder, schedules)

        inputs = {"parts": parts.name, "schedules": [dataclasses.asdict(schedule) for schedule in schedules]}
        return self.work.stage("merged", inputs, build)

    @cached_property
    def float_parts(self) -> Path:
        """The tower's float32 parts."""
        return self.work.stage("float", {"tower": self.fingerprint}, lambda folder: build_float(self.tower, folder))

    def forget_torch(self) -> None:
        """Free the torch model, half a gigabyte, once text, labels and float parts are made and parity is proved."""
        _ = self.text_folder, self.labels, self.float_parts, self.schedules
        self.model = dataclasses.replace(self.model, torch_model=None)

    def chain(self, parts: Path, *, threads: int | None = None) -> Chain:
        """Open the tower of a parts folder."""
        labels = np.ascontiguousarray(self.labels.T)
        sigmoid = self.tower.logit_bias is not None
        return Chain(parts, self.tower.depth, labels, self.tower.logit_scale, sigmoid=sigmoid, threads=threads)

    def parts(self, precision: Precision, *, saturation: bool | None = None) -> Path:
        """Build the tower's parts at one precision.

        Args:
            precision: to build.
            saturation: whether INT8 products may saturate; as configured by default.
        """
        if precision == "FP32":
            return self.float_parts
        float_parts = self.float_parts
        if precision == "dynamic INT8":
            return self.work.stage(
                "dynamic", {"parts": float_parts.name}, lambda folder: build_dynamic(float_parts, folder)
            )
        config = self.config
        pixels = self.pixels(self.splits.calibration, views=self.splits.views)
        saturation = not config.no_saturation if saturation is None else saturation
        key = {"weights": "saved", **({} if saturation else {"levels": dataclasses.asdict(config.levels)})}
        if precision == "strong INT8":
            return self.work.stage(
                "int8",
                {**key, "parts": float_parts.name, "pixels": pixels.name, "quantizer": "strong"},
                lambda folder: build_int8_strong(
                    self.tower,
                    self.chain(float_parts),
                    load_pixel_set(pixels).pixels,
                    folder,
                    saturation=saturation,
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
            found = read_json(dict[str, ActivationRange], ranges / "ranges.json")
            build_int8(self.tower, found, folder, saturation=saturation)

        inputs = {"parts": float_parts.name, "pixels": pixels.name, **method}
        ranges = self.work.stage("ranges", inputs, find_ranges)
        return self.work.stage("int8", {**key, "ranges": ranges.name, "quantizer": "naive"}, build)

    def answers(self, dataset: Dataset, parts: Path, *, views: int) -> Teacher:
        """Compute what a tower answers at full depth; the float tower's answers teach."""
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels).pixels

        def run(folder: Path) -> None:
            extract_embeddings(self.chain(parts), rows, folder, advance=self.progress.steps(len(rows)))

        key = {"parts": parts.name, "pixels": pixels.name, "labels": self.label_folder.name}
        return load_teacher(self.work.stage("answers", key, run))

    def lessons(self, dataset: Dataset, *, views: int) -> Teacher:
        """Compute what the float tower teaches: its answers, or their mean over `HeadTraining.teacher_views`."""
        heads, parts = self.config.heads, self.float_parts
        plain = self.answers(dataset, parts, views=views)
        if heads.teacher_views == 1:
            return plain
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels).pixels
        seen: dict[str, Any] = {"flip": heads.teacher_flip, "seed": self.config.seed}

        def others(batch: NDArray[np.uint8], first: int) -> Iterator[NDArray[np.uint8]]:
            return (view(batch, number, first=first, **seen) for number in range(1, heads.teacher_views))

        def run(folder: Path) -> None:
            advance = self.progress.steps(len(rows))
            extract_averaged(self.chain(parts), rows, folder, plain=plain, others=others, advance=advance)

        key = {"parts": parts.name, "pixels": pixels.name, "labels": self.label_folder.name}
        return load_teacher(self.work.stage("answers", {**key, "views": heads.teacher_views, **seen}, run))
