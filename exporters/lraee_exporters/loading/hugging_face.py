"""Reads a Hugging Face CLIP folder: `config.json` and weights as transformers' `CLIPModel` saves them.

Settings are translated into open_clip's, and tensors renamed into open_clip's layout, so that all later code works
on one kind of model. transformers itself is not needed. Settings that a file omits have the values of transformers'
 `CLIPConfig`, which newer versions do not write out.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lraee.errors import TowerError
from lraee_exporters.one_line import one_line

CONFIG_NAME = "config.json"

SHARED_DEFAULTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
TEXT_DEFAULTS = SHARED_DEFAULTS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
VISION_DEFAULTS = SHARED_DEFAULTS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}

NO_TEXT = TEXT_DEFAULTS | {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1}
"""Text tower that open_clip builds where there is none; nothing reads it."""

MAX_SIZE = 2**24
"""Above every size that a CLIP has."""

CLIP_VOCABULARY = 49408
"""Size of CLIP's own vocabulary, the one that open_clip can tokenize without further files."""

_TOP = {
    "logit_scale": "logit_scale",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # transformers' spelling
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TRANSPOSED = ("text_projection.weight", "visual_projection.weight")
_TOWERS = {"text_model": "transformer", "vision_model": "visual.transformer"}
_LAYERS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAYER_NAME = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def read_config(path: Path, content: Any) -> dict[str, Any]:
    """Translate the content of a `config.json` into open_clip's `model_cfg`.

    Args:
        path: the file, for messages.
        content: of `CLIPModel`, or of `CLIPVisionModelWithProjection`, whose text tower is then a small one without
            weights.

    Raises:
        TowerError: It describes another model than CLIP, or one that open_clip's CLIP cannot express.
    """
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind not in ("clip", "clip_vision_model"):
        raise TowerError(
            f"{path}: model_type is {one_line(repr(kind), 60)}, wanted 'clip' (transformers' CLIPModel). For another "
            "model give a folder with an open_clip_config.json, or open_clip's name of the architecture and the "
            "weights as --pretrained."
        )
    alone = kind == "clip_vision_model"
    vision: dict[str, Any] = VISION_DEFAULTS | (
        _given(path, "config", content) if alone else _part(path, content, "vision_config")
    )
    text: dict[str, Any] = NO_TEXT if alone else TEXT_DEFAULTS | _part(path, content, "text_config")
    _check_numbers(path, vision, VISION_DEFAULTS)
    _check_numbers(path, text, TEXT_DEFAULTS)
    acts = [vision["hidden_act"]] if alone else [vision["hidden_act"], text["hidden_act"]]
    if acts[0] not in ("gelu", "quick_gelu") or acts[-1] != acts[0]:
        raise TowerError(
            f"{path}: hidden_act is {one_line(acts, 60)}, wanted gelu or quick_gelu"
            + ("." if alone else ", alike in both.")
        )
    if text["vocab_size"] != CLIP_VOCABULARY:
        raise TowerError(
            f"{path}: vocab_size is {text['vocab_size']}, wanted CLIP's own vocabulary, {CLIP_VOCABULARY}."
        )
    if vision["num_channels"] != 3:
        raise TowerError(f"{path}: num_channels is {vision['num_channels']}, wanted 3 (RGB).")
    embed_dim = content.get("projection_dim") or 512
    _check_numbers(path, {"projection_dim": embed_dim}, {"projection_dim": 512})
    return {
        "embed_dim": embed_dim,
        "quick_gelu": acts[0] == "quick_gelu",
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_tower(vision),
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "heads": text["num_attention_heads"],
            **_tower(text),
        },
    }


def _part(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Read the settings of one tower; those under the key of old versions win, as in transformers."""
    return _given(path, name, content.get(name)) | _given(path, f"{name}_dict", content.get(f"{name}_dict"))


def _given(path: Path, key: str, settings: Any) -> dict[str, Any]:
    """Select the settings that have a value."""
    if settings is not None and not isinstance(settings, dict):
        raise TowerError(f"{path}: {key} is a {type(settings).__name__}, wanted an object with settings.")
    return {name: value for name, value in (settings or {}).items() if value is not None}


def _check_numbers(path: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse sizes that are not whole numbers above 0, and an epsilon that is not a number."""
    for key, default in defaults.items():
        value = settings[key]
        kinds = (int,) if isinstance(default, int) else (int, float)
        if not isinstance(default, str) and not (type(value) in kinds and 0 < value < MAX_SIZE):
            what = "whole number" if isinstance(default, int) else "number"
            raise TowerError(f"{path}: {key} is {one_line(repr(value), 60)}, wanted a {what} above 0.")


def _tower(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the settings that both towers have."""
    return {
        "layers": settings["num_hidden_layers"],
        "width": settings["hidden_size"],
        "mlp_ratio": settings["intermediate_size"] / settings["hidden_size"],
        "norm_kwargs": {"eps": settings["layer_norm_eps"]},
    }


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of transformers' `CLIPModel` into those of open_clip's `CLIP`.

    Query, key and value become one matrix, projections are transposed; `position_ids` are counters and are dropped.

    Raises:
        RuntimeError: A tensor has no place in open_clip's CLIP, or one of query, key and value is missing.
    """
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".position_ids"):
            continue
        if name in _TOP:
            converted[_TOP[name]] = tensor.T if name in _TRANSPOSED else tensor
            continue
        match = _LAYER_NAME.fullmatch(name)
        if match is None:
            raise RuntimeError(f"the tensor {name} is not part of transformers' CLIPModel.")
        tower, number, layer, kind = match.groups()
        where = f"{_TOWERS[tower]}.resblocks.{number}"
        if layer in _LAYERS:
            converted[f"{where}.{_LAYERS[layer]}.{kind}"] = tensor
        elif layer == "self_attn.q_proj":
            three = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
            missing = [part for part in three if part not in state]
            if missing:
                raise RuntimeError(f"missing in the file: {missing}.")
            converted[f"{where}.attn.in_proj_{kind}"] = torch.cat([state[part] for part in three])
        elif layer not in ("self_attn.k_proj", "self_attn.v_proj"):
            raise RuntimeError(f"the tensor {name} is not part of transformers' CLIPModel.")
    return converted
