"""Reads a checkpoint that lies in several files with an index, as Hugging Face saves large models.

The index, `model.safetensors.index.json` or `pytorch_model.bin.index.json`, names the file of each tensor. It comes
from elsewhere, so it is not trusted: files must lie in its folder, hold exactly the tensors that it names, and have the
total size that it states.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lraee_exporters.loading.file_kinds import refusal
from lraee_exporters.one_line import one_line, some

Reader = Callable[[Path], dict[str, Any]]


def shards_of(index: Path) -> list[Path]:
    """Give the files that an index names, in alphabetical order.

    Raises:
        TowerError: It is not an index, a file is missing, or it names one that does not lie beside it.
    """
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.isprintable():
            raise refusal(index, f"names the file '{one_line(name, 80)}', wanted names of files beside the index alone")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise refusal(
            index,
            f"names {len(names)} files, of which {len(missing)} are not beside it: {some(missing)}. Download them too",
        )
    return [index.parent / name for name in names]


def read_shards(index: Path, read: Reader) -> dict[str, torch.Tensor]:
    """Read all tensors that an index names.

    Args:
        index: the index's file.
        read: reads one shard.

    Raises:
        TowerError: as `shards_of`; a shard lacks a tensor or holds one of another shard; or the sizes disagree.
    """
    where, tensors = _weight_map(index), dict[str, torch.Tensor]()
    for path in shards_of(index):
        wanted = {name for name, file in where.items() if file == path.name}
        shard = read(path)
        if lacking := sorted(wanted - set(shard)):
            raise refusal(path, f"lacks {some(lacking)}, which {index.name} says it has. Download both again")
        if other := sorted(set(shard) - wanted):
            also = f", where {one_line(where[other[0]], 80)} has it already" if other[0] in where else ""
            raise refusal(path, f"holds {some(other)}, which {index.name} does not say{also}. Download both again")
        tensors.update(shard)
    total = _content(index).get("metadata", {}).get("total_size")
    met = sum(value.numel() * value.element_size() for value in tensors.values() if isinstance(value, torch.Tensor))
    if total is not None and total != met:
        raise refusal(
            index, f"says total_size {one_line(total, 40)} bytes, the tensors have {met}. Download all files again"
        )
    return tensors


def _content(index: Path) -> dict[str, Any]:
    """Read the index and parse it as JSON."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refusal(index, f"is not JSON ({error}); wanted an index with weight_map. Download it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("metadata", {}), dict):
        raise refusal(index, "is not an object with weight_map and metadata; wanted Hugging Face's index of shards")
    return content


def _weight_map(index: Path) -> dict[str, str]:
    """Read which file holds each tensor."""
    where = _content(index).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise refusal(index, "has no weight_map from tensors to files; wanted Hugging Face's index of shards")
    return where
