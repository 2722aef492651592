"""The experiment with averaged weights: its ends are the two towers themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "toolchain" / "experiments" / "weight_averages.py"
REFERENCE = ROOT / "exporters" / "lraee_exporters" / "reference"
WEIGHTS = "open_clip_model.safetensors"


def test_shares_of_nothing_and_of_all_are_the_towers_themselves(tmp_path: Path) -> None:
    """A tower whose blocks are noise answers badly; with a share of 0 nothing of it is left."""
    tuned = tmp_path / "tuned"
    shutil.copytree(REFERENCE, tuned)
    torch.manual_seed(0)
    weights = {
        name: torch.randn_like(weight) if "visual.transformer" in name and weight.ndim == 2 else weight
        for name, weight in load_file(REFERENCE / WEIGHTS).items()
    }
    save_file(weights, tuned / WEIGHTS)
    fold, record = tmp_path / "fold.json", tmp_path / "rows.json"
    fold.write_text(json.dumps({"unseen_labels": ["bag", "sandal"]}), "utf-8")
    words = [sys.executable, str(SCRIPT), str(REFERENCE), str(tuned), "--images", "fashion-mnist"]
    words += ["--labels", str(REFERENCE / "labels.json"), "--fold", str(fold), "--json", str(record)]
    words += [word for share in ("0", "1") for word in ("--share", share)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    nothing, all_of_it = json.loads(record.read_text("utf-8"))
    asked = set(nothing) - {"share"}
    assert len(asked) == 4
    assert {nothing[name]["difference"] for name in asked} == {0.0}
    assert nothing["all classes"]["averaged"] > 0.5
    assert all_of_it["all classes"]["averaged"] < 0.3
    assert nothing["unseen classes, among themselves"]["given"] >= nothing["unseen classes"]["given"]
