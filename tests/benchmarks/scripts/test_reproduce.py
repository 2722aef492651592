"""The recipe for the paper's comparison: its commands parse, its README is true, and all of it runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import markdown_files
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lraee_benchmarks.results.model import from_json
from lraee_exporters.loading.sources import REFERENCE_FOLDER

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "reproduce"
SCRIPT = FOLDER / "reproduce.sh"
README = (FOLDER / "README.md").read_text("utf-8")


def script_commands() -> list[list[str]]:
    """The words of every command of the script, with the model that it exports by default."""
    text = SCRIPT.read_text("utf-8")
    default = shlex.split(re.findall(r"\|\| set -- (.+)", text)[0])
    found = markdown_files.command_lines(text)
    return [[word for given in words for word in (default if given == "$@" else [given])] for words in found]


@pytest.mark.parametrize("words", script_commands(), ids=lambda words: " ".join(words)[:60])
def test_a_command_of_the_script_is_accepted(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parser of the command itself: every option, choice and argument."""
    monkeypatch.chdir(tmp_path)
    assert "$@" not in words
    markdown_files.parse(words)


def test_the_script_exports_openai_s_weights_by_default() -> None:
    """Those of the paper; otherwise the test above would find nothing."""
    assert script_commands()[0][-3:] == ["ViT-B-32-quickgelu", "--pretrained", "openai"]


def test_the_readme_shows_the_first_command_of_the_script() -> None:
    """The same options; the script's variables have the values that the README gives them."""
    values = {"$images": "imagenet", "$results": "results"}

    def options(words: list[str]) -> dict[str, Any]:
        for name, value in values.items():
            words = [word.replace(name, value) for word in words]
        return dict(markdown_files.COMMANDS["lraee-export"].make_context("lraee-export", words[1:]).params)

    shown = next(words for words in markdown_files.commands(FOLDER / "README.md") if words[0] == "lraee-export")
    assert options(shown) == options(script_commands()[0])


def test_nothing_is_shown_as_measured_here() -> None:
    """Every row of the table has an empty place until results are in the folder."""
    rows = re.findall(r"^\| .+ \|$", README.split("## The table")[1], re.MULTILINE)[2:]
    assert len(rows) >= 10
    assert all("| not measured here |" in row for row in rows) or (FOLDER / "results").is_dir()


def small_model(folder: Path) -> Path:
    """A CLIP of three blocks with random weights that do not call themselves random, so that accuracy is measured."""
    config = json.loads((REFERENCE_FOLDER / "open_clip_config.json").read_text("utf-8"))
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    config["model_cfg"]["text_cfg"]["layers"] = 1
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config["model_cfg"]).state_dict(), str(folder / "open_clip_model.safetensors"))
    return folder


def run(*words: str | Path) -> str:
    """What a program prints; it must succeed. It sees nothing of this process but where programs are."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_whole_recipe_runs_on_a_small_model(make_imagenet: Callable[..., Any], tmp_path: Path) -> None:
    """From the official archives to the files to send, with ImageNet's 1,000 labels; only the model is another."""
    fake = make_imagenet(train=60, val=6)
    train, val, truth = fake.archives()
    images, results = tmp_path / "imagenet", tmp_path / "results"
    script = [sys.executable, FOLDER / "arrange_imagenet.py", "--train", train, "--val", val, "--truth", truth]
    printed = run(*script, "--out", images, "--share", "0.5", "--calibration", "8")
    assert f"{images / 'train'}: 90 images\n" in printed
    model = small_model(tmp_path / "tiny")
    printed = run("sh", SCRIPT, images, results, model, "--exits", "1,2", "--seeds", "1", "--epochs", "1")
    assert f"send {results}/*.report/report.md and metrics.json" in printed
    for name in ("paper", "default"):
        metrics = json.loads((results / f"{name}.report/metrics.json").read_text("utf-8"))
        counts = metrics["images"]
        assert (counts["calibration"], counts["heads"] + counts["gating"], counts["evaluation"]) == (24, 90, 18)
        assert metrics["supervision"] == "labels"
        assert (metrics["ablations"] is not None) == (name == "paper")
        assert (results / f"{name}.report/report.md").is_file()
        bench = results / f"{name}.bench.json"
        few = ["--repeats", "3", "--warmup", "0", "--cold-starts", "0", "--launches", "1"]
        run("lraee-bench", results / f"{name}.lraee", "--images", images / "val", "--json", bench, *few)
        report = from_json(bench.read_text("utf-8"))
        assert report.bundle.labels == 1000
        assert report.row("fp32") is not None
