"""The stage of an export that tunes the trunk: gathers photos and the given tower's answers, tunes, judges, decides."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from lraee.errors import ExportError
from lraee_calibration_data import Dataset
from lraee_exporters.loading.open_clip_models import LoadedModel, tower_of
from lraee_exporters.torch_tower.trunk import Machine, choose_machine
from lraee_toolchain.adaptation.averaging import averaged
from lraee_toolchain.adaptation.exit_heads import as_heads
from lraee_toolchain.adaptation.folder import WEIGHTS_NAME, save_model
from lraee_toolchain.adaptation.lessons import EpochRecord, Photos, TuningTask, exit_blocks, exit_words
from lraee_toolchain.adaptation.tuning import Watch, tune
from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.early_exit.token_heads.saved import load_heads, save_heads
from lraee_toolchain.stages.exits import Stages

JUDGED = 2000
"""Images of the gating split that every pass is judged on; the decision at the end takes all of them."""

RECORD = "adaptation.json"

OF_AVERAGE = ("average", "average_head_epochs")
"""Options that a tuning does not depend on, so that another average does not tune again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapted:
    """What tuning the trunk came to."""

    stages: Stages
    """What the export goes on with: the tuned trunk, or where it lost too much the one as given."""
    folder: Path
    """The tuned model as an open_clip folder."""
    exits: tuple[int, ...]
    """Blocks that had an exit while it learned."""
    images: int
    """Images it learned from, views not counted."""
    given: float
    """Full depth of the tower as given, FP32, on the gating split, 0 to 1: accuracy, or without labels the probability
    that it gives its own answers."""
    tuned: float
    """The same of the tuned tower; without labels the probability that the tower as given gives its answers."""

    @property
    def is_taken(self) -> bool:
        """Whether the tuned trunk is the one that the export goes on with."""
        return self.stages.given is not None

    @property
    def words(self) -> str:
        """Say for the provenance what was done to the given weights."""
        options = _options(self.stages)
        if not self.is_taken:
            return f"no: tuning moved full depth by {self._change} points on the gating split; the given trunk is kept"
        epochs = f"{options.epochs} {'epoch' if options.epochs == 1 else 'epochs'}"
        how = "all weights of the blocks" if options.rank is None else f"rank {options.rank}"
        exits = f"exits after blocks {', '.join(map(str, self.exits))}" if self.exits else "without exits"
        merged = ", tokens merged by " + ", ".join(one.name for one in self.stages.schedules)
        average = f", {100 * options.average:g} % of the tuned weights averaged with those as given"
        return (
            f"{epochs} on {self.images} images, {self.stages.supervision}, {exits}, {how}, "
            f"learning rate {options.learning_rate:g}{merged if self.stages.schedules else ''}"
            f"{average if options.average < 1 else ''}"
        )

    @property
    def sentence(self) -> str:
        """Say what it did to full depth, and which trunk the export goes on with."""
        labelled = self.stages.supervision == "labels"
        measure = "top-1 at full depth" if labelled else "expected agreement with the tower as given"
        text = f"tuning the trunk moved {measure} by {self._change} points on the gating split"
        if self.is_taken:
            return f"{text}; the tuned trunk is taken"
        most = _options(self.stages).most_drop
        return f"{text}, and a loss of {most:g} is the most; the trunk as given is kept"

    @property
    def _change(self) -> str:
        return f"{100 * (self.tuned - self.given):+.2f}"


def adapt(stages: Stages) -> Adapted:
    """Tune the trunk of a model and decide whether the export goes on with it.

    Args:
        stages: checked inputs, with the model as it was loaded; its torch model is freed where the tuned one is taken.

    Raises:
        ExportError: the options do not fit the model or the images, or the device is not there.
    """
    options = _options(stages)
    exits = exit_blocks(stages.tower.depth, options)
    _check(stages, exits)
    split, rows = stages.splits, stages.pixel_set(stages.splits.heads, views=stages.splits.views)
    tuning = _Tuning(
        stages=stages,
        task=_task(stages, exits),
        photos=(_photos(stages, split.heads, views=split.views), _photos(stages, split.gating, views=1)),
        machine=choose_machine(stages.config.device),
    )
    folder = tuning.tune()
    if options.average < 1:
        folder = tuning.average(folder)
    tuned = stages.with_model(_load(stages.model, folder))
    tuned.schedules = stages.schedules  # the trunk learned with these
    if stages.config.heads.label_share == 1:  # else heads learn from labels and FP32's answers, on the tuned trunk
        tuned.learned_heads = folder
    given_share, tuned_share = _full_depth(stages, stages), _full_depth(stages, tuned)
    taken = 100 * (given_share - tuned_share) <= options.most_drop
    if taken:
        stages.model = dataclasses.replace(stages.model, torch_model=None)
    found = Adapted(
        stages=tuned if taken else stages,
        folder=folder,
        exits=exits,
        images=rows.images,
        given=given_share,
        tuned=tuned_share,
    )
    stages.progress.notice(found.sentence)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tuning:
    """The stages of an export's work folder that a tuning leaves."""

    stages: Stages
    task: TuningTask
    photos: tuple[Photos, Photos]
    """To learn from, and held out to judge by."""
    machine: Machine

    def tune(self) -> Path:
        """Tune a copy of the trunk with new heads; gives the folder of both."""
        stages, split, task = self.stages, self.stages.splits, self.task
        settings = dataclasses.asdict(task.options)
        inputs = {
            "tower": stages.fingerprint,
            "text": stages.model.source_sha256,
            "labels": stages.label_folder.name,
            "heads": stages.pixels(split.heads, views=split.views).name,
            "gating": stages.pixels(split.gating, views=1).name,
            "supervision": stages.supervision,
            "options": {name: value for name, value in settings.items() if name not in OF_AVERAGE},
            "exits": task.exits,
            "seed": task.seed,
            **({"schedules": task.schedules} if task.schedules else {}),
        }

        def make(folder: Path) -> None:
            visual = copy.deepcopy(stages.model.torch_model.visual)
            self._learn(visual, task, stages.work.begun("adapted", inputs), folder)

        return stages.work.stage("adapted", inputs, make)

    def average(self, tuned: Path) -> Path:
        """Average the tuned trunk with the one as given, on which the heads learn on; gives the folder of both."""
        stages, options = self.stages, self.task.options
        inputs = {"tuned": tuned.name, **{name: getattr(options, name) for name in OF_AVERAGE}}
        # Nothing but heads learns: all that concerns the trunk is left out.
        alone = dataclasses.replace(
            options, epochs=0, head_epochs=options.average_head_epochs, rank=None, teacher="plain"
        )
        task = dataclasses.replace(self.task, options=alone, heads=load_heads(tuned) if self.task.exits else {})

        def make(folder: Path) -> None:
            visual = copy.deepcopy(stages.model.torch_model.visual)
            weights = _load(stages.model, tuned).torch_model.visual.state_dict()
            visual.load_state_dict(averaged(visual.state_dict(), weights, options.average))
            self._learn(visual, task, stages.work.begun("averaged", inputs), folder)
            record = json.loads((tuned / RECORD).read_text("utf-8"))
            record["average"] = {"share": options.average, **json.loads((folder / RECORD).read_text("utf-8"))}
            _write_record(record, folder)

        return stages.work.stage("averaged", inputs, make)

    def _learn(self, visual: Any, task: TuningTask, begun: Path, folder: Path) -> None:
        """Tune a tower and write it with its heads and the record of each pass."""
        learn_from, held_out = self.photos
        watch = _watch(self.stages, task, images=len(learn_from.pixels))
        tuned = tune(visual, task, (learn_from, held_out.at_most(JUDGED)), begun, self.machine, watch)
        save_model(_with_visual(self.stages.model, visual), folder)
        save_heads(as_heads(tuned.heads), folder)
        epochs = [dataclasses.asdict(record) for record in tuned.records]
        _write_record({"machine": self.machine.words, "epochs": epochs}, folder)


def _write_record(record: Mapping[str, Any], folder: Path) -> None:
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _options(stages: Stages) -> Adaptation:
    options = stages.config.adapt
    if options is None:
        raise ExportError("nobody asked to tune the trunk; pass --adapt")
    return options


def _check(stages: Stages, exits: tuple[int, ...]) -> None:
    """Refuse options that do not fit the model or the images."""
    options, depth = _options(stages), stages.tower.depth
    if wrong := [block for block in exits if not 1 <= block < depth]:
        raise ExportError(f"--adapt-exits names block {wrong[0]}, wanted 1 to {depth - 1}")
    if stages.supervision == "label-free" and options.distillation <= 0:
        raise ExportError("tuning without labels learns by distillation alone, whose weight is 0; give it a weight")


def _task(stages: Stages, exits: tuple[int, ...]) -> TuningTask:
    return TuningTask(
        labels=stages.labels,
        logit_scale=stages.tower.logit_scale,
        mean=stages.tower.preprocessing.mean,
        std=stages.tower.preprocessing.std,
        exits=exits,
        options=_options(stages),
        seed=stages.config.seed,
        schedules=tuple(schedule.merged for schedule in stages.schedules),
    )


def _photos(stages: Stages, dataset: Dataset, *, views: int) -> Photos:
    """Gather the images of a split; their classes only where labels may be used."""
    rows = stages.pixel_set(dataset, views=views)
    labelled = stages.supervision == "labels"
    teacher = stages.lessons(dataset, views=views)
    return Photos(
        pixels=rows.pixels,
        classes=stages.classes(dataset)[rows.source] if labelled else None,
        teacher=np.asarray(teacher.embedding),
    )


def _watch(stages: Stages, task: TuningTask, *, images: int) -> Watch:
    """Show a bar of images, and a line with the time left after every pass."""
    options = task.options
    passes = options.epochs + (options.head_epochs if task.exits else 0)
    advance, began, done = stages.progress.steps(passes * images), time.monotonic(), [0]

    def step(count: int) -> None:
        done.append(done[-1] + count)
        advance(count)

    def epoch(record: EpochRecord) -> None:
        first = done[1] if len(done) > 1 else 0  # of a run that was interrupted
        seconds = time.monotonic() - began
        rate = (done[-1] - first) / max(seconds, 1e-9)
        left = (passes - record.epoch) * images / max(rate, 1e-9)
        stages.progress.notice(
            f"tuning, pass {record.epoch} of {passes} ({'trunk and heads' if record.trunk else 'heads alone'}): loss "
            f"{record.loss:.3f}, held out {exit_words(task.exits, record.right)}; {rate:.3g} images a second, "
            f"{_duration(left)} left"
        )

    return Watch(images=step, epoch=epoch)


def _duration(seconds: float) -> str:
    """Write a duration for people.

    >>> _duration(40), _duration(600), _duration(8000)
    ('40 s', '10 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _with_visual(model: LoadedModel, visual: Any) -> LoadedModel:
    """Put a tuned image tower in the place of a model's own."""
    torch_model = copy.copy(model.torch_model)
    torch_model._modules = {**torch_model._modules, "visual": visual}  # the text tower is shared, not copied
    given = model.tower
    tower = tower_of(
        torch_model,
        model_id=given.model_id,
        weights=f"{given.weights}, adapted",
        architecture=given.architecture,
        preprocessing=given.preprocessing,
    )
    return dataclasses.replace(model, tower=tower, torch_model=torch_model)


def _load(model: LoadedModel, folder: Path) -> LoadedModel:
    """Load what was tuned from a model."""
    visual = copy.deepcopy(model.torch_model.visual)
    state = load_file(folder / WEIGHTS_NAME)
    prefix = "visual." if model.has_text else ""
    visual.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    return _with_visual(model, visual)


def _full_depth(given: Stages, tower: Stages) -> float:
    """Judge full depth of a tower, FP32, on all gating images; see `Adapted.given`."""
    rows = given.pixel_set(given.splits.gating, views=1)
    answers = tower.answers(given.splits.gating, tower.float_parts, views=1)
    best = np.asarray(answers.probabilities).argmax(axis=1)
    if given.supervision == "labels":
        return float((best == given.classes(given.splits.gating)[rows.source]).mean())
    trusted = given.lessons(given.splits.gating, views=1).probabilities
    return float(np.asarray(trusted)[np.arange(len(best)), best].mean())
