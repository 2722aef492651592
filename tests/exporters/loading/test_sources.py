"""Names that mean no model, and configurations that describe none, are refused in one line that says the way out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lraee_exporters.loading.open_clip_models import load_model

Refusal = Callable[..., str]


def test_a_model_that_does_not_exist_is_refused_with_the_way_out(tmp_path: Path, refusal_of: Refusal) -> None:
    """A hub repository, a file in place of the name, a folder without settings, a home that does not exist."""
    (tmp_path / "weights.pt").write_bytes(b"")
    hub = "A repository of the Hugging Face hub is not fetched: download it, then give its folder."
    assert hub in refusal_of("laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
    assert hub in refusal_of("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
    assert "It is a file: give the architecture's name as MODEL" in refusal_of(tmp_path / "weights.pt")
    assert hub not in refusal_of("./missing-folder/clip")
    assert "is not an architecture" in refusal_of("~nobody-has-this-name/clip")
    assert "is not an architecture" in refusal_of("x" * 5000)
    assert "is not an architecture" in refusal_of("\x1b[31mred\nline")
    assert "there is no open_clip_config.json" in refusal_of(tmp_path)


def test_weights_that_do_not_exist_are_refused_as_a_file_or_as_a_tag(tmp_path: Path, refusal_of: Refusal) -> None:
    """What looks like a path is a missing file; the list of tags is cut, ViT-B-32 has more than twenty."""
    path = tmp_path / "missing.pt"
    for given in (path, "missing.pt", "model.safetensors.index.json", "~nobody-has-this-name/x", "a/b"):
        line = refusal_of("ViT-B-32", "--pretrained", given)
        assert line.startswith(f"--pretrained names the file {given}, and there is no such file; check the path.")
    assert "'laion5b' is not a file and not a pretrained tag of ViT-B-32. Tags: openai, " in (
        line := refusal_of("ViT-B-32", "--pretrained", "laion5b")
    )
    assert " more. Wanted: a tag, a checkpoint file, or random[:SEED]." in line
    assert " more), a checkpoint file, or random (" in refusal_of("ViT-B-32")
    assert refusal_of("ViT-B-32", "--pretrained", tmp_path).startswith(f"--pretrained is the folder {tmp_path}; wanted")
    assert "is not a file and not a pretrained tag" in refusal_of("ViT-B-32", "--pretrained", "x" * 5000)
    for seed in ("-1", "4294967296", "9" * 5000, "x"):
        assert "wanted random or random:SEED" in refusal_of("ViT-B-32", "--pretrained", f"random:{seed}")


CONFIGS: dict[str, tuple[Any, str]] = {
    "cut": ('{"model_cfg": {', "is not JSON"),
    "binary": (b"\xff\xfe\x00", "is not JSON"),
    "nested without end": ("[" * 100_000, "is not JSON"),
    "a list": ([], "wanted the key model_cfg"),
    "no towers": ({"model_cfg": {"embed_dim": 12}}, "wanted the key model_cfg with embed_dim, vision_cfg and text_cfg"),
    "tower as text": ({"vision_cfg": "ViT"}, "vision_cfg is a str, wanted an object"),
    "text as a list": ({"text_cfg": []}, "text_cfg is a list, wanted an object"),
    "width as text": ({"vision_cfg": {"width": "wide"}}, "its width is 'wide', which is not a size"),
    "no heads": (
        {"vision_cfg": {"head_width": 0}},
        "its head_width is 0, which is not a size in whole numbers above 0",
    ),
    "layers below 0": ({"vision_cfg": {"layers": -3}}, "its layers is -3, which is not a size"),
    "no image": ({"vision_cfg": {"image_size": []}}, "its image_size is [], which is not a size"),
    "a fraction": ({"vision_cfg": {"patch_size": 8.5}}, "its patch_size is 8.5, which is not a size"),
    "text heads": ({"text_cfg": {"heads": 0}}, "cannot build"),
    "text heads that do not divide": ({"text_cfg": {"heads": 3}}, "cannot build"),
    "unknown text setting": ({"text_cfg": {"colour": 1}}, "cannot build"),
    "unknown setting": ({"colour": 1}, "cannot build"),
    "embedding as text": ({"embed_dim": "wide"}, "cannot build"),
}
"""Content of open_clip_config.json, or changes of a model_cfg, and what is said."""


@pytest.mark.parametrize("case", CONFIGS)
def test_a_damaged_configuration_is_refused_in_one_line(
    case: str, small_config: dict[str, Any], write_model_folder: Callable[..., Path], refusal_of: Refusal
) -> None:
    """The line names the file or the model, and the setting."""
    content, what = CONFIGS[case]
    folder = write_model_folder(small_config)
    if isinstance(content, dict) and "model_cfg" not in content:
        changed = {
            key: {**small_config.get(key, {}), **value} if isinstance(value, dict) else value
            for key, value in content.items()
        }
        content = {"model_cfg": {**small_config, **changed}}
    raw = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    (folder / "open_clip_config.json").write_bytes(raw)
    assert what in refusal_of(folder, "--pretrained", "random")


TRANSFORMERS: dict[str, tuple[Any, str]] = {
    "cut": ('{"model_type": "cl', "config.json is not JSON"),
    "a list": ([], "model_type is None"),
    "part as text": ({"vision_config": "ViT"}, "vision_config is a str, wanted an object"),
    "width as text": (
        {"vision_config": {"hidden_size": "wide"}},
        "hidden_size is 'wide', wanted a whole number",
    ),
    "layers below 0": ({"text_config": {"num_hidden_layers": -1}}, "num_hidden_layers is -1, wanted a whole number"),
    "epsilon": ({"vision_config": {"layer_norm_eps": float("nan")}}, "layer_norm_eps is nan, wanted a number above 0"),
    "activation as a list": ({"vision_config": {"hidden_act": ["gelu"]}}, "wanted gelu or quick_gelu, alike in both"),
    "projection": ({"projection_dim": "wide"}, "projection_dim is 'wide', wanted a whole number above 0"),
    "another model": ({"model_type": "x" * 999}, "wanted 'clip' (transformers' CLIPModel)"),
}
"""Content of transformers' config.json, or changes of a small one, and what is said."""


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_a_damaged_configuration_of_transformers_is_refused_in_one_line(
    case: str, tmp_path: Path, refusal_of: Refusal
) -> None:
    """Before the weights are looked for."""
    content, what = TRANSFORMERS[case]
    if isinstance(content, dict):
        content = {"model_type": "clip", "vision_config": {}, "text_config": {}, **content}
    raw = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "config.json").write_text(raw, encoding="utf-8")
    assert what in refusal_of(tmp_path)


def test_of_two_configurations_in_a_folder_open_clips_is_read(
    small_config: dict[str, Any], build_model: Callable[..., Any], write_model_folder: Callable[..., Path]
) -> None:
    """Repositories of open_clip hold both; transformers' files in the same folder are not read."""
    model = build_model(small_config)
    folder = write_model_folder(small_config, model)
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{", encoding="utf-8")
    loaded = load_model(str(folder))
    assert loaded.tower.weights == "file:open_clip_model.safetensors"
    assert torch.equal(loaded.torch_model.visual.proj, model.visual.proj)


def test_an_adapter_in_a_folder_is_named(
    small_config: dict[str, Any], write_model_folder: Callable[..., Path], refusal_of: Refusal
) -> None:
    """A folder of peft has adapter_model.safetensors and no weights of a model."""
    from safetensors.torch import save_file

    folder = write_model_folder(small_config)
    save_file({"base_model.model.visual.proj.lora_A.weight": torch.zeros(2)}, folder / "adapter_model.safetensors")
    assert "adapter_model.safetensors holds an adapter (LoRA)" in refusal_of(folder)
