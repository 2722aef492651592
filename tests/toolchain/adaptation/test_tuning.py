"""Tuning teaches early blocks to speak, changes only what it may, and goes on exactly after it was interrupted."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lraee_exporters.torch_tower.trunk import Machine
from lraee_toolchain.adaptation import tuning
from lraee_toolchain.adaptation.checkpoint import NAME, load_checkpoint
from lraee_toolchain.adaptation.lessons import EpochRecord, exit_words
from lraee_toolchain.adaptation.losses import Lesson, losses
from lraee_toolchain.adaptation.tuning import Watch, _Tuner, tune
from lraee_toolchain.config.learning import Adaptation

CPU = Machine(device=torch.device("cpu"), bf16=False)

SHORT = Adaptation(epochs=1, head_epochs=1, exits=(1, 2), batch_size=16)

LONG = Adaptation(epochs=3, exits=(4, 6), batch_size=16, learning_rate=3e-3, frozen=0.0, exit_weight=1.0)


@pytest.fixture(scope="module")
def tuned(lessons: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[EpochRecord]]:
    """A tower after one pass of the heads and three with the trunk."""
    return lessons.tune(LONG, tmp_path_factory.mktemp("tuned"))  # type: ignore[no-any-return]


def test_trunk_and_heads_learn_more_than_heads_could_alone(
    lessons: Any, tuned: tuple[Any, list[EpochRecord]], tmp_path: Path
) -> None:
    """Against the same passes with a trunk that stands still: a lower loss, and held-out images say nothing else.

    Their exits may lose a point and full depth two, which are one image and three of 160.
    """
    _, records = tuned
    still = dataclasses.replace(LONG, learning_rate=1e-9)
    _, control = lessons.tune(still, tmp_path / "still")
    learned, alone = records[-1].right, control[-1].right
    assert records[-1].loss < 0.97 * control[-1].loss
    assert np.mean(learned[:2]) > np.mean(alone[:2]) - 0.01, (learned, alone)
    assert learned[-1] > alone[-1] - 0.02
    assert [record.trunk for record in records] == [False, True, True, True]


def test_only_blocks_and_what_follows_them_change(
    lessons: Any, tuned: tuple[Any, list[EpochRecord]], weights_of: Callable[[Any], dict[str, torch.Tensor]]
) -> None:
    """The stem and the positions stay bit for bit; every matrix after them has moved."""
    given, found = weights_of(lessons.model.torch_model.visual), weights_of(tuned[0])
    frozen = {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"}
    same = {name for name in given if torch.equal(given[name], found[name])}
    assert given.keys() == found.keys()
    assert same == frozen & given.keys()


def test_lower_blocks_move_less(lessons: Any, tuned: tuple[Any, list[EpochRecord]]) -> None:
    """Their rates are lower by a factor for each block."""
    name = "transformer.resblocks.{}.mlp.c_fc.weight"
    given, found = lessons.model.torch_model.visual.state_dict(), tuned[0].state_dict()
    first, last = (float((found[name.format(at)] - given[name.format(at)]).norm()) for at in (0, 11))
    assert 0 < first < 0.5 * last


def test_frozen_blocks_stay(few_lessons: Any, tmp_path: Path) -> None:
    """As many as are asked for, from the first."""
    visual, _ = few_lessons.tune(dataclasses.replace(SHORT, frozen=0.25), tmp_path / "frozen")
    given = few_lessons.model.torch_model.visual
    moved = [
        not torch.equal(one.mlp.c_fc.weight, other.mlp.c_fc.weight)
        for one, other in zip(given.transformer.resblocks, visual.transformer.resblocks, strict=True)
    ]
    assert moved == [False] + [True] * 3


@pytest.mark.parametrize("stop", [3, 7, 9], ids=["heads alone", "within the trunk's pass", "last step"])
def test_an_interrupted_tuning_ends_in_the_same_weights(
    stop: int, few_lessons: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, the records too, and it does not begin anew; 80 images are five batches."""
    monkeypatch.setattr(tuning, "CHECKPOINT_IMAGES", 2 * SHORT.batch_size)
    wanted, records = few_lessons.tune(SHORT, tmp_path / "whole")
    counts: list[int] = []

    def die(count: int) -> None:
        counts.append(count)
        if len(counts) > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        few_lessons.tune(SHORT, tmp_path / "killed", watch=Watch(images=die))
    again: list[int] = []
    found, later = few_lessons.tune(SHORT, tmp_path / "killed", watch=Watch(images=again.append))
    assert again[0] == {3: 32, 7: 96, 9: 128}[stop]  # a checkpoint every two batches and after every pass
    assert sum(again) == 160
    assert later == records
    for name, value in wanted.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_a_half_written_checkpoint_is_not_looked_at(few_lessons: Any, tmp_path: Path) -> None:
    """It has another name until it is whole."""
    (tmp_path / f"{NAME}.half").write_bytes(b"half")
    assert load_checkpoint(tmp_path) is None
    few_lessons.tune(SHORT, tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.steps == 10
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_without_exits_only_full_depth_learns(few_lessons: Any, tmp_path: Path) -> None:
    """The control arm: as many passes with the trunk, none of heads."""
    visual, records = few_lessons.tune(Adaptation(epochs=2, exits="none"), tmp_path / "none")
    assert [(len(record.right), record.trunk) for record in records] == [(1, True)] * 2
    given = few_lessons.model.torch_model.visual
    assert not torch.equal(visual.proj, given.proj)


def test_without_labels_classes_do_not_matter(few_lessons: Any, tmp_path: Path) -> None:
    """Photos without classes are judged by the tower as given, which agrees with itself."""
    learn = dataclasses.replace(few_lessons.learn, classes=None)
    unlabelled = dataclasses.replace(
        few_lessons, learn=learn, held_out=dataclasses.replace(few_lessons.held_out, classes=None)
    )
    visual, records = unlabelled.tune(Adaptation(epochs=2, head_epochs=0, exits=(1, 2)), tmp_path / "free")
    assert records[-1].right[-1] > 0.8
    labelled, _ = few_lessons.tune(Adaptation(epochs=2, head_epochs=0, exits=(1, 2)), tmp_path / "labels")
    assert not torch.equal(visual.proj, labelled.proj)


def test_distillation_from_the_same_view_begins_at_nothing(few_lessons: Any, tmp_path: Path) -> None:
    """Without labels and augmentation the tower as given has nothing to learn from itself."""
    learn = dataclasses.replace(few_lessons.learn, classes=None)
    options = Adaptation(epochs=1, exits="none", augment=False)
    _, records = few_lessons.tune(options, tmp_path / "self", learn=learn)
    assert abs(records[0].loss) < 1e-4


def test_a_batch_in_parts_teaches_the_same(few_lessons: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where activations are too large for one backward pass.

    Tolerance: sums in another order, which AdamW's first steps, divided by their own size, carry into the weights.
    """
    wanted, _ = few_lessons.tune(dataclasses.replace(SHORT, learning_rate=1e-5), tmp_path / "whole")
    monkeypatch.setattr(tuning, "MOST_ACTIVATIONS", 2**20)
    monkeypatch.setattr(tuning, "images_at_once", parts := Parts(tuning.images_at_once))
    found, _ = few_lessons.tune(dataclasses.replace(SHORT, learning_rate=1e-5), tmp_path / "parts")
    assert all(1 <= size < SHORT.batch_size for size in parts.sizes)
    for name, value in wanted.state_dict().items():
        moved = (value - few_lessons.model.torch_model.visual.state_dict()[name]).abs().max()
        assert (value - found.state_dict()[name]).abs().max() <= 0.2 * moved + 1e-7, name


class Parts:
    """Notes what `images_at_once` said."""

    def __init__(self, original: Callable[..., int]) -> None:
        self.original, self.sizes = original, []

    def __call__(self, *arguments: Any) -> int:
        """Ask it."""
        self.sizes.append(self.original(*arguments))
        return self.sizes[-1]


def test_the_given_tower_may_answer_for_the_augmented_view(few_lessons: Any, tmp_path: Path) -> None:
    """Then the loss is lower, since teacher and student see the same."""
    same, plain = (
        few_lessons.tune(
            Adaptation(epochs=1, exits="none", teacher=teacher, label_smoothing=0.0),
            tmp_path / teacher,
            learn=dataclasses.replace(few_lessons.learn, classes=None),
        )[1][-1].loss
        for teacher in ("augmented", "plain")
    )
    assert same < plain


def test_memory_does_not_grow_with_the_images(few_lessons: Any, tmp_path: Path) -> None:
    """100,000 images lie in a file; six steps on them take as much anonymous memory as on 500, within 24 MB."""
    size = few_lessons.model.tower.image_size
    many = np.lib.format.open_memmap(tmp_path / "many.npy", "w+", np.uint8, (100_000, size, size, 3))
    teacher = np.lib.format.open_memmap(
        tmp_path / "teacher.npy", "w+", np.float32, (100_000, few_lessons.labels.shape[1])
    )
    teacher[:] = few_lessons.learn.teacher[0]
    learn = dataclasses.replace(few_lessons.learn, pixels=many, teacher=teacher, classes=None)

    options = dataclasses.replace(SHORT, head_epochs=0, epochs=9)

    def peak(photos: Any, name: str) -> int:
        seen: list[int] = []

        def look(count: int) -> None:
            seen.append(anonymous_kb())
            if len(seen) > 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            few_lessons.tune(options, tmp_path / name, learn=photos, watch=Watch(images=look))
        return max(seen)

    few = peak(few_lessons.learn, "few")
    assert peak(learn, "many") - few < 24 * 1024


def anonymous_kb() -> int:
    """Anonymous memory of this process, by Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not tell a process its anonymous memory")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon"))


def test_words_for_shares() -> None:
    """In percent, by block; without exits full depth alone."""
    assert exit_words((8, 10), (0.501, 0.584, 0.6521)) == "after block 8 50.1, 10 58.4, full depth 65.2 %"
    assert exit_words((), (0.5,)) == "full depth 50.0 %"


@pytest.mark.parametrize("exit_teacher", ["given", "end"])
def test_exits_learn_from_the_teacher_that_was_chosen(exit_teacher: str) -> None:
    """An exit that answers as its teacher loses nothing; what it loses else never moves the end."""
    options = Adaptation(exit_teacher=exit_teacher)  # type: ignore[arg-type]
    random = torch.Generator().manual_seed(0)
    given, end, labels = (F.normalize(torch.randn(5, 8, generator=random), dim=-1) for _ in range(3))
    lesson = Lesson(labels=labels, logit_scale=10.0, classes=None, teacher=given)
    end.requires_grad_(True)
    copied, other = (given, end) if exit_teacher == "given" else (end, given)
    found = losses(torch.stack([copied.detach(), other.detach(), end]), lesson, options)
    assert float(found[0].detach()) == pytest.approx(0, abs=1e-5)
    assert float(found[1].detach()) > 0.1
    found[:2].sum().backward(retain_graph=True)
    assert end.grad is None or float(end.grad.abs().max()) == 0
    found[2].backward()
    assert end.grad is not None
    assert float(end.grad.abs().max()) > 0


def test_steps_draw_schedules_and_heads_count_merged_tokens(few_lessons: Any, tmp_path: Path) -> None:
    """Every schedule, and none, about as often; the draw depends on the step alone, so that a resumed run agrees."""
    task = dataclasses.replace(few_lessons.task(SHORT), schedules=((1, 2, 1, 0), (4, 4, 3, 0)))
    visual = copy.deepcopy(few_lessons.model.torch_model.visual)
    tuner = _Tuner(visual, task, (few_lessons.learn, few_lessons.held_out), CPU)
    drawn, counted = [], set()
    for step in range(60):
        tuner.step_number = step
        drawn.append(tuner._schedule())
        with torch.no_grad():
            answers, sizes = tuner._run(torch.zeros(2, 3, 28, 28))
        for tokens, of_exit in zip(answers.tokens, sizes, strict=True):
            counted.add(tokens.shape[1])
            assert of_exit is None or of_exit.shape == tokens.shape[:2]
            assert of_exit is None or of_exit.sum(dim=1).tolist() == [17, 17]
    assert set(drawn) == {(), *task.schedules}
    assert min(drawn.count(schedule) for schedule in set(drawn)) > 10
    assert counted == {17, 16, 14, 13, 9}
    tuner.step_number = 7
    assert tuner._schedule() == drawn[7]
    folder = tmp_path / "tuned"
    folder.mkdir()
    again = copy.deepcopy(few_lessons.model.torch_model.visual)
    records = tune(again, task, (few_lessons.learn, few_lessons.held_out), folder, CPU, Watch()).records
    assert np.isfinite([record.loss for record in records]).all()
