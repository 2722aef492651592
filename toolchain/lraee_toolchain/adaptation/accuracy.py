"""Judge the exits and the end of a tower on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lraee_exporters.torch_tower.trunk import Machine, run_tower
from lraee_toolchain.adaptation.lessons import Photos, TuningTask
from lraee_toolchain.adaptation.views import Views

BATCH = 64
"""Images that are judged together."""


def embed_all(
    visual: Any,
    pixels: NDArray[np.uint8],
    task: TuningTask,
    machine: Machine,
    write: Callable[[int, NDArray[np.float32]], None],
) -> None:
    """Embed images as they are at full depth and hand the unit rows of each batch, with its first row, to `write`."""
    views = Views(mean=task.mean, std=task.std, device=machine.device)
    for start in range(0, len(pixels), BATCH):
        with torch.no_grad():
            batch = views.plain(pixels[start : start + BATCH])
            write(start, run_tower(visual, batch, (), machine).embedding.cpu().numpy())


def wanted_answers(photos: Photos, task: TuningTask) -> NDArray[np.int64]:
    """Give the class of each image, or without labels the answer of the tower as given; (images,) int64."""
    if photos.classes is not None:
        return photos.classes
    return np.concatenate(
        [
            (np.asarray(photos.teacher[start : start + BATCH]) @ task.labels.T).argmax(1)
            for start in range(0, len(photos.teacher), BATCH)
        ]
    )


def shares_right(
    visual: Any, heads: Sequence[torch.nn.Module], task: TuningTask, photos: Photos, machine: Machine
) -> tuple[float, ...]:
    """Count how many images each exit, and last full depth, answers as it should; shares from 0 to 1."""
    views = Views(mean=task.mean, std=task.std, device=machine.device)
    labels = torch.from_numpy(task.labels).to(machine.device)
    wanted = wanted_answers(photos, task)
    exits = task.exits if len(heads) else ()
    right = np.zeros(len(exits) + 1, np.int64)
    for start in range(0, len(photos.pixels), BATCH):
        with torch.no_grad():
            batch = views.plain(photos.pixels[start : start + BATCH])
            answers = run_tower(visual, batch, exits, machine)
            embeddings = [head(tokens) for head, tokens in zip(heads, answers.tokens, strict=True)]
            best = (torch.stack([*embeddings, answers.embedding]) @ labels.T).argmax(-1).cpu().numpy()
        right += (best == wanted[start : start + BATCH]).sum(1)
    return tuple(float(count) for count in right / max(1, len(photos.pixels)))
