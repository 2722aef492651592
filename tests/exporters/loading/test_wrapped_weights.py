"""Weights under the wrappers of training code give the same tower; where there are two answers, the names are said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lraee.errors import TowerError
from lraee_exporters.loading.checkpoints import checkpoint_sha256, load_checkpoint
from lraee_exporters.loading.open_clip_models import load_model

Refusal = Callable[..., str]
State = dict[str, torch.Tensor]


def after(prefix: str, state: State) -> State:
    """The state with a prefix before each name."""
    return {f"{prefix}{name}": value for name, value in state.items()}


def inside(part: str, state: State) -> State:
    """The state of a model of which only the image tower is wrapped."""
    return {name.replace("visual.", f"visual.{part}."): value for name, value in state.items()}


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}

WRAPPED: dict[str, Callable[[State], Any]] = {
    "DDP": lambda state: after("module.", state),
    "torch.compile": lambda state: after("_orig_mod.", state),
    "DDP of torch.compile": lambda state: after("module._orig_mod.", state),
    "torch.compile of DDP": lambda state: after("_orig_mod.module.", state),
    "compiled image tower": lambda state: inside("_orig_mod", state),
    "FSDP": lambda state: inside("_fsdp_wrapped_module", after("_fsdp_wrapped_module.", state)),
    "Lightning": lambda state: {
        "state_dict": after("model.", state),
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [OPTIMIZER],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
    },
    "attribute of a class": lambda state: after("clip.", state),
    "compiled attribute": lambda state: after("net._orig_mod.clip_model.", state),
    "teacher alone": lambda state: after("teacher.", state),
    "training checkpoint": lambda state: {"model": state, "optimizer": OPTIMIZER, "epoch": 1},
    "model_state_dict": lambda state: {"model_state_dict": after("module.", state), "loss": 0.3},
    "average alone": lambda state: {"state_dict_ema": state, "epoch": 1},
    "with a loss": lambda state: {"model": state, "criterion": {"weight": torch.ones(3)}},
    "in two layers": lambda state: {"checkpoint": {"state_dict": state, "epoch": 1}},
}
"""What training code makes of a state dict."""


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """Two models of one shape and other weights, without CLIP's vocabulary."""
    config: dict[str, Any] = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 24, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    return open_clip.CLIP(**config).requires_grad_(False), open_clip.CLIP(**config).requires_grad_(False)


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrapped_weights_give_the_tower_of_plain_ones(wrapper: str, tmp_path: Path, models: tuple[Any, Any]) -> None:
    """Every tensor, from a pickled file and, where it is flat, from safetensors."""
    state, other = models[0].state_dict(), models[1]
    wrapped = WRAPPED[wrapper](state)
    torch.save(wrapped, tmp_path / "a.pt")
    if all(isinstance(value, torch.Tensor) for value in wrapped.values()):
        save_file(wrapped, tmp_path / "b.safetensors")
    for path in sorted(tmp_path.glob("?.*")):
        for parameter in other.parameters():
            parameter.zero_()
        loaded = load_checkpoint(other, path)
        assert (loaded.text, loaded.logit_scale) == (True, True)
        for name, value in other.state_dict().items():
            assert torch.equal(value, state[name]), name


UNCLEAR: dict[str, tuple[Callable[[State], Any], str]] = {
    "student and teacher": (
        lambda state: after("student.", state) | after("teacher.", state),
        "holds several models, under the prefixes student., teacher.; wanted one",
    ),
    "plain and average": (
        lambda state: state | after("ema.", state),
        "holds several models, under the prefixes (no prefix), ema.; wanted one",
    ),
    "state_dict and its average": (
        lambda state: {"state_dict": state, "state_dict_ema": state, "epoch": 1},
        "holds several sets of weights, under the keys state_dict, state_dict_ema; wanted one",
    ),
    "model and its average": (
        lambda state: {"model": state, "model_ema": state, "optimizer": OPTIMIZER},
        "holds several sets of weights, under the keys model, model_ema; wanted one",
    ),
    "a head beside it": (
        lambda state: after("model.", state) | {"head.weight": torch.zeros(2), "head.bias": torch.zeros(2)},
        "has its CLIP under the prefix 'model.', and beside it head.weight, head.bias",
    ),
    "twice": (
        lambda state: state | after("module.", {"visual.proj": state["visual.proj"]}),
        "holds the tensor visual.proj twice, also as module.visual.proj",
    ),
    "optimizer alone": (lambda state: OPTIMIZER, "holds the state of an optimizer and no weights"),
    "optimizer of a run": (
        lambda state: {"optimizer": OPTIMIZER, "epoch": 4},
        "holds the state of an optimizer and no weights",
    ),
    "numbers": (lambda state: {"epoch": 4, "loss": 0.1}, "holds no tensors but the keys epoch, loss"),
    "list": (lambda state: list(state.values()), "holds a list without weights"),
    "LoRA": (
        lambda state: {f"base_model.model.visual.proj.lora_{x}.weight": torch.zeros(2, 2) for x in "AB"},
        "holds an adapter (LoRA), whose tensors are base_model.model.visual.proj.lora_A.weight and 1 more",
    ),
    "text tower": (
        lambda state: {name: value for name, value in state.items() if not name.startswith(("visual.", "logit"))},
        "holds a text tower alone",
    ),
    "ResNet": (
        lambda state: {"visual.layer1.0.conv1.weight": torch.zeros(2)},
        "holds a CLIP whose image tower is",
    ),
    "another model": (
        lambda state: {"backbone.cls_token": torch.zeros(2), "backbone.patch_embed.proj.weight": torch.zeros(2)},
        "holds no CLIP that is known here: its 2 tensors are backbone.cls_token",
    ),
}
"""Content of a file that is refused, and what is said."""


@pytest.mark.parametrize("case", UNCLEAR)
def test_weights_that_are_not_one_clip_are_refused_with_the_names_that_were_met(
    case: str, tmp_path: Path, state: State, refusal_of: Refusal
) -> None:
    """Nothing is guessed between two models, and nothing next to the CLIP is ignored."""
    make, what = UNCLEAR[case]
    torch.save(make(state), tmp_path / "odd.pt")
    line = refusal_of("small-vit", "--pretrained", tmp_path / "odd.pt", "--activation", "gelu")
    assert line.startswith(f"odd.pt {what}")


def test_weights_of_another_architecture_are_refused_with_the_names_that_fit(
    tmp_path: Path,
    state: State,
    small_config: dict[str, Any],
    register_architecture: Callable[..., None],
    refusal_of: Refusal,
) -> None:
    """The first difference of each kind, and the architecture to name instead."""
    vision = small_config["vision_cfg"]
    others: dict[str, tuple[dict[str, Any], str]] = {
        "wide-vit": ({"width": 48}, "visual.class_embedding is (32,), wanted (48,) and"),
        "deep-vit": ({"layers": 4}, "missing in the file: visual.transformer.resblocks.3.ln_1.weight"),
        "flat-vit": ({"layers": 2}, "missing in the architecture: visual.transformer.resblocks.2.ln_1.weight"),
        "fine-vit": ({"patch_size": 4}, "visual.positional_embedding is (10, 32), wanted (37, 32) and 1 more differ"),
        "large-vit": ({"image_size": 32}, "has positions of shape (10, 32), the architecture (17, 32): another image"),
    }
    torch.save(state, tmp_path / "small.pt")
    for name, (change, what) in others.items():
        register_architecture(name, {**small_config, "vision_cfg": {**vision, **change}})
        line = refusal_of(name, "--pretrained", tmp_path / "small.pt", "--activation", "gelu")
        assert what in line
        assert line.endswith("The file has the shapes of small-vit.")
    text = {**small_config["text_cfg"], "context_length": 16}
    register_architecture("long-text", {**small_config, "text_cfg": text})
    line = refusal_of("long-text", "--pretrained", tmp_path / "small.pt", "--activation", "gelu")
    assert "positional_embedding is (8, 16), wanted (16, 16). The file has the shapes of small-vit." in line
    extra = {**state, "visual.extra": torch.zeros(2)}
    torch.save(extra, tmp_path / "small.pt")
    line = refusal_of("small-vit", "--pretrained", tmp_path / "small.pt", "--activation", "gelu")
    assert line.endswith("missing in the architecture: visual.extra. Check the architecture's name and the file.")


@pytest.fixture
def sharded(tmp_path: Path, state: State, write_model_folder: Callable[..., Path], small_config: Any) -> Path:
    """A folder whose weights lie in two files with an index."""
    folder = write_model_folder(small_config)
    names, shards = sorted(state), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: shards[index % 2] for index, name in enumerate(names)}
    for shard in shards:
        save_file({name: state[name] for name in names if where[name] == shard}, folder / shard)
    total = sum(value.numel() * value.element_size() for value in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_shards_beside_an_index_are_one_checkpoint(sharded: Path, state: State) -> None:
    """By folder and by the index's name, as safetensors and as .bin; the hash covers every shard."""
    index = sharded / "model.safetensors.index.json"
    by_folder = load_model(str(sharded))
    assert by_folder.tower.weights == "file:model.safetensors.index.json"
    by_name = load_model("small-vit", pretrained=str(index), activation="gelu")
    for name, value in by_folder.torch_model.state_dict().items():
        assert torch.equal(value, state[name])
        assert torch.equal(value, by_name.torch_model.state_dict()[name])
    assert by_folder.source_sha256 == checkpoint_sha256(index)
    shard = sharded / "model-00001-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert by_folder.source_sha256 != checkpoint_sha256(index)
    renamed = json.loads(index.read_text())
    renamed["weight_map"] = dict.fromkeys(state, "pytorch_model-00001-of-00001.bin")
    for path in sharded.glob("model*"):
        path.unlink()
    torch.save(state, sharded / "pytorch_model-00001-of-00001.bin")
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps(renamed), encoding="utf-8")
    assert torch.equal(load_model(str(sharded)).torch_model.visual.proj, state["visual.proj"])


def test_shards_that_are_not_what_their_index_says_are_refused(sharded: Path, state: State) -> None:
    """Missing, outside the folder, with foreign, lacking or repeated tensors, of another total, or no index."""
    path, first, second = (
        sharded / name
        for name in ("model.safetensors.index.json", *(f"model-0000{n}-of-00002.safetensors" for n in (1, 2)))
    )
    index = json.loads(path.read_text())
    where = index["weight_map"]
    lacking = {name: file for name, file in where.items() if name != "visual.proj"}
    moved = {**where, "visual.proj": first.name if where["visual.proj"] == second.name else second.name}
    cases: list[tuple[Any, str]] = [
        ({**index, "weight_map": {**where, "visual.proj": "third.safetensors"}}, r"third\.safetensors\. Download them"),
        ({**index, "weight_map": {**where, "visual.proj": "../model.safetensors"}}, r"names the file '\.\./model"),
        ({**index, "weight_map": {**where, "visual.proj": "/etc/passwd"}}, r"names the file '/etc/passwd', wanted"),
        ({**index, "weight_map": lacking}, r"holds visual\.proj, which model\.safetensors\.index\.json does not say"),
        ({**index, "weight_map": {**where, "visual.more": first.name}}, r"lacks visual\.more, which"),
        ({**index, "weight_map": moved}, r"visual\.proj"),
        ({**index, "metadata": {"total_size": 7}}, r"says total_size 7 bytes, the tensors have \d+\. Download"),
        ({**index, "weight_map": {}}, "has no weight_map"),
        ({**index, "weight_map": {"visual.proj": 3}}, "has no weight_map"),
        ([], "is not an object with weight_map"),
        ("{", "is not JSON"),
    ]
    for content, message in cases:
        path.write_text(content if content == "{" else json.dumps(content), encoding="utf-8")
        with pytest.raises(TowerError, match=message) as refusal:
            load_model(str(sharded))
        assert str(refusal.value).isprintable()
    repeated = {name: state[name] for name in where if where[name] == second.name or name.endswith("ln_final.bias")}
    save_file(repeated | {"visual.proj": state["visual.proj"]}, second)
    path.write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(TowerError, match=rf"{second.name} holds .*where {first.name} has it already"):
        load_model(str(sharded))
    path.unlink()
    with pytest.raises(TowerError, match="met the checkpoint files model-00001-of-00002"):
        load_model(str(sharded))
