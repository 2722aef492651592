"""The reference, images of the shipped pool, and what the tower as given says of them."""

from __future__ import annotations

import copy
import dataclasses
import json
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
from lraee_exporters.torch_tower.trunk import Machine
from lraee_toolchain.adaptation.accuracy import embed_all
from lraee_toolchain.adaptation.lessons import EpochRecord, Photos, TuningTask, exit_blocks
from lraee_toolchain.adaptation.tuning import Watch, tune
from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.data.labels import read_labels

CPU = Machine(device=torch.device("cpu"), bf16=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """A model and what it can be tuned on."""

    model: LoadedModel
    learn: Photos
    held_out: Photos
    labels: NDArray[np.float32]

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
        return visual, tune(visual, self.task(options), photos, folder, CPU, watch or Watch()).records


@pytest.fixture(scope="session")
def lessons() -> Lessons:
    """160 images of the pool to learn from and 160 others to judge by, with labels."""
    model = load_model("reference")
    label_set = read_labels("reference")
    labels = embed_labels(model, label_set)
    pool = open_dataset(fashion_mnist_pool())
    made = Lessons(model=model, learn=_EMPTY, held_out=_EMPTY, labels=labels)

    def photos(start: int) -> Photos:
        dataset = pool.subset(range(start, len(pool), len(pool) // 160)[:160])
        pixels = load_pixels(dataset, model.tower.preprocessing).pixels
        return taught(made, pixels, label_rows(dataset, label_set.names))

    return dataclasses.replace(made, learn=photos(0), held_out=photos(1))


def taught(lessons: Lessons, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> Photos:
    """Ask the tower as given what it says of images."""
    teacher = np.zeros((len(pixels), lessons.labels.shape[1]), np.float32)

    def write(first: int, rows: NDArray[np.float32]) -> None:
        teacher[first : first + len(rows)] = rows

    embed_all(lessons.model.torch_model.visual, pixels, lessons.task(Adaptation()), CPU, write)
    return Photos(pixels=pixels, classes=classes, teacher=teacher)


_EMPTY = Photos(pixels=np.zeros((0, 1, 1, 3), np.uint8), classes=None, teacher=np.zeros((0, 1), np.float32))


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Any], dict[str, torch.Tensor]]:
    """Copy the weights of a module by name."""
    return lambda module: {name: value.clone() for name, value in module.state_dict().items()}


CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 4, "width": 32, "head_width": 16, "patch_size": 7},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def few_lessons(tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    """Four narrow blocks with random weights, 80 images of noise and 32 others, for tests that need no accuracy."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    model = load_model(str(folder), pretrained="random:0")
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(5, 16)).astype(np.float32)
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    made = Lessons(model=model, learn=_EMPTY, held_out=_EMPTY, labels=labels)
    learn, held_out = (
        taught(made, generator.integers(0, 256, (count, 28, 28, 3), np.uint8), np.arange(count) % 5)
        for count in (80, 32)
    )
    return dataclasses.replace(made, learn=learn, held_out=held_out)
