"""Reads and writes ``manifest.json``, and refuses a manifest whose parts contradict one another."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from lraee.bundle.files import unreadable
from lraee.bundle.manifest import FORMAT, MANIFEST_NAME, ExitInfo, Manifest, block_names, oldest_format
from lraee.bundle.strict_json import decode, encode, parse
from lraee.errors import BundleError


def parse_manifest(text: str) -> Manifest:
    """Read the text of a manifest.

    Raises:
        BundleError: it is not JSON, of a newer format, or a key is unknown, missing or contradicts another.
    """
    raw = parse(text, MANIFEST_NAME)
    version = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(f"{MANIFEST_NAME}: format is {version!r}, wanted a number from 1 to {FORMAT}")
    if not 1 <= version <= FORMAT:
        raise BundleError(
            f"{MANIFEST_NAME}: format is {version}, this version of lraee reads 1 to {FORMAT}; "
            "update lraee or export again"
        )
    manifest = decode(Manifest, raw, MANIFEST_NAME)
    _check_consistency(manifest)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of a bundle folder."""
    return decode_manifest(manifest_bytes(folder))


def manifest_bytes(folder: Path) -> bytes:
    """Read the bytes of ``manifest.json`` of a bundle folder.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BundleError(f"{folder} has no {MANIFEST_NAME}; wanted a bundle folder written by lraee-export") from error
    except OSError as error:
        raise unreadable(path, MANIFEST_NAME, error) from error


def decode_manifest(content: bytes) -> Manifest:
    """Read the content of ``manifest.json``; errors as `parse_manifest`, and for text that is not UTF-8."""
    try:
        return parse_manifest(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{MANIFEST_NAME} is not UTF-8 text; the bundle is damaged, export it again") from error


def encode_manifest(manifest: Manifest) -> dict[str, Any]:
    """Give the keys of a manifest as JSON has them; merging schedules only where there are any."""
    raw: dict[str, Any] = encode(manifest)
    if not manifest.schedules:
        del raw["schedules"]
    for point in raw["operating_points"]:
        if point["schedule"] is None:
            del point["schedule"]
    return raw


def write_manifest(manifest: Manifest) -> str:
    """Give the text of ``manifest.json``, checked by reading it back."""
    raw = encode_manifest(manifest)
    if manifest.probabilities == "softmax":
        del raw["probabilities"]  # versions that do not know the key then read the bundle too
    if manifest.onnxruntime is None:
        del raw["onnxruntime"]
    text = json.dumps(raw, indent=1, ensure_ascii=False) + "\n"
    if parse_manifest(text) != manifest:
        raise BundleError(f"{MANIFEST_NAME} does not survive writing and reading; a value has the wrong type")
    return text


def _check_consistency(manifest: Manifest) -> None:
    _check_ranges(manifest)
    _check_files(manifest)
    _check_quantization(manifest)
    _check_schedules(manifest)
    _check_exits(manifest.exits, manifest, "exits")
    for schedule in manifest.schedules:
        _check_exits(schedule.exits, manifest, f"schedules.{schedule.name}.exits")
    _check_points(manifest)


def _check_ranges(manifest: Manifest) -> None:
    tower, count = manifest.tower, manifest.labels.count
    least = [(f"tower.{name}", getattr(tower, name), 1) for name in ("blocks", "width", "heads", "mlp_width")]
    least += [(f"tower.{name}", getattr(tower, name), 1) for name in ("patch_size", "tokens", "embed_dim")]
    least.append(("labels.count", count, 2))
    least += [("text.context_length", manifest.text.context_length, 2)] if manifest.text is not None else []
    for part in manifest.parts:
        least += [(f"parts.{part.name}.{name}", getattr(part, name), 0) for name in ("flops", "flops_per_label")]
    for key, value, wanted in least:
        if value < wanted:
            raise BundleError(f"{MANIFEST_NAME}: {key} is {value}, wanted at least {wanted}")
    if manifest.probabilities == "sigmoid" and manifest.logit_bias is None:
        raise BundleError(f"{MANIFEST_NAME}: probabilities are 'sigmoid', which needs a number as logit_bias")
    if manifest.onnxruntime is not None and re.fullmatch(r"\d{1,4}(\.\d{1,4}){1,2}", manifest.onnxruntime) is None:
        raise BundleError(f"{MANIFEST_NAME}: onnxruntime is {short(manifest.onnxruntime)}, wanted a version as '1.17'")
    above_zero = [("logit_scale", manifest.logit_scale)]
    for key, number in above_zero:
        if number <= 0:
            raise BundleError(f"{MANIFEST_NAME}: {key} is {number}, wanted above 0")


def _check_files(manifest: Manifest) -> None:
    files = {entry.name for entry in manifest.files}
    if len(files) != len(manifest.files):
        raise BundleError(f"{MANIFEST_NAME}: files names one file twice")
    for name in files:
        if not _is_plain_name(name):
            raise BundleError(f"{MANIFEST_NAME}: files has {name!r}, wanted a plain name inside the bundle folder")
    wanted = [("labels.names", manifest.labels.names), ("labels.embeddings", manifest.labels.embeddings)]
    if manifest.text is not None:
        wanted += [("text.merges", manifest.text.merges), ("text.tokenizer", manifest.text.tokenizer)]
    for part in manifest.parts:
        wanted.append((f"parts.{part.name}.graph", part.graph))
        wanted += [(f"parts.{part.name}.data", part.data)] if part.data is not None else []
        if not part.graph.endswith(".onnx"):  # ONNX Runtime takes other endings for formats that nothing here checks
            raise BundleError(f"{MANIFEST_NAME}: parts.{part.name}.graph is {part.graph!r}, wanted a name in .onnx")
    for key, name in wanted:
        if name not in files:
            raise BundleError(f"{MANIFEST_NAME}: {key} is {name!r}, which is not among files")
    parts = [part.name for part in manifest.parts]
    if len(set(parts)) != len(parts):
        raise BundleError(f"{MANIFEST_NAME}: parts has one name twice")
    if manifest.tower.blocks > len(parts):
        raise BundleError(f"{MANIFEST_NAME}: tower.blocks is {manifest.tower.blocks}, but there are {len(parts)} parts")
    text = ["text"] if manifest.text is not None else []
    for name in ["stem", *block_names(manifest.tower.blocks), "tail", *text]:
        manifest.part(name)


def _is_plain_name(name: str) -> bool:
    """Tell whether `name` is the printable name of a file in the bundle folder itself."""
    if not name.isprintable() or "\\" in name or len(name.encode()) > 255:
        return False
    return name == Path(name).name and name not in {"", ".", "..", MANIFEST_NAME}


def _check_schedules(manifest: Manifest) -> None:
    """Refuse schedules that do not fit the tower, or name parts that are not there."""
    depth, names = manifest.tower.blocks, [schedule.name for schedule in manifest.schedules]
    if names and manifest.format < 3:
        raise BundleError(f"{MANIFEST_NAME}: schedules are not in format {manifest.format}, wanted format 3")
    if len(set(names)) != len(names):
        raise BundleError(f"{MANIFEST_NAME}: schedules has one name twice")
    for schedule in manifest.schedules:
        where = f"{MANIFEST_NAME}: schedules.{schedule.name}"
        for key in ("merged", "blocks"):
            if (count := len(getattr(schedule, key))) != depth:
                raise BundleError(f"{where}.{key} has {count} entries, wanted one for each of {depth} blocks")
        left = manifest.tower.tokens
        for block, merged in enumerate(schedule.merged, start=1):
            if not 0 <= merged <= left // 2:
                raise BundleError(f"{where}.merged is {merged} in block {block}, wanted 0 to half of {left} tokens")
            left -= merged
        for part in (*schedule.blocks, schedule.tail):
            manifest.part(part)


def _check_quantization(manifest: Manifest) -> None:
    """Refuse a scheme that the format does not have."""
    quantization = manifest.quantization
    if (oldest := oldest_format([], (), quantization)) > manifest.format and quantization is not None:
        raise BundleError(
            f"{MANIFEST_NAME}: quantization.scheme is {quantization.scheme!r}, which is not in format "
            f"{manifest.format}, wanted format {oldest}"
        )


def _check_exits(exits: Sequence[ExitInfo], manifest: Manifest, where: str) -> None:
    """Refuse exits, under any schedule, that contradict the tower or the format."""
    blocks = [exit.block for exit in exits]
    if blocks != sorted(set(blocks)) or any(not 1 <= block <= manifest.tower.blocks for block in blocks):
        raise BundleError(f"{MANIFEST_NAME}: {where} are after blocks {blocks}, wanted rising numbers up to the depth")
    for exit in exits:
        if (oldest := oldest_format([exit])) > manifest.format:
            raise BundleError(
                f"{MANIFEST_NAME}: {where}: the head after block {exit.block} reads {exit.reads!r}, which is not in "
                f"format {manifest.format}, wanted format {oldest}"
            )
        name = f"exit_{exit.block:02d}"
        if not (exit.part == name or (where != "exits" and exit.part.startswith(f"{name}_"))):
            raise BundleError(
                f"{MANIFEST_NAME}: {where}: part after block {exit.block} is {exit.part!r}, wanted exit_NN"
            )
        if exit.temperature <= 0:
            raise BundleError(
                f"{MANIFEST_NAME}: {where}: temperature after block {exit.block} is {exit.temperature}, wanted above 0"
            )
        manifest.part(exit.part)


def _check_points(manifest: Manifest) -> None:
    """Refuse operating points whose names, schedules or thresholds contradict the rest."""
    names = [point.name for point in manifest.operating_points]
    if len(set(names)) != len(names):
        raise BundleError(f"{MANIFEST_NAME}: operating_points has one name twice")
    if manifest.default_point is not None and manifest.default_point not in names:
        raise BundleError(f"{MANIFEST_NAME}: default_point is {manifest.default_point!r}, wanted one of {names}")
    for point in manifest.operating_points:
        if point.schedule is not None and point.schedule not in {schedule.name for schedule in manifest.schedules}:
            raise BundleError(
                f"{MANIFEST_NAME}: operating_points.{point.name}.schedule is {point.schedule!r}, which is not there"
            )
        blocks = [exit.block for exit in manifest.schedule(point.schedule).exits]
        where = f"{MANIFEST_NAME}: operating_points.{point.name}.thresholds"
        named = [threshold.block for threshold in point.thresholds]
        if len(set(named)) != len(named):
            raise BundleError(f"{where} names one block twice: {named}")
        for threshold in point.thresholds:
            if threshold.block not in blocks:
                raise BundleError(f"{where} names block {threshold.block}, which has no exit")
            if threshold.per_class is not None and len(threshold.per_class) != manifest.labels.count:
                raise BundleError(
                    f"{where}: per_class has {len(threshold.per_class)} values, wanted one for each of "
                    f"{manifest.labels.count} labels"
                )
