"""Chooses the merging schedules of an export: those that were asked for, or the best that save a share of the FLOPs.

What a schedule does is measured with the float tower in torch, where merging needs no graph to be built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ExportError
from lraee_exporters.loading.open_clip_models import LoadedModel
from lraee_exporters.torch_tower.merged_trunk import merging
from lraee_exporters.torch_tower.trunk import Machine, run_tower
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.block_times import BlockTimes
from lraee_toolchain.parts.schedule_search import find_schedule, full_saving, is_possible, scaled
from lraee_toolchain.parts.scheduled import NamedSchedule, Schedule

BATCH = 32

MOST_IMAGES, LEAST_IMAGES = 256, 32
"""Calibration images that a schedule is measured on, evenly spaced."""

MOST_FLOPS = 3e12
"""Of one measurement, which decides between them."""


def choose_schedules(
    model: LoadedModel,
    wishes: Sequence[float | Schedule],
    pixels: NDArray[np.uint8],
    advance: Callable[[int], None] = lambda done: None,
    times: BlockTimes | None = None,
) -> tuple[NamedSchedule, ...]:
    """Choose one schedule for each wish, without those that come out equal.

    With random weights, on which nothing can be measured, tokens merge evenly.

    Args:
        model: with its torch model, which shares of FLOPs are searched with.
        wishes: a share of the blocks' FLOPs, or pairs of tokens in each block, one number for all.
        pixels: (images, size, size, 3) uint8 calibration images.
        advance: called after each schedule that was measured.
        times: of the blocks on this machine, of which shares are taken; None takes shares of FLOPs.

    Raises:
        ExportError: a schedule does not fit the tower, or none saves as much as was asked for.
    """
    tower = model.tower
    measure = None if tower.weights.startswith("random") else _Measure(model, pixels, advance)
    saved = None if times is None else times.saving
    found: dict[Schedule, bool] = {}
    for wish in wishes:
        if not isinstance(wish, float):
            schedule = asked_for(tower, wish)
        elif measure is None:
            even = scaled(tower, (1.0,) * (tower.depth - 1) + (0.0,), wish, saved)
            schedule = even or find_schedule(tower, wish, lambda _: 0.0, saved)  # which says how much it can be
        else:
            schedule = find_schedule(tower, wish, measure, saved)
        found[schedule] = found.get(schedule, False) or measure is None or not isinstance(wish, float)
    named: dict[str, NamedSchedule] = {}
    for schedule, kept in found.items():
        name = stem = f"merged-{round(100 * full_saving(tower, schedule))}"
        while name in named:
            name = f"{stem}{chr(ord('b') + sum(one.startswith(stem) for one in named) - 1)}"
        named[name] = NamedSchedule(name=name, merged=schedule, kept=kept)
    return tuple(named.values())


def asked_for(tower: Tower, wish: Schedule) -> Schedule:
    """Complete and check a schedule that was given in numbers.

    Raises:
        ExportError: it has another depth than the tower, or a block has fewer pairs.
    """
    last = (0,) if tower.has_class_token else wish[-1:]
    schedule = wish * (tower.depth - 1) + last if len(wish) == 1 else wish
    said = ",".join(map(str, wish))
    if len(schedule) != tower.depth:
        raise ExportError(f"--merge-tokens is {said}, wanted one number, or {tower.depth}: one for each block")
    if not is_possible(tower, schedule):
        last_words = ", and the last, which computes the class token alone, none" if tower.has_class_token else ""
        raise ExportError(
            f"--merge-tokens is {said}, which merges more than there is: a block merges at most every other of its "
            f"tokens ({tower.tokens} come in){last_words}"
        )
    return schedule


class _Measure:
    """Measures how far a schedule moves the answers of the float tower on calibration images."""

    def __init__(self, model: LoadedModel, pixels: NDArray[np.uint8], advance: Callable[[int], None]) -> None:
        tower = model.tower
        flops = 2 * tower.depth * tower.tokens * (4 * tower.width**2 + 2 * tower.width * tower.mlp_width)
        count = min(len(pixels), max(LEAST_IMAGES, min(MOST_IMAGES, int(MOST_FLOPS / flops))))
        rows = np.linspace(0, len(pixels) - 1, count).astype(int)
        self._visual: Any = model.torch_model.visual
        self._images = normalized(pixels[rows], tower.preprocessing)
        self._machine = Machine(device=torch.device("cpu"), bf16=False)
        self._advance = advance
        self._plain = self._embed()

    def __call__(self, schedule: Schedule) -> float:
        """Give the mean of ``1 - cosine`` to the embedding without merging."""
        with merging(self._visual, schedule):
            merged = self._embed()
        self._advance(1)
        return float((1 - (merged * self._plain).sum(dim=1)).mean())

    def _embed(self) -> torch.Tensor:
        with torch.no_grad():
            batches = torch.split(self._images, BATCH)
            return torch.cat([run_tower(self._visual, batch, (), self._machine).embedding for batch in batches])


def normalized(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Turn pixels (images, size, size, 3) uint8 into what the torch tower takes, (images, 3, size, size) float32."""
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (preprocessing.mean, preprocessing.std))
    return (images - mean) / std
