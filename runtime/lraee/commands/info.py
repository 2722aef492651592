"""Makes what ``python -m lraee info`` shows of a bundle: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from lraee.bundle.folder import Bundle
from lraee.bundle.manifest import Manifest, MergeSchedule, PartEntry
from lraee.bundle.manifest_file import encode_manifest
from lraee.ort.threads import choose_threads
from lraee.ort.version import UNNAMED


def info_tables(bundle: Bundle) -> list[Table]:
    """Make the tables of summary and parts, and of exits and operating points where there are any."""
    manifest = bundle.manifest
    tables = [_summary_table(bundle), _parts_table(manifest)]
    schedules = (manifest.schedule(None), *manifest.schedules)
    if manifest.schedules:
        tables.append(_schedules_table(manifest))
    if any(schedule.exits for schedule in schedules):
        tables.append(_exits_table(schedules))
    return [*tables, _points_table(manifest)] if manifest.operating_points else tables


def info_json(bundle: Bundle) -> dict[str, Any]:
    """Give all keys of ``manifest.json``, and what follows from them or from the files."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.place),
        "manifest_sha256": bundle.manifest_sha256,
        "size_bytes": size_bytes(manifest),
        "full_flops": manifest.full_flops,
        "label_names": list(bundle.labels.names),
        "label_templates": list(bundle.labels.templates),
        **encode_manifest(manifest),
    }


def _summary_table(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    tower, quantization = manifest.tower, manifest.quantization
    how = f", {quantization.quantizer} quantizer, {quantization.images} calibration images" if quantization else ""
    names = bundle.labels.names
    threads = choose_threads(manifest.block_flops, sessions=manifest.session_count)
    table = plain_table("bundle", bundle.place.name)
    rows: dict[str, str] = {
        "model": f"{manifest.model.id} ({manifest.model.architecture})",
        "weights": manifest.model.weights
        + (" (speed only: accuracy means nothing)" if manifest.model.is_random else ""),
        **{name: manifest.provenance[name] for name in ("adapted", "notice") if name in manifest.provenance},
        "precision": f"{manifest.precision}{how}",
        "tower": f"{tower.blocks} blocks, width {tower.width}, {tower.tokens} tokens, {tower.activation}, "
        f"{tower.pooling} pooling, embedding {tower.embed_dim}",
        "input": f"{manifest.preprocessing.image_size} x {manifest.preprocessing.image_size} pixels, "
        f"{manifest.preprocessing.resize_mode}, {manifest.preprocessing.interpolation}",
        "labels": f"{len(names)}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}",
        "text tower": _text_words(manifest),
        "full depth": f"{_megaflops(manifest.full_flops)} MFLOPs an image (multiply-add = 2, GEMMs only)",
        "size": f"{megabytes(size_bytes(manifest))} in {len(manifest.files)} files",
        "ONNX Runtime": f"{manifest.onnxruntime or UNNAMED} or newer",
        "threads here": f"{threads.threads} ({threads.reason})",
    }
    for key, value in rows.items():
        table.add_row(key, Text(value))
    return table


def _text_words(manifest: Manifest) -> str:
    if manifest.text is None:
        return "none (labels are fixed)"
    return f"{manifest.text.precision}, texts of at most {manifest.text.context_length} tokens"


def _parts_table(manifest: Manifest) -> Table:
    """Give each part a line; consecutive parts that differ only in their names share one."""

    def facts(part: PartEntry) -> tuple[str, str, str, str]:
        flops = manifest.flops_of(part.name, manifest.labels.count)
        size = megabytes(manifest.bytes_of(part.name))
        operators = ", ".join(f"{count} {name}" for name, count in sorted(part.operators.items()))
        return _megaflops(flops), f"{flops / manifest.full_flops:.1%}", size, operators

    table = plain_table("part", ">MFLOPs", ">of full depth", ">size", "operators that run")
    for cells, group in groupby(manifest.parts, key=facts):
        names = [part.name for part in group]
        each = f" each of {len(names)}" if len(names) > 1 else ""
        are_blocks = names[0].startswith("block_") and len(names) > 2
        name = f"{names[0]} to {names[-1]}" if are_blocks else ", ".join(names)
        table.add_row(*map(Text, (name, cells[0], cells[1], cells[2] + each, cells[3])))
    return table


def _schedules_table(manifest: Manifest) -> Table:
    """Give each merging schedule a line, with what it saves where no image leaves."""
    table = plain_table("merged tokens", "pairs in each block", ">tokens left", ">FLOPs saved at full depth")
    for schedule in manifest.schedules:
        names = ["stem", *schedule.blocks, schedule.tail]
        flops = sum(manifest.flops_of(name, manifest.labels.count) for name in names)
        left = manifest.tower.tokens - sum(schedule.merged)
        table.add_row(
            Text(schedule.name),
            " ".join(map(str, schedule.merged)),
            f"{left} of {manifest.tower.tokens}",
            f"{1 - flops / manifest.full_flops:.1%}",
        )
    return table


def _exits_table(schedules: Sequence[MergeSchedule]) -> Table:
    """Give each exit a line, by the tokens that it reads where there are several schedules."""
    several = len(schedules) > 1
    columns = [">exit after block", "head reads", "trained with", ">temperature", ">INR", ">accuracy alone"]
    table = plain_table(*(["tokens"] if several else []), *columns)
    for schedule in schedules:
        tokens = "all" if schedule is schedules[0] else schedule.name
        for exit in schedule.exits:
            inr, accuracy = _optional(exit.information_to_noise, "{:.1f}"), _optional(exit.accuracy, "{:.1%}")
            cells = [str(exit.block), exit.reads, exit.supervision, f"{exit.temperature:.3f}", inr, accuracy]
            table.add_row(*([tokens] if several else []), *cells)
    return table


def _points_table(manifest: Manifest) -> Table:
    columns = ["leaves after block if gate is at least", ">FLOPs saved", ">accuracy", ">at full depth"]
    table = plain_table("operating point", *(["tokens"] if manifest.schedules else []), *columns)
    for point in manifest.operating_points:
        default = " (default)" if point.name == manifest.default_point else ""
        thresholds = [
            f"{t.block}: {t.value:.3f}" if t.per_class is None else f"{t.block}: by class" for t in point.thresholds
        ]
        table.add_row(
            Text(point.name + default),
            *([point.schedule or "all"] if manifest.schedules else []),
            ", ".join(thresholds) or "visits no exit",
            f"{point.flops_saved:.1%}",
            _optional(point.accuracy, "{:.1%}"),
            _optional(point.full_accuracy, "{:.1%}"),
        )
    return table


def _optional(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


def _megaflops(flops: int) -> str:
    return f"{flops / 1e6:,.2f}"


def megabytes(count: int) -> str:
    """Format a number of bytes for people.

    >>> megabytes(1_234_567)
    '1.23 MB'
    """
    return f"{count / 1e6:.2f} MB"


def size_bytes(manifest: Manifest) -> int:
    """Add up the sizes of all files except the manifest, in bytes."""
    return sum(entry.size_bytes for entry in manifest.files)


def plain_table(*columns: str) -> Table:
    """Make a table without frame; a column whose head begins with ``>`` is aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        side: JustifyMethod = "right" if column.startswith(">") else "left"
        table.add_column(Text(column.removeprefix(">")), justify=side, overflow="fold")
    return table
