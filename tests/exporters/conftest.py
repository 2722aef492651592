"""Small open_clip models that the exporters' tests share: written to a folder, as a user would hold them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

SMALL_CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 24, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""Three blocks, 4 heads, 9 patches; the text tower keeps CLIP's vocabulary and is otherwise tiny."""


@pytest.fixture
def small_config() -> dict[str, Any]:
    """A model_cfg that a test may change."""
    return copy.deepcopy(SMALL_CONFIG)


@pytest.fixture
def build_model() -> Callable[[dict[str, Any]], Any]:
    """Build an open_clip CLIP in eval mode whose every parameter is random, LayerNorms and biases too."""

    def build(config: dict[str, Any]) -> Any:
        generator = torch.Generator().manual_seed(0)
        model = open_clip.CLIP(**copy.deepcopy(config)).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
        return model

    return build


@pytest.fixture
def write_model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write open_clip_config.json and, for a model, its weights."""

    def write(config: dict[str, Any], model: Any = None, preprocess: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "small-clip"
        folder.mkdir(exist_ok=True)
        content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
        (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
        if model is not None:
            save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return write


@pytest.fixture
def register_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, Any]], None]:
    """Register an architecture under a name for one test; open_clip's registry is put back afterwards."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))

    def register(name: str, config: dict[str, Any]) -> None:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(path)

    return register
