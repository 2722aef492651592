"""Finds CLIP's tensors in what a checkpoint file holds, whatever training code was wrapped around them.

Wrappers are of three kinds. A training checkpoint keeps the tensors under a key (`state_dict`, `model`).
Modules of torch that wrap others add a part to each name (`module.` of DDP, `_orig_mod.` of torch.compile), which
means nothing. And a class that holds the CLIP adds its attribute's name (`model.` of Lightning, `clip.`), which is
found by the names that every CLIP has. Where two answers are possible, none is taken: the message names what was met.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from lraee_exporters.loading.file_kinds import SAVE_TENSORS, refusal
from lraee_exporters.one_line import one_line, some

Layout: TypeAlias = Literal["open_clip", "hugging_face", "image_tower"]

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that torch's own wrappers add, and that no CLIP has."""

LANDMARKS: Mapping[Layout, tuple[str, ...]] = {
    "open_clip": (
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "visual.trunk.patch_embed.proj.weight",
        "visual.trunk.pos_embed",
    ),
    "hugging_face": (
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
    ),
    "image_tower": ("class_embedding", "trunk.patch_embed.proj.weight", "trunk.pos_embed"),
}
"""Tensors by which a layout is known, the first that is met; `image_tower` is open_clip's `visual.state_dict()`."""

TEXT_LANDMARKS = ("token_embedding.weight", "text_model.embeddings.token_embedding.weight")
"""The same of a text tower."""

NO_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Numbers that OpenAI keeps among its tensors."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of plain weights; other types are quantized, and mean nothing without their scales."""

_OWN_TENSORS = f"Save its tensors alone: {SAVE_TENSORS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWeights:
    """Holds CLIP's tensors without wrappers."""

    layout: Layout
    """Whose names they have."""
    tensors: dict[str, torch.Tensor]
    """By name, floating point, in the file's precision."""


def find_weights(path: Path, content: Any) -> FoundWeights:
    """Find CLIP's tensors, whatever wraps them.

    Args:
        path: what messages call the file.
        content: what the file holds, free of code.

    Raises:
        TowerError: There are none, those of several models, others among them, or they are not floating point numbers.
    """
    tensors = _unwrapped(path, _container(path, content))
    layout, prefix = _layout(path, tensors)
    others = [name for name in tensors if not name.startswith(prefix)]
    if others:
        raise refusal(
            path,
            f"has its CLIP under the prefix '{one_line(prefix, 60)}', and beside it {some(others)}. "
            f"Wanted: the tensors of one CLIP. {_OWN_TENSORS.replace('model', one_line('model.' + prefix[:-1], 60))}",
        )
    found = {name.removeprefix(prefix): value for name, value in tensors.items()}
    found = {name: value for name, value in found.items() if not name.endswith("position_ids")}
    for name, value in found.items():
        _check_tensor(path, name, value)
    return FoundWeights(layout=layout, tensors=found)


def _container(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """Find the state dict in a training checkpoint, or take the content itself for one."""
    if not isinstance(content, dict) or not content:
        raise refusal(path, f"holds a {type(content).__name__} without weights, wanted a state dict. {_OWN_TENSORS}")
    states = dict(_states(content, ""))
    known = {key: state for key, state in states.items() if _has_landmark(state)} or states
    if len(known) > 1 and "" not in known:
        raise refusal(
            path,
            f"holds several sets of weights, under the keys {some(list(known), 5)}; wanted one. Save the one you want: "
            f"torch.save(torch.load(FILE, map_location='cpu')[KEY], NEW_FILE)",
        )
    keys = [str(key) for key in content]
    if not known and any("optim" in key or key == "param_groups" for key in keys):
        raise refusal(path, f"holds the state of an optimizer and no weights (keys {some(keys)}). {_OWN_TENSORS}")
    if not known:
        raise refusal(path, f"holds no tensors but the keys {some(keys, 5)}, wanted a state dict. {_OWN_TENSORS}")
    state = known.get("", next(iter(known.values())))
    if others := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        met = one_line(others[0], 60)
        raise refusal(path, f"holds '{met}' that is not a tensor, wanted only tensors. {_OWN_TENSORS}")
    return state


def _states(content: Mapping[Any, Any], key: str, depth: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find dicts that hold tensors by name, and the keys under which they lie; those of optimizers are skipped."""
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        yield key, {str(name): value for name, value in content.items()}
    for name, value in content.items():
        if isinstance(value, dict) and depth and "optim" not in str(name) and "param_groups" not in content:
            yield from _states(value, f"{key}.{name}" if key else str(name), depth - 1)


def _has_landmark(names: Mapping[str, Any]) -> bool:
    """Tell whether a tower's tensor is among the names, under any prefix."""
    landmarks = {name for group in LANDMARKS.values() for name in group} | set(TEXT_LANDMARKS)
    return any(_ends(name, landmark) for name in names for landmark in landmarks)


def _ends(name: str, landmark: str) -> bool:
    """Tell whether `name` is `landmark`, perhaps after a prefix that ends in a dot."""
    return name == landmark or name.endswith(f".{landmark}")


def _unwrapped(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take torch's wrappers out of all names."""
    plain: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in plain:
            raise refusal(
                path, f"holds the tensor {one_line(short, 80)} twice, also as {one_line(name, 80)}; remove one"
            )
        if short.rpartition(".")[2] not in NO_WEIGHTS:
            plain[short] = value
    return plain


def _layout(path: Path, tensors: Mapping[str, torch.Tensor]) -> tuple[Layout, str]:
    """Tell by its landmarks which layout of names a state dict has, and after which prefix."""
    if adapters := [name for name in tensors if "lora_" in name or ".lokr_" in name or ".hada_" in name]:
        raise refusal(
            path,
            f"holds an adapter (LoRA), whose tensors are {some(adapters, 1)}; wanted the whole model. Merge it into "
            "its base model (merge_and_unload of peft) and save that",
        )
    for layout, landmarks in LANDMARKS.items():
        prefixes = {name[: -len(mark)] for name in tensors for mark in landmarks if _ends(name, mark)}
        if len(prefixes) > 1:
            shown = some([prefix or "(no prefix)" for prefix in sorted(prefixes)], 4)
            raise refusal(
                path,
                f"holds several models, under the prefixes {shown}; wanted one. {_OWN_TENSORS}",
            )
        if prefixes:
            return layout, prefixes.pop()
    names = sorted(tensors)
    if any(_ends(name, mark) for name in names for mark in TEXT_LANDMARKS):
        raise refusal(
            path,
            f"holds a text tower alone ({some(names, 2)}); wanted the whole CLIP or its image tower. {_OWN_TENSORS}",
        )
    if any(_ends(name, "visual.layer1.0.conv1.weight") for name in names):
        raise refusal(path, "holds a CLIP whose image tower is a ResNet; wanted one whose image tower is a ViT")
    raise refusal(
        path,
        f"holds no CLIP that is known here: its {len(names)} tensors are {some(names)}. Wanted: tensors with the names "
        "of open_clip's CLIP or transformers' CLIPModel, such as visual.proj",
    )


def _check_tensor(path: Path, name: str, value: torch.Tensor) -> None:
    """Refuse everything except plain arrays of floating point numbers."""
    what = ""
    if value.is_meta:
        what = "has a shape and no values (device meta)"
    elif value.is_quantized or value.dtype not in FLOATS:
        what = f"is {str(value.dtype).removeprefix('torch.')}"
    elif value.layout != torch.strided:
        what = f"is {str(value.layout).removeprefix('torch.')}"
    if what:
        raise refusal(
            path,
            f"has the tensor {one_line(name, 80)}, which {what}; wanted float16, bfloat16, float32 or float64. "
            "Save the weights from before they were quantized or moved",
        )
