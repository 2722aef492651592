"""The tables of an export: memory for each image, however wide the tower, and who learns from which images."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lraee_exporters.graphs.exit import HEAD_INPUTS
from lraee_toolchain import array_file
from lraee_toolchain.competitors.methods import compare, standard_entries
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit import rows
from lraee_toolchain.early_exit.exits import train_exits
from lraee_toolchain.early_exit.features import load_features, load_teacher
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material
from lraee_toolchain.early_exit.token_heads.training import train_token_heads
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


def test_a_split_that_the_trunk_was_tuned_on_stays_the_heads(tmp_path: Path) -> None:
    """For every seed, since gates must not see what the trunk learned from; otherwise each seed divides anew."""
    heads, gating, evaluation = (
        stored(tmp_path / name, count, tokens=False) for name, count in (("h", 30), ("g", 20), ("e", 5))
    )
    tower = Tower.of("strong INT8", heads, gating, evaluation)
    plain = Setting(task=TASK, advance=lambda done: None)
    tuned = replace(plain, is_tuned=True)
    for seed in range(3):
        for found, wanted in zip(tuned.divide(tower, seed), (heads, gating), strict=True):
            assert np.array_equal(np.asarray(found.features.variance), np.asarray(wanted.features.variance))
            assert np.array_equal(found.wanted, wanted.wanted)
    divided = [np.asarray(plain.divide(tower, seed)[1].features.variance) for seed in range(3)]
    assert all(len(found) == 20 for found in divided)
    assert not any(np.array_equal(found, np.asarray(gating.features.variance)) for found in divided)


def test_heads_that_learned_from_labels_do_not_answer_without(tmp_path: Path) -> None:
    """The label-free row of the tables trains its own; rows with labels take what learned with the trunk."""
    heads, gating, _ = (stored(tmp_path / name, 40, tokens=True) for name in "hge")
    config = replace(TASK.config, reads="attention")
    taught = train_exits(replace(TASK, config=config), heads, gating, [2], reads="attention")[0].head
    floats = train_token_heads(replace(TASK, config=config, seed=5), heads, [2], reads="attention")[0]
    setting = Setting(task=replace(TASK, config=config, int8=False, learned={2: floats}), advance=lambda done: None)
    kept = train_exits(setting.task, heads, gating, [2], reads="attention")[0].head
    anew = train_exits(setting.without_learned().task, heads, gating, [2], reads="attention")[0].head
    assert kept is floats
    assert anew is not floats
    assert anew.pool is not None
    assert taught.pool is not None
    assert np.array_equal(anew.pool.queries, taught.pool.queries)  # those of the same seed, trained from the start
