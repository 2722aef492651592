"""Read a CLIP checkpoint file into an open_clip model, without ever running code from the file.

Formats: `.safetensors`; `.pt`, `.pth` and `.bin` (a state dict, or a training checkpoint that holds one under
`state_dict`), opened with torch's weights-only unpickler; OpenAI's TorchScript archives, of which only the tensors are
read; and Google's `.npz` of SigLIP, opened without pickles. Tensors may have open_clip's names or, in the first two,
those of transformers' `CLIPModel`. Weights in fp16 or bf16 become float32 as they are copied into the model. Positions
of another grid are refused: open_clip would interpolate them in silence, and the accuracy would not be that of the
checkpoint.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lraee.errors import TowerError
from lraee_exporters.hugging_face import convert_state, is_hugging_face
from lraee_exporters.torchscript import is_torchscript, read_torchscript

CHECKPOINT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz")
"""Suffixes of files that are taken for weights."""

PREFERRED_NAMES = tuple(
    f"{stem}{suffix}"
    for stem in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    for suffix in CHECKPOINT_SUFFIXES
)
"""Names under which open_clip and Hugging Face keep a model's weights, best first."""


NUMPY_SUFFIX = ".npz"
"""Suffix of Google's SigLIP weights."""

POSITIONS = ("visual.positional_embedding", "visual.trunk.pos_embed")
"""Where open_clip's own and timm's towers keep their positions."""

READING_ERRORS = (
    RuntimeError,
    pickle.UnpicklingError,
    SafetensorError,
    EOFError,
    zipfile.BadZipFile,
    KeyError,
    ValueError,
)
"""What torch, safetensors, numpy and pickle were seen to raise for files that are damaged or of another model."""


def find_checkpoint(folder: Path) -> Path:
    """Find the weights in a folder that holds an `open_clip_config.json` or transformers' `config.json`.

    Raises:
        TowerError: There are none, or several and none has a usual name.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_SUFFIXES)
    for name in PREFERRED_NAMES:
        if folder / name in files:
            return folder / name
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise TowerError(
            f"{folder}: met the checkpoint files {names}; wanted {PREFERRED_NAMES[0]} or exactly one "
            f"{'/'.join(CHECKPOINT_SUFFIXES)} file. Name one with --pretrained FILE, or ask for --pretrained random."
        )
    return files[0]


def load_checkpoint(model: torch.nn.Module, path: Path) -> None:
    """Copy a checkpoint's weights into an open_clip model of the same architecture.

    Args:
        model: open_clip model in float32; changed in place.
        path: Checkpoint file.

    Raises:
        TowerError: The file is damaged, holds more than tensors, or belongs to another architecture.
    """
    try:
        if path.suffix == NUMPY_SUFFIX:
            _load_numpy(model, path)
            return
        state = _read(path)
        if is_hugging_face(state):
            state = convert_state(state)
            _check_positions(model, path, state)
            model.load_state_dict(state, strict=True)
            return
        _check_positions(model, path, state)
        if is_torchscript(path):
            _load_archive(model, state)
        else:
            open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except READING_ERRORS as error:
        lines = str(error).strip().splitlines()
        detail = " ".join(line.strip() for line in lines[:3]) if lines else type(error).__name__
        raise TowerError(
            f"{path.name} cannot be loaded into this architecture: {detail[:400]} Wanted: tensors only, with the names "
            "and shapes of the open_clip model; check the architecture's name and the file."
        ) from error


def _check_positions(model: Any, path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse positions of another grid."""
    for name in POSITIONS:
        if name in state and name in dict(model.named_parameters()):
            met, wanted = tuple(state[name].shape), tuple(model.get_parameter(name).shape)
            if met != wanted:
                raise TowerError(
                    f"{path.name} has positions of shape {met}, the architecture {wanted}: another image or patch "
                    "size. Name the architecture that the checkpoint was trained as."
                )


def _load_numpy(model: Any, path: Path) -> None:
    """Load the SigLIP weights that Google's big_vision writes; open_clip has the names."""
    if not isinstance(model, open_clip.CustomTextCLIP) or not hasattr(model.visual, "trunk"):
        raise TowerError(f"{path.name}: an .npz holds SigLIP's weights; name one of open_clip's SigLIP architectures.")
    with np.load(path, allow_pickle=False) as arrays:
        prefix = "params/" if "params/b" in arrays else ""
        met = arrays[f"{prefix}img/pos_embedding"].shape
        wanted = tuple(model.visual.trunk.pos_embed.shape)
        patch, kernel = model.visual.trunk.patch_embed.proj.weight.shape, arrays[f"{prefix}img/embedding/kernel"].shape
    if met != wanted or kernel[:2] != tuple(patch[2:]):
        raise TowerError(
            f"{path.name} has positions of shape {met} and patches of {kernel[:2]}, the architecture {wanted} and "
            f"{tuple(patch[2:])}. Name the architecture that the checkpoint was trained as."
        )
    open_clip.load_checkpoint(model, str(path))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_archive(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load an archive's tensors; it also holds masks and sizes, which are no weights and which the model lacks."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    unexpected = [name for name in unexpected if name.endswith((".weight", ".bias"))]
    if missing or unexpected:
        raise RuntimeError(f"missing in the archive: {missing[:3]}; missing in the architecture: {unexpected[:3]}.")


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors by name."""
    checkpoint: Any
    if path.suffix == ".safetensors":
        checkpoint = load_file(path)
    elif is_torchscript(path):
        checkpoint = read_torchscript(path)
    else:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict):
        checkpoint = checkpoint["state_dict"]
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise TowerError(f"{path.name}: met a {type(checkpoint).__name__} without weights, wanted a state dict.")
    others = [str(key) for key, value in checkpoint.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise TowerError(f"{path.name}: met '{others[0]}' that is no tensor, wanted a state dict of tensors alone.")
    return {str(key).removeprefix("module."): value for key, value in checkpoint.items()}
