"""The stages that an export and its evidence share: ranges, INT8 parts, pixels, cached features, noise."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ExportError
from lraee.labels.label_set import LabelSet
from lraee_calibration_data import Dataset, label_rows
from lraee_exporters.graphs.text import TextPrecision
from lraee_exporters.labels import check_labels, embed_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_exporters.tower import Tower
from lraee_exporters.widen import inject_outliers, to_open_clip
from lraee_toolchain.array_file import save_array
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.data.label_embeddings import read_label_embeddings
from lraee_toolchain.data.labels import read_labels
from lraee_toolchain.data.notices import ImagesRead, read_images
from lraee_toolchain.data.splits import Splits, load_pixel_set, open_splits, save_pixels
from lraee_toolchain.early_exit.features import (
    Teacher,
    extract_embeddings,
    extract_features,
    load_features,
    load_teacher,
)
from lraee_toolchain.early_exit.routing import Costs, Material
from lraee_toolchain.parts.build import build_float, load_parts
from lraee_toolchain.parts.runner import Chain
from lraee_toolchain.parts.text import build_text_part
from lraee_toolchain.quantization.calibration import calibrate, load_ranges, save_ranges
from lraee_toolchain.quantization.dynamic import build_dynamic
from lraee_toolchain.quantization.noise import NoiseProfile, diagnose, load_profile, profile_csv, save_profile
from lraee_toolchain.quantization.precision import Precision
from lraee_toolchain.quantization.quantizers import build_int8, build_int8_strong

FloatArray = NDArray[np.float32]

NOISE_IMAGES = 512
"""Images of the gating split that the noise profile is measured on."""


class Progress(Protocol):
    """Who wants to know how far an export is."""

    def stage(self, name: str, found: bool) -> None:
        """A stage begins; `found` when its result is there already."""
        ...

    def steps(self, total: int | None) -> Callable[[int], None]:
        """The stage has `total` steps, or with None so many as come; call the result with how many were done."""
        ...

    def notice(self, text: str) -> None:
        """Something that the user should know of the images, at once."""
        ...


class Silent:
    """Nobody wants to know."""

    def stage(self, name: str, found: bool) -> None:
        """Say nothing."""

    def steps(self, total: int | None) -> Callable[[int], None]:
        """Count nothing."""
        return lambda done: None

    def notice(self, text: str) -> None:
        """Say nothing."""


def with_outliers(model: LoadedModel, factor: float) -> LoadedModel:
    """The same float function with outlier channels, in the tower and in torch."""
    tower = inject_outliers(model.tower, factor=factor)
    return dataclasses.replace(model, tower=tower, torch_model=to_open_clip(tower, model.torch_model))


class Stages:
    """What is made from one model and its splits, each a stage of the work folder."""

    def __init__(self, config: ExportConfig, work: WorkFolder, progress: Progress) -> None:
        self.config, self.work, self.progress = config, work, progress
        progress.stage("load", False)
        self.model: LoadedModel = load_model(
            config.model,
            pretrained=config.pretrained,
            activation=config.activation,
            text=config.label_embeddings is None,
            logit_scale=config.logit_scale,
        )
        if config.inject_outliers is not None:
            self.model = with_outliers(self.model, config.inject_outliers)
        self.tower: Tower = self.model.tower
        default_labels = "reference" if config.model.startswith("reference") else "imagenet"
        self.label_set: LabelSet = read_labels(config.labels or default_labels)
        self.given_labels = self._given_labels()
        if self.given_labels is None:
            check_labels(self.model, self.label_set)
        if isinstance(config.exits, tuple) and max(config.exits) >= self.tower.depth:
            raise ExportError(f"--exits names block {max(config.exits)}, wanted 1 to {self.tower.depth - 1}")
        self._check_class_token()
        self.splits: Splits = open_splits(config, self.label_set, seed=config.seed)
        self.fingerprint = self.tower.fingerprint()
        self.is_random = self.tower.weights.startswith("random")
        if config.supervision == "labels" and self.is_random:
            raise ExportError("--supervision labels means nothing with random weights; leave it away")
        if config.promise is not None and self.is_random:
            raise ExportError("--promise means nothing with random weights; leave it away")
        labelled = bool(self.splits.heads.labels) and config.supervision != "label-free" and not self.is_random
        self.supervision = "labels" if labelled else "label-free"
        self.read: ImagesRead = read_images(
            config,
            self.splits,
            lambda dataset, views: self.pixels(dataset, views=views),
            with_labels=labelled,
            is_random=self.is_random,
            notice=progress.notice,
        )
        self.text_folder: Path | None = None if config.text == "none" else self._text_part(config.text)
        label_key: dict[str, Any] = {"tower": self.fingerprint, "labels": dataclasses.asdict(self.label_set)}
        if self.given_labels is not None:
            label_key |= {"given": self.given_labels_sha256}
        self.label_folder = work.stage("labels", label_key, self._embed_labels)
        self.labels: FloatArray = np.load(self.label_folder / "labels.npy")
        self.float_parts = work.stage(
            "float", {"tower": self.fingerprint}, lambda folder: build_float(self.tower, folder)
        )

    def _check_class_token(self) -> None:
        """Refuse what needs a class token where there is none."""
        config = self.config
        wants = {"--ablations": config.ablations, f"--reads {config.reads}": config.reads in ("cls", "both")}
        for option, asked in wants.items():
            if asked and not self.tower.has_class_token:
                raise ExportError(
                    f"{option} needs a class token, which the tower of {config.model} has not (it pools by "
                    f"{self.tower.pooling}); leave it away, exits then read the mean patch token"
                )

    def _embed_labels(self, folder: Path) -> None:
        given = self.given_labels
        save_array(folder / "labels.npy", embed_labels(self.model, self.label_set) if given is None else given)

    def _given_labels(self) -> FloatArray | None:
        path = self.config.label_embeddings
        return None if path is None else read_label_embeddings(path, self.label_set.names, self.tower.embed_dim)

    @property
    def given_labels_sha256(self) -> str | None:
        """SHA-256 (hex) of the labels' embeddings, where they were given."""
        return None if self.given_labels is None else hashlib.sha256(self.given_labels.tobytes()).hexdigest()

    def _text_part(self, precision: TextPrecision) -> Path:
        inputs = {
            "weights": [self.fingerprint, self.model.source_sha256],
            "labels": dataclasses.asdict(self.label_set),
            "precision": precision,
        }
        return self.work.stage(
            "text", inputs, lambda folder: build_text_part(self.model, self.label_set, precision, folder)
        )

    def forget_torch(self) -> None:
        """Half a gigabyte that is needed no more once parity is proved."""
        self.model = dataclasses.replace(self.model, torch_model=None)

    def chain(self, parts: Path, *, threads: int | None = None) -> Chain:
        """The tower of a parts folder, to be run."""
        labels = np.ascontiguousarray(self.labels.T)
        sigmoid = self.tower.logit_bias is not None
        return Chain(parts, self.tower.depth, labels, self.tower.logit_scale, sigmoid=sigmoid, threads=threads)

    def pixels(self, dataset: Dataset, *, views: int) -> Path:
        """A split, preprocessed."""
        inputs = {
            "data": dataset.fingerprint,
            "preprocessing": dataclasses.asdict(self.tower.preprocessing),
            "views": views,
            "seed": self.config.seed,
            "unreadable": dataset.unreadable,
        }
        return self.work.stage(
            "pixels",
            inputs,
            lambda folder: save_pixels(dataset, self.tower.preprocessing, folder, views=views, seed=self.config.seed),
        )

    def parts(self, precision: Precision) -> Path:
        """The tower's parts at one precision."""
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
        ranges = self.work.stage(
            "ranges",
            {"parts": float_parts.name, "pixels": pixels.name, **method},
            lambda folder: save_ranges(
                calibrate(
                    self.chain(float_parts),
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
            {"ranges": ranges.name, "quantizer": "naive"},
            lambda folder: build_int8(self.tower, load_ranges(ranges / "ranges.json"), folder),
        )

    def material(self, dataset: Dataset, tower_parts: Path, *, views: int) -> Material:
        """Cached features of a split from a tower, and the float tower's answers."""
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels)

        def extract(folder: Path) -> None:
            advance = self.progress.steps(len(rows.pixels))
            has_class_token = self.tower.has_class_token
            extract_features(self.chain(tower_parts), rows.pixels, folder, class_token=has_class_token, advance=advance)

        key = {"pixels": pixels.name, "labels": self.label_folder.name}
        features = self.work.stage("features", {"parts": tower_parts.name, **key}, extract)
        teacher = self.answers(dataset, self.float_parts, views=views)
        classes = None
        if self.supervision == "labels" and dataset.labels:
            classes = self.classes(dataset)[rows.source]
        return Material(features=load_features(features), teacher=teacher, classes=classes)

    def classes(self, dataset: Dataset) -> NDArray[np.int64]:
        """(images,) int64 the row of each image's label."""
        return label_rows(dataset, self.label_set.names, self.label_set.folders)

    def answers(self, dataset: Dataset, parts: Path, *, views: int) -> Teacher:
        """What a tower answers at full depth; that of the float tower teaches."""
        pixels = self.pixels(dataset, views=views)
        rows = load_pixel_set(pixels).pixels

        def run(folder: Path) -> None:
            extract_embeddings(self.chain(parts), rows, folder, advance=self.progress.steps(len(rows)))

        key = {"parts": parts.name, "pixels": pixels.name, "labels": self.label_folder.name}
        return load_teacher(self.work.stage("answers", key, run))

    def costs(self, tower_parts: Path) -> Costs:
        """FLOPs of the parts."""
        flops = {p.name: p.flops + p.flops_per_label * len(self.labels) for p in load_parts(tower_parts)}
        width = self.tower.width
        both = self.config.reads in ("both", "auto") and self.tower.has_class_token
        reads = 2 if both else 1  # of the largest head that may be chosen
        head = 2 * (reads * width * width + width * self.tower.embed_dim) + 4 * self.tower.tokens * width + 24
        return Costs(
            stem=flops["stem"],
            block=flops["block_01"] if self.tower.depth > 1 else 0,
            last=flops[f"block_{self.tower.depth:02d}"],
            exit=head + 2 * self.tower.embed_dim * len(self.labels),
            tail=flops["tail"],
            depth=self.tower.depth,
        )

    def noise(self, tower_parts: Path) -> NoiseProfile:
        """The noise of the INT8 tower, on images that gates and thresholds are fitted on too."""
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
            save_profile(profile, folder / "noise.json")
            (folder / "noise.csv").write_text(profile_csv(profile), "utf-8")

        inputs = {"float": self.float_parts.name, "parts": tower_parts.name, "pixels": pixels.name}
        return load_profile(self.work.stage("noise", inputs, measure) / "noise.json")

    def split_material(self, tower_parts: Path) -> tuple[Material, Material]:
        """Material of the heads' and gating splits."""
        views = self.splits.views
        heads = self.material(self.splits.heads, tower_parts, views=views)
        return heads, self.material(self.splits.gating, tower_parts, views=1)

    def promise_material(self, tower_parts: Path) -> Material | None:
        """Material of the split that the promised point is tested on, if one was asked for."""
        if self.splits.promise is None:
            return None
        return self.material(self.splits.promise, tower_parts, views=1)
