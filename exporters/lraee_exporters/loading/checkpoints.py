"""Reads a CLIP checkpoint file into an open_clip model, without ever running code from the file.

Formats, told apart by the files' first bytes: safetensors, in one file or in shards with an index; torch's state
dicts and training checkpoints, opened with torch's weights-only unpickler; OpenAI's TorchScript archives, of which only
the tensors are read; and Google's `.npz` of SigLIP, opened without pickles. Tensors may have open_clip's names or those
of transformers' `CLIPModel`, and be wrapped as `state_dicts` says. Weights in fp16 or bf16 become float32 as they are
copied into the model. Positions of another grid are refused: open_clip would interpolate them in silence, and the
accuracy would not be that of the checkpoint.
"""

import hashlib
import pickle
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from lraee.errors import TowerError
from lraee_exporters.loading.file_kinds import ARCHIVE_ERRORS, INDEX_SUFFIX, file_kind, pickle_refusal, refusal
from lraee_exporters.loading.fits import check_fit, has_text
from lraee_exporters.loading.hugging_face import convert_state
from lraee_exporters.loading.shards import read_shards, shards_of
from lraee_exporters.loading.state_dicts import find_weights
from lraee_exporters.loading.torchscript import read_torchscript
from lraee_exporters.one_line import one_line, some

CHECKPOINT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz")
"""Suffixes of files that are taken for weights."""

PREFERRED_NAMES = tuple(
    f"{stem}{suffix}"
    for stem in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    for suffix in (".safetensors", f".safetensors{INDEX_SUFFIX}", ".bin", f".bin{INDEX_SUFFIX}", ".pt", ".pth", ".npz")
)
"""Names under which open_clip and Hugging Face keep a model's weights, best first."""

READING_ERRORS = (
    *ARCHIVE_ERRORS,
    pickle.UnpicklingError,
    SafetensorError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
)
"""What torch, safetensors, numpy and pickle were seen to raise for files that are damaged or of another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """Tells what a checkpoint gave a model in addition to its image tower."""

    text: bool
    """Whether the text tower was in it."""
    logit_scale: bool
    """Whether the logit scale, and the bias where there is one, were in it."""


def find_checkpoint(folder: Path) -> Path:
    """Find the weights in a folder that holds an `open_clip_config.json` or transformers' `config.json`.

    Raises:
        TowerError: There are none, or several and none has a usual name.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_SUFFIXES)
    for name in PREFERRED_NAMES:
        if (folder / name).is_file():
            return folder / name
    if len(files) != 1:
        names = some([path.name for path in files]) or "none"
        raise TowerError(
            f"{folder}: met the checkpoint files {names}; wanted {PREFERRED_NAMES[0]} or exactly one "
            f"{'/'.join(CHECKPOINT_SUFFIXES)} file. Name one with --pretrained FILE, or ask for --pretrained random."
        )
    return files[0]


def load_checkpoint(model: torch.nn.Module, path: Path, *, text: bool = True) -> LoadedWeights:
    """Copy a checkpoint's weights into an open_clip model of the same architecture.

    Args:
        model: open_clip model in float32; changed in place.
        path: Checkpoint file, or the index of its shards.
        text: Whether the text tower is needed; without it, a file with the image tower alone is loaded too.

    Raises:
        TowerError: The file is damaged, holds more than tensors, belongs to another architecture, has weights that are
            not finite, or holds the image tower alone although the text tower is needed.
    """
    if file_kind(path) == "npz":
        _load_numpy(model, path)
        loaded = LoadedWeights(text=True, logit_scale=True)
    else:
        state = _state_for(model, path)
        loaded = LoadedWeights(text=has_text(state), logit_scale="logit_scale" in state)
        if text and not loaded.text:
            raise refusal(
                path,
                f"holds an image tower alone (such as {some(sorted(state), 1)}), and the labels need a text tower. "
                "Wanted: the whole CLIP, or the labels' embeddings: --text none --label-embeddings FILE.npy",
            )
        check_fit(path, model, state)
        model.load_state_dict(state, strict=False)  # check_fit has been stricter
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise refusal(
                path,
                f"has NaN or infinity in the tensor {name}; wanted finite weights. The file is damaged, or training "
                "overflowed: take an earlier checkpoint",
            )
    return loaded


def checkpoint_sha256(path: Path) -> str:
    """Return the SHA-256 of a checkpoint in hex: of its file, or of its index and the hashes of all shards."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if path.name.endswith(INDEX_SUFFIX):
        for shard in shards_of(path):
            digest.update(checkpoint_sha256(shard).encode())
    return digest.hexdigest()


def _state_for(model: Any, path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors under the names of an open_clip model."""
    found = find_weights(path, _read(path))
    state = found.tensors
    if found.layout == "hugging_face":
        try:
            state = convert_state(state)
        except RuntimeError as error:
            raise refusal(path, f"cannot be loaded into this architecture: {error}") from error
    if found.layout == "image_tower":
        state = {f"visual.{name}": value for name, value in state.items()}
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # one number, which some keep as an array of one
        own = getattr(model, name, None)
        if name in state and own is not None and state[name].numel() == 1:
            state[name] = state[name].reshape(own.shape)
    if file_kind(path) == "torchscript":  # it also holds masks, which are not weights and which the model lacks
        known = model.state_dict()
        state = {name: value for name, value in state.items() if name in known or name.endswith((".weight", ".bias"))}
    return state


def _read(path: Path) -> Any:
    """Read what a file holds, tensors by name where it is in order."""
    kind = file_kind(path)
    try:
        if kind == "index":
            return read_shards(path, _read)
        if kind == "safetensors":
            return _read_safetensors(path)
        if kind == "torchscript":
            return read_torchscript(path)
        if kind == "torch":
            with path.open("rb") as file, warnings.catch_warnings():  # of a path, torch.load would look at the suffix
                warnings.simplefilter("ignore")  # what it finds odd is refused by name afterwards
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if kind == "torchscript":
            raise refusal(path, f"is damaged or no CLIP: {one_line(error)}") from error
        raise pickle_refusal(path) from error
    except READING_ERRORS as error:
        raise refusal(path, f"is damaged: {one_line(error, 120)}. Download or save it again") from error
    raise refusal(path, "is a NumPy archive; wanted tensors of torch or safetensors")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors; one that shares another's memory was saved once, and the header says under which name."""
    tensors: dict[str, torch.Tensor] = load_file(path)
    with safe_open(path, framework="pt") as file:
        shared = file.metadata() or {}
    return tensors | {name: tensors[kept] for name, kept in shared.items() if kept in tensors and name not in tensors}


def _load_numpy(model: Any, path: Path) -> None:
    """Load the SigLIP weights that Google's big_vision writes; open_clip has the names."""
    if not isinstance(model, open_clip.CustomTextCLIP) or not hasattr(model.visual, "trunk"):
        raise refusal(path, "holds SigLIP's weights, as an .npz; name one of open_clip's SigLIP architectures")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            prefix = "params/" if "params/b" in arrays else ""
            met = arrays[f"{prefix}img/pos_embedding"].shape
            kernel = arrays[f"{prefix}img/embedding/kernel"].shape
        wanted = tuple(model.visual.trunk.pos_embed.shape)
        patch = tuple(model.visual.trunk.patch_embed.proj.weight.shape[2:])
        if met == wanted and kernel[:2] == patch:
            open_clip.load_checkpoint(model, str(path))
            return
    except READING_ERRORS as error:
        raise refusal(
            path, f"cannot be loaded into this architecture: {one_line(error, 120)}. Wanted: Google's SigLIP weights"
        ) from error
    raise refusal(
        path,
        f"has positions of shape {met} and patches of {kernel[:2]}, the architecture {wanted} and {patch}. "
        "Name the architecture that the checkpoint was trained as",
    )
