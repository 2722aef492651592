"""The commands of ``python -m lraee``: classify images, describe a bundle, verify it, examine the installation.

Each command parses, calls the library, prints. Answers go to stdout, one red line for an error to stderr with exit
status 1; wrong usage has status 2. See `lraee.commands.terminal` for outputs that are not a terminal, full or closed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lraee.bundle.archive import write_archive
from lraee.bundle.folder import Bundle, find_bundle, taken_instead
from lraee.bundle.strict_json import encode
from lraee.commands.answers import printer
from lraee.commands.doctor import advice, diagnose, diagnosis_table
from lraee.commands.info import info_json, info_tables, megabytes, size_bytes
from lraee.commands.page import AnswerPage, check_page
from lraee.commands.serving import check_serve_is_installed, read_token
from lraee.commands.terminal import ERROR_STATUS, print_line, printable, run_command, show, tell, with_option
from lraee.commands.terminal import (
    errors_as_one_line as errors_as_one_line,  # other programs import it from here
)
from lraee.commands.truth import read_truth
from lraee.errors import DataError, ImageError
from lraee.images.read import ImageSource
from lraee.labels.label_file import parse_labels
from lraee.loading import load
from lraee.policies.spec import POLICY_SPECS, parse_policy
from lraee.reading import MAX_PIXELS, Reading, parse_color

app = typer.Typer(
    name="python -m lraee",
    help="Run and inspect bundles written by lraee-export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # usage and its errors in plain lines, whatever the output is
)

OPTIONS = {"max_pixels": "raise --max-pixels"}
"""What to do with an option of ``classify``, by the setting that an error names."""

SERVE_OPTIONS = {name: f"give another --{name}" for name in ("host", "port")}
"""The same for ``serve``."""

SERVED_PIXELS = 25_000_000
"""Pixels of an image that a service accepts, unless set otherwise: 75 MB of RGB for each thread that decodes."""

STANDARD_INPUT = "-"
"""The argument that stands for an image on stdin."""

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle folder; or photo-clip or reference.")]
PolicyOption = Annotated[str | None, typer.Option(help=f"{POLICY_SPECS}; by default the bundle's own operating point.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of one operator; by default 1 a core, or 1 where blocks are small."),
]
OrientationOption = Annotated[
    bool, typer.Option("--exif-orientation", help="Turn photos as their EXIF tag says; open_clip does not.")
]
ReduceOption = Annotated[
    bool, typer.Option("--reduce-jpeg", help="Decode large JPEGs at a fraction of their size: faster, not exact.")
]
MaxPixelsOption = Annotated[int, typer.Option(min=1, help="Refuse images with more pixels.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def main() -> None:
    """Entry point of ``python -m lraee``."""
    run_command(app, "python -m lraee")


@app.command()
def classify(
    bundle: BundleArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files; - is stdin; none are needed with --truth, which then gives all that have a label.",
            show_default=False,
        ),
    ] = None,
    policy: PolicyOption = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Labels of your own, such as 'a cat,a dog', or a file with one a line; needs a text tower."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to list for each image.")] = 1,
    threads: ThreadsOption = None,
    exif_orientation: OrientationOption = False,
    reduce_jpeg: ReduceOption = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    background: Annotated[
        str | None,
        typer.Option(help="Colour under transparent pixels: white, black or #rrggbb; by default alpha is dropped."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Table of files and their right labels; says how many answers are right."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with every image and its answer.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify images, each as deep as it needs.

    An image that cannot be read is named on stderr, the others are answered, and the exit status is 1.
    """
    failed = False
    with errors_as_one_line(OPTIONS):
        reading = Reading(
            exif_orientation=exif_orientation,
            reduce_jpeg=reduce_jpeg,
            max_pixels=max_pixels,
            background=None if background is None else parse_color(background),
        )
        chosen = parse_policy(policy) if policy is not None else None
        _note(bundle)
        model = load(bundle, threads=threads, policy=chosen, reading=reading)
        if labels is not None:
            typed = parse_labels(labels, model.bundle.labels.templates)
            model.set_labels(typed.names, typed.templates)
        told = {} if truth is None else read_truth(truth, model.labels)
        images = images or [path for path, row in told.items() if row.label is not None]
        if not images:
            raise typer.BadParameter("no image is given; give files, - for stdin, or --truth with a table of labels")
        if page is not None:
            check_page(page, images, truth)
        shown = AnswerPage(model, told)
        answered = printer(model, images, top=top, as_json=as_json)
        for image in images:
            try:
                source = _source(image)
                answer = model.classify(source, top=top)
                shown.add(image, answer, source if page is not None else None)
                answered(image, answer)
            except ImageError as error:
                tell(f"error: {with_option(error, OPTIONS)}", style="red")
                failed = True
        if truth is not None:
            tell(shown.summary)
        if page is not None:
            shown.write(page)
    if failed:
        raise typer.Exit(ERROR_STATUS)


@app.command()
def info(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Show model, parts, exits and operating points of a bundle."""
    with errors_as_one_line():
        _note(bundle)
        opened = Bundle(find_bundle(bundle))
        if as_json:
            print_line(json.dumps(info_json(opened)))
            return
        first, *others = info_tables(opened)
        show(first, *(thing for table in others for thing in ("", table)))


@app.command()
def verify(bundle: BundleArgument) -> None:
    """Check every file of a bundle against its manifest."""
    with errors_as_one_line():
        _note(bundle)
        opened = Bundle(find_bundle(bundle))
        opened.verify()
        manifest = opened.manifest
        show(
            f"{opened.place.name}: {len(manifest.files)} files, {megabytes(size_bytes(manifest))}, "
            "every hash is right and no graph names weights outside the bundle"
        )


@app.command(name="zip")
def zip_bundle(
    bundle: BundleArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; by default the bundle's name, ending in .zip.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a bundle into one zip file, which every command and `lraee.load` take in its place."""
    with errors_as_one_line():
        _note(bundle)
        opened = Bundle(find_bundle(bundle))
        target = output or Path(f"{opened.place.stem}.zip")
        if target.suffix != ".zip":
            raise DataError(f"--output is {target}, wanted a file that ends in .zip")
        if target.exists() and not overwrite:
            raise DataError(f"{target} exists; give another --output, or --overwrite")
        opened.verify()
        write_archive(opened.folder, opened.manifest, target)
        print_line(printable(f"{target}: {megabytes(target.stat().st_size)}"))


@app.command()
def doctor(
    bundle: Annotated[
        str | None, typer.Argument(metavar="[BUNDLE]", help="Bundle to check too; folder, or a shipped one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a report of a fault needs: versions, CPU, limits, threads, memory, the bundle; and advise.

    The exit status is 1 where the bundle cannot be used.
    """
    with errors_as_one_line():
        if bundle is not None:
            _note(bundle)
        found = diagnose(bundle)
        if as_json:
            print_line(json.dumps({**encode(found), "advice": advice(found)}))
        else:
            show(diagnosis_table(found), "", *advice(found))
    if found.bundle is not None and found.bundle.problem is not None:
        raise typer.Exit(ERROR_STATUS)


@app.command()
def serve(
    bundle: BundleArgument,
    host: Annotated[str, typer.Option(help="Address to listen at; by default only this machine reaches it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes any that is free.")] = 8000,
    policy: PolicyOption = None,
    threads: ThreadsOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that run together at most.")] = 8,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="Refuse requests that would wait longer for their answer.")
    ] = 2.0,
    queue: Annotated[int, typer.Option(min=1, help="Images accepted and not yet answered, at most.")] = 64,
    max_body_mb: Annotated[float, typer.Option(help="Size of the body of a request at most.")] = 16.0,
    body_time: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time that a client may take to send a request.")
    ] = 10.0,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request at most.")] = 16,
    max_pixels: MaxPixelsOption = SERVED_PIXELS,
    label_sets: Annotated[int, typer.Option(min=1, help="Sets of labels of requests that are kept.")] = 32,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with a token that clients must send.")
    ] = None,
    exif_orientation: OrientationOption = False,
    reduce_jpeg: ReduceOption = False,
) -> None:
    """Answer images over HTTP, in batches that all requests share, until SIGTERM or Ctrl-C.

    The address is printed to stdout, and a JSON object for each request to stderr.
    """
    with errors_as_one_line(SERVE_OPTIONS):
        check_serve_is_installed()
        from lraee.service.settings import MB, ServiceSettings

        settings = ServiceSettings(
            host=host,
            port=port,
            token=None if token_file is None else read_token(token_file),
            batch_size=batch_size,
            time_limit_s=time_limit,
            queue=queue,
            body_bytes=int(max_body_mb * MB),
            body_time_s=body_time,
            images=max_images,
            label_sets=label_sets,
        )
        _note(bundle)
        reading = Reading(exif_orientation=exif_orientation, reduce_jpeg=reduce_jpeg, max_pixels=max_pixels)
        chosen = parse_policy(policy) if policy is not None else None
        model = load(bundle, threads=threads, policy=chosen, reading=reading)
        from lraee.service.server import serve as run_service  # last, for it takes longest

        run_service(model, settings, listening=print_line)


def _note(bundle: str) -> None:
    """Say on stderr which bundle is taken, where its name could mean two."""
    if (note := taken_instead(bundle)) is not None:
        tell(f"note: {note}")


def _source(image: str) -> ImageSource:
    """Give the image that an argument names.

    Raises:
        ImageError: a folder, or nothing on stdin.
    """
    if image == STANDARD_INPUT:
        content = sys.stdin.buffer.read() if sys.stdin is not None else b""
        if not content:
            raise ImageError("-: there is no image on stdin; send the content of one file to it")
        return content
    if os.path.isdir(image):
        raise ImageError(f"{image} is a folder; name the image files in it, such as {os.path.join(image, '*.jpg')}")
    return image
