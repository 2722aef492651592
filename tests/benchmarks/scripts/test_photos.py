"""The evidence on photos: parts that resume, and what is assembled of them, on real exports of a small model."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_exporters.loading.open_clip_models import load_model

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "benchmarks" / "evidence"
REFERENCE = ROOT / "exporters" / "lraee_exporters" / "reference"
MODEL_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 4, "width": 32, "head_width": 16, "patch_size": 7},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""Four narrow blocks: six whole exports take seconds each, and their tables need no accuracy."""

FEW = ("--quantizer", "naive", "--seeds", "1", "--epochs", "1", "--max-accuracy-drop", "30", "--exits", "auto")
FEW_PASSES = ("--adapt-epochs", "1", "--adapt-learning-rate", "1e-7", "--device", "cpu")


@dataclass(frozen=True)
class Trial:
    """Inputs and places of a run with few images."""

    folder: Path

    def command(self, *more: str, out: str = "out", records: str = "records") -> list[str]:
        """Give the command that runs parts."""
        inputs = [
            word
            for name, path in (("model", "model"), ("pool", "pool.zip"), ("test", "test.zip"), ("labels", "l.txt"))
            for word in (f"--{name}", str(self.folder / path))
        ]
        places = ["--out", str(self.folder / out), "--records", str(self.folder / records)]
        places += ["--target", str(self.folder / records), "--more", " ".join(FEW)]
        script = [sys.executable, str(FOLDER / "photos.py"), "run"]
        return [*script, *inputs, *places, "--more-tuning", " ".join(FEW_PASSES), *more]


@pytest.fixture(scope="module")
def trial(few_photos: Path) -> Trial:
    """240 images to learn from and 200 to judge by."""
    (few_photos / "model").mkdir()
    (few_photos / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL_CONFIG}), "utf-8")
    model = load_model(str(few_photos / "model"), pretrained="random:0").torch_model
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, few_photos / "model" / "open_clip_model.safetensors")
    return Trial(few_photos)


RUN = ("given-attention", "control-attention", "labels-attention", "again-attention")


@pytest.fixture(scope="module")
def parts(trial: Trial, scripts: SimpleNamespace) -> dict[str, Any]:
    """Records of four parts, run by the command."""
    chosen = [word for name in RUN for word in ("--part", name)]
    done = subprocess.run(trial.command(*chosen), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = scripts.photo_parts.recorded(trial.folder / "records")
    assert tuple(found) == RUN
    return found


@pytest.fixture(scope="module")
def whole(parts: dict[str, Any], scripts: SimpleNamespace) -> dict[str, Any]:
    """What is assembled of them."""
    found: dict[str, Any] = scripts.photo_accounting.assembled(parts)
    return found


def test_rows_are_paired_on_the_same_images_and_exits_credited_against_their_own_full_depth(
    scripts: SimpleNamespace,
) -> None:
    """Eight images, all differences by hand."""
    answered = scripts.photo_accounting.Answered

    def row(trunk: str, precision: str, policy: str, right: str, saved: float = 0.0, heads: str = "attention") -> Any:
        values = np.array([float(bit) for bit in right])
        return answered(trunk=trunk, heads=heads, precision=precision, policy=policy, right=values, flops_saved=saved)

    rows = scripts.photo_accounting.accounting(
        [
            row("given", "FP32", "full", "11110000"),
            row("control", "strong INT8", "full", "11111000"),
            row("labels", "strong INT8", "full", "11111110"),
            row("labels", "strong INT8", "LRA-EE", "01111100", 0.25),
            row("labels", "strong INT8", "full", "11111100", heads="merged"),
            row("labels", "strong INT8", "LRA-EE", "11111000", 0.5, heads="merged"),
        ]
    )
    given, control, full, early, _, merged = rows
    assert merged["to_own_full"]["mean"] == pytest.approx(-1 / 8)  # of the same bundle, not of the trunk's first
    assert (given["to_given_float"], given["to_control"], given["to_own_full"], given["flops_saved"]) == (None,) * 4
    assert control["to_given_float"]["mean"] == pytest.approx(1 / 8)
    assert control["to_control"] is None
    assert full["to_given_float"]["mean"] == pytest.approx(3 / 8)
    assert full["to_control"]["mean"] == pytest.approx(2 / 8)
    assert (full["to_own_full"], full["flops_saved"]) == (None, None)
    assert early["to_own_full"]["mean"] == pytest.approx(-2 / 8)
    assert early["to_given_float"]["mean"] == pytest.approx(1 / 8)
    assert early["flops_saved"] == 0.25
    interval = mean_over_images(np.array([-1, 0, 0, 0, 0, 0, -1, 0.0]))
    assert (early["to_own_full"]["low"], early["to_own_full"]["high"]) == (interval.low, interval.high)


def test_the_table_says_what_the_exports_said(parts: dict[str, Any], whole: dict[str, Any]) -> None:
    """Accuracies and paired differences of a tuned export are those of its own metrics."""
    rows = {(row["trunk"], row["precision"], row["policy"]): row for row in whole["accounting"]}
    evaluation = parts["labels-attention"]["metrics"]["evaluation"]
    policies = {"full": "full", "adaptive=balanced": "balanced"}
    for policy, point in policies.items():
        (own,) = (row for row in evaluation["rows"] if point in (row["kind"], row["point"]))
        found = rows["labels", "naive INT8", policy]
        assert found["accuracy"] == own["accuracy"]
        assert found["to_given_float"] == own["difference_to_given"]
        if policy != "full":
            assert found["to_own_full"] == own["difference_to_full"]
            assert found["flops_saved"] == own["flops_saved"]
    assert rows["labels", "FP32", "full"]["accuracy"] == evaluation["float_accuracy"]
    assert rows["given", "FP32", "full"]["accuracy"] == evaluation["given"]["accuracy"]
    seeds = rows["again", "naive INT8", "LRA-EE"]
    (routed,) = (row for row in whole["main"]["again-attention"] if row["way"] == "routed")
    assert seeds["accuracy"] == routed["accuracy"]
    assert seeds["to_own_full"] == routed["difference_to_int8"]
    alone, balanced = (rows["labels", "naive INT8", policy] for policy in ("LRA-EE", "adaptive=balanced"))
    assert {**alone, "policy": "adaptive=balanced"} == balanced


def test_the_tower_as_given_is_known_from_a_tuned_export(scripts: SimpleNamespace, parts: dict[str, Any]) -> None:
    """While no part with it is recorded: the same answers, and so the same differences."""
    alone = scripts.photo_accounting.assembled({"labels-attention": parts["labels-attention"]})
    both = scripts.photo_accounting.assembled(parts)

    def rows(whole: dict[str, Any]) -> dict[tuple[str, str], Any]:
        return {(row["trunk"], row["policy"]): row for row in whole["accounting"] if row["precision"] == "FP32"}

    assert rows(alone)["given", "full"] == rows(both)["given", "full"]
    assert rows(alone)["labels", "full"]["to_given_float"] == rows(both)["labels", "full"]["to_given_float"]


def test_the_text_has_every_table_and_names_the_missing_parts(
    scripts: SimpleNamespace, whole: dict[str, Any], trial: Trial
) -> None:
    """And the command wrote the same."""
    text = scripts.photo_tables.markdown(whole)
    titles = ("Parts and hours", "Who is credited with what", "Heads and trunks", "Every rival at the same FLOPs")
    titles += ("Four quadrants", "Selectivity", "INT8 noise after each block", "Search", "Every candidate exit alone")
    assert all(f"## {title}" in text for title in titles)
    assert "Missing: given-pooled, given-distilled, given-merged, again-pooled, label-free-attention." in text
    assert text.count("**missing**, about") == 5
    assert (trial.folder / "records" / "photos.md").read_text("utf-8") == text
    assert all(f"- {sentence}\n" in text for sentence in whole["conclusions"])
    assert {"lgvit", "lgvit_free", "pabee_everywhere"} <= set(whole["methods"]["again-attention"])


def test_records_hold_no_photo_and_no_place_of_the_machine(parts: dict[str, Any], trial: Trial) -> None:
    """Neither images nor names of files."""
    for name in parts:
        for path in (trial.folder / "records").glob(f"{name}.*"):
            text = path.read_text("utf-8")
            assert str(trial.folder) not in text
            assert str(ROOT) not in text
            assert "data:image" not in text
            assert ".png" not in text.lower()


def test_a_part_that_is_recorded_is_not_run_again(parts: dict[str, Any], trial: Trial) -> None:
    """At once, though its bundle is gone; records of other options and of other images are refused."""
    shutil.rmtree(trial.folder / "out" / "control-attention.lraee")
    command = trial.command("--part", "control-attention")
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "control-attention: recorded")
    command[command.index("--more") + 1] += " --percentile 99"
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "control-attention.json was made with other options" in other.stderr


def test_an_interrupted_part_goes_on_to_the_same_record(parts: dict[str, Any], trial: Trial) -> None:
    """The command and its export are killed once the trunk is tuned; the next run finds that stage."""
    command = trial.command("--part", "control-attention", out="killed", records="resumed")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    work = trial.folder / "killed" / "control.work"
    while not list(work.glob("adapted-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (trial.folder / "resumed").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "found in the work folder" in done.stdout + done.stderr
    found = json.loads((trial.folder / "resumed" / "control-attention.json").read_text("utf-8"))
    whole = parts["control-attention"]
    assert {key: found[key] for key in found if key != "hours"} == {key: whole[key] for key in whole if key != "hours"}
    assert found["hours"] > 0


def test_conclusions_follow_the_figures(scripts: SimpleNamespace, whole: dict[str, Any]) -> None:
    """Each is turned by its own figure, also where the paper's claim stops holding."""
    say = scripts.photo_conclusions.conclusions

    def changed(change: Callable[[dict[str, Any]], None]) -> str:
        other = copy.deepcopy(whole)
        change(other)
        return "\n".join(say(other))

    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.001, "high": mean + 0.001}

    def tuned(mean: float) -> Callable[[dict[str, Any]], None]:
        def change(other: dict[str, Any]) -> None:
            for row in other["accounting"]:
                if (row["trunk"], row["precision"], row["policy"]) == ("labels", "FP32", "full"):
                    row["to_given_float"] = row["to_control"] = interval(mean)

        return change

    assert "Tuning with exits and labels raises full depth: +2.00" in changed(tuned(0.02))
    assert "so tuning for exits helps full depth itself" in changed(tuned(0.02))
    assert "Tuning with exits and labels lowers full depth: -2.00" in changed(tuned(-0.02))
    assert "Tuning with exits and labels cannot be told to move full depth" in changed(tuned(0.0))

    def gate(mean: float) -> Callable[[dict[str, Any]], None]:
        def change(other: dict[str, Any]) -> None:
            row = copy.deepcopy(other["methods"]["again-attention"]["lra_ee"])
            row["difference_to_lra_ee"] = interval(mean)
            other["methods"]["again-attention"] = {"confidence_shared": row}

        return change

    claim = "a learned gate beats a threshold on the confidence {} on `again-attention`"
    assert claim.format("holds") in changed(gate(-0.02))
    assert claim.format("does not hold") in changed(gate(0.0))
    assert "`again-attention`, every method at the same FLOPs: LRA-EE loses to: confidence, one threshold" in changed(
        gate(0.02)
    )

    def noise(last: float) -> Callable[[dict[str, Any]], None]:
        def change(other: dict[str, Any]) -> None:
            other["noise"] = {"given-attention": {"naive INT8": [0.1] * 9 + [last] * 3}}

        return change

    claim = "INT8 noise rises over the last blocks {} for naive INT8"
    assert claim.format("holds") in changed(noise(0.2))
    assert claim.format("does not hold") in changed(noise(0.05))

    def recall(share: float) -> Callable[[dict[str, Any]], None]:
        def change(other: dict[str, Any]) -> None:
            for found in other["retrieval"].values():
                for row in found["rows"]:
                    row["ten_in_ten"] = share

        return change

    assert "which reaches the goal of 60 %" in changed(recall(0.7))
    assert "which misses the goal of 60 %" in changed(recall(0.5))

    def kept(other: dict[str, Any]) -> None:
        part = next(part for part in other["parts"] if part["name"] == "labels-attention")
        part["adapted"] = "no: tuning moved full depth by -1.00 points on the gating split; the given trunk is kept"

    assert "`labels-attention` runs the trunk as given: tuning moved full depth by -1.00 points" in changed(kept)


def test_inputs_that_were_not_given_are_named() -> None:
    """In one line, before anything runs; a part that does not exist too."""
    script = [sys.executable, str(FOLDER / "photos.py"), "run", "--model", "", "--pool", "x.zip"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert all(f"PHOTO_{name}=" in done.stderr for name in ("MODEL", "TEST", "LABELS"))
    assert "PHOTO_POOL=" not in done.stderr


def test_what_is_committed_is_what_the_parts_say(scripts: SimpleNamespace) -> None:
    """`photos.py assemble` writes it again; before any part is recorded there is nothing."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "photos.py"), "assemble", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert (FOLDER / "photos.json").is_file() == bool(scripts.photo_parts.recorded())
