"""Every kind of tower that is supported computes what open_clip computes, at its true width and with two blocks.

Weights are random, LayerNorms and biases too. The blocks of one tower are alike, so two of them show what twelve or
thirty-two would: patch and image sizes, head widths, activations, poolings.
Whole models: benchmarks/experiments/towers.
"""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import timm
import torch
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.images.preprocess import pixels as preprocess
from lraee.ort.sessions import SessionSettings, make_session
from lraee_calibration_data import photos
from lraee_exporters.graphs.block import BlockForm, build_block, float_block
from lraee_exporters.graphs.stem import build_stem
from lraee_exporters.graphs.tail import build_tail, float_tail
from lraee_exporters.loading.open_clip_models import tower_of
from lraee_exporters.loading.supported import check_config
from lraee_exporters.parity import MIN_IMAGES, check_parity
from lraee_exporters.tower import Tower

Pixels = npt.NDArray[np.uint8]

BLOCKS = 2

TOWERS: dict[str, dict[str, Any]] = {
    "ViT-B-16": {"width": 768, "heads": 12, "tokens": 197, "activation": "gelu", "pooling": "cls"},
    "ViT-B-16-quickgelu": {"width": 768, "heads": 12, "tokens": 197, "activation": "quick_gelu", "pooling": "cls"},
    "ViT-L-14": {"width": 1024, "heads": 16, "tokens": 257, "activation": "gelu", "pooling": "cls"},
    "ViT-L-14-336-quickgelu": {
        "width": 1024, "heads": 16, "tokens": 577, "activation": "quick_gelu", "pooling": "cls"
    },
    "ViT-H-14": {"width": 1280, "heads": 16, "tokens": 257, "activation": "gelu", "pooling": "cls"},
    "ViT-B-16-SigLIP": {"width": 768, "heads": 12, "tokens": 196, "activation": "gelu", "pooling": "attention"},
    "ViT-SO400M-16-SigLIP2-256": {
        "width": 1152, "heads": 16, "tokens": 256, "activation": "gelu_tanh", "pooling": "attention"
    },
    "MobileCLIP2-L-14": {"width": 1024, "heads": 16, "tokens": 257, "activation": "gelu", "pooling": "cls"},
}  # fmt: skip
"""By open_clip's name: what the tower must turn out to be."""


@pytest.fixture(autouse=True)
def _two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make timm's models with two blocks."""
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=BLOCKS))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Shipped photos of odd sizes, made small so that resizing them is quick."""
    chosen = []
    for path in sorted(photos().glob("*.jpg"))[::9][:MIN_IMAGES]:
        with Image.open(path) as image:
            chosen.append(image.convert("RGB").reduce(max(1, min(image.size) // 250)))
    return chosen


def build(name: str) -> Any:
    """open_clip's model with two image blocks and a tiny text tower, every parameter random."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    check_config(name, config)
    config["vision_cfg"] |= {} if "timm_model_name" in config["vision_cfg"] else {"layers": BLOCKS}
    config["text_cfg"] = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
    custom = config.pop("custom_text", False)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.visual.parameters():
        if parameter.ndim == 1:
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def stages_of(tower: Tower, folder: Path) -> Callable[[Pixels], list[Any]]:
    """Build the float parts of a tower and run them stage by stage."""
    parts = [build_stem(tower, quantized=False)]
    for number, block in enumerate(tower.blocks, start=1):
        parts.append(
            build_block(float_block(block, tower.activation), BlockForm(token_count=tower.tokens), number=number)
        )
    parts.append(build_tail(float_tail(tower), width=tower.width, embed_dim=tower.embed_dim, token_count=tower.tokens))
    sessions = []
    for graph, file in parts:
        file.save(folder)
        sessions.append(make_session(graph.save(folder), SessionSettings()))
    labels = {"label_matrix": np.eye(tower.embed_dim, 2, dtype=np.float32), "logit_scale": np.array(1, np.float32)}

    def run(pixels: Pixels) -> list[Any]:
        stages = sessions[0].run(["tokens_out"], {"pixels": pixels})
        for session in sessions[1:-1]:
            stages += session.run(["tokens_out"], {"tokens": stages[-1]})
        return stages + sessions[-1].run(["embedding"], {"tokens": stages[-1], **labels})

    return run


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_agrees_with_open_clip_at_every_stage(name: str, images: list[Image.Image], tmp_path: Path) -> None:
    """At the bounds of every export, with a margin of three on the error."""
    model = build(name)
    size = model.visual.image_size
    preprocessing = Preprocessing(
        image_size=size if isinstance(size, int) else size[0],
        resize_mode="squash" if "SigLIP" in name else "shortest",
        interpolation="bicubic",
        mean=(0.5, 0.45, 0.4),
        std=(0.25, 0.26, 0.27),
    )
    tower = tower_of(model, model_id=name, weights="random", architecture=name, preprocessing=preprocessing)
    assert {key: getattr(tower, key) for key in TOWERS[name]} == TOWERS[name]
    assert tower.depth == BLOCKS
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(
            size=preprocessing.image_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            resize_mode=preprocessing.resize_mode,
        ),
        is_train=False,
    )
    stages = check_parity(
        stages_of(tower, tmp_path), model, transform, lambda image: preprocess(image, preprocessing), images
    )
    assert [stage.name for stage in stages] == ["stem", "block_01", "block_02", "embedding"]
    assert max(stage.error for stage in stages) < 3e-4
    assert (tower.logit_bias is not None) == ("SigLIP" in name)
