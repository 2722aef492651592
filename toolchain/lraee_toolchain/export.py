"""An export from end to end: load, build, prove parity, calibrate, quantize, extract, train, pack, evaluate, report.

Where it is asked for, the trunk is tuned before it is built. Each step is a stage of the work folder, a function of its
inputs alone; see `lraee_toolchain.cache`.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lraee.bundle.folder import Bundle
from lraee.bundle.strict_json import encode, read_json, write_json
from lraee.errors import ExportError
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import open_image
from lraee_calibration_data import Dataset, open_dataset, photos
from lraee_exporters.parity import StageParity, check_parity
from lraee_exporters.single_file import FULL, SATURATES, write_single_file
from lraee_toolchain.adaptation.stage import Adapted, adapt
from lraee_toolchain.baseline_graphs.folder import BaselineMaker
from lraee_toolchain.bundle.pack import BundleInputs, pack
from lraee_toolchain.bundle.targets import Targets
from lraee_toolchain.cache import WorkFolder, key_of
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.held_back import ARCHIVE, save_held_back
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.early_exit.exits import candidates, head_inputs
from lraee_toolchain.early_exit.fitting import fit_routing, with_class_thresholds, with_promise
from lraee_toolchain.early_exit.routing import ROUTING, SavedRouting, saved_routing, without_unused
from lraee_toolchain.evaluation.example_images import Picture, run_pictures
from lraee_toolchain.evaluation.merged_patches import MergedPicture, merged_pictures
from lraee_toolchain.evaluation.metrics import Metrics
from lraee_toolchain.evaluation.study import measure
from lraee_toolchain.parts.build import build_exits
from lraee_toolchain.quantization.noise import NoiseProfile, pathological
from lraee_toolchain.quantization.quantizers import load_choices
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.write import write_report
from lraee_toolchain.stages.exits import Stages
from lraee_toolchain.stages.inputs import Progress, Silent

PARITY_IMAGES = 64

MERGED_PICTURES = 16
"""Pictures that the report draws with merged tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """Where an export wrote its results."""

    bundle: Path
    """The bundle folder."""
    report: Path
    """Folder with report.html, report.md and metrics.json."""
    baselines: Path | None
    """Folder with the baselines, or None."""
    adapted: Path | None = None
    """Folder with the tuned model, or None."""
    evaluation: Path | None = None
    """Zip of the images that were held back for the report, or None."""
    single_file: Path | None = None
    """The bundle as one ONNX file, or None."""
    failed_baselines: dict[str, str] = field(default_factory=dict)
    """Why a baseline that was asked for could not be made, by its name."""


def export(config: ExportConfig, progress: Progress | None = None) -> ExportResult:
    """Export a model as the configuration says.

    Raises:
        ExportError: options contradict each other, or the target exists.
        TowerError: the model is unknown or not supported.
        DataError: images are missing, unreadable, or in two splits.
        ParityError: the exported graphs do not compute what torch computes.
    """
    targets = Targets.checked(config)
    progress = progress or Silent()
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{config.out.parent} cannot be made ({error.strerror}); choose another --out") from error
    finished = config.out.with_name(f".{config.out.name}.work.finished")
    shutil.rmtree(finished, ignore_errors=True)
    root = config.work or config.out.with_name(f".{config.out.name}.work")
    with WorkFolder(root, progress.stage) as work:
        targets.recover()
        result = _Export(config, work, progress).run()
    if config.work is None:
        with suppress(OSError):  # the export is done; what cannot be removed now, the next one removes
            root.rename(finished)  # dying while clearing up must not leave half-removed stages that look finished
            shutil.rmtree(finished)
    return result


class _Export:
    """The stages of one export, in order; each method says what it reads and what it writes."""

    def __init__(self, config: ExportConfig, work: WorkFolder, progress: Progress) -> None:
        self.config, self.work, self.progress = config, work, progress
        self.stages = Stages(config, work, progress)
        self.baselines: BaselineMaker | None = None
        self.adapted: Adapted | None = None
        self.precision = config.tower_precision

    def run(self) -> ExportResult:
        """Run all stages and put the results where they were asked for."""
        self.stages.check()
        if self.config.adapt is not None:
            self.adapted = adapt(self.stages)
            self.stages = self.adapted.stages
        stages = self.stages
        self.baselines = BaselineMaker(stages) if self.config.baselines else None
        text, labels = stages.text_folder, stages.label_folder
        parity = self.work.stage("parity", {"parts": stages.float_parts.name}, self._prove_parity)
        if self.baselines is not None:
            self.baselines.trace()
        stages.forget_torch()
        tower_parts = stages.parts(self.precision)
        noise = None if self.precision == "FP32" else stages.noise(tower_parts)
        exits = self._exits(tower_parts, noise)
        inputs = {
            "tower": tower_parts.name,
            "exits": exits.name,
            "labels": labels.name,
            "text": text and text.name,
            "adapted": self.adapted and self.adapted.words,
            "notice": self.config.notice,
        }
        bundle = self.work.stage("bundle", inputs, lambda folder: self._pack(tower_parts, exits, folder))
        metrics = self._metrics(bundle, parity, exits, noise)
        return self._install(bundle, tower_parts, metrics)

    def _prove_parity(self, folder: Path) -> None:
        source = open_dataset(photos())  # colours and odd sizes, whatever the model was trained on
        count = min(PARITY_IMAGES, len(source))
        spread = np.linspace(0, len(source) - 1, count).astype(int)
        images = [open_image(source.read_bytes(index), name=source.name(index)) for index in spread]
        stages = check_parity(
            self.stages.chain(self.stages.float_parts).stages,
            self.stages.model.torch_model,
            self.stages.model.transform,
            lambda image: preprocess(image, self.stages.tower.preprocessing),
            images,
        )
        write_json(stages, folder / "parity.json")

    def _exits(self, tower_parts: Path, noise: NoiseProfile | None) -> Path:
        config, stages = self.config, self.stages
        if config.exits == "none":
            return self.work.stage("exits", {"blocks": ()}, self._no_exits)
        blocks = candidates(config.exits, stages.tower.depth, is_random=stages.is_random)
        if config.exits == "auto" and noise is not None and not stages.is_random:
            dropped = pathological(noise, blocks)
            blocks = tuple(block for block in blocks if block not in dropped)
        tokens = bool(stages.token_blocks)
        routes = stages.routes(tower_parts, tokens=tokens, promise=True)
        inputs = {
            "tower": tower_parts.name,
            "labels": stages.label_folder.name,
            "heads": stages.splits.heads.fingerprint,
            "gating": stages.splits.gating.fingerprint,
            "promise": [stages.splits.promise and stages.splits.promise.fingerprint, config.promise],
            "promise_confidence": config.promise_confidence,
            "supervision": stages.supervision,
            "blocks": blocks,
            "options": [config.exits, config.reads, config.max_accuracy_drop, config.min_flops_saving, config.seed],
            "thresholds": config.thresholds,
            "training": dataclasses.asdict(config.heads),
            "learned": stages.learned_heads and stages.learned_heads.name,
            "merged": [dataclasses.asdict(schedule) for schedule in stages.schedules],
        }

        def train(folder: Path) -> None:
            rounds = len(head_inputs(config, class_token=stages.tower.has_class_token, tokens=tokens))
            advance = self.progress.steps(rounds * config.heads.epochs)
            task = stages.task(tower_parts)
            routing = fit_routing(task, routes, blocks=blocks, advance=advance)
            if config.promise is not None:
                routing = with_promise(task, routing, routes)
            kept = [schedule.name for schedule in stages.schedules if schedule.kept]
            routing = without_unused(routing, exits=config.exits == "auto" and not stages.is_random, kept=kept)
            if config.thresholds == "per-class":
                routing = with_class_thresholds(task, routing, routes[0].heads, routes[0].gating)
            build_exits([stages.exits_of(routing, name) for name in (None, *routing.merged)], stages.tower, folder)
            ratios = {} if noise is None else {block.block: block.information_to_noise for block in noise.blocks}
            saved = saved_routing(task, routing, supervision=stages.supervision, information_to_noise=ratios)
            write_json(saved, folder / ROUTING)

        return self.work.stage("exits", inputs, train)

    def _no_exits(self, folder: Path) -> None:
        build_exits([], self.stages.tower, folder)
        write_json(SavedRouting(), folder / ROUTING)

    def _pack(self, tower_parts: Path, exits: Path, folder: Path) -> None:
        config, stages = self.config, self.stages
        inputs = BundleInputs(
            tower=stages.tower,
            fingerprint=stages.fingerprint,
            parts=(tower_parts, exits),
            merged=stages.merged_parts(tower_parts),
            text=stages.text_folder,
            routing=read_json(SavedRouting, exits / ROUTING),
            label_set=stages.label_set,
            labels=stages.labels,
            config=config,
            choices=load_choices(tower_parts),
            calibration_views=stages.read.rows.get("calibration", 0),
            sources={
                "weights_sha256": stages.model.source_sha256 or "none",
                "calibration": stages.splits.calibration.fingerprint,
                "heads": stages.splits.heads.fingerprint,
                "gating": stages.splits.gating.fingerprint,
                "promise": _promise_words(stages.splits.promise, stages.read.images.get("promise", 0), config),
                **({} if self.adapted is None else {"adapted": self.adapted.words}),
                **_taught_by(config),
                **({} if stages.given_labels is None else {"labels": f"given, {stages.given_labels_sha256}"}),
                "outliers": "none" if config.inject_outliers is None else f"{config.inject_outliers:g}",
                **({} if stages.merging_machine is None else {"merged_for": f"latency on {stages.merging_machine}"}),
                **({} if config.notice is None else {"notice": config.notice}),
            },
        )
        pack(inputs, folder)

    def _metrics(self, bundle: Path, parity: Path, exits: Path, noise: NoiseProfile | None) -> Metrics:
        proved = read_json(tuple[StageParity, ...], parity / "parity.json")
        metrics = measure(self.stages, bundle, exits, self.precision, parity=proved, noise=noise)
        return dataclasses.replace(metrics, adaptation=None if self.adapted is None else self.adapted.sentence)

    def _findings(self, bundle: Path, metrics: Metrics) -> Findings:
        manifest = Bundle(bundle).manifest
        pictures, merged = self._pictures(bundle), self._merged_pictures(bundle)
        return Findings(manifest=manifest, metrics=metrics, config=self.config, pictures=pictures, merged=merged)

    def _pictures(self, bundle: Path) -> list[Picture]:
        """Choose images of the evaluation split by the block where they leave."""
        stages = self.stages
        if stages.splits.evaluation is None or stages.is_random:
            return []
        rows = load_pixel_set(stages.pixels(stages.splits.evaluation, views=1))
        classes = stages.classes(stages.splits.evaluation)[rows.source]
        return run_pictures(bundle, rows.pixels, classes, seed=self.config.seed)

    def _merged_pictures(self, bundle: Path) -> list[MergedPicture]:
        """Draw images of the evaluation split as the default operating point merges them, if it does."""
        manifest, evaluation = Bundle(bundle).manifest, self.stages.splits.evaluation
        schedule = manifest.schedule_of(manifest.default_point)
        if evaluation is None or schedule is None or self.stages.is_random:
            return []
        rows = load_pixel_set(self.stages.pixels(evaluation, views=1)).pixels
        chosen = np.linspace(0, len(rows) - 1, min(MERGED_PICTURES, len(rows))).astype(int)
        return merged_pictures(bundle, schedule, np.ascontiguousarray(rows[chosen]))

    def _held_back(self) -> Path | None:
        """Write the images that were held back for the report, where that was asked for."""
        dataset = self.stages.splits.evaluation
        if self.config.evaluate_share is None or dataset is None:
            return None
        skipped = sorted(self.stages.read.skipped.get("evaluation", {}))
        inputs = {"data": dataset.fingerprint, "source": dataset.source.name, "skipped": skipped}
        return self.work.stage("held-back", inputs, lambda folder: save_held_back(dataset, folder, skipped=skipped))

    def _single_file(self, bundle: Path) -> Path | None:
        """Write the bundle as one file, where that was asked for."""
        if not self.config.single_file:
            return None
        opened, name = Bundle(bundle), f"{self.config.out.stem}.onnx"
        if opened.manifest.saturates:
            self.progress.notice(f"{name}: {SATURATES}")

        def write(folder: Path) -> None:
            write_single_file(opened, folder / name)
            point = opened.manifest.default_point or FULL
            write_json({"bundle": opened.manifest_sha256, "point": point}, folder / "single_file.json")

        return self.work.stage("single", {"bundle": bundle.name, "name": name}, write)

    def _install(self, bundle: Path, tower_parts: Path, metrics: Metrics) -> ExportResult:
        out = self.config.out
        report = self.work.stage(
            "report",
            {"bundle": bundle.name, "metrics": key_of(encode(metrics)), "name": out.name},
            lambda folder: write_report(self._findings(bundle, metrics), folder),
        )
        baselines = None if self.baselines is None else self.baselines.make(tower_parts)
        finished = {".report": report, ".lraee": bundle}
        finished |= {} if baselines is None else {".baselines": baselines}
        adapted = self.adapted if self.adapted is not None and self.adapted.is_taken else None
        finished |= {} if adapted is None else {".adapted": adapted.folder}
        held_back = self._held_back()
        finished |= {} if held_back is None else {".evaluation": held_back}
        single = self._single_file(bundle)
        finished |= {} if single is None else {".single": single}
        targets = Targets(out)
        targets.install(finished)
        return ExportResult(
            bundle=out,
            report=targets.all[".report"],
            baselines=None if baselines is None else targets.all[".baselines"],
            adapted=None if adapted is None else targets.all[".adapted"],
            evaluation=None if held_back is None else targets.all[".evaluation"] / ARCHIVE,
            single_file=None if single is None else targets.all[".single"] / f"{out.stem}.onnx",
            failed_baselines={} if self.baselines is None else self.baselines.failed,
        )


def _taught_by(config: ExportConfig) -> dict[str, str]:
    """Say whose answers heads learned from, where those are means over several views."""
    views = config.heads.teacher_views
    return {} if views == 1 else {"taught_by": f"FP32's mean answer over {views} views of each image"}


def _promise_words(dataset: Dataset | None, images: int, config: ExportConfig) -> str:
    """Say what the point ``promised`` guarantees, for the provenance."""
    if dataset is None:
        return "none"
    return (
        f"at most {config.promise:g} points lost with probability {config.promise_confidence:g}, proved on "
        f"{images} images ({dataset.fingerprint})"
    )
