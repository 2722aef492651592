"""The reference, images of the shipped pool, and what the tower as given says of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lraee_calibration_data import fashion_mnist_pool, label_rows, load_pixels, open_dataset
from lraee_exporters.labels import embed_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_toolchain.adaptation.accuracy import embed_all
from lraee_toolchain.adaptation.lessons import EpochRecord, Photos, TuningTask, exit_blocks
from lraee_toolchain.adaptation.trunk import Machine
from lraee_toolchain.adaptation.tuning import Watch, tune
from lraee_toolchain.config import Adaptation
from lraee_toolchain.data.labels import read_labels

CPU = Machine(device=torch.device("cpu"), bf16=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """A model and what it can be tuned on."""

    model: LoadedModel
    learn: Photos
    held_out: Photos
    labels: NDArray[np.float32]

    def few(self) -> Lessons:
        """Keep 80 images to learn from and 32 to judge by, for tests that need no accuracy."""
        return Lessons(
            model=self.model, learn=_first(self.learn, 80), held_out=_first(self.held_out, 32), labels=self.labels
        )

    def task(self, options: Adaptation, seed: int = 0) -> TuningTask:
        """Describe a tuning with these options."""
        preprocessing = self.model.tower.preprocessing
        return TuningTask(
            labels=self.labels,
            logit_scale=self.model.tower.logit_scale,
            mean=preprocessing.mean,
            std=preprocessing.std,
            exits=exit_blocks(self.model.tower.depth, options),
            options=options,
            seed=seed,
        )

    def tune(
        self, options: Adaptation, folder: Path, *, learn: Photos | None = None, watch: Watch | None = None
    ) -> tuple[Any, list[EpochRecord]]:
        """Tune a copy of the image tower on the CPU in float32."""
        folder.mkdir(exist_ok=True)
        visual = copy.deepcopy(self.model.torch_model.visual)
        photos = (learn or self.learn, self.held_out)
        return visual, tune(visual, self.task(options), photos, folder, CPU, watch or Watch())


@pytest.fixture(scope="session")
def lessons() -> Lessons:
    """160 images of the pool to learn from and 160 others to judge by, with labels."""
    model = load_model("reference")
    label_set = read_labels("reference")
    labels = embed_labels(model, label_set)
    pool = open_dataset(fashion_mnist_pool())
    made = Lessons(model=model, learn=_EMPTY, held_out=_EMPTY, labels=labels)
    task = made.task(Adaptation())

    def photos(start: int, count: int) -> Photos:
        dataset = pool.subset(range(start, len(pool), len(pool) // count)[:count])
        pixels = load_pixels(dataset, model.tower.preprocessing).pixels
        teacher = np.zeros((len(pixels), labels.shape[1]), np.float32)

        def write(first: int, rows: NDArray[np.float32]) -> None:
            teacher[first : first + len(rows)] = rows

        embed_all(model.torch_model.visual, pixels, task, CPU, write)
        return Photos(pixels=pixels, classes=label_rows(dataset, label_set.names), teacher=teacher)

    return Lessons(model=model, learn=photos(0, 160), held_out=photos(1, 160), labels=labels)


def _first(photos: Photos, count: int) -> Photos:
    classes = None if photos.classes is None else photos.classes[:count]
    return Photos(pixels=photos.pixels[:count], classes=classes, teacher=photos.teacher[:count])


_EMPTY = Photos(pixels=np.zeros((0, 1, 1, 3), np.uint8), classes=None, teacher=np.zeros((0, 1), np.float32))


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Any], dict[str, torch.Tensor]]:
    """Copy the weights of a module by name."""
    return lambda module: {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="session")
def few_lessons(lessons: Lessons) -> Lessons:
    """The first of them."""
    return lessons.few()
