"""The tables of an export take little memory for each image, however wide the tower and however many labels."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lraee_exporters.graphs.exit import HEAD_INPUTS
from lraee_toolchain import array_file
from lraee_toolchain.competitors.methods import compare, standard_entries
from lraee_toolchain.config import ExportConfig, HeadTraining
from lraee_toolchain.early_exit import rows
from lraee_toolchain.early_exit.features import load_features, load_teacher
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material
from lraee_toolchain.evaluation.paper_tables import full_depth, lra_ee, ssa_at_the_end
from lraee_toolchain.evaluation.setting import Setting, Tower

LABELS, WIDTH, EMBED, DEPTH, TOKENS = 256, 256, 64, 5, 4
MOST_BYTES = 5000
"""Of memory that each further image may take."""

TASK = ExitTask(
    labels=np.linalg.qr(np.random.default_rng(9).normal(size=(LABELS, EMBED)))[0].astype(np.float32),
    logit_scale=10.0,
    costs=Costs(stem=5, block=100, last=100, exits=dict.fromkeys(HEAD_INPUTS, 4), tail=3, depth=DEPTH),
    config=ExportConfig(model="reference", out=Path("x.lraee"), exits=(2, 4), seeds=1, heads=HeadTraining(epochs=1)),
)


def stored(folder: Path, images: int, *, tokens: bool) -> Material:
    """Features of images, which mean nothing, as an export leaves them on disk; 12 KB an image without tokens."""
    folder.mkdir()
    random = np.random.default_rng(images)
    shapes = {
        "patch_mean": (images, DEPTH, WIDTH),
        "class_token": (images, DEPTH, WIDTH),
        "variance": (images, DEPTH),
        "embedding": (images, EMBED),
        "probabilities": (images, LABELS),
    }
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", random.random(shape, np.float32))
    if tokens:
        for block in (2, 4):
            values = random.normal(size=(images, TOKENS + 1, WIDTH)).astype(np.float16)
            np.save(folder / f"tokens_{block:02d}.npy", values)
    classes = random.integers(0, LABELS, images)
    return Material(features=load_features(folder), teacher=load_teacher(folder), classes=classes)


def peak_bytes(folder: Path, images: int, reads: str) -> int:
    """The most that the tables of so many images take at one time; numpy's arrays are traced, files are not."""
    folder.mkdir()
    tokens = reads == "attention"
    sizes = {"heads": images // 2, "gating": images // 4, "evaluation": images // 4}
    heads, gating, evaluation = (stored(folder / name, count, tokens=tokens) for name, count in sizes.items())
    config = replace(TASK.config, reads=reads)
    setting = Setting(task=replace(TASK, config=config), advance=lambda done: None)
    tracemalloc.start()
    try:
        tower = Tower.of("strong INT8", heads, gating, evaluation)
        full_depth(tower)
        _, (routing,) = lra_ee(tower, setting)
        if not tokens:
            ssa_at_the_end(tower, setting)
            splits = setting.divide(tower, 0)
            entries = standard_entries(setting.task, routing.exits, *splits, evaluation)
            compare({name: entries[name] for name in ("pabee", "cls_ee")}, wanted=(0.1, 0.3))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reads", ["auto", "attention"])
def test_memory_hardly_grows_with_the_images(reads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are made small here, so that both sizes have many of them; features alone would be 12 KB an image."""
    monkeypatch.setattr(rows, "CHUNK", 64)
    monkeypatch.setattr(array_file, "SCRATCH_BYTES", 2**14)
    small, large = 200, 800
    growth = peak_bytes(tmp_path / "large", large, reads) - peak_bytes(tmp_path / "small", small, reads)
    assert growth / (large - small) < MOST_BYTES
