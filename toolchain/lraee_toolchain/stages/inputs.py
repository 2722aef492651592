"""What an export starts from: the model, the labels and the images, checked before anything takes long."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ExportError
from lraee.labels.label_set import LabelSet
from lraee_calibration_data import Dataset, label_rows
from lraee_exporters.labels import check_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_exporters.loading.sources import REFERENCE_NAMES
from lraee_exporters.tower import Tower
from lraee_exporters.widen import inject_outliers, to_open_clip
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.disk_need import DiskNeed, Sizes, check_room, disk_need
from lraee_toolchain.data.label_embeddings import read_label_embeddings
from lraee_toolchain.data.labels import read_labels
from lraee_toolchain.data.notices import ImagesRead, read_images, used_splits
from lraee_toolchain.data.splits import PixelSet, Splits, load_pixel_set, open_splits, save_pixels
from lraee_toolchain.parts.schedule_choice import asked_for


class Progress(Protocol):
    """Receives progress updates of an export."""

    def stage(self, name: str, found: bool) -> None:
        """Begin a stage; `found` when its result is already there."""
        ...

    def steps(self, total: int | None) -> Callable[[int], None]:
        """Give the running stage `total` steps, None if unknown; call the result with how many were done."""
        ...

    def notice(self, text: str) -> None:
        """Tell the user something about the images at once."""
        ...


class Silent:
    """Discards progress updates."""

    def stage(self, name: str, found: bool) -> None:
        """Discard a stage."""

    def steps(self, total: int | None) -> Callable[[int], None]:
        """Discard every step."""
        return lambda done: None

    def notice(self, text: str) -> None:
        """Discard a notice."""


class Inputs:
    """The model, its labels and the images of one export, each loaded when it is first asked for.

    Call `check` first: it loads them all and refuses what cannot work before anything takes long.
    """

    def __init__(self, config: ExportConfig, work: WorkFolder, progress: Progress) -> None:
        self.config, self.work, self.progress = config, work, progress
        self.given: Self | None = None
        """The same with the model as it was loaded, where this one's trunk was tuned."""

    def with_model(self, model: LoadedModel) -> Self:
        """Make the same inputs with a model that was tuned from this one."""
        other = type(self)(self.config, self.work, self.progress)
        other.model, other.given = model, self
        other.label_set, other.splits, other.read = self.label_set, self.splits, self.read
        return other

    @cached_property
    def model(self) -> LoadedModel:
        """The model as it was loaded, with outlier channels where they are asked for."""
        config = self.config
        self.progress.stage("load", False)
        model = load_model(
            config.model,
            pretrained=config.pretrained,
            activation=config.activation,
            text=config.label_embeddings is None,
            logit_scale=config.logit_scale,
        )
        if config.inject_outliers is None:
            return model
        tower = inject_outliers(model.tower, factor=config.inject_outliers)
        return dataclasses.replace(model, tower=tower, torch_model=to_open_clip(tower, model.torch_model))

    @cached_property
    def tower(self) -> Tower:
        """The float image tower."""
        return self.model.tower

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tower's weights."""
        return self.tower.fingerprint()

    @property
    def is_random(self) -> bool:
        """Whether the weights are random."""
        return self.tower.weights.startswith("random")

    @cached_property
    def label_set(self) -> LabelSet:
        """Names and templates of the labels."""
        default = "reference" if self.config.model in REFERENCE_NAMES else "imagenet"
        return read_labels(self.config.labels or default)

    @cached_property
    def given_labels(self) -> NDArray[np.float32] | None:
        """The labels' embeddings, where they were given."""
        path = self.config.label_embeddings
        return None if path is None else read_label_embeddings(path, self.label_set.names, self.tower.embed_dim)

    @property
    def given_labels_sha256(self) -> str | None:
        """SHA-256 (hex) of the labels' embeddings, where they were given."""
        return None if self.given_labels is None else hashlib.sha256(self.given_labels.tobytes()).hexdigest()

    @cached_property
    def splits(self) -> Splits:
        """The images by purpose."""
        return open_splits(self.config, self.label_set, seed=self.config.seed)

    @property
    def supervision(self) -> Literal["labels", "label-free"]:
        """What heads and gates learn from."""
        labelled = bool(self.splits.heads.labels) and self.config.supervision != "label-free" and not self.is_random
        return "labels" if labelled else "label-free"

    @cached_property
    def read(self) -> ImagesRead:
        """What became of the images; the splits that this export uses are preprocessed."""
        return read_images(
            self.config,
            self.splits,
            lambda dataset, views: self.pixels(dataset, views=views),
            with_labels=self.supervision == "labels",
            is_random=self.is_random,
            notice=self.progress.notice,
        )

    def check(self) -> None:
        """Load the model, read the images, and refuse options that cannot work with them.

        Raises:
            ExportError: an option does not fit the model, or the disk has too little room.
            TowerError: the model is unknown or not supported.
            DataError: images are missing, unreadable, or in two splits.
        """
        config, tower = self.config, self.tower
        if self.given_labels is None:
            check_labels(self.model, self.label_set)
        if isinstance(config.exits, tuple) and max(config.exits) >= tower.depth:
            raise ExportError(f"--exits names block {max(config.exits)}, wanted 1 to {tower.depth - 1}")
        for wish in config.merge_tokens:
            if not isinstance(wish, float):
                asked_for(tower, wish)
        wants = {"--ablations": config.ablations, f"--reads {config.reads}": config.reads in ("cls", "both")}
        for option, asked in wants.items():
            if asked and not tower.has_class_token:
                raise ExportError(
                    f"{option} needs a class token, which the tower of {config.model} does not have (it pools by "
                    f"{tower.pooling}); leave it out, exits then read the mean patch token"
                )
        fitted = {
            "--supervision labels": config.supervision == "labels",
            "--promise": config.promise is not None,
            "--thresholds per-class": config.thresholds == "per-class",
            "--adapt": config.adapt is not None,
            "--evaluate-share": config.evaluate_share is not None,
        }
        for option, asked in fitted.items():
            if asked and self.is_random:
                raise ExportError(f"{option} means nothing with random weights; leave it out")
        if (said := check_room(self.disk_need, self.work.root, ablations=config.ablations)) is not None:
            self.progress.notice(said)
        _ = self.read

    @cached_property
    def rows(self) -> dict[str, int]:
        """Rows of pixels by split, views included."""
        splits = self.splits.named()
        views = used_splits(self.config, self.splits, is_random=self.is_random)
        return {name: len(splits[name]) * count for name, count in views.items()}

    @cached_property
    def disk_need(self) -> DiskNeed:
        """What the export takes in the work folder."""
        return disk_need(Sizes.of(self.tower, self.rows, len(self.label_set.names)), self.config)

    def pixels(self, dataset: Dataset, *, views: int) -> Path:
        """Preprocess a split."""
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
            lambda folder: save_pixels(
                dataset,
                self.tower.preprocessing,
                folder,
                views=views,
                seed=self.config.seed,
                workers=self.config.workers,
            ),
        )

    def pixel_set(self, dataset: Dataset, *, views: int) -> PixelSet:
        """Open a split's preprocessed images."""
        return load_pixel_set(self.pixels(dataset, views=views))

    def classes(self, dataset: Dataset) -> NDArray[np.int64]:
        """Look up the row of each image's label, (images,) int64."""
        return label_rows(dataset, self.label_set.names, self.label_set.folders)
