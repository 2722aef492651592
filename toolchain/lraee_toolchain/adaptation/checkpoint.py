"""Keep an unfinished tuning on disk, whole or not at all: one file of tensors, nothing pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

NAME = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything that the next step of a tuning depends on.

    Order and views of the images are drawn from generators that are seeded for each epoch and each step, so that no
    generator's state belongs here.
    """

    steps: int
    """Steps that are done."""
    notes: Mapping[str, Any]
    """JSON-able records of what is done."""
    tensors: Mapping[str, torch.Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before it."""
    half = folder / f"{NAME}.half"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, half, {"steps": str(checkpoint.steps), "notes": json.dumps(checkpoint.notes)})
    for path, flags in ((half, os.O_RDONLY), (folder, os.O_RDONLY)):
        if path == folder:
            half.rename(folder / NAME)
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint of a folder, or None where there is none."""
    path = folder / NAME
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, it is no dict
    return Checkpoint(steps=int(about["steps"]), notes=json.loads(about["notes"]), tensors=tensors)
