"""Describes the image towers that open_clip takes from timm, as far as they are plain pre-LN ViTs.

Two kinds are: SigLIP's and SigLIP 2's towers (no class token, an attention pool at the end) and timm's own CLIP ViTs
with a class token (MobileCLIP2-L-14). What a tower is made of is decided on the built modules, not on names: every
module must be one of `PLAIN_MODULES` at its place. The check builds the tower on torch's meta device, where a module
has shapes and no weights, so that a refusal costs nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import timm
import torch
from open_clip.timm_model import TimmModel
from timm.layers.attention import Attention as TimmAttention
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp as TimmMlp
from timm.layers.patch_dropout import PatchDropout
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer

from lraee_exporters.loading.torch_arrays import array_of, layer_norm_of, linear_of, split_linear
from lraee_exporters.tower import Activation, Attention, AttentionPool, Block, Mlp

PLACEHOLDERS = (torch.nn.Identity, torch.nn.Dropout, DropPath, PatchDropout)
"""Modules that do nothing outside training."""

ACTIVATIONS: Mapping[str, Activation] = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
"""By the name of torch's or timm's class."""

_LINEAR, _NORM = torch.nn.Linear, torch.nn.LayerNorm
PLAIN_MODULES: Mapping[str, type] = {
    "": TimmModel,
    "trunk": VisionTransformer,
    r"trunk\.patch_embed": PatchEmbed,
    r"trunk\.patch_embed\.proj": torch.nn.Conv2d,
    r"trunk\.(norm_pre|norm)": _NORM,
    r"trunk\.blocks": torch.nn.Sequential,
    r"trunk\.blocks\.\d+": TimmBlock,
    r"trunk\.blocks\.\d+\.(norm1|norm2)": _NORM,
    r"trunk\.blocks\.\d+\.attn": TimmAttention,
    r"trunk\.blocks\.\d+\.attn\.(qkv|proj)": _LINEAR,
    r"trunk\.attn_pool": AttentionPoolLatent,
    r"trunk\.attn_pool\.(q|kv|proj)": _LINEAR,
    r"trunk\.attn_pool\.norm": _NORM,
    r"trunk\.(blocks\.\d+|attn_pool)\.mlp": TimmMlp,
    r"trunk\.(blocks\.\d+|attn_pool)\.mlp\.(fc1|fc2)": _LINEAR,
    r"trunk\.(blocks\.\d+|attn_pool)\.mlp\.act": torch.nn.Module,
    r"trunk\.head": _LINEAR,
    "head": torch.nn.Sequential,
    r"head\.proj": _LINEAR,
}
"""Modules of a plain tower: type of a module by a pattern of its whole path in open_clip's `TimmModel`."""


def reasons_of_settings(embed_dim: int, vision: Mapping[str, Any]) -> list[str]:
    """List why the timm tower of a `vision_cfg` cannot be exported; empty when it can."""
    name = vision["timm_model_name"]
    try:
        with torch.device("meta"):
            visual = TimmModel(
                name,
                embed_dim=embed_dim,
                image_size=vision.get("image_size", 224),
                pool=vision.get("timm_pool", "avg"),
                proj=vision.get("timm_proj", "linear"),
                proj_bias=vision.get("timm_proj_bias", False),
            )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        return [f"timm {timm.__version__} cannot build {name}: {str(error).strip().partition(chr(10))[0]}"]
    return [f"its image tower comes from timm ({name}), and {reason}" for reason in reasons_of_timm(visual)]


def reasons_of_timm(visual: Any) -> list[str]:
    """List why a built `TimmModel` cannot be exported; empty when it can."""
    if type(visual.trunk) is not VisionTransformer:
        return [f"is timm's {type(visual.trunk).__name__}, not its plain VisionTransformer"]
    foreign: dict[str, str] = {}
    for path, module in visual.named_modules():
        wanted = next((kind for pattern, kind in PLAIN_MODULES.items() if re.fullmatch(pattern, path)), None)
        if not isinstance(module, PLACEHOLDERS) and (wanted is None or not isinstance(module, wanted)):
            foreign.setdefault(type(module).__name__, path)
    if foreign:
        named = [f"{kind} ({path})" for kind, path in foreign.items()]
        return [f"has {', '.join(named[:3])}" + (f" and {len(named) - 3} more" if len(named) > 3 else "")]
    trunk = visual.trunk
    reasons = []
    image, patch = trunk.patch_embed.img_size, trunk.patch_embed.patch_size
    if image[0] != image[1] or patch[0] != patch[1] or image[0] % patch[0]:
        reasons.append(f"has patches of {patch} px, which do not divide square images of {image} px")
    if tuple(visual.image_size) != tuple(image):
        reasons.append(f"is for images of {image} px, where the settings say image_size {tuple(visual.image_size)}")
    if trunk.num_prefix_tokens != trunk.has_class_token:
        reasons.append("has register tokens")
    if trunk.pos_embed is None or trunk.no_embed_class:
        reasons.append("has no position for each token")
    pooling = "map" if trunk.attn_pool is not None else "token"
    if trunk.global_pool != pooling or (pooling == "token") != trunk.has_class_token:
        kind = "with" if trunk.has_class_token else "without"
        reasons.append(f"pools by '{trunk.global_pool}' {kind} a class token, wanted 'token' with one or 'map' without")
    pool = trunk.attn_pool
    if pool is not None and (pool.latent_len != 1 or pool.pos_embed is not None or pool.pool != "token"):
        reasons.append("has an attention pool with more than one query or with positions")
    linears = [module for module in (trunk.head, *visual.head) if isinstance(module, torch.nn.Linear)]
    if len(linears) > 1:
        reasons.append("projects twice")
    mlps: list[Any] = [block.mlp for block in [*trunk.blocks, *([] if pool is None else [pool])]]
    kinds = {type(mlp.act).__name__ for mlp in mlps}
    if len(kinds) > 1 or not kinds <= set(ACTIVATIONS):
        reasons.append(f"has the activations {sorted(kinds)}, wanted one of {', '.join(ACTIVATIONS)}")
    return reasons


def activation_of(visual: Any) -> Activation:
    """Name the activation of all blocks."""
    act = visual.trunk.blocks[0].mlp.act
    if getattr(act, "approximate", "none") == "tanh":
        return "gelu_tanh"
    return ACTIVATIONS[type(act).__name__]


def parts_of_timm(visual: Any) -> dict[str, Any]:
    """Describe a plain `TimmModel`: the fields of `Tower` that its weights decide."""
    trunk = visual.trunk
    linear = next((module for module in (trunk.head, *visual.head) if isinstance(module, torch.nn.Linear)), None)
    convolution = trunk.patch_embed.proj
    return {
        "activation": activation_of(visual),
        "patch_kernel": array_of(convolution.weight),
        "patch_bias": None if convolution.bias is None else array_of(convolution.bias),
        "class_embedding": array_of(trunk.cls_token[0, 0]) if trunk.has_class_token else None,
        "positions": array_of(trunk.pos_embed[0]),
        "norm_pre": None if isinstance(trunk.norm_pre, torch.nn.Identity) else layer_norm_of(trunk.norm_pre),
        "blocks": tuple(_block(block) for block in trunk.blocks),
        "norm_post": layer_norm_of(trunk.norm),
        "projection": None if linear is None else np.ascontiguousarray(array_of(linear.weight).T),
        "projection_bias": None if linear is None or linear.bias is None else array_of(linear.bias),
        "pooling": "cls" if trunk.attn_pool is None else "attention",
        "attention_pool": None if trunk.attn_pool is None else _pool(trunk.attn_pool),
    }


def _block(block: Any) -> Block:
    query, key, value = split_linear(linear_of(block.attn.qkv), 3)
    return Block(
        norm_1=layer_norm_of(block.norm1),
        attention=Attention(
            query=query, key=key, value=value, out=linear_of(block.attn.proj), heads=int(block.attn.num_heads)
        ),
        norm_2=layer_norm_of(block.norm2),
        mlp=Mlp(fc1=linear_of(block.mlp.fc1), fc2=linear_of(block.mlp.fc2)),
    )


def _pool(pool: Any) -> AttentionPool:
    key, value = split_linear(linear_of(pool.kv), 2)
    with torch.no_grad():
        query = pool.q(pool.latent)[0, 0]
    return AttentionPool(
        query=array_of(query),
        key=key,
        value=value,
        out=linear_of(pool.proj),
        norm=layer_norm_of(pool.norm),
        mlp=Mlp(fc1=linear_of(pool.mlp.fc1), fc2=linear_of(pool.mlp.fc2)),
        heads=int(pool.num_heads),
    )
