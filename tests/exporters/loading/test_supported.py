"""Plain ViTs are accepted, everything else is refused by name with its reason and without a download."""

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from timm.layers.mlp import SwiGLU
from timm.models.vision_transformer import VisionTransformer

from lraee.errors import TowerError
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.loading.supported import check_visual, reasons_of

REFUSED = {
    "RN50": "ResNet",
    "RN50x4-quickgelu": "ResNet",
    "convnext_base": "timm (convnext_base)",
    "coca_ViT-B-32": "CoCa",
    "EVA02-B-16": "timm (eva02_base_patch16_clip_224)",
    "PE-Core-B-16": "is timm's Eva, not its plain VisionTransformer",
    "vit_medium_patch16_gap_256": "has LayerScale (trunk.blocks.0.ls1)",
    "ViT-SO400M-14-SigLIP-384": "has patches of (14, 14) px, which do not divide square images of (384, 384) px",
    "MobileCLIP-B": "timm (vit_base_mci_224)",
    "ViT-L-14-CLIPA": "pooled by 'avg'",
    "ViT-M-16-alt": "layer scale",
}

REFUSED_SETTINGS = {
    "attentional_pool": (True, "attentional pooler"),
    "ls_init_value": (1e-4, "layer scale"),
    "pool_type": ("avg", "pooled by 'avg'"),
    "final_ln_after_pool": (True, "last LayerNorm comes after the pooling"),
    "output_tokens": (True, "tokens with the embedding"),
    "qk_norm": (True, "queries and keys are normalised"),
    "scaled_cosine_attn": (True, "scaled cosine"),
    "scale_heads": (True, "each head has a learned scale"),
    "scale_attn_inner": (True, "inside the attention"),
    "scale_attn": (True, "follows the attention"),
    "scale_fc": (True, "inside the MLP"),
    "act_kwargs": ({"approximate": "tanh"}, "activation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_of_another_kind_is_refused_by_name(name: str) -> None:
    """Refused before weights are looked for, although random ones were asked for."""
    with pytest.raises(TowerError) as refusal:
        load_model(name, pretrained="random")
    assert str(refusal.value).startswith(f"{name} cannot be exported")
    assert REFUSED[name] in str(refusal.value)


@pytest.mark.parametrize("setting", REFUSED_SETTINGS)
def test_a_setting_that_changes_the_function_is_refused_in_config_and_model(
    setting: str, small_config: dict[str, Any]
) -> None:
    """Built on torch's meta device: no weight is made."""
    value, reason = REFUSED_SETTINGS[setting]
    small_config["vision_cfg"][setting] = value
    assert any(reason in found for found in reasons_of(small_config))
    small_config["vision_cfg"]["attn_pooler_heads"] = 2
    with torch.device("meta"):
        model = open_clip.CLIP(**small_config)
    with pytest.raises(TowerError, match=r"^handmade cannot be exported: "):
        check_visual("handmade", model.visual)


def test_the_plain_vits_of_open_clip_are_accepted() -> None:
    """The families that the documentation promises, also those with an old-style activation or a foreign text tower."""
    names = ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14"]
    names += ["ViT-B-16-SigLIP", "ViT-B-16-SigLIP2-384", "ViT-SO400M-16-SigLIP2-512", "MobileCLIP2-L-14"]
    names += ["ViT-S-32", "ViT-B-32-256", "ViT-B-16-plus-240", "roberta-ViT-B-32", "xlm-roberta-base-ViT-B-32"]
    reasons = {name: reasons_of(open_clip.get_model_config(name)) for name in names}
    assert {name for name, found in reasons.items() if found} == set()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": [24, 32]}, "not square"),
        ({"patch_size": [8, 4]}, "not square"),
        ({"image_size": 25}, "do not divide images"),
        ({"head_width": 12}, "do not divide the width"),
        ({"moe_experts": 4}, "unknown setting 'moe_experts'"),
    ],
)
def test_odd_sizes_and_unknown_settings_are_refused(
    change: dict[str, Any], reason: str, small_config: dict[str, Any]
) -> None:
    """An unknown setting is not ignored."""
    small_config["vision_cfg"].update(change)
    assert any(reason in found for found in reasons_of(small_config))


def test_a_tower_of_another_library_is_refused() -> None:
    """check_visual names the class it met."""
    with pytest.raises(TowerError, match="its image tower is a Linear"):
        check_visual("handmade", torch.nn.Linear(2, 2))


def test_another_activation_is_refused(
    small_config: dict[str, Any], build_model: Callable[[dict[str, Any]], Any]
) -> None:
    """An activation swapped in by hand is met at the first block that has it."""
    model = build_model(small_config)
    model.visual.transformer.resblocks[1].mlp.gelu = torch.nn.SiLU()
    with pytest.raises(TowerError, match="block 2 has the activation SiLU"):
        check_visual("handmade", model.visual)


def small_trunk(**changes: Any) -> Any:
    """timm's small SigLIP-like tower in open_clip's wrapper, on the meta device."""
    settings = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 0}
    settings |= {"class_token": False, "global_pool": "map", **changes}
    with torch.device("meta"):
        visual = TimmModel("vit_base_patch16_siglip_224", embed_dim=768, pool="map", proj="none")
        visual.trunk = VisionTransformer(**settings)
    visual.image_size = visual.trunk.patch_embed.img_size
    return visual


def test_a_timm_tower_of_another_image_size_than_its_settings_is_refused() -> None:
    """Images would be prepared at the wrong size."""
    visual = small_trunk()
    visual.image_size = (48, 48)
    with pytest.raises(TowerError, match=r"is for images of \(32, 32\) px, .* image_size \(48, 48\)"):
        check_visual("handmade", visual)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"qk_norm": True}, r"LayerNorm \(trunk.blocks.0.attn.q_norm\)"),
        ({"scale_attn_norm": True}, r"LayerNorm \(trunk.blocks.0.attn.norm\)"),
        ({"scale_mlp_norm": True}, r"LayerNorm \(trunk.blocks.0.mlp.norm\)"),
        ({"init_values": 1e-5}, "LayerScale"),
        ({"act_layer": "silu"}, r"activations \['SiLU'\]"),
        ({"norm_layer": "rmsnorm"}, "RmsNorm"),
        ({"mlp_layer": SwiGLU}, r"SwiGLU \(trunk.blocks.0.mlp\)"),
        ({"class_token": True, "reg_tokens": 4, "global_pool": "token"}, "register tokens"),
        ({"pos_embed": "none"}, "no position for each token"),
        ({"class_token": True}, "pools by 'map' with a class token"),
        ({"global_pool": "avg", "fc_norm": False}, "pools by 'avg' without a class token"),
        ({"img_size": 40}, "do not divide"),
    ],
    ids=str,
)
def test_a_timm_tower_with_a_part_of_its_own_is_refused(change: dict[str, Any], reason: str) -> None:
    """Decided on the modules; the part is named with its place."""
    check_visual("handmade", small_trunk())
    with pytest.raises(TowerError, match=rf"^handmade cannot be exported: .*comes from timm, and .*{reason}"):
        check_visual("handmade", small_trunk(**change))
