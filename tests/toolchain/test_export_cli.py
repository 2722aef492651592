"""An export from end to end: the bundle loads and keeps its promises, is reproducible, and survives being killed."""

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lraee
from lraee.bundle.folder import Bundle
from lraee.errors import ExportError
from lraee.labels.label_set import LabelSet
from lraee.policies import Adaptive, ExitAt, Full
from lraee_calibration_data import label_rows, load_pixels
from lraee_exporters.graphs.builder import OLDEST_ONNXRUNTIME
from lraee_toolchain import cli
from lraee_toolchain import export as pipeline
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.splits import open_splits
from lraee_toolchain.early_exit import fitting
from lraee_toolchain.export import export

KILLED_IN = ("ranges", "features", "exits")
"""Stages of the test; `kill_and_resume.py --trials 50` kills at random moments."""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


class Stages:
    """Notes which stages were made and which were found; may end the export before a stage."""

    def __init__(self, *, until: str | None = None) -> None:
        self.made: list[str] = []
        self.found: list[str] = []
        self.until = until
        self.notices: list[str] = []

    def stage(self, name: str, found: bool) -> None:
        """Note one."""
        (self.found if found else self.made).append(name)
        if name == self.until:
            raise KeyboardInterrupt

    def steps(self, total: int) -> Callable[[int], None]:
        """Count nothing."""
        return lambda done: None

    def notice(self, text: str) -> None:
        """Keep one."""
        self.notices.append(text)


def test_the_bundle_of_an_export_loads_and_verifies(exported: Any) -> None:
    """Every hash, the exits that were asked for, the model's name and no trace of where it was made."""
    bundle = Bundle(exported.result.bundle)
    bundle.verify()
    manifest = bundle.manifest
    assert {exit.block for exit in manifest.exits} <= {4, 8}
    assert manifest.exits
    assert (manifest.model.id, manifest.model.weights, manifest.precision) == ("reference", "reference", "int8")
    assert manifest.onnxruntime == OLDEST_ONNXRUNTIME
    assert len(bundle.labels.names) == manifest.labels.count == 10
    assert manifest.quantization is not None
    assert manifest.quantization.images == 4 * 96
    everything = b"".join(path.read_bytes() for path in exported.result.bundle.iterdir())
    assert str(exported.config.out.parent).encode() not in everything
    assert (exported.result.report / "report.md").is_file()
    assert (exported.result.report / "report.html").is_file()


def test_the_runtime_does_on_the_gating_split_what_the_operating_points_promise(exported: Any) -> None:
    """Accuracy and FLOPs were simulated from cached features; the device computes them anew.

    Tolerance: two images of 48, for INT8 values between two levels that round the other way.
    """
    model = lraee.load(exported.result.bundle, threads=1)
    gating = open_splits(exported.config, LabelSet(names=model.labels), seed=0).gating
    pixels = load_pixels(gating, model.manifest.preprocessing).pixels
    classes = label_rows(gating, model.labels)
    full = model.run_pixels(pixels, policy=Full())
    full_accuracy = float((full.probabilities.argmax(axis=1) == classes).mean())
    assert (model.flops_of_run(full) == model.manifest.full_flops).all()
    names = {point.name for point in model.manifest.operating_points}
    assert {name for name in names if not name.startswith("saves-")} == {"balanced", "accurate", "fast"}
    for point in model.manifest.operating_points:
        answers = model.run_pixels(pixels, policy=Adaptive(point.name))
        accuracy = float((answers.probabilities.argmax(axis=1) == classes).mean())
        saved = 1 - model.flops_of_run(answers).mean() / model.manifest.full_flops
        assert accuracy == pytest.approx(point.accuracy, abs=2 / 48 + 1e-9), point.name
        assert saved == pytest.approx(point.flops_saved, abs=0.03), point.name
        assert full_accuracy == pytest.approx(point.full_accuracy, abs=1e-9)


def test_images_leave_by_class_as_the_fitted_rule_says(exported: Any) -> None:
    """At the first exit whose gate reaches the threshold of the label that it predicts; the other points stay."""
    out = exported.config.out.with_name("by-class.lraee")
    result = export(replace(exported.config, out=out, thresholds="per-class"))
    model, plain = lraee.load(out, threads=1), Bundle(exported.result.bundle).manifest
    *others, point = model.manifest.operating_points
    assert (point.name, tuple(others)) == ("per-class", plain.operating_points)
    assert model.manifest.default_point == "balanced"
    gating = open_splits(exported.config, LabelSet(names=model.labels), seed=0).gating
    pixels = load_pixels(gating, model.manifest.preprocessing).pixels
    left = np.full(len(pixels), model.manifest.tower.blocks)
    for threshold in reversed(point.thresholds):
        assert threshold.per_class is not None
        assert threshold.value == max(threshold.per_class)
        said = model.run_pixels(pixels, policy=ExitAt(threshold.block))
        wanted = np.array(threshold.per_class, np.float32)[said.probabilities.argmax(axis=1)]
        left[said.gate >= wanted] = threshold.block
    answers = model.run_pixels(pixels, policy=Adaptive("per-class"))
    assert answers.exit_block.tolist() == left.tolist()
    saved = 1 - model.flops_of_run(answers).mean() / model.manifest.full_flops
    assert saved == pytest.approx(point.flops_saved, abs=0.03)
    assert "Class-based thresholds " in (result.report / "report.md").read_text("utf-8")


def test_int8_keeps_the_answers_of_the_float_tower(exported: Any, small_config: Callable[..., ExportConfig]) -> None:
    """The same stages at --precision fp32; embeddings of the reference stay within 15 degrees and answers agree."""
    out = exported.config.out.with_name("float.lraee")
    result = export(replace(exported.config, out=out, precision="fp32"))
    manifest = Bundle(result.bundle).manifest
    assert (manifest.precision, manifest.quantization) == ("fp32", None)
    int8, full = (lraee.load(folder, threads=1) for folder in (exported.result.bundle, result.bundle))
    gating = open_splits(exported.config, LabelSet(names=full.labels), seed=0).gating
    pixels = load_pixels(gating, manifest.preprocessing).pixels
    one, other = (model.run_pixels(pixels, policy=Full()) for model in (int8, full))
    assert (one.embedding * other.embedding).sum(axis=1).min() > np.cos(np.radians(15))
    assert (one.probabilities.argmax(axis=1) == other.probabilities.argmax(axis=1)).mean() > 0.93


@pytest.fixture(scope="module")
def killed(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str | None]:
    """The same export by processes of their own, killed in every kind of stage: the bundle, and what was wrong.

    ONNX Runtime finds ranges, features are written through a memory map, torch trains exits. For the installation of
    what was made see bundle/test_targets.py.
    """
    path = Path(__file__).with_name("kill_and_resume.py")
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["kill_and_resume"] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    out = tmp_path_factory.mktemp("killed") / "small.lraee"
    options = ["--exits", "4,8", "--reads", "patch_mean", "--epochs", "2", "--max-accuracy-drop", "20"]
    return out, script.kill_in_turn(exported.config.train, out, KILLED_IN, options)


def test_killed_exports_leave_nothing_half_made_and_resume_to_the_same_bundle(
    exported: Any, killed: tuple[Path, str | None]
) -> None:
    """SIGKILL in each kind of stage; the last rerun of the command ends in the bundle of an undisturbed export."""
    out, problem = killed
    assert problem is None
    Bundle(out).verify()
    assert hashes(out) == hashes(exported.result.bundle)


def test_two_exports_with_the_same_seed_give_the_same_bytes(exported: Any, killed: tuple[Path, str | None]) -> None:
    """Nothing is shared between them but the options, and the work folder beside the bundle is gone."""
    out, _ = killed
    assert hashes(out) == hashes(exported.result.bundle)
    assert hashes(out.with_suffix(".report")).keys() == hashes(exported.result.report).keys()
    assert sorted(path.name for path in out.parent.iterdir()) == ["small.lraee", "small.report"]


def test_finished_stages_are_found_again(exported: Any) -> None:
    """A second export into the same work folder makes nothing; another late option makes only what depends on it."""
    progress = Stages()
    again = replace(exported.config, out=exported.config.out.with_name("again.lraee"))
    result = export(again, progress)
    assert set(progress.made) <= {"load", "report"}
    assert hashes(result.bundle) == hashes(exported.result.bundle)
    progress = Stages()
    later = replace(exported.config, out=exported.config.out.with_name("later.lraee"), exits=(6,))
    result = export(later, progress)
    assert set(progress.made) == {"load", "exits", "bundle", "report"}
    assert {exit.block for exit in Bundle(result.bundle).manifest.exits} <= {6}


def test_other_labels_are_another_export_in_the_same_work_folder(exported: Any, tmp_path: Path) -> None:
    """Heads, gates and thresholds depend on the labels; they must not be taken from the other label set."""
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(reversed(Bundle(exported.result.bundle).labels.names)))
    progress = Stages()
    out = exported.config.out.with_name("other.lraee")
    export(replace(exported.config, out=out, labels=str(names)), progress)
    assert {"labels", "exits", "bundle"} <= set(progress.made)


def test_an_existing_target_is_refused_and_replaced_only_when_told(exported: Any, tmp_path: Path) -> None:
    """The refusal comes before any work; the replacement at the very end."""
    out = Path(shutil.copytree(exported.result.bundle, tmp_path / "x.lraee"))
    (out / "manifest.json").write_text("damaged")
    adapted = out.with_suffix(".adapted")
    adapted.mkdir()
    (adapted / "adaptation.json").write_text('{"machine": "cpu", "epochs": []}')
    before = hashes(out)
    with pytest.raises(ExportError, match="exists; choose another --out, or pass --overwrite"):
        export(replace(exported.config, out=out))
    assert (hashes(out), adapted.is_dir()) == (before, True)
    result = export(replace(exported.config, out=out, overwrite=True))
    assert hashes(result.bundle) == hashes(exported.result.bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.lraee", "x.report"]  # the tuned model was another's


def test_a_failing_export_leaves_the_old_bundle_as_it_was(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--overwrite takes effect when the new bundle is finished, not before."""
    out = Path(shutil.copytree(exported.result.bundle, tmp_path / "y.lraee"))
    (out / "manifest.json").write_text("keep me")

    def fail(*arguments: object, **options: object) -> None:
        raise ExportError("no space left")

    monkeypatch.setattr(pipeline, "write_report", fail)
    with pytest.raises(ExportError, match="no space left"):
        export(replace(exported.config, out=out, overwrite=True))
    assert (out / "manifest.json").read_text() == "keep me"
    assert [path.name for path in tmp_path.iterdir()] == ["y.lraee"]
    assert not list(exported.config.work.glob(".writing-*"))


def test_dying_while_clearing_up_does_not_spoil_the_next_export(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A work folder that is half removed must not be taken for one whose stages are finished."""
    out = tmp_path / "x.lraee"
    shutil.copytree(exported.config.work, tmp_path / ".x.lraee.work")
    config = replace(exported.config, out=out, work=None)

    def die(folder: Path, **options: Any) -> None:
        if not Path(folder).name.startswith(".x.lraee.work") or not Path(folder).exists():
            return
        for stage in (path for path in Path(folder).iterdir() if path.is_dir()):
            for file in sorted(stage.iterdir())[1:]:
                file.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            export(config)
    assert hashes(out) == hashes(exported.result.bundle)
    progress = Stages(until="parity")
    with pytest.raises(KeyboardInterrupt):
        export(replace(config, overwrite=True), progress)
    assert progress.found == []
    assert (progress.made[0], progress.made[-2:]) == ("load", ["float", "parity"])


def test_an_export_without_an_exit_that_pays_is_a_bundle_at_full_depth(
    exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropping every candidate is an answer, not a failure; the bundle then runs at full depth."""
    monkeypatch.setattr(fitting, "choose_exits", lambda *arguments, **options: [])
    out = exported.config.out.with_name("full.lraee")
    result = export(replace(exported.config, out=out, exits="auto"))
    model = lraee.load(result.bundle, threads=1)
    size = model.manifest.preprocessing.image_size
    answers = model.run_pixels(np.zeros((1, size, size, 3), np.uint8))
    assert not model.manifest.exits
    assert (answers.exit_block[0], answers.early[0]) == (12, False)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["lraee-export", *arguments])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    code = raised.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["refrence"], "'refrence' is not an architecture of open_clip"),
        (["RN50", "--pretrained", "random"], "is a ResNet"),
        (["ViT-B-32"], "ViT-B-32 needs weights"),
        (["reference", "--pretrained", "openai"], "reference has its own weights"),
        (["reference", "--exits", "4,12"], "--exits names block 12, wanted 1 to 11"),
        (["reference", "--exits", "0"], "wanted block numbers from 1"),
        (["reference", "--exits", "none", "--thresholds", "per-class"], "leaves --thresholds per-class nothing to do"),
        (["reference", "--merge-tokens", "2,2"], "--merge-tokens is 2,2, wanted one number, or 12"),
        (["reference", "--merge-tokens", "30"], "--merge-tokens is 30, which merges more than there is"),
        (["reference", "--merge-tokens", "0,0"], "--merge-tokens is 0,0, wanted auto, a share"),
        (["reference", "--merge-tokens", "1.5"], "--merge-tokens is 1.5, wanted auto, a share"),
        (["reference", "--merge-tokens", "2", "--reads", "local"], "--reads local needs the grid of patches"),
        (["reference", "--merge-tokens", "2", "--merge-for", "latency"], "--merge-for latency says what a share is of"),
        (["reference", "--merge-tokens", "2", "--exits", "none"], "leaves --merge-tokens nothing to do"),
        (["reference", "--train", "nowhere.zip"], "nowhere.zip"),
        (["reference", "--labels", "nowhere.txt"], "nowhere.txt"),
        (["reference", "--min-flops-saving", "1.5"], "--min-flops-saving is 1.5"),
        (["reference", "--max-accuracy-drop", "-1"], "--max-accuracy-drop is -1"),
        (["reference", "--seed", "-1"], "--seed is -1"),
        (["reference", "--seed", "9" * 30], "--seed is 999"),
        (["reference", "--seeds", "0"], "--seeds is 0"),
        (["reference", "--percentile", "12"], "--percentile is 12"),
        (["reference", "--ablations", "--precision", "fp32"], "--ablations compares INT8 with FP32"),
        (["ViT-B-32", "--pretrained", "random", "--ablations"], "give labelled images with --evaluate"),
        (["reference", "--ablations"], "hold some of --train back with --evaluate-share"),
        (["reference", "--evaluate-share", "1"], "--evaluate-share is 1, wanted a share above 0 and below 1"),
        (["reference", "--evaluate-share", "0.2", "--evaluate", "x.zip"], "drop one of the two"),
        (["ViT-B-32", "--pretrained", "random", "--evaluate-share", "0.2"], "random weights; leave it out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_line_and_exit_code_1(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """It names what was met, and nothing is left at the target."""
    monkeypatch.chdir(tmp_path)
    assert run_cli(monkeypatch, *arguments, "--out", "x.lraee") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lraee-export: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not list(tmp_path.glob("*.lraee"))


def test_labels_that_are_one_to_the_text_tower_are_refused_before_anything_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Their names differ after the context only, which the model's own tokenizer knows."""
    same = "coat dress " * 77
    (tmp_path / "labels.txt").write_text(f"{same} bag\n{same} shirt\n", "utf-8")
    arguments = ["reference", "--labels", str(tmp_path / "labels.txt"), "--out", str(tmp_path / "x.lraee")]
    assert run_cli(monkeypatch, *arguments) == 1
    stage, line = capsys.readouterr().err.splitlines()
    assert stage == "load the model"
    assert "it reads the same tokens of both, as far as it reads" in line


def test_a_target_with_another_ending_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before anything is loaded."""
    assert run_cli(monkeypatch, "reference", "--out", str(tmp_path / "x.zip")) == 1
    assert "wanted a folder name ending in .lraee" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["reference"],
        ["reference", "--out", "x.lraee", "--exits", "four"],
        ["reference", "--out", "x.lraee", "--reads", "tokens"],
        ["reference", "--out", "x.lraee", "--thresholds", "per-image"],
        ["reference", "--out", "x.lraee", "--precision", "int4"],
        ["reference", "--out", "x.lraee", "--text", "int4"],
        ["reference", "--out", "x.lraee", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_a_wrong_usage_has_exit_code_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And says so without a traceback."""
    monkeypatch.chdir(tmp_path)
    assert run_cli(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "Usage" in error


@pytest.mark.parametrize("missing", ["torch", "open_clip", "onnx"])
def test_a_missing_extra_names_the_install_command(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and without importing what is not there."""
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == missing else object())
    assert run_cli(monkeypatch, "reference", "--out", "x.lraee") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"lraee-export needs {missing}: pip install 'lraee[export]'"


def test_a_quota_of_the_cpu_bounds_torch_before_an_export_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """torch counts cores and not what a container may use of them; `lraee-export` does that for it."""
    before, met = torch.get_num_threads(), []

    def stop(*_: object) -> None:
        met.append(torch.get_num_threads())
        raise ExportError("far enough")

    monkeypatch.setattr(cli, "usable_cores", lambda root: 1)
    monkeypatch.setattr(pipeline, "export", stop)
    try:
        torch.set_num_threads(2)
        assert run_cli(monkeypatch, "reference", "--out", str(tmp_path / "x.lraee")) == 1
    finally:
        torch.set_num_threads(before)
    assert met == [1]
    assert capsys.readouterr().err.endswith("lraee-export: far enough\n")
