"""An image tower alone is loaded where the labels' embeddings are given, and else refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lraee.errors import TowerError
from lraee.labels.label_set import LabelSet
from lraee_exporters.labels import embed_labels
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.loading.text_tower import text_tower_of

Refusal = Callable[..., str]
State = dict[str, torch.Tensor]


def image_tower(state: State) -> State:
    """The tensors of the image tower under their whole names."""
    return {name: value for name, value in state.items() if name.startswith("visual.")}


ALONE: dict[str, Callable[[State], State]] = {
    "visual.state_dict()": lambda state: {
        name.removeprefix("visual."): value for name, value in image_tower(state).items()
    },
    "names with visual.": image_tower,
    "wrapped": lambda state: {f"module._orig_mod.{name}": value for name, value in image_tower(state).items()},
    "encoder of a class": lambda state: {
        f"image_encoder.{name.removeprefix('visual.')}": value for name, value in image_tower(state).items()
    },
}
"""Ways in which an image tower is saved."""


@pytest.mark.parametrize("way", ALONE)
def test_an_image_tower_alone_is_loaded_where_no_text_tower_is_needed(
    way: str, tmp_path: Path, state: State, refusal_of: Refusal
) -> None:
    """The tower is that of the whole model; without the labels' embeddings the line names the option for them."""
    torch.save(ALONE[way](state), tmp_path / "image.pt")
    torch.save(state, tmp_path / "whole.pt")
    options = {"activation": "gelu", "text": False}
    alone = load_model("small-vit", pretrained=str(tmp_path / "image.pt"), logit_scale=50, **options)  # type: ignore[arg-type]  # one dict of both
    whole = load_model("small-vit", pretrained=str(tmp_path / "whole.pt"), activation="gelu")
    for name, value in alone.torch_model.visual.state_dict().items():
        assert torch.equal(value, whole.torch_model.visual.state_dict()[name])
    assert alone.tower.logit_scale == pytest.approx(50)
    assert (alone.has_text, whole.has_text) == (False, True)
    with pytest.raises(TowerError, match="small-vit has no text tower"):
        embed_labels(alone, LabelSet(names=("a cat", "a dog")))
    with pytest.raises(TowerError, match=r"its weights are not in the checkpoint.*--text none"):
        text_tower_of(alone)
    line = refusal_of("small-vit", "--pretrained", tmp_path / "image.pt", "--activation", "gelu")
    assert line.startswith("image.pt holds an image tower alone (such as visual.class_embedding and ")
    assert line.endswith("or the labels' embeddings: --text none --label-embeddings FILE.npy.")


def test_the_logit_scale_of_an_image_tower_comes_from_its_file_or_is_given(tmp_path: Path, state: State) -> None:
    """A missing factor would shift every probability; one given in addition to the file's own is refused."""
    own = {**image_tower(state), "logit_scale": torch.tensor(math.log(30.0))}
    torch.save(own, tmp_path / "own.pt")
    torch.save(image_tower(state), tmp_path / "none.pt")

    def load(name: str, logit_scale: float | None) -> Any:
        path = str(tmp_path / name)
        return load_model("small-vit", pretrained=path, activation="gelu", text=False, logit_scale=logit_scale).tower

    assert load("own.pt", None).logit_scale == pytest.approx(30)
    with pytest.raises(TowerError, match=r"own\.pt has its own logit scale; omit --logit-scale"):
        load("own.pt", 100)
    with pytest.raises(TowerError, match=r"none\.pt has no logit_scale, .* Give it with --logit-scale: 100"):
        load("none.pt", None)
    for scale in (0, -1, math.nan, math.inf):
        with pytest.raises(TowerError, match="wanted a number above 0 and up to 1000"):
            load("none.pt", scale)
    siglip = {**image_tower(state), "visual.extra": torch.zeros(2)}
    torch.save(siglip, tmp_path / "more.pt")
    with pytest.raises(TowerError, match=r"missing in the architecture: visual\.extra"):
        load("more.pt", 100)


def test_an_image_tower_of_siglip_without_its_bias_is_refused(
    tmp_path: Path,
    small_config: dict[str, Any],
    build_model: Callable[..., Any],
    write_model_folder: Callable[..., Any],
) -> None:
    """Its probabilities need a scale and a bias, which no option gives."""
    config = {**small_config, "init_logit_bias": -10.0}
    folder = write_model_folder(config)
    torch.save(image_tower(build_model(config).state_dict()), folder / "image.pt")
    with pytest.raises(TowerError, match="image tower of SigLIP without logit_scale and logit_bias"):
        load_model(str(folder), text=False, logit_scale=10)


def test_a_folder_of_transformers_image_tower_is_loaded(
    tmp_path: Path,
    state: State,
    small_config: dict[str, Any],
    build_model: Callable[..., Any],
    to_hugging_face: Callable[..., Any],
) -> None:
    """CLIPVisionModelWithProjection has the settings of the tower at the top of its config.json."""
    model = build_model({**small_config, "quick_gelu": True})
    config, tensors = to_hugging_face(small_config, model)
    vision = {name: value for name, value in tensors.items() if name.startswith(("vision_model.", "visual_projection"))}
    save_file(vision, tmp_path / "model.safetensors")
    flat = {**config["vision_config"], "model_type": "clip_vision_model", "projection_dim": config["projection_dim"]}
    (tmp_path / "config.json").write_text(json.dumps(flat), encoding="utf-8")
    loaded = load_model(str(tmp_path), text=False, logit_scale=100)
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.torch_model.encode_image(images), model.encode_image(images))
    assert (loaded.tower.activation, loaded.has_text) == ("quick_gelu", False)
    save_file({name: value for name, value in vision.items() if name[:7] == "vision_"}, tmp_path / "model.safetensors")
    with pytest.raises(TowerError, match=r"missing in the file: visual\.proj"):
        load_model(str(tmp_path), text=False, logit_scale=100)
