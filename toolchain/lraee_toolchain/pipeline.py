"""An export from end to end: load, build, prove parity, calibrate, quantize, extract, train, pack, evaluate, report.

Each step is a stage of the work folder, a function of its inputs alone; see `lraee_toolchain.work`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ExportError
from lraee.images import open_image
from lraee.preprocess import pixels as preprocess
from lraee.strict_json import encode
from lraee_calibration_data import Dataset, label_rows, open_dataset, photos
from lraee_exporters.exit_head import HEAD_INPUTS
from lraee_exporters.labels import LabelSet, embed_labels
from lraee_exporters.open_clip_models import LoadedModel, load_model
from lraee_exporters.parity import check_parity
from lraee_exporters.tower import Tower
from lraee_exporters.widen import inject_outliers, to_open_clip
from lraee_toolchain.build import (
    build_exits,
    build_float,
    build_float_baseline,
    build_int8,
    build_int8_strong,
    load_choices,
    load_parts,
)
from lraee_toolchain.calibrate import calibrate, load_ranges, save_ranges
from lraee_toolchain.chain import Chain
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.data import Splits, load_pixel_set, open_splits, save_pixels
from lraee_toolchain.diagnose import NoiseProfile, diagnose, load_profile, pathological, profile_csv, save_profile
from lraee_toolchain.evaluation import evaluate_bundle
from lraee_toolchain.evidence import Setting, concatenate, measure_evidence, steps_of
from lraee_toolchain.evidence import Tower as PreparedTower
from lraee_toolchain.features import extract_embeddings, extract_features, load_features, load_teacher
from lraee_toolchain.label_sets import read_labels
from lraee_toolchain.latency import THREADS, measure_latency
from lraee_toolchain.pack import BundleInputs, install, pack
from lraee_toolchain.report import write_report
from lraee_toolchain.routing import Costs, Material, candidates, fit_routing, without_unused
from lraee_toolchain.routing_file import load_routing, save_routing, weights_of_exits
from lraee_toolchain.work import WorkFolder, key_of

FloatArray = NDArray[np.float32]

PARITY_IMAGES = 64
NOISE_IMAGES = 512
"""Images of the gating split that the noise profile is measured on."""


class Progress(Protocol):
    """Who wants to know how far an export is."""

    def stage(self, name: str, found: bool) -> None:
        """A stage begins; `found` when its result is there already."""
        ...

    def steps(self, total: int) -> Callable[[int], None]:
        """The stage has `total` steps; call the result with how many were done."""
        ...


class Silent:
    """Nobody wants to know."""

    def stage(self, name: str, found: bool) -> None:
        """Say nothing."""

    def steps(self, total: int) -> Callable[[int], None]:
        """Count nothing."""
        return lambda done: None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export left behind."""

    bundle: Path
    """The bundle folder."""
    report: Path
    """Folder with report.md and metrics.json."""
    baselines: Path | None
    """Folder with the float baseline, or None."""


def export(config: ExportConfig, progress: Progress | None = None) -> ExportResult:
    """Export a model as told.

    Raises:
        ExportError: options contradict each other, or the target exists.
        TowerError: the model is unknown or not supported.
        DataError: images are missing, unreadable, or in two splits.
        ParityError: the exported graphs do not compute what torch computes.
    """
    config.check()
    progress = progress or Silent()
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{config.out.parent} cannot be made ({error.strerror}); choose another --out") from error
    finished = config.out.with_name(f".{config.out.name}.work.finished")
    shutil.rmtree(finished, ignore_errors=True)
    root = config.work or config.out.with_name(f".{config.out.name}.work")
    with WorkFolder(root, progress.stage) as work:
        result = _Export(config, work, progress).run()
    if config.work is None:
        root.rename(finished)  # dying while clearing up must not leave half-removed stages that look finished
        shutil.rmtree(finished)
    return result


def with_outliers(model: LoadedModel, factor: float) -> LoadedModel:
    """The same float function with outlier channels, in the tower and in torch."""
    tower = inject_outliers(model.tower, factor=factor)
    return dataclasses.replace(model, tower=tower, torch_model=to_open_clip(tower, model.torch_model))


class _Export:
    """The stages of one export, each named as in architecture: what it makes and from what."""

    def __init__(self, config: ExportConfig, work: WorkFolder, progress: Progress) -> None:
        self.config, self.work, self.progress = config, work, progress
        progress.stage("load", False)
        self.model: LoadedModel = load_model(config.model, pretrained=config.pretrained, activation=config.activation)
        if config.inject_outliers is not None:
            self.model = with_outliers(self.model, config.inject_outliers)
        self.tower: Tower = self.model.tower
        default_labels = "reference" if config.model.startswith("reference") else "imagenet"
        self.label_set: LabelSet = read_labels(config.labels or default_labels)
        if isinstance(config.exits, tuple) and max(config.exits) >= self.tower.depth:
            raise ExportError(f"--exits names block {max(config.exits)}, wanted 1 to {self.tower.depth - 1}")
        self.splits: Splits = open_splits(config, self.label_set.names, seed=config.seed)
        self.fingerprint = self.tower.fingerprint()
        self.is_random = self.tower.weights.startswith("random")
        if config.supervision == "labels" and self.is_random:
            raise ExportError("--supervision labels means nothing with random weights; leave it away")
        labelled = bool(self.splits.heads.labels) and config.supervision != "label-free" and not self.is_random
        self.supervision = "labels" if labelled else "label-free"

    def run(self) -> ExportResult:
        """All stages, in order."""
        self.label_folder = self.work.stage(
            "labels", {"tower": self.fingerprint, "labels": dataclasses.asdict(self.label_set)}, self._embed_labels
        )
        self.labels: FloatArray = np.load(self.label_folder / "labels.npy")
        float_parts = self.work.stage(
            "float", {"tower": self.fingerprint}, lambda folder: build_float(self.tower, folder)
        )
        parity = self.work.stage(
            "parity", {"parts": float_parts.name}, lambda folder: self._prove_parity(float_parts, folder)
        )
        self.model = dataclasses.replace(self.model, torch_model=None)  # half a gigabyte that is needed no more
        tower_parts = (
            float_parts if self.config.precision == "fp32" else self._quantize(float_parts, self.config.quantizer)
        )
        noise = None if self.config.precision == "fp32" else self._diagnose(tower_parts, float_parts)
        exits = self._exits(tower_parts, float_parts, noise)
        bundle = self.work.stage(
            "bundle",
            {"tower": tower_parts.name, "exits": exits.name, "labels": self.label_folder.name},
            lambda folder: self._pack(tower_parts, exits, noise, folder),
        )
        metrics = self._metrics(bundle, parity, exits, tower_parts, float_parts, noise)
        return self._install(bundle, metrics, float_parts)

    def _embed_labels(self, folder: Path) -> None:
        np.save(folder / "labels.npy", embed_labels(self.model, self.label_set))

    def _prove_parity(self, float_parts: Path, folder: Path) -> None:
        source = open_dataset(photos())  # colours and odd sizes, whatever the model was trained on
        count = min(PARITY_IMAGES, len(source))
        spread = np.linspace(0, len(source) - 1, count).astype(int)
        images = [open_image(source.read_bytes(index), name=source.name(index)) for index in spread]
        stages = check_parity(
            self._chain(float_parts).stages,
            self.model.torch_model,
            self.model.transform,
            lambda image: preprocess(image, self.tower.preprocessing),
            images,
        )
        (folder / "parity.json").write_text(json.dumps([dataclasses.asdict(stage) for stage in stages], indent=1))

    def _chain(self, parts: Path, *, threads: int | None = None) -> Chain:
        labels = np.ascontiguousarray(self.labels.T)
        return Chain(parts, self.tower.depth, labels, self.tower.logit_scale, threads=threads)

    def _pixels(self, dataset: Dataset, *, views: int) -> Path:
        inputs = {
            "data": dataset.fingerprint,
            "preprocessing": dataclasses.asdict(self.tower.preprocessing),
            "views": views,
            "seed": self.config.seed,
        }
        return self.work.stage(
            "pixels",
            inputs,
            lambda folder: save_pixels(dataset, self.tower.preprocessing, folder, views=views, seed=self.config.seed),
        )

    def _quantize(self, float_parts: Path, quantizer: str) -> Path:
        config = self.config
        pixels = self._pixels(self.splits.calibration, views=self.splits.views)
        if quantizer == "strong":
            return self.work.stage(
                "int8",
                {"parts": float_parts.name, "pixels": pixels.name, "quantizer": "strong"},
                lambda folder: build_int8_strong(
                    self.tower,
                    self._chain(float_parts),
                    load_pixel_set(pixels).pixels,
                    folder,
                    advance=self.progress.steps(self.tower.depth),
                ),
            )
        method = {"method": config.ranges, "percentile": config.percentile}
        ranges = self.work.stage(
            "ranges",
            {"parts": float_parts.name, "pixels": pixels.name, **method},
            lambda folder: save_ranges(
                calibrate(
                    self._chain(float_parts),
                    load_pixel_set(pixels).pixels,
                    folder,
                    method=config.ranges,
                    percentile=config.percentile,
                ),
                folder / "ranges.json",
            ),
        )
        return self.work.stage(
            "int8",
            {"ranges": ranges.name, "quantizer": quantizer},
            lambda folder: build_int8(self.tower, load_ranges(ranges / "ranges.json"), folder),
        )

    def _material(self, dataset: Dataset, tower_parts: Path, float_parts: Path, *, views: int) -> Material:
        pixels = self._pixels(dataset, views=views)
        rows = load_pixel_set(pixels)
        key = {"pixels": pixels.name, "labels": self.label_folder.name}

        def extract(folder: Path) -> None:
            advance = self.progress.steps(len(rows.pixels))
            extract_features(self._chain(tower_parts), rows.pixels, folder, advance=advance)

        def teach(folder: Path) -> None:
            advance = self.progress.steps(len(rows.pixels))
            extract_embeddings(self._chain(float_parts), rows.pixels, folder, advance=advance)

        features = self.work.stage("features", {"parts": tower_parts.name, **key}, extract)
        teacher = self.work.stage("teacher", {"parts": float_parts.name, **key}, teach)
        classes = None
        if self.supervision == "labels" and dataset.labels:
            classes = label_rows(dataset, self.label_set.names)[rows.source]
        return Material(features=load_features(features), teacher=load_teacher(teacher), classes=classes)

    def _costs(self, tower_parts: Path) -> Costs:
        flops = {p.name: p.flops + p.flops_per_label * len(self.labels) for p in load_parts(tower_parts)}
        width = self.tower.width
        reads = 2 if self.config.reads in ("both", "auto") else 1  # of the largest head that may be chosen
        head = 2 * (reads * width * width + width * self.tower.embed_dim) + 6
        return Costs(
            stem=flops["stem"],
            block=flops["block_01"],
            exit=head + 2 * self.tower.embed_dim * len(self.labels),
            tail=flops["tail"],
            depth=self.tower.depth,
        )

    def _diagnose(self, tower_parts: Path, float_parts: Path) -> NoiseProfile:
        """The noise of the INT8 tower, on images that gates and thresholds are fitted on too."""
        pixels = self._pixels(self.splits.gating, views=1)

        def measure(folder: Path) -> None:
            rows = load_pixel_set(pixels).pixels[:NOISE_IMAGES]
            advance = self.progress.steps(len(rows))
            profile = diagnose(
                self._chain(float_parts),
                self._chain(tower_parts),
                rows,
                label_embeddings=self.labels,
                advance=advance,
            )
            save_profile(profile, folder / "noise.json")
            (folder / "noise.csv").write_text(profile_csv(profile), "utf-8")

        inputs = {"float": float_parts.name, "parts": tower_parts.name, "pixels": pixels.name}
        return load_profile(self.work.stage("noise", inputs, measure) / "noise.json")

    def _split_material(self, tower_parts: Path, float_parts: Path) -> tuple[Material, Material]:
        views = self.splits.views
        heads = self._material(self.splits.heads, tower_parts, float_parts, views=views)
        return heads, self._material(self.splits.gating, tower_parts, float_parts, views=1)

    def _exits(self, tower_parts: Path, float_parts: Path, noise: NoiseProfile | None) -> Path:
        config = self.config
        blocks = candidates(config.exits, self.tower.depth, is_random=self.is_random)
        if config.exits == "auto" and noise is not None and not self.is_random:
            dropped = pathological(noise, blocks)
            blocks = tuple(block for block in blocks if block not in dropped)
        heads, gating = self._split_material(tower_parts, float_parts)
        inputs = {
            "tower": tower_parts.name,
            "labels": self.label_folder.name,
            "heads": self.splits.heads.fingerprint,
            "gating": self.splits.gating.fingerprint,
            "supervision": self.supervision,
            "blocks": blocks,
            "options": [config.exits, config.reads, config.max_accuracy_drop, config.min_flops_saving, config.seed],
            "training": dataclasses.asdict(config.heads),
        }

        def train(folder: Path) -> None:
            rounds = len(HEAD_INPUTS) if config.reads == "auto" else 1
            advance = self.progress.steps(rounds * config.heads.epochs)
            routing = fit_routing(
                heads,
                gating,
                self.labels,
                logit_scale=self.tower.logit_scale,
                costs=self._costs(tower_parts),
                config=config,
                seed=config.seed,
                int8=config.precision == "int8",
                blocks=blocks,
                is_random=self.is_random,
                advance=advance,
            )
            if config.exits == "auto" and not self.is_random:
                routing = without_unused(routing)
            build_exits(weights_of_exits(routing, self.tower.logit_bias), self.tower, folder)
            save_routing(routing, folder / "routing.json")

        return self.work.stage("exits", inputs, train)

    def _pack(self, tower_parts: Path, exits: Path, noise: NoiseProfile | None, folder: Path) -> None:
        config = self.config
        inputs = BundleInputs(
            tower=self.tower,
            fingerprint=self.fingerprint,
            parts=(tower_parts, exits),
            routing=load_routing(exits / "routing.json"),
            label_set=self.label_set,
            labels=self.labels,
            supervision=self.supervision,
            is_random=self.is_random,
            config=config,
            choices=load_choices(tower_parts),
            information_to_noise={} if noise is None else {b.block: b.information_to_noise for b in noise.blocks},
            calibration_views=len(self.splits.calibration) * self.splits.views,
            sources={
                "weights_sha256": self.model.source_sha256 or "none",
                "calibration": self.splits.calibration.fingerprint,
                "heads": self.splits.heads.fingerprint,
                "gating": self.splits.gating.fingerprint,
                "outliers": "none" if config.inject_outliers is None else f"{config.inject_outliers:g}",
            },
        )
        pack(inputs, folder)

    def _metrics(
        self,
        bundle: Path,
        parity: Path,
        exits: Path,
        tower_parts: Path,
        float_parts: Path,
        noise: NoiseProfile | None,
    ) -> dict[str, Any]:
        metrics: dict[str, Any] = {
            "parity": json.loads((parity / "parity.json").read_text()),
            "supervision": self.supervision,
            "noise": {} if noise is None else {f"{self.config.quantizer} INT8": encode(noise)},
            "images": {
                "calibration": len(self.splits.calibration),
                "heads": len(self.splits.heads),
                "gating": len(self.splits.gating),
                "evaluation": len(self.splits.evaluation) if self.splits.evaluation else 0,
            },
            "evaluation": None,
            "ablations": None,
            "latency": None,
        }
        evaluation = self.splits.evaluation
        if evaluation is None or self.is_random:
            return metrics
        pixels = self._pixels(evaluation, views=1)
        rows = load_pixel_set(pixels)
        classes = label_rows(evaluation, self.label_set.names)[rows.source]
        material = dataclasses.replace(self._material(evaluation, tower_parts, float_parts, views=1), classes=classes)

        def evaluate(folder: Path) -> None:
            found = evaluate_bundle(bundle, rows.pixels, classes, material.teacher)
            (folder / "evaluation.json").write_text(json.dumps(found, indent=1))

        stage = self.work.stage("evaluation", {"bundle": bundle.name, "pixels": pixels.name}, evaluate)
        metrics["evaluation"] = json.loads((stage / "evaluation.json").read_text())
        if self.config.ablations:
            parts = {
                "FP32": float_parts,
                "naive INT8": self._quantize(float_parts, "naive"),
                "strong INT8": self._quantize(float_parts, "strong"),
            }
            towers = {name: self._prepared(name, folder, float_parts, classes) for name, folder in parts.items()}
            setting = Setting(
                labels=self.labels,
                logit_scale=self.tower.logit_scale,
                costs=self._costs(tower_parts),
                config=self.config,
            )
            key = {
                "parts": [folder.name for folder in parts.values()],
                "exits": exits.name,
                "pixels": pixels.name,
                "seeds": self.config.seeds,
            }

            def measure(folder: Path) -> None:
                advance = self.progress.steps(steps_of(len(towers)))
                table = measure_evidence(towers, setting, main=f"{self.config.quantizer} INT8", advance=advance)
                (folder / "ablations.json").write_text(json.dumps(table, indent=1))

            stage = self.work.stage("ablations", key, measure)
            for name in ("naive INT8", "strong INT8"):
                metrics["noise"][name] = encode(self._diagnose(parts[name], float_parts))
            metrics["ablations"] = json.loads((stage / "ablations.json").read_text())

            main = f"{self.config.quantizer} INT8"

            def measure_times(folder: Path) -> None:
                found = measure_latency(bundle, self._chain(float_parts, threads=THREADS), rows.pixels, main=main)
                (folder / "latency.json").write_text(json.dumps(found, indent=1))

            stage = self.work.stage("latency", {"bundle": bundle.name, "pixels": pixels.name}, measure_times)
            metrics["latency"] = json.loads((stage / "latency.json").read_text())
        return metrics

    def _prepared(self, name: str, parts: Path, float_parts: Path, classes: NDArray[np.int64]) -> PreparedTower:
        """One precision with the material of every split."""
        assert self.splits.evaluation is not None
        heads, gating = self._split_material(parts, float_parts)
        evaluation = self._material(self.splits.evaluation, parts, float_parts, views=1)
        return PreparedTower(
            name=name,
            pool=concatenate(heads, gating),
            gate_count=len(gating.features.embedding),
            evaluation=dataclasses.replace(evaluation, classes=classes),
        )

    def _install(self, bundle: Path, metrics: dict[str, Any], float_parts: Path) -> ExportResult:
        out = self.config.out
        report = self.work.stage(
            "report",
            {"bundle": bundle.name, "metrics": key_of(metrics), "name": out.name},
            lambda folder: write_report(bundle, metrics, self.config, folder),
        )
        report_target = install(report, out.with_suffix(".report"))
        baselines_target = None
        if self.config.baselines:
            baselines = self.work.stage(
                "baselines", {"tower": self.fingerprint}, lambda folder: build_float_baseline(self.tower, folder)
            )
            baselines_target = install(baselines, out.with_suffix(".baselines"))
        return ExportResult(bundle=install(bundle, out), report=report_target, baselines=baselines_target)
