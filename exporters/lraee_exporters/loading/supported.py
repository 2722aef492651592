"""Decides which open_clip architectures can be exported, and why the others cannot.

Two checks, because there are two ways in: `check_config` reads open_clip's settings before anything is built, so that
a refusal costs nothing and names the setting; `check_visual` looks at a built module, so that a model made by hand is
held to the same rules. Both list every reason at once.

Accepted is open_clip's plain pre-LN ViT with a class token that becomes the embedding, GELU or QuickGELU, and what
`timm_towers` says of towers from timm. Patch dropout is accepted because it does nothing outside training.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer

from lraee.errors import TowerError
from lraee_exporters.loading.timm_towers import reasons_of_settings, reasons_of_timm
from lraee_exporters.one_line import one_line

PLAIN_SETTINGS = frozenset(
    {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "patch_dropout", "norm_kwargs"}
    | {"pos_embed_type", "no_ln_pre", "block_type", "attn_pooler_queries", "attn_pooler_heads"}
    | {"timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"}
)
"""Settings of open_clip's `vision_cfg` that a plain ViT may have; those of timm and poolers then have no effect."""

VISION_SIZES = {"image_size": 224, "patch_size": 16, "width": 768, "head_width": 64, "layers": 12}
"""Sizes of a `vision_cfg` and open_clip's defaults."""

REFUSED_SETTINGS: Mapping[str, str] = {
    "attentional_pool": "an attentional pooler makes the embedding, not the class token",
    "final_ln_after_pool": "the last LayerNorm comes after the pooling (final_ln_after_pool)",
    "output_tokens": "the tower returns its tokens with the embedding (output_tokens)",
    "qk_norm": "queries and keys are normalised (qk_norm)",
    "scaled_cosine_attn": "the attention is a scaled cosine (scaled_cosine_attn)",
    "scale_heads": "each head has a learned scale (scale_heads)",
    "scale_attn_inner": "a LayerNorm stands inside the attention (scale_attn_inner)",
    "scale_attn": "a LayerNorm follows the attention (scale_attn)",
    "scale_fc": "a LayerNorm stands inside the MLP (scale_fc)",
    "act_kwargs": "the activation has its own settings (act_kwargs)",
}
"""Settings that change the function when they are on, with the reason in words."""


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse an open_clip model configuration whose image tower is not a plain ViT.

    Args:
        name: What the message calls the model.
        config: open_clip's `model_cfg` with `vision_cfg` and `text_cfg`.

    Raises:
        TowerError: Naming the model and every reason.
    """
    _refuse(name, reasons_of(config))


def check_visual(name: str, visual: torch.nn.Module) -> None:
    """Refuse a built image tower that is not a plain ViT.

    Args:
        name: What the message calls the model.
        visual: `model.visual` of an open_clip model.

    Raises:
        TowerError: Naming the model and every reason.
    """
    if isinstance(visual, TimmModel):
        _refuse(name, [f"its image tower comes from timm, and {reason}" for reason in reasons_of_timm(visual)])
        return
    if not isinstance(visual, VisionTransformer):
        _refuse(name, [f"its image tower is a {type(visual).__name__}, not open_clip's VisionTransformer"])
    tower: Any = visual
    reasons = []
    if tower.attn_pool is not None:
        reasons.append(REFUSED_SETTINGS["attentional_pool"])
    if tower.pool_type != "tok":
        reasons.append(_pooling(tower.pool_type))
    if tower.final_ln_after_pool:
        reasons.append(REFUSED_SETTINGS["final_ln_after_pool"])
    if tower.output_tokens:
        reasons.append(REFUSED_SETTINGS["output_tokens"])
    reasons += block_reasons(tower.transformer.resblocks)
    _refuse(name, reasons)


def reasons_of(config: Mapping[str, Any]) -> list[str]:
    """List why a model configuration cannot be exported; empty when it can.

    >>> reasons_of({"vision_cfg": {"layers": 12, "width": 768, "patch_size": 32}})
    []
    >>> reasons_of({"vision_cfg": {"layers": [3, 4, 6, 3], "width": 64}})
    ['its image tower is a ResNet, not a ViT']
    """
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        return reasons_of_settings(config["embed_dim"], vision)
    if isinstance(vision.get("layers"), list | tuple):
        return ["its image tower is a ResNet, not a ViT"]
    reasons = ["it is a CoCa model, whose image tower feeds a caption decoder"] if "multimodal_cfg" in config else []
    reasons += [reason for setting, reason in REFUSED_SETTINGS.items() if vision.get(setting)]
    if vision.get("ls_init_value") is not None:
        reasons.append("its blocks have a layer scale (ls_init_value)")
    if vision.get("pool_type", "tok") != "tok":
        reasons.append(_pooling(vision["pool_type"]))
    known = PLAIN_SETTINGS | set(REFUSED_SETTINGS) | {"ls_init_value", "pool_type", "timm_model_name"}
    reasons += [f"its vision_cfg has the unknown setting '{key}'" for key in sorted(set(vision) - known)]
    return reasons + _shape_reasons(vision)


def _shape_reasons(vision: Mapping[str, Any]) -> list[str]:
    """List reasons that lie in the sizes: square images and patches that divide them, heads that divide the width."""
    sizes = {key: vision.get(key, default) for key, default in VISION_SIZES.items()}
    pairs = ("image_size", "patch_size")
    reasons = [
        f"its {key} is {one_line(repr(size), 40)}, which is not a size in whole numbers above 0"
        for key, size in sizes.items()
        if not (_is_size(size) or (key in pairs and isinstance(size, list | tuple) and _is_pair(size)))
    ]
    if reasons:
        return reasons
    image, patch = _sides(sizes["image_size"]), _sides(sizes["patch_size"])
    width, head_width = sizes["width"], sizes["head_width"]
    if image[0] != image[1] or patch[0] != patch[1]:
        reasons.append(f"images or patches are not square (image_size {image}, patch_size {patch})")
    elif image[0] % patch[0]:
        reasons.append(f"patches of {patch[0]} px do not divide images of {image[0]} px")
    if width % head_width:
        reasons.append(f"heads of {head_width} channels do not divide the width {width}")
    return reasons


def _is_size(size: Any) -> bool:
    return type(size) is int and size > 0


def _is_pair(sizes: Any) -> bool:
    return len(sizes) == 2 and all(_is_size(size) for size in sizes)


def _sides(size: Any) -> tuple[int, int]:
    """Give (height, width) of open_clip's size, which is one number or two."""
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)


def _pooling(pool_type: str) -> str:
    """Say why another pooling than the class token is refused."""
    return f"its embedding is pooled by '{pool_type}', not taken from the class token ('tok')"


def block_reasons(blocks: Iterable[Any]) -> list[str]:
    """Say what the first unusual block has that a plain one lacks; empty when all are plain."""
    for number, block in enumerate(blocks, start=1):
        if extra := extra_parts(block):
            return [f"block {number} has more than attention and MLP: {', '.join(extra)}"]
        if activation := activation_reason(block):
            return [f"block {number} {activation}"]
    return []


def extra_parts(block: torch.nn.Module) -> list[str]:
    """List the names of submodules of a block that are neither the plain parts nor do-nothing placeholders."""
    plain = {"ln_1", "attn", "ln_2", "mlp", "mlp.c_fc", "mlp.gelu", "mlp.c_proj", "attn.out_proj"}
    placeholders = (torch.nn.Identity, torch.nn.Dropout)
    extra = [
        path
        for path, module in block.named_modules()
        if path and path not in plain and not isinstance(module, placeholders)
    ]
    attention = block.get_submodule("attn")
    return extra + [path for path in ("logit_scale", "head_scale") if getattr(attention, path, None) is not None]


def activation_reason(block: Any) -> str | None:
    """Say why the activation of a block is refused, or None."""
    activation = block.mlp.gelu
    exact_gelu = isinstance(activation, torch.nn.GELU) and activation.approximate == "none"
    if exact_gelu or isinstance(activation, QuickGELU):
        return None
    return f"has the activation {activation}, not GELU (exact) or QuickGELU"


def _refuse(name: str, reasons: list[str]) -> None:
    """Raise TowerError when there are reasons."""
    if reasons:
        raise TowerError(
            f"{name} cannot be exported: {'; '.join(reasons)}. Wanted: a plain pre-LN ViT of open_clip with a class "
            "token and GELU or QuickGELU, such as ViT-B-32, ViT-B-16, ViT-L-14-336 or ViT-H-14; a SigLIP or SigLIP 2 "
            "tower, such as ViT-B-16-SigLIP; or timm's ViT with a class token, such as MobileCLIP2-L-14."
        )
