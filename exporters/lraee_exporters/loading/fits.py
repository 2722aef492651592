"""Compares a checkpoint's tensors with a model before they are copied, and names the architectures that they fit.

torch's own message lists every tensor over many lines; what a user needs is the first that differs and the name under
which the file would load.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch

from lraee_exporters.loading.file_kinds import refusal
from lraee_exporters.loading.supported import reasons_of
from lraee_exporters.one_line import one_line, some

POSITIONS = ("visual.positional_embedding", "visual.trunk.pos_embed")
"""Where open_clip's own and timm's towers keep their positions."""

Shapes = Mapping[str, tuple[int, ...]]


def check_fit(path: Path, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are not those of the model, name for name and shape for shape.

    Args:
        path: the checkpoint, for the message.
        model: open_clip model.
        state: tensors with the names of `model.state_dict()`; the image tower's alone are compared when there are no
            others.

    Raises:
        TowerError: A tensor is missing, has another shape, or has no place; the message names architectures that fit.
    """
    met = {name: tuple(value.shape) for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if not has_text(state):
        wanted = {name: shape for name, shape in wanted.items() if name.startswith("visual.") or name in state}
    differing = [name for name, shape in met.items() if wanted.get(name, shape) != shape]
    missing, unknown = ([name for name in a if name not in b] for a, b in ((wanted, met), (met, wanted)))
    if not (differing or missing or unknown):
        return
    first = differing[0] if differing else ""
    if first in POSITIONS and len(differing) == 1 and not (missing or unknown):
        what = f"has positions of shape {met[first]}, the architecture {wanted[first]}: another image or patch size"
    else:
        more = f" and {len(differing) - 1} more differ" if len(differing) > 1 else ""
        parts = [f"{one_line(first, 60)} is {met[first]}, wanted {wanted[first]}{more}"] if first else []
        parts += [f"missing in the file: {some(missing, 2)}"] if missing else []
        parts += [f"missing in the architecture: {some(unknown, 2)}"] if unknown else []
        what = f"cannot be loaded into this architecture: {'; '.join(parts)}"
    advice = "Check the architecture's name and the file"
    if _sizes_of(met) != _sizes_of(wanted) and (fitting := architectures_that_fit(met)):
        advice = f"The file has the shapes of {some(fitting)}"
    raise refusal(path, f"{what}. {advice}")


def has_text(names: Mapping[str, Any]) -> bool:
    """Tell whether tensors with open_clip's names belong to more than an image tower."""
    return any(not name.startswith(("visual.", "logit_")) for name in names)


def architectures_that_fit(met: Shapes) -> list[str]:
    """Name open_clip's plain ViTs with the sizes of a checkpoint, the shortest name first.

    Args:
        met: shapes by open_clip's names.
    """
    sizes = _sizes_of(met)
    if sizes is None:
        return []
    names: list[str] = open_clip.list_models()
    fitting = []
    for name in sorted(names, key=lambda name: (len(name), name)):
        config = open_clip.get_model_config(name)
        if not config["vision_cfg"].get("timm_model_name") and not reasons_of(config):
            theirs = _sizes_in(config)
            if all(theirs[key] == value for key, value in sizes.items()):
                fitting.append(name)
    return fitting


def _sizes_of(met: Shapes) -> dict[str, int] | None:
    """Derive the sizes of a ViT from a checkpoint's shapes; None when they are not those of a ViT."""
    kernel, positions = met.get("visual.conv1.weight"), met.get("visual.positional_embedding")
    projection = met.get("visual.proj")
    if not (kernel and positions and projection and len(kernel) == 4 and len(positions) == len(projection) == 2):
        return None
    sizes = {
        "width": kernel[0],
        "patch_size": kernel[2],
        "tokens": positions[0],
        "embed_dim": projection[1],
        "layers": _layers(met, "visual.transformer.resblocks."),
    }
    text = met.get("positional_embedding") or met.get("text.positional_embedding")
    if text and len(text) == 2:
        sizes |= {"context_length": text[0], "text_width": text[1]}
        sizes["text_layers"] = _layers(met, "transformer.resblocks.") or _layers(met, "text.transformer.resblocks.")
    return sizes


def _layers(met: Shapes, prefix: str) -> int:
    """Count the blocks with names that begin with `prefix`."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in met if name.startswith(prefix)})


def _sizes_in(config: Mapping[str, Any]) -> dict[str, int]:
    """Read the same sizes from an architecture's settings, with open_clip's defaults."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    image, patch = (
        size[0] if isinstance(size, list | tuple) else size
        for size in (vision.get("image_size", 224), vision.get("patch_size", 16))
    )
    return {
        "width": vision.get("width", 768),
        "patch_size": patch,
        "tokens": (image // patch) ** 2 + 1,
        "embed_dim": config["embed_dim"],
        "layers": vision.get("layers", 12),
        "context_length": text.get("context_length", 77),
        "text_width": text.get("width", 512),
        "text_layers": text.get("layers", 12),
    }
