"""A tower from timm, without a class token and with an attention pool as SigLIP's, is tuned like open_clip's own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from open_clip.timm_model import TimmModel

from lraee_exporters.torch_tower.trunk import Machine
from lraee_toolchain.adaptation.lessons import EpochRecord, Photos, TuningTask
from lraee_toolchain.adaptation.tuning import Watch, tune
from lraee_toolchain.config.learning import Adaptation

SMALL = {"depth": 3, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}


@pytest.fixture
def visual(monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm's SigLIP tower, made small, with random weights."""
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, **SMALL))
    torch.manual_seed(0)
    tower: Any = TimmModel("vit_base_patch16_siglip_224", embed_dim=32, image_size=32, pool="map", proj="none")
    return tower.eval().requires_grad_(False)


def run(visual: Any, options: Adaptation, folder: Path) -> list[EpochRecord]:
    """Tune on noise."""
    generator = np.random.default_rng(0)
    unit = generator.normal(size=(24, 32)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pixels = generator.integers(0, 256, (24, 32, 32, 3), np.uint8)
    photos = Photos(pixels=pixels, classes=np.arange(24) % 5, teacher=unit)
    mean = (0.5, 0.5, 0.5)
    task = TuningTask(labels=unit[:5], logit_scale=10.0, mean=mean, std=mean, exits=(1, 2), options=options, seed=0)
    machine = Machine(device=torch.device("cpu"), bf16=False)
    return tune(visual, task, (photos, photos), folder, machine, Watch()).records


@pytest.mark.parametrize("rank", [None, 2])
def test_only_its_stem_stays(rank: int | None, visual: Any, tmp_path: Path) -> None:
    """With low rank only the matrices of its blocks move."""
    given = {name: value.clone() for name, value in visual.state_dict().items()}
    records = run(visual, Adaptation(epochs=2, batch_size=8, rank=rank, learning_rate=1e-3, frozen=0.0), tmp_path)
    assert [len(record.right) for record in records] == [3, 3, 3]
    found = visual.state_dict()
    assert found.keys() == given.keys()
    moved = {name for name in given if not torch.equal(given[name], found[name])}
    if rank is None:
        stem = {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
        assert given.keys() - moved == {f"trunk.{name}" for name in stem}
    else:
        assert moved == {name for name in given if ".blocks." in name and given[name].ndim == 2}
