"""Exports that tune the trunk first: what they write and say, what they refuse, and that a kill costs nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lraee.bundle.folder import Bundle
from lraee.bundle.strict_json import read_json
from lraee.commands.info import info_tables
from lraee.errors import ExportError
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.analysis.right_answers import unpack_right
from lraee_calibration_data import fashion_mnist_test
from lraee_exporters.graphs.pooling.token_pool import QUERIES
from lraee_exporters.loading.open_clip_models import load_model
from lraee_toolchain import cli
from lraee_toolchain import export as pipeline
from lraee_toolchain.adaptation.stage import _photos
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.config.learning import Adaptation, HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.token_heads.saved import arrays_of, load_heads
from lraee_toolchain.evaluation.metrics import FLOAT, GIVEN_FLOAT, GIVEN_INT8, Metrics
from lraee_toolchain.export import ExportResult, export
from lraee_toolchain.stages.exits import Stages
from lraee_toolchain.stages.inputs import Silent

NOTICE = "Fashion-MNIST, MIT; tuned on its pool"
TUNING = Adaptation(epochs=1, head_epochs=1, exits=(4, 8), most_drop=100.0)


@pytest.fixture(scope="module")
def adapted(
    small_config: Callable[..., ExportConfig], picked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportConfig, ExportResult]:
    """A small export whose trunk was tuned for one pass, each pass judged on fewer images than the gating split has."""
    folder = tmp_path_factory.mktemp("adapted")
    test = picked(fashion_mnist_test(), folder / "test.zip", step=40)
    config = small_config(
        folder / "tuned.lraee", work=folder / "work", adapt=TUNING, device="cpu", evaluate=test, notice=NOTICE
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lraee_toolchain.adaptation.stage.JUDGED", 50)
        return config, export(config)


def test_the_tuned_model_is_a_folder_that_open_clip_loads(adapted: tuple[ExportConfig, ExportResult]) -> None:
    """And `load_model`: both give the same embeddings; text tower and logit scale are those that were given."""
    _, result = adapted
    assert result.adapted == result.bundle.with_suffix(".adapted")
    theirs = open_clip.create_model(f"local-dir:{result.adapted}").eval()
    ours, given = load_model(str(result.adapted)), load_model("reference")
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(theirs.encode_image(images), ours.torch_model.encode_image(images))
        assert not torch.equal(theirs.encode_image(images), given.torch_model.encode_image(images))
    found = load_file(result.adapted / "open_clip_model.safetensors")
    for name, value in given.torch_model.state_dict().items():
        if not name.startswith("visual."):
            assert torch.equal(found[name], value), name
    assert ours.tower.preprocessing == given.tower.preprocessing


def test_the_bundle_is_made_of_the_tuned_tower(adapted: tuple[ExportConfig, ExportResult], tmp_path: Path) -> None:
    """An export of the folder, as any other model, has the same tower; its exits have to learn anew."""
    config, result = adapted
    changes = {"adapt": None, "device": "auto", "out": tmp_path / "again.lraee", "work": None}
    again = export(dataclasses.replace(config, model=str(result.adapted), labels="reference", **changes))
    one, other = Bundle(result.bundle).manifest, Bundle(again.bundle).manifest
    sizes = [{entry.name: entry.sha256 for entry in manifest.files} for manifest in (one, other)]
    names = {name for name in sizes[0] if name.startswith(("block", "stem", "tail"))}
    assert len(names) > 12
    assert {name: sizes[0][name] for name in names} == {name: sizes[1][name] for name in names}


def test_heads_that_learned_with_the_trunk_are_the_exits(
    adapted: tuple[ExportConfig, ExportResult], tmp_path: Path
) -> None:
    """The same work folder: the trunk is not tuned again, and the queries of the exits are those it learned with.

    Those that are to learn from FP32's answers too learn anew.
    """
    config, result = adapted
    asked = dataclasses.replace(config, reads="attention", exits=(4, 8), evaluate=None)
    found = export(dataclasses.replace(asked, out=tmp_path / "attention.lraee"))
    heads = HeadTraining(epochs=1, label_share=0.3)
    anew = export(dataclasses.replace(asked, out=tmp_path / "anew.lraee", heads=heads))
    learned = load_heads(result.bundle.with_suffix(".adapted"))
    assert sorted(learned) == [4, 8]
    for block, head in learned.items():
        assert head.pool is not None
        width = len(head.pool.queries)
        # after those of the mean patch and the class token
        assert np.array_equal(_queries(found.bundle, block, width), head.pool.queries.T)
        assert not np.array_equal(_queries(anew.bundle, block, width), head.pool.queries.T)
    assert load_heads(anew.bundle.with_suffix(".adapted")).keys() == learned.keys()


def _queries(bundle: Path, block: int, width: int) -> np.ndarray:
    """The queries of an exit's head, (queries, width)."""
    graph = onnx.load(str(bundle / f"exit_{block:02d}.onnx")).graph
    matrices = [onnx.numpy_helper.to_array(each, str(bundle)) for each in graph.initializer]
    return next(matrix for matrix in matrices if matrix.shape == (QUERIES + 2, width))[2:]


def test_provenance_report_and_info_say_that_it_was_adapted(adapted: tuple[ExportConfig, ExportResult]) -> None:
    """With the hash of the given weights, where they come from, what was done, and the differences to the tower as
    given."""
    _, result = adapted
    manifest, metrics = Bundle(result.bundle).manifest, read_json(Metrics, result.report / "metrics.json")
    assert manifest.model.weights == "reference, adapted"
    assert manifest.provenance["weights_sha256"] == load_model("reference").source_sha256
    assert manifest.provenance["adapted"] == (
        "1 epoch on 96 images, labels, exits after blocks 4, 8, all weights of the blocks, learning rate 5e-05"
    )
    words = [
        str(cell) for table in info_tables(Bundle(result.bundle)) for column in table.columns for cell in column.cells
    ]
    assert manifest.provenance["adapted"] in words
    assert NOTICE in words
    assert metrics.adaptation is not None
    assert metrics.adaptation.endswith("; the tuned trunk is taken")
    assert metrics.evaluation is not None
    assert metrics.evaluation.given is not None
    full = metrics.evaluation.full
    assert full.difference_to_given is not None
    assert full.difference_to_given.mean == pytest.approx(full.accuracy.mean - metrics.evaluation.given.accuracy.mean)
    report = (result.report / "report.md").read_text("utf-8")
    assert "| FP32 as given, full depth |" in report
    assert "The trunk was tuned before the export" in report


def test_which_images_are_right_is_kept_for_every_row(adapted: tuple[ExportConfig, ExportResult]) -> None:
    """So that two exports can be paired: the means are the accuracies, the differences those of the rows."""
    _, result = adapted
    evaluation = read_json(Metrics, result.report / "metrics.json").evaluation
    assert evaluation is not None
    assert evaluation.right is not None
    assert evaluation.given is not None
    right = {name: unpack_right(text, evaluation.images) for name, text in evaluation.right.items()}
    assert set(right) == {FLOAT, GIVEN_FLOAT, *(row.spec for row in evaluation.rows)}
    assert right[FLOAT].mean() == pytest.approx(evaluation.float_accuracy.mean)
    assert mean_over_images(right[FLOAT] - right[GIVEN_FLOAT]) == evaluation.given.float_difference
    for row in evaluation.rows:
        assert mean_over_images(right[row.spec]) == row.accuracy
        assert mean_over_images(right[row.spec] - right["full"]) == row.difference_to_full
        assert mean_over_images(right[row.spec] - right[GIVEN_FLOAT]) == row.difference_to_given


def test_the_int8_of_the_tower_as_given_is_measured_where_precisions_are(
    adapted: tuple[ExportConfig, ExportResult], tmp_path: Path
) -> None:
    """It is what an export without tuning answers at full depth."""
    config, _ = adapted
    tuned = export(dataclasses.replace(config, out=tmp_path / "tuned.lraee", precisions=True))
    plain = export(dataclasses.replace(config, out=tmp_path / "plain.lraee", adapt=None, device="auto"))
    one, other = (read_json(Metrics, done.report / "metrics.json").evaluation for done in (tuned, plain))
    assert one is not None
    assert other is not None
    assert one.given is not None
    assert one.right is not None
    assert other.right is not None
    assert (one.right[GIVEN_FLOAT], one.right[GIVEN_INT8]) == (other.right[FLOAT], other.right["full"])
    assert one.given.quantized == other.full.accuracy
    report = (tuned.report / "report.md").read_text("utf-8")
    assert "| naive INT8 as given, full depth |" in report
    assert "exits: against own full depth" in report


def test_an_average_lies_between_the_tuned_weights_and_those_as_given(
    adapted: tuple[ExportConfig, ExportResult], tmp_path: Path
) -> None:
    """The trunk is not tuned again; heads learn on from those it learned with; bundle and folder hold the average."""
    config, tuned = adapted
    assert config.work is not None
    half = dataclasses.replace(TUNING, average=0.5, average_head_epochs=1)
    before = {path.name for path in config.work.glob("adapted-*")}
    result = export(dataclasses.replace(config, out=tmp_path / "half.lraee", adapt=half, evaluate=None))
    assert {path.name for path in config.work.glob("adapted-*")} == before
    folder, other = (done.bundle.with_suffix(".adapted") for done in (result, tuned))
    given = load_model("reference").torch_model.state_dict()
    found, ends = (load_file(place / "open_clip_model.safetensors") for place in (folder, other))
    changed = [name for name in given if not torch.equal(given[name], ends[name])]
    assert changed
    for name, weight in given.items():
        middle = 0.5 * weight + 0.5 * ends[name] if name in changed else weight
        assert torch.allclose(found[name], middle, rtol=0, atol=1e-6), name
    record = json.loads((folder / "adaptation.json").read_text("utf-8"))
    assert [epoch["trunk"] for epoch in record["epochs"]] == [False, True]
    assert record["average"]["share"] == 0.5
    assert [epoch["trunk"] for epoch in record["average"]["epochs"]] == [False]
    heads, learned = load_heads(folder), load_heads(other)
    assert sorted(heads) == [4, 8]
    for block in heads:
        one, two = (arrays_of(some[block])["fc1.weight"].ravel() for some in (heads, learned))
        assert 0.9 < np.corrcoef(one, two)[0, 1] < 1 - 1e-6
    words = Bundle(result.bundle).manifest.provenance["adapted"]
    assert words.endswith(", 50 % of the tuned weights averaged with those as given")


def test_the_control_arm_is_averaged_without_heads(small_config: Callable[..., ExportConfig], tmp_path: Path) -> None:
    """Its exits learn afterwards, as those of any tower."""
    control = Adaptation(epochs=1, exits="none", average=0.25, most_drop=100.0)
    result = export(small_config(tmp_path / "control.lraee", adapt=control, device="cpu"))
    assert result.adapted is not None
    assert load_heads(result.adapted) == {}


def test_a_trunk_that_lost_too_much_is_not_taken(
    adapted: tuple[ExportConfig, ExportResult], exported: Any, tmp_path: Path
) -> None:
    """A learning rate that ruins it: the bundle is that of the trunk as given but for its provenance."""
    config, _ = adapted
    ruin = Adaptation(epochs=1, head_epochs=0, exits=(4, 8), learning_rate=0.5)
    result = export(dataclasses.replace(config, out=tmp_path / "kept.lraee", adapt=ruin))
    assert result.adapted is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.lraee", "kept.report"]
    manifest, plain = Bundle(result.bundle).manifest, Bundle(exported.result.bundle).manifest
    assert manifest.files == plain.files
    assert manifest.model == plain.model
    assert manifest.provenance["adapted"].startswith("no: tuning moved full depth by -")
    assert "the trunk as given is kept" in (result.report / "report.md").read_text("utf-8")


def test_without_labels_no_class_is_looked_at(small_config: Callable[..., ExportConfig], tmp_path: Path) -> None:
    """Although the images lie in folders of classes."""
    config = small_config(tmp_path / "x.lraee", supervision="label-free", adapt=TUNING)
    stages = Stages(config, WorkFolder(tmp_path / "work"), Silent())
    photos = _photos(stages, stages.splits.heads, views=1)
    assert photos.classes is None
    assert np.allclose(np.linalg.norm(photos.teacher, axis=1), 1, atol=1e-5)


def test_passes_are_judged_on_images_from_the_whole_split_with_their_own_classes(
    small_config: Callable[..., ExportConfig], tmp_path: Path
) -> None:
    """Every so many images, whatever order they lie in; all where there are few."""
    stages = Stages(small_config(tmp_path / "x.lraee", adapt=TUNING), WorkFolder(tmp_path / "work"), Silent())
    photos = _photos(stages, stages.splits.gating, views=1)
    assert photos.classes is not None
    count = len(photos.pixels)
    assert len(photos.at_most(count).pixels) == count
    some = photos.at_most(count // 2 - 1)
    assert some.classes is not None
    for given, kept in ((photos.pixels, some.pixels), (photos.classes, some.classes), (photos.teacher, some.teacher)):
        np.testing.assert_array_equal(kept, given[::3])


def test_only_the_heads_images_teach(adapted: tuple[ExportConfig, ExportResult]) -> None:
    """The record counts them: 240 images are few, so 40 % are the heads', each in four views."""
    config, result = adapted
    assert config.work is not None
    record = json.loads((result.bundle.with_suffix(".adapted") / "adaptation.json").read_text())
    assert {epoch["images"] for epoch in record["epochs"]} == {4 * 96}
    assert not list(config.work.glob(".begun-*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exits": "none"}, "--exits none leaves --adapt nothing to do"),
        ({"model": "ViT-B-32", "pretrained": "random:1"}, "random weights have nothing"),
        ({"model": "reference-b32"}, "--adapt does not tune reference-b32"),
        ({"inject_outliers": 64.0}, "--adapt would tune injected outliers away"),
        ({"notice": "two\nlines"}, "--notice is 'two\\\\nlines', wanted one line"),
        (
            {"reads": "both", "heads": HeadTraining(rank=8)},
            "--head-rank is for heads that read all tokens",
        ),
        ({"adapt": None, "device": "cpu"}, "--device cpu is where --adapt tunes the trunk"),
        ({"adapt": Adaptation(epochs=0)}, "--adapt-epochs is 0, wanted 1 to 1000"),
        ({"adapt": Adaptation(rank=0)}, "--adapt-rank is 0"),
        ({"adapt": Adaptation(average=0.0)}, "--adapt-average is 0, wanted 0.01 to 1"),
        ({"adapt": Adaptation(learning_rate=-1.0)}, "--adapt-learning-rate is -1"),
        ({"adapt": Adaptation(exits=(4, 12))}, "--adapt-exits names block 12, wanted 1 to 11"),
        ({"device": "cuda"}, "--device is cuda, which torch"),
        (
            {"supervision": "label-free", "adapt": Adaptation(distillation=0.0)},
            "learns by distillation alone, whose weight is 0",
        ),
    ],
)
def test_tuning_that_cannot_be_is_refused(
    changes: dict[str, Any], message: str, small_config: Callable[..., ExportConfig], tmp_path: Path
) -> None:
    """Before anything takes long."""
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("CUDA is there")
    config = small_config(tmp_path / "x.lraee", **({"adapt": TUNING} | changes))
    with pytest.raises(ExportError, match=message):
        export(config)


def test_an_existing_adapted_folder_is_refused(small_config: Callable[..., ExportConfig], tmp_path: Path) -> None:
    """As any target is."""
    (tmp_path / "x.adapted").mkdir()
    with pytest.raises(ExportError, match=r"x\.adapted exists"):
        export(small_config(tmp_path / "x.lraee", adapt=TUNING))


def test_the_command_builds_the_settings(tmp_path: Path) -> None:
    """What is not given keeps its default."""
    seen: list[ExportConfig] = []

    def keep(config: ExportConfig, progress: object) -> None:
        seen.append(config)
        raise ExportError("enough")

    options = ["reference", "-o", str(tmp_path / "x.lraee"), "--adapt", "--adapt-epochs", "3", "--adapt-rank", "8"]
    options += ["--adapt-exits", "6,9", "--adapt-no-flip", "--adapt-exit-weight", "2", "--device", "cpu"]
    options += ["--adapt-average", "0.5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "export", keep)
        result = CliRunner().invoke(cli.app, options)
    assert isinstance(result.exception, ExportError), result.output
    wanted = Adaptation(epochs=3, rank=8, exits=(6, 9), flip=False, exit_weight=2.0, average=0.5)
    assert (seen[0].adapt, seen[0].device) == (wanted, "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapt-epochs", "3"], "--adapt-epochs says how --adapt tunes the trunk"),
        (["--adapt-no-flip"], "--adapt-flip says how --adapt tunes the trunk"),
        (["--adapt", "--adapt-exits", "some"], "--adapt-exits is 'some', wanted all, none, or block numbers"),
        (["--adapt", "--device", "tpu"], "--device is 'tpu', wanted one of auto, cpu, cuda, mps"),
    ],
)
def test_the_command_refuses_settings_that_mean_nothing(options: list[str], message: str, tmp_path: Path) -> None:
    """In one line, before anything is loaded."""
    result = CliRunner().invoke(cli.app, ["reference", "-o", str(tmp_path / "x.lraee"), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """``kill_and_resume.py``."""
    path = Path(__file__).parents[1] / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_and_resume"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_killed_adaptation_goes_on_to_the_same_weights(script: ModuleType, few_images: Path, tmp_path: Path) -> None:
    """SIGKILL after its first checkpoint; ``kill_and_resume.py --adapt --trials 20`` kills at random moments."""
    options = [*script.OPTIONS, "--epochs", "1", "--adapt", "--adapt-epochs", "4", "--adapt-exits", "4,8"]
    outs = [tmp_path / name / "x.lraee" for name in ("whole", "killed")]
    for out in outs:
        out.parent.mkdir()
    assert script.finish(script.start(few_images, outs[0], 0, options)) is None
    process = script.start(few_images, outs[1], 0, options)
    work = outs[1].with_name(f".{outs[1].name}.work")
    while not list(work.glob(".begun-adapted-*/checkpoint.safetensors")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(work.glob("adapted-*")), "it was finished before the kill"
    assert script.finish(script.start(few_images, outs[1], 0, options)) is None
    assert script.hashes(outs[0]) == script.hashes(outs[1])
    one, other = (load_file(out.with_suffix(".adapted") / "open_clip_model.safetensors") for out in outs)
    assert all(torch.equal(one[name], other[name]) for name in one)
