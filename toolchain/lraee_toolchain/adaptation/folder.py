"""Write a tuned model as a folder that open_clip and ``lraee-export`` load."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lraee_exporters.loading.open_clip_models import LoadedModel

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"


def save_model(model: LoadedModel, folder: Path) -> None:
    """Write settings and float32 weights.

    The weights are those of the whole CLIP; where the text tower has none, those of the image tower alone, which
    ``lraee-export`` takes with the labels' embeddings.

    Args:
        model: its torch model is written.
        folder: there already.
    """
    config: dict[str, Any] = copy.deepcopy(dict(model.config))
    if not config["vision_cfg"].get("timm_model_name"):
        config["quick_gelu"] = model.tower.activation == "quick_gelu"
    given = model.tower.preprocessing
    preprocess = {
        "mean": list(given.mean),
        "std": list(given.std),
        "interpolation": given.interpolation,
        "resize_mode": given.resize_mode,
        "fill_color": given.fill_color,
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1, ensure_ascii=False)
    (folder / CONFIG_NAME).write_text(text + "\n", "utf-8")
    source = model.torch_model if model.has_text else model.torch_model.visual
    state: dict[str, torch.Tensor] = source.state_dict()
    save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, folder / WEIGHTS_NAME)
