"""The recipe for photos of one's own: its commands run, as they stand, in a new folder with photos and a tiny CLIP.

Only the words of the model are exchanged, for those of a folder, and options are added that make the run short.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from markdown_files import ROOT, fences
from safetensors.torch import save_file

from lraee.bundle.folder import Bundle
from lraee_benchmarks.results.model import from_json
from lraee_calibration_data import open_dataset
from lraee_exporters.loading.sources import REFERENCE_FOLDER
from lraee_toolchain.bundle.targets import KINDS, owner_of
from lraee_toolchain.report.bundle_tables import ACCOUNTING

PAGE = ROOT / "docs" / "own-photos.md"
MODEL = "ViT-B-32 --pretrained laion2b_s34b_b79k"
SHORT = {
    "lraee-export": "--exits 1,2 --reads patch_mean --epochs 1 --adapt-epochs 1 --adapt-learning-rate 1e-8",
    "lraee-bench": "--repeats 3 --warmup 0 --cold-starts 0 --launches 1 --json bench.json",
}
"""What is added to a command so that it takes seconds, and tuning changes too little to be refused."""


def steps() -> list[str]:
    """The shell text of each step, on the model in ``my-clip``."""
    found = []
    for fence in fences(PAGE):
        text = fence.text.strip().replace(MODEL, "./my-clip")
        found.append(f"{text} {SHORT.get(text.split()[0], '')}")
    return found


@pytest.fixture
def folder(tmp_path: Path, few_images: Path) -> Path:
    """A folder with labelled photos, one folder for each label, and a CLIP of three blocks as open_clip saves it."""
    with zipfile.ZipFile(few_images) as archive:
        archive.extractall(tmp_path / "unpacked")
    (image, *_) = (tmp_path / "unpacked").rglob("*.png")
    image.parent.parent.rename(tmp_path / "my-photos")
    config = json.loads((REFERENCE_FOLDER / "open_clip_config.json").read_text("utf-8"))
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    config["model_cfg"]["text_cfg"]["layers"] = 1
    model = tmp_path / "my-clip"
    model.mkdir()
    (model / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config["model_cfg"]).state_dict(), str(model / "open_clip_model.safetensors"))
    return tmp_path


def run(text: str, folder: Path) -> str:
    """What a shell prints; it must succeed. It sees nothing of this process but where programs are."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(["sh", "-c", text], cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_commands_of_the_page_go_from_photos_to_times(folder: Path) -> None:
    """One export and one measurement, on the photos that were held back; each thing that the page names is there."""
    assert [text.split()[0] for text in steps()] == ["ls", "lraee-export", "lraee-bench"]
    printed = "".join(run(text, folder) for text in steps())
    labels = (folder / "my-labels.txt").read_text("utf-8").split("\n")[:-1]
    assert len(labels) == 10
    bundle = Bundle(folder / "mine.lraee")
    assert list(bundle.labels.names) == labels
    held_back = open_dataset(folder / "mine.evaluation" / "images.zip")
    metrics = json.loads((folder / "mine.report" / "metrics.json").read_text("utf-8"))
    assert metrics["images"]["evaluation"] == len(held_back) == 48
    assert metrics["images"]["heads"] + metrics["images"]["gating"] + metrics["images"]["calibration"] == 192
    assert metrics["adaptation"].endswith("the tuned trunk is taken")
    made = {suffix for suffix in KINDS if owner_of(folder / f"mine{suffix}") == "lraee"}
    assert made == {".lraee", ".report", ".adapted", ".evaluation"}  # so that --overwrite may replace them
    assert all(f"`mine{suffix}`" in PAGE.read_text("utf-8") for suffix in made)
    assert bundle.manifest.quantization.quantizer == "strong"
    assert "lraee-bench mine.lraee --images mine.evaluation/images.zip --accuracy mine.evaluation/images.zip" in printed
    report = (folder / "mine.report" / "report.md").read_text("utf-8")
    for words in (ACCOUNTING, "FP32 as given, full depth", "tuned with exits, full depth"):
        assert words in report
        assert words in PAGE.read_text("utf-8")
    assert "--evaluate-share 0.2" in (folder / "mine.report" / "report.html").read_text("utf-8")
    measured = from_json((folder / "bench.json").read_text("utf-8"))
    (accuracy,) = {row.accuracy.images for row in measured.rows if row.accuracy is not None}
    assert accuracy == 48
    assert (folder / "mine.bench.md").is_file()


def test_the_models_of_the_page_are_words_that_the_export_takes() -> None:
    """Each row of its table; the first is that of the command."""
    rows = [
        line.split("`")[1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ") and "ViT" in line
    ]
    assert rows[0] == MODEL
    assert len(rows) == 3
    for words in rows:
        architecture, option, pretrained = words.split()
        assert option == "--pretrained"
        assert pretrained.endswith(".pt") or pretrained in open_clip.list_pretrained_tags_by_model(architecture)
