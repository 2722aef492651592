"""The loop that tunes a trunk: first the exit heads alone, then heads and trunk together, with checkpoints.

Whatever is random is drawn from a generator that is seeded by the epoch or the step, so that a run that was killed
goes on from its checkpoint exactly as it would have gone on.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lraee_exporters.torch_tower.merged_trunk import merging
from lraee_exporters.torch_tower.trunk import Answers, Machine, blocks_of, has_class_token, run_tower
from lraee_toolchain.adaptation.accuracy import shares_right
from lraee_toolchain.adaptation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lraee_toolchain.adaptation.exit_heads import build_heads
from lraee_toolchain.adaptation.learning import BETAS, few_steps_factor, head_groups, rate_factor, trunk_groups
from lraee_toolchain.adaptation.lessons import EpochRecord, Photos, TuningTask
from lraee_toolchain.adaptation.losses import Lesson, loss_weights, losses
from lraee_toolchain.adaptation.low_rank import merge_low_rank
from lraee_toolchain.adaptation.views import Views

MOST_ACTIVATIONS = 2 * 2**30
"""Bytes that the activations of one backward pass may take, as `images_at_once` estimates them."""

CHECKPOINT_IMAGES = 20_000
"""Images after which a checkpoint is written within an epoch."""

LARGEST_GRADIENT = 1.0
"""Norm to which the gradients of the trunk, and of the heads, are clipped."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuned:
    """What a tuning came to, beside the tower."""

    records: list[EpochRecord]
    """Of each pass over the images."""
    heads: dict[int, torch.nn.Module]
    """Exit heads on the CPU, by block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is told of a tuning while it runs."""

    images: Callable[[int], None] = field(default=lambda done: None)
    """Called with how many images were learned from, once more at the start with those of a resumed run."""
    epoch: Callable[[EpochRecord], None] = field(default=lambda record: None)
    """Called after each pass over the images."""


def tune(
    visual: Any, task: TuningTask, photos: tuple[Photos, Photos], folder: Path, machine: Machine, watch: Watch
) -> Tuned:
    """Tune an image tower in place.

    Args:
        visual: image tower of an open_clip model, on the CPU; it returns there, merged, without gradients.
        task: labels, exits and options.
        photos: to learn from, and held out to judge by.
        folder: where the checkpoint is kept; one that is there is continued.
        machine: where to compute.
        watch: what to tell.
    """
    tuner = _Tuner(visual, task, photos, machine)
    tuner.resume(load_checkpoint(folder))
    watch.images(tuner.images_done)
    while tuner.step_number < tuner.steps:
        watch.images(tuner.step())
        ended = tuner.step_number % tuner.steps_per_epoch == 0
        if ended:
            watch.epoch(tuner.end_epoch())
        if ended or tuner.step_number % max(1, CHECKPOINT_IMAGES // task.options.batch_size) == 0:
            save_checkpoint(folder, tuner.checkpoint())
    return tuner.finish()


def images_at_once(visual: Any, tokens: int, batch_size: int) -> int:
    """Estimate how many images of a batch one backward pass can take, from the sizes of the tower alone."""
    blocks = blocks_of(visual)
    block: Any = blocks[0]
    width, heads = int(next(block.parameters()).shape[0]), int(block.attn.num_heads)
    an_image = 4 * len(blocks) * tokens * (16 * width + 3 * heads * tokens)
    return max(1, min(batch_size, MOST_ACTIVATIONS // an_image))


class _Tuner:
    """The state of one tuning."""

    def __init__(self, visual: Any, task: TuningTask, photos: tuple[Photos, Photos], machine: Machine) -> None:
        options = task.options
        self.task, self.machine, (self.photos, self.held_out) = task, machine, photos
        self.given = copy.deepcopy(visual).to(machine.device) if options.teacher == "augmented" else None
        self.visual = visual.to(machine.device)
        groups = trunk_groups(visual, options, task.seed)
        self.trunk = [parameter for group in groups for parameter in group["params"]]
        width = int(next(blocks_of(visual)[0].parameters()).shape[0])
        self.heads = build_heads(task, width, class_token=has_class_token(visual))
        self.heads.to(machine.device)
        groups += head_groups(self.heads, options)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
        self.views = Views(mean=task.mean, std=task.std, device=machine.device, flip=options.flip)
        self.labels = torch.from_numpy(task.labels).to(machine.device)
        self.weights = torch.tensor(loss_weights(task.exits, options), device=machine.device)
        self.steps_per_epoch = max(1, -(-len(self.photos.pixels) // options.batch_size))
        self.head_steps = self.steps_per_epoch * (options.head_epochs if task.exits else 0)
        self.steps = self.head_steps + self.steps_per_epoch * options.epochs
        self.step_number, self.loss_sum = 0, 0.0
        self.records: list[EpochRecord] = []
        self._at_once: int | None = None

    @property
    def images_done(self) -> int:
        """Images that were learned from so far."""
        epochs, steps = divmod(self.step_number, self.steps_per_epoch)
        return epochs * len(self.photos.pixels) + steps * self.task.options.batch_size

    @property
    def _learns_trunk(self) -> bool:
        return self.step_number >= self.head_steps

    def step(self) -> int:
        """Learn from one batch; returns its number of images."""
        epoch, place = divmod(self.step_number, self.steps_per_epoch)
        order = np.random.default_rng([self.task.seed, epoch]).permutation(len(self.photos.pixels))
        rows = np.sort(order[place * self.task.options.batch_size :][: self.task.options.batch_size])
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        images = self._view(self.photos.pixels[rows])
        at_once = self._images_at_once(images)
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            share = len(rows[part]) / len(rows)
            loss = (self.weights * self._losses(images[part], rows[part])).sum() * share
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            self.loss_sum += float(loss.detach()) * len(rows)
        for parameters in (self.trunk, list(self.heads.parameters())):
            if parameters:
                torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        self.optimizer.step()
        self.step_number += 1
        return len(rows)

    def _view(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        if not self.task.options.augment:
            return self.views.plain(pixels)
        seed = int(np.random.SeedSequence([self.task.seed, self.step_number, 1]).generate_state(1, np.uint64)[0])
        return self.views.random(pixels, torch.Generator().manual_seed(seed))

    def _images_at_once(self, images: torch.Tensor) -> int:
        if self._at_once is None:
            tokens = _count_tokens(self.visual, images[:1], self.machine)
            self._at_once = images_at_once(self.visual, tokens, self.task.options.batch_size)
        return self._at_once

    def _losses(self, images: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        """Compute the loss of each exit and the end, (exits + 1,); of the exits alone while only heads learn."""
        task, device = self.task, self.machine.device
        with torch.set_grad_enabled(self._learns_trunk):
            answers, sizes = self._run(images)
        embeddings = [head(*read) for head, *read in zip(self.heads, answers.tokens, sizes, strict=True)]
        teacher = torch.from_numpy(np.array(self.photos.teacher[rows])).to(device)
        if self.given is not None:
            with torch.no_grad():
                teacher = run_tower(self.given, images, (), self.machine).embedding
        classes = self.photos.classes
        lesson = Lesson(
            labels=self.labels,
            logit_scale=task.logit_scale,
            classes=None if classes is None else torch.from_numpy(classes[rows]).to(device),
            teacher=teacher,
        )
        return losses(torch.stack([*embeddings, answers.embedding]), lesson, task.options)

    def _run(self, images: torch.Tensor) -> tuple[Answers, list[torch.Tensor | None]]:
        """Run the tower under this step's schedule; after each exit's block, how many tokens each stands for."""
        schedule, exits = self._schedule(), self.task.exits
        if not any(schedule):
            return run_tower(self.visual, images, exits, self.machine), [None] * len(exits)
        with merging(self.visual, schedule) as sizes:
            answers = run_tower(self.visual, images, exits, self.machine)
        return answers, [sizes[block - 1][..., 0] if any(schedule[:block]) else None for block in exits]

    def _schedule(self) -> tuple[int, ...]:
        """Draw the merging schedule of this step, or that which merges nothing, with equal chances."""
        schedules = ((), *self.task.schedules)
        return schedules[int(np.random.default_rng([self.task.seed, self.step_number, 2]).integers(len(schedules)))]

    def _set_rates(self) -> None:
        of_heads = rate_factor(self.step_number, self.steps)
        trunk_steps = self.steps - self.head_steps
        of_trunk = few_steps_factor(trunk_steps) * rate_factor(self.step_number - self.head_steps, trunk_steps)
        trunk = {id(parameter) for parameter in self.trunk}
        for group in self.optimizer.param_groups:
            is_trunk = id(group["params"][0]) in trunk
            group["lr"] = group["base"] * ((of_trunk if self._learns_trunk else 0.0) if is_trunk else of_heads)

    def end_epoch(self) -> EpochRecord:
        """Judge the tower on the held-out images and keep the record."""
        images = len(self.photos.pixels)
        record = EpochRecord(
            epoch=self.step_number // self.steps_per_epoch,
            trunk=self.step_number > self.head_steps,
            images=images,
            loss=self.loss_sum / images,
            right=shares_right(self.visual, list(self.heads), self.task, self.held_out, self.machine),
        )
        self.loss_sum = 0.0
        self.records.append(record)
        return record

    def checkpoint(self) -> Checkpoint:
        """Collect everything that the next step depends on."""
        tensors = dict(self._learned())
        for place, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{place}.{name}"] = value
        notes = {"loss_sum": self.loss_sum, "records": [dataclasses.asdict(record) for record in self.records]}
        return Checkpoint(steps=self.step_number, notes=notes, tensors=tensors)

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint."""
        if checkpoint is None:
            return
        self.step_number, self.loss_sum = checkpoint.steps, float(checkpoint.notes["loss_sum"])
        for record in checkpoint.notes["records"]:
            self.records.append(EpochRecord(**{**record, "right": tuple(record["right"])}))
        with torch.no_grad():
            for name, parameter in self._learned().items():
                parameter.copy_(checkpoint.tensors[name])
        for place, parameter in enumerate(self._parameters()):
            prefix = f"optimizer.{place}."
            state = {
                name.removeprefix(prefix): tensor.to(self.machine.device)
                for name, tensor in checkpoint.tensors.items()
                if name.startswith(prefix)
            }
            if state:
                self.optimizer.state[parameter] = state

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _learned(self) -> Mapping[str, torch.nn.Parameter]:
        learned = {f"trunk.{place}": parameter for place, parameter in enumerate(self.trunk)}
        return learned | {f"heads.{name}": parameter for name, parameter in self.heads.named_parameters()}

    def finish(self) -> Tuned:
        """Merge low-rank updates, bring tower and heads back to the CPU and let nothing learn any more."""
        for block in blocks_of(self.visual):
            merge_low_rank(block)
        for module in (self.visual, self.heads):
            module.to("cpu").requires_grad_(False)
        return Tuned(records=self.records, heads=dict(zip(self.task.exits, self.heads, strict=True)))


def _count_tokens(visual: Any, image: torch.Tensor, machine: Machine) -> int:
    with torch.no_grad():
        return int(run_tower(visual, image, (1,), machine).tokens[0].shape[1])
