"""A folder of transformers' CLIPModel becomes the same tower as the open_clip model whose weights it holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lraee.errors import TowerError
from lraee_exporters.loading.hugging_face import convert_state, read_config
from lraee_exporters.loading.open_clip_models import load_model

Build = Callable[[dict[str, Any]], Any]
State = dict[str, torch.Tensor]

HEADS = 4


@pytest.fixture
def model(small_config: dict[str, Any], build_model: Build) -> Any:
    """Make a small model with QuickGELU."""
    return build_model({**small_config, "quick_gelu": True})


@pytest.fixture
def folder(tmp_path: Path, model: Any, small_config: dict[str, Any], to_hugging_face: Callable[..., Any]) -> Path:
    """Its folder, as transformers would save it."""
    config, state = to_hugging_face(small_config, model)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def embed(state: State, images: torch.Tensor) -> torch.Tensor:
    """What transformers' CLIPModel computes for normalised images, written out with its names."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    where = "vision_model.embeddings"
    kernel = state[f"{where}.patch_embedding.weight"]
    patches = F.conv2d(images, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    first = state[f"{where}.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([first, patches], dim=1) + state[f"{where}.position_embedding.weight"]
    x = norm("vision_model.pre_layrnorm", x)
    for index in range(3):
        layer = f"vision_model.encoder.layers.{index}"
        y = norm(f"{layer}.layer_norm1", x)
        heads = [linear(f"{layer}.self_attn.{n}_proj", y).unflatten(2, (HEADS, -1)).transpose(1, 2) for n in "qkv"]
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + linear(f"{layer}.self_attn.out_proj", attended)
        hidden = linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", x))
        x = x + linear(f"{layer}.mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
    return F.linear(norm("vision_model.post_layernorm", x[:, 0]), state["visual_projection.weight"])


def test_a_folder_computes_what_its_names_mean(
    folder: Path, model: Any, small_config: dict[str, Any], to_hugging_face: Callable[..., Any]
) -> None:
    """Tolerance: float32 sums in another order."""
    loaded = load_model(str(folder))
    assert (loaded.tower.activation, loaded.tower.depth, loaded.tower.heads) == ("quick_gelu", 3, HEADS)
    assert loaded.tower.weights == "file:model.safetensors"
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    _, state = to_hugging_face(small_config, model)
    torch.testing.assert_close(loaded.torch_model.encode_image(images), embed(state, images))
    tokens = loaded.tokenizer(["a cat", "a dog"])
    torch.testing.assert_close(loaded.torch_model.encode_text(tokens), model.encode_text(tokens))


def test_a_pickled_folder_and_bare_weights_give_the_same_tower(
    folder: Path, small_config: dict[str, Any], register_architecture: Callable[..., None]
) -> None:
    """pytorch_model.bin, and the same file under a name of open_clip."""
    from safetensors.torch import load_file

    safe = load_model(str(folder)).tower
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pickled = load_model(str(folder)).tower
    register_architecture("small-vit", small_config)
    bare = load_model("small-vit", pretrained=str(folder / "pytorch_model.bin"), activation="quick_gelu").tower
    for tower in (pickled, bare):
        assert (tower.projection == safe.projection).all()
        assert (tower.blocks[2].attention.value.weight == safe.blocks[2].attention.value.weight).all()


def test_the_preprocessor_is_followed(folder: Path) -> None:
    """CLIP's own crops; SigLIP-like settings squash."""
    path = folder / "preprocessor_config.json"
    clip = {"do_center_crop": True, "resample": 2, "size": {"shortest_edge": 24}, "image_mean": [0.5, 0.4, 0.3]}
    clip |= {"crop_size": 24}
    path.write_text(json.dumps(clip), encoding="utf-8")
    read = load_model(str(folder)).tower.preprocessing
    assert (read.resize_mode, read.interpolation, read.mean) == ("shortest", "bilinear", (0.5, 0.4, 0.3))
    path.write_text(json.dumps({"do_center_crop": False, "size": {"height": 24, "width": 24}}), encoding="utf-8")
    assert load_model(str(folder)).tower.preprocessing.resize_mode == "squash"


def test_what_a_new_version_leaves_away_has_its_default() -> None:
    """The config of ViT-B/32 is almost empty when only differences are saved."""
    config = read_config(Path("config.json"), {"model_type": "clip", "text_config": {}, "vision_config": {}})
    assert (config["embed_dim"], config["quick_gelu"]) == (512, True)
    vision = {"layers": 12, "width": 768, "head_width": 64, "patch_size": 32, "image_size": 224}
    assert config["vision_cfg"].items() >= vision.items()
    assert (config["text_cfg"]["heads"], config["text_cfg"]["mlp_ratio"]) == (8, 4.0)
    old = {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}, "text_config_dict": {"hidden_act": "gelu"}}
    assert read_config(Path("config.json"), old)["quick_gelu"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip"}, "model_type is 'siglip', wanted 'clip'"),
        ({"vision_config": {"hidden_act": "gelu_new"}}, "hidden_act is .* wanted gelu or quick_gelu"),
        ({"vision_config": {"hidden_act": "gelu"}}, "alike in both"),
        ({"text_config": {"vocab_size": 250002}}, "vocab_size is 250002"),
        ({"vision_config": {"num_channels": 4}}, "num_channels is 4"),
        ({"vision_config": {"num_attention_heads": 0}}, "num_attention_heads is 0, wanted a whole number"),
        ({"vision_config": {"image_size": 225}}, "do not divide images of 225 px"),
    ],
)
def test_a_folder_of_another_model_is_refused(change: dict[str, Any], message: str, folder: Path) -> None:
    """The message names the file and the setting."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TowerError, match=message):
        load_model(str(folder))


def test_weights_that_do_not_fit_the_layout_are_refused(folder: Path) -> None:
    """Missing, foreign and reshaped tensors, each named."""
    from safetensors.torch import load_file

    whole = load_file(folder / "model.safetensors")
    positions = "vision_model.embeddings.position_embedding.weight"
    key = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    cases: list[tuple[State, str]] = [
        ({name: value for name, value in whole.items() if name != key}, "layers.1.self_attn.k_proj.weight"),
        ({name: value for name, value in whole.items() if name != "text_projection.weight"}, "text_projection"),
        ({**whole, "adapter.weight": torch.zeros(2)}, "adapter.weight is not part"),
        ({**whole, positions: torch.zeros(5, 32)}, "another image or patch size"),
    ]
    for state, message in cases:
        save_file(state, folder / "model.safetensors")
        with pytest.raises(TowerError, match=message):
            load_model(str(folder))


def test_position_counters_are_no_weights() -> None:
    """Old versions saved them with the weights."""
    counters = {f"{tower}.embeddings.position_ids": torch.arange(3)[None] for tower in ("text_model", "vision_model")}
    assert convert_state(counters) == {}
