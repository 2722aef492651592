"""An export with merged tokens: schedules over the same weights, points over both axes, tables of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import lraee
from lraee.bundle.folder import Bundle
from lraee.bundle.strict_json import read_json
from lraee.policies import Adaptive, Full
from lraee_calibration_data import fashion_mnist_test, label_rows, load_pixels, open_dataset
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.config.learning import Adaptation, HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.metrics import Metrics
from lraee_toolchain.export import export
from lraee_toolchain.stages.inputs import Inputs, Silent

EVEN = (2,) * 11 + (0,)


@pytest.fixture(scope="module")
def config(
    small_config: Callable[..., ExportConfig], picked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> ExportConfig:
    """The reference with two schedules, one given and one searched, and a promise; heads learn for seconds."""
    folder = tmp_path_factory.mktemp("merged")
    config = small_config(
        folder / "merged.lraee",
        work=folder / "work",
        evaluate=picked(fashion_mnist_test(), folder / "test.zip", step=20),
        merge_tokens=((2,), 0.45),
        exits=(5, 8, 10),
        reads="both",
        heads=HeadTraining(epochs=10),
        max_accuracy_drop=8.0,
        promise=20.0,
    )
    export(config)
    return config


def test_schedules_share_the_weights_of_the_plain_blocks(config: ExportConfig) -> None:
    """Exits with the same head share theirs too: a schedule costs its graphs alone."""
    manifest = Bundle(config.out).manifest
    assert manifest.format == 3
    data = {part.name: part.data for part in manifest.parts}
    for schedule in manifest.schedules:
        for number, name in enumerate(schedule.blocks, start=1):
            assert data[name] == data[f"block_{number:02d}"]
        for exit in schedule.exits:
            assert data[exit.part] == f"exit_{exit.block:02d}.data"
    named = {one for part in manifest.parts for one in (part.graph, part.data) if one}
    written = {file.name for file in manifest.files if file.name.endswith((".onnx", ".data"))}
    assert written - {manifest.text and manifest.text.tokenizer} == named
    kept = {name for schedule in manifest.schedules for name in schedule.blocks}
    assert {name for name in data if name.startswith("block_")} <= kept | {f"block_{n:02d}" for n in range(1, 13)}


def test_features_of_every_schedule_are_in_the_room_that_was_asked_for(config: ExportConfig) -> None:
    """To the byte."""
    assert config.work is not None
    with WorkFolder(config.work) as work:
        need = Inputs(config, work, Silent()).disk_need
    arrays = [path for stage in ("features", "answers") for path in config.work.glob(f"{stage}-*/*.npy")]
    assert sum(path.stat().st_size - 128 for path in arrays) == need.features  # less the files' headers


def test_schedules_are_in_the_bundle_that_were_given_or_that_a_point_takes(config: ExportConfig) -> None:
    """And points name them."""
    manifest = Bundle(config.out).manifest
    taken = {point.schedule for point in manifest.operating_points} - {None}
    (given,) = (schedule.name for schedule in manifest.schedules if schedule.merged == EVEN)
    assert taken
    assert taken | {given} == {schedule.name for schedule in manifest.schedules}


def test_the_runtime_does_what_was_measured(config: ExportConfig) -> None:
    """Every point and every schedule at full depth: accuracy and FLOPs as the report says, by batch and one by one."""
    metrics = read_json(Metrics, config.out.with_suffix(".report") / "metrics.json")
    evaluation, model = metrics.evaluation, lraee.load(config.out)
    assert evaluation is not None
    assert config.evaluate is not None
    images = open_dataset(config.evaluate)
    pixels = load_pixels(images, model.manifest.preprocessing).pixels
    wanted = label_rows(images, model.labels)
    for row in (*evaluation.points, *evaluation.merged, evaluation.full):
        policy = Adaptive(row.point) if row.kind == "adaptive" else Full(row.point)
        answers = model.run_pixels(pixels, policy=policy)
        assert 1 - model.flops_of_run(answers).mean() / model.manifest.full_flops == pytest.approx(row.flops_saved)
        for index in range(0, len(pixels), 50):
            alone = model.run_pixels(pixels[index : index + 1], policy=policy)
            assert alone.exit_block[0] == answers.exit_block[index]
            assert alone.probabilities.argmax() == answers.probabilities[index].argmax()
        assert (answers.probabilities.argmax(axis=1) == wanted).mean() == pytest.approx(row.accuracy.mean)
    assert {row.spec for row in evaluation.merged} == {f"full@{one.name}" for one in model.manifest.schedules}


def test_the_report_names_schedules_points_and_the_command(config: ExportConfig) -> None:
    """In Markdown and on the page."""
    folder, manifest = config.out.with_suffix(".report"), Bundle(config.out).manifest
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        assert "pairs merged in each block" in text
        for schedule in manifest.schedules:
            assert schedule.name in text
    assert "--merge-tokens 2 --merge-tokens 0.45" in (folder / "report.html").read_text("utf-8")


def test_a_trunk_tuned_with_a_schedule_is_exported_with_it(
    small_config: Callable[..., ExportConfig], picked: Callable[..., Path], tmp_path: Path
) -> None:
    """With heads that learned with the trunk, of low rank in INT8: weights are shared, and provenance says so."""
    config = small_config(
        tmp_path / "tuned.lraee",
        evaluate=picked(fashion_mnist_test(), tmp_path / "test.zip", step=40),
        adapt=Adaptation(epochs=1, head_epochs=1, exits=(4, 8), most_drop=100.0),
        device="cpu",
        merge_tokens=((3,),),
        reads="attention",
        heads=HeadTraining(epochs=1, rank=32),
        max_accuracy_drop=60.0,
    )
    manifest = Bundle(export(config).bundle).manifest
    (schedule,) = manifest.schedules
    assert manifest.provenance["adapted"].endswith(f"tokens merged by {schedule.name}")
    assert schedule.merged == (3,) * 11 + (0,)
    assert {exit.reads for exit in schedule.exits} == {"attention"}
    for exit in schedule.exits:
        assert manifest.part(exit.part).data == f"exit_{exit.block:02d}.data"
        assert manifest.part(exit.part).operators["Log"] == 1
    metrics = read_json(Metrics, config.out.with_suffix(".report") / "metrics.json")
    assert metrics.evaluation is not None
    assert any(row.flops_saved > 0.4 for row in metrics.evaluation.points)
