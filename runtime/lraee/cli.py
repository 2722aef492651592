"""The commands of ``python -m lraee``: classify images, look into a bundle, verify it.

Each command parses, calls the library, prints. Answers go to stdout, one red line for an error to stderr with exit
status 1; wrong usage has status 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lraee.bundle import Bundle, find_bundle
from lraee.errors import LraeeError
from lraee.label_set import parse_labels
from lraee.manifest import Manifest, PartEntry
from lraee.model import load
from lraee.onnxruntime_version import UNNAMED
from lraee.policies.spec import POLICY_SPECS, parse_policy
from lraee.reading import MAX_PIXELS, Reading

app = typer.Typer(
    name="python -m lraee",
    help="Run and inspect bundles written by lraee-export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle folder, or 'reference'.")]


def main() -> None:
    """Entry point of ``python -m lraee``."""
    app()


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Turn an error of the library into one red line on stderr and exit status 1."""
    try:
        yield
    except LraeeError as error:
        line = Text(f"error: {' '.join(str(error).split())}", style="red")
        Console(stderr=True).print(line, soft_wrap=True)
        raise typer.Exit(1) from error


@app.command()
def classify(
    bundle: BundleArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)],
    policy: Annotated[
        str | None, typer.Option(help=f"{POLICY_SPECS}; by default the bundle's own operating point.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Labels of your own, such as 'a cat,a dog', or a file with one a line; needs a text tower."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to list for each image.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use; by default all.")] = None,
    exif_orientation: Annotated[
        bool, typer.Option("--exif-orientation", help="Turn photos as their EXIF tag says; open_clip does not.")
    ] = False,
    reduce_jpeg: Annotated[
        bool, typer.Option("--reduce-jpeg", help="Decode large JPEGs at a fraction of their size: faster, not exact.")
    ] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse images with more pixels.")] = MAX_PIXELS,
) -> None:
    """Classify images, each as deep as it needs."""
    reading = Reading(exif_orientation=exif_orientation, reduce_jpeg=reduce_jpeg, max_pixels=max_pixels)
    with errors_as_one_line():
        chosen = parse_policy(policy) if policy is not None else None
        model = load(bundle, threads=threads, policy=chosen, reading=reading)
        if labels is not None:
            typed = parse_labels(labels, model.bundle.labels.templates)
            model.set_labels(typed.names, typed.templates)
        table = _table("image", "label", ">probability", ">left behind block", ">FLOPs of full depth")
        full_flops = model.manifest.full_flops
        for image in images:
            prediction = model.classify(image, top=top)
            depth = f"{prediction.exit_block} of {model.manifest.tower.blocks}"
            cost = f"{prediction.flops / full_flops:.1%}"
            for rank, (label, score) in enumerate(prediction.top):
                first = rank == 0
                row = (str(image), label, f"{score:.3f}", depth, cost) if first else ("", label, f"{score:.3f}", "", "")
                table.add_row(*map(Text, row))
    _print(table)


@app.command()
def info(bundle: BundleArgument) -> None:
    """Show model, parts, exits and operating points of a bundle."""
    with errors_as_one_line():
        opened = Bundle(find_bundle(bundle))
        tables = [_summary_table(opened), _parts_table(opened.manifest)]
        if opened.manifest.exits:
            tables += [_exits_table(opened.manifest), _points_table(opened.manifest)]
    _print(*tables)


@app.command()
def verify(bundle: BundleArgument) -> None:
    """Check every file of a bundle against its manifest."""
    with errors_as_one_line():
        opened = Bundle(find_bundle(bundle))
        opened.verify()
    manifest = opened.manifest
    _print(
        f"{opened.folder.name}: {len(manifest.files)} files, {_megabytes(_size(manifest))}, "
        "every hash is right and no weights lie outside the bundle"
    )


def _summary_table(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    tower, quantization = manifest.tower, manifest.quantization
    how = f", {quantization.quantizer} quantizer, {quantization.images} calibration images" if quantization else ""
    names = bundle.labels.names
    table = _table("bundle", bundle.folder.name)
    rows = {
        "model": f"{manifest.model.id} ({manifest.model.architecture})",
        "weights": manifest.model.weights
        + (" (speed only: accuracy means nothing)" if manifest.model.is_random else ""),
        "precision": f"{manifest.precision}{how}",
        "tower": f"{tower.blocks} blocks, width {tower.width}, {tower.tokens} tokens, {tower.activation}, "
        f"{tower.pooling} pooling, embedding {tower.embed_dim}",
        "input": f"{manifest.preprocessing.image_size} x {manifest.preprocessing.image_size} pixels, "
        f"{manifest.preprocessing.resize_mode}, {manifest.preprocessing.interpolation}",
        "labels": f"{len(names)}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}",
        "text tower": _text_words(manifest),
        "full depth": f"{_megaflops(manifest.full_flops)} MFLOPs an image (multiply-add = 2, matrix products)",
        "size": f"{_megabytes(_size(manifest))} in {len(manifest.files)} files",
        "ONNX Runtime": f"{manifest.onnxruntime or UNNAMED} or newer",
    }
    for key, value in rows.items():
        table.add_row(key, Text(value))
    return table


def _text_words(manifest: Manifest) -> str:
    if manifest.text is None:
        return "none (labels are fixed)"
    return f"{manifest.text.precision}, texts of at most {manifest.text.context_length} tokens"


def _parts_table(manifest: Manifest) -> Table:
    """One line for each part; parts that follow one another and differ in nothing but their name share a line."""
    sizes = {entry.name: entry.size_bytes for entry in manifest.files}

    def facts(part: PartEntry) -> tuple[str, str, str, str]:
        flops = manifest.flops_of(part.name, manifest.labels.count)
        size = sum(sizes[name] for name in (part.graph, part.data) if name is not None)
        operators = ", ".join(f"{count} {name}" for name, count in sorted(part.operators.items()))
        return _megaflops(flops), f"{flops / manifest.full_flops:.1%}", _megabytes(size), operators

    table = _table("part", ">MFLOPs", ">of full depth", ">size", "operators that run")
    for cells, group in groupby(manifest.parts, key=facts):
        names = [part.name for part in group]
        each = f" each of {len(names)}" if len(names) > 1 else ""
        are_blocks = names[0].startswith("block_") and len(names) > 2
        name = f"{names[0]} to {names[-1]}" if are_blocks else ", ".join(names)
        table.add_row(name, cells[0], cells[1], cells[2] + each, Text(cells[3]))
    return table


def _exits_table(manifest: Manifest) -> Table:
    table = _table(">exit behind block", "head reads", "trained with", ">temperature", ">INR", ">accuracy alone")
    for exit in manifest.exits:
        table.add_row(
            str(exit.block),
            exit.reads,
            exit.supervision,
            f"{exit.temperature:.3f}",
            _optional(exit.information_to_noise, "{:.1f}"),
            _optional(exit.accuracy, "{:.1%}"),
        )
    return table


def _points_table(manifest: Manifest) -> Table:
    table = _table("operating point", "leave behind block if gate ≥", ">FLOPs saved", ">accuracy", ">at full depth")
    for point in manifest.operating_points:
        default = " (default)" if point.name == manifest.default_point else ""
        thresholds = [
            f"{t.block}: {t.value:.3f}" if t.per_class is None else f"{t.block}: by class" for t in point.thresholds
        ]
        table.add_row(
            Text(point.name + default),
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


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"


def _size(manifest: Manifest) -> int:
    """Of all files but the manifest, in bytes."""
    return sum(entry.size_bytes for entry in manifest.files)


def _table(*columns: str) -> Table:
    """A table without frame; a column whose head begins with ``>`` is aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return table


def _print(*things: Table | str) -> None:
    console = Console(highlight=False)
    for number, thing in enumerate(things):
        if number:
            console.print()
        console.print(thing, markup=False, soft_wrap=isinstance(thing, str))
