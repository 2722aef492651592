"""``python -m lraee_toolchain.ray``: parse, build one config, call one function, print."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lraee.bundle.folder import taken_instead
from lraee.commands.terminal import errors_as_one_line, print_line, printable, run_command, tell
from lraee.errors import SettingsError
from lraee.policies.spec import POLICY_SPECS
from lraee.reading import MAX_PIXELS, Reading
from lraee_toolchain.ray import RunSummary, Settings, ShardReport, classify, embed, features

PROGRAM = "python -m lraee_toolchain.ray"

OPTIONS = {
    "overwrite": "pass --overwrite",
    "image_column": "pass --image-column",
    "name_column": "pass --name-column",
}
"""What to do with an option of these commands, by the setting that an error names."""

app = typer.Typer(
    name=PROGRAM,
    help="Run a bundle over many images with Ray Data; the output is one Parquet file for each shard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle folder; or photo-clip or reference.")]
ImagesArgument = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder or zip of images; Parquet file, or folder of them.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards; on a cluster a shared one.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that run at the same time; by default one a core.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of each worker; by default the cores divided by the workers.")
]
ShardOption = Annotated[int, typer.Option(min=1, help="Images of one shard.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Images that run together.")]
ImageColumnOption = Annotated[str, typer.Option(help="Column of Parquet with encoded images, such as image.bytes.")]
NameColumnOption = Annotated[str, typer.Option(help="Column of Parquet with names, such as image.path.")]
ReduceOption = Annotated[
    bool, typer.Option("--reduce-jpeg", help="Decode large JPEGs at a fraction of their size: faster, not exact.")
]
MaxPixelsOption = Annotated[int, typer.Option(min=1, help="Refuse images with more pixels.")]
AddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster to use, such as auto; by default one is started here and stopped.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Remove the shards of another run first.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line: of each shard, then of the run.")
]


def main() -> None:
    """Entry point of ``python -m lraee_toolchain.ray``."""
    run_command(app, PROGRAM, OPTIONS)


@app.command(name="classify")
def classify_command(
    bundle: BundleArgument,
    images: ImagesArgument,
    out: OutOption,
    policy: Annotated[
        str | None, typer.Option(help=f"{POLICY_SPECS}; by default the bundle's own operating point.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to list for each image.")] = 5,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    shard_size: ShardOption = 1024,
    batch_size: BatchOption = 16,
    image_column: ImageColumnOption = "image",
    name_column: NameColumnOption = "name",
    reduce_jpeg: ReduceOption = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify images, each as deep as it needs."""
    with errors_as_one_line(OPTIONS):
        settings = Settings(
            policy=policy,
            top=top,
            workers=workers,
            threads=threads,
            shard_size=shard_size,
            batch_size=batch_size,
            image_column=image_column,
            name_column=name_column,
            reading=Reading(reduce_jpeg=reduce_jpeg, max_pixels=max_pixels),
            address=address,
            overwrite=overwrite,
        )
        _run(classify, bundle, (images, out), settings, as_json=as_json)


@app.command(name="embed")
def embed_command(
    bundle: BundleArgument,
    images: ImagesArgument,
    out: OutOption,
    policy: Annotated[str | None, typer.Option(help=f"{POLICY_SPECS}; by default full depth.")] = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    shard_size: ShardOption = 1024,
    batch_size: BatchOption = 16,
    image_column: ImageColumnOption = "image",
    name_column: NameColumnOption = "name",
    reduce_jpeg: ReduceOption = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Embed images, for search or anything else."""
    with errors_as_one_line(OPTIONS):
        settings = Settings(
            policy=policy,
            workers=workers,
            threads=threads,
            shard_size=shard_size,
            batch_size=batch_size,
            image_column=image_column,
            name_column=name_column,
            reading=Reading(reduce_jpeg=reduce_jpeg, max_pixels=max_pixels),
            address=address,
            overwrite=overwrite,
        )
        _run(embed, bundle, (images, out), settings, as_json=as_json)


@app.command(name="features")
def features_command(
    bundle: BundleArgument,
    images: ImagesArgument,
    out: OutOption,
    token_blocks: Annotated[
        str, typer.Option(help="Blocks after which all tokens are kept too, such as 6,8; for heads that read them.")
    ] = "",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    shard_size: ShardOption = 1024,
    image_column: ImageColumnOption = "image",
    name_column: NameColumnOption = "name",
    reduce_jpeg: ReduceOption = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Extract what heads, gates and thresholds learn from."""
    with errors_as_one_line(OPTIONS):
        settings = Settings(
            token_blocks=parse_blocks(token_blocks),
            workers=workers,
            threads=threads,
            shard_size=shard_size,
            image_column=image_column,
            name_column=name_column,
            reading=Reading(reduce_jpeg=reduce_jpeg, max_pixels=max_pixels),
            address=address,
            overwrite=overwrite,
        )
        _run(features, bundle, (images, out), settings, as_json=as_json)


def parse_blocks(text: str) -> tuple[int, ...]:
    """Parse blocks such as ``6,8``.

    Raises:
        SettingsError: it is something else.
    """
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise SettingsError(f"--token-blocks is {text!r}, wanted blocks counted from 1, such as 6,8")
    return tuple(map(int, words))


class _Progress:
    """Shows how many images are done, on a terminal, or prints what each shard reports."""

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.completed:,.0f} images"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task, self._as_json = self._progress.add_task("images", total=None), as_json

    def __enter__(self) -> Callable[[ShardReport], object]:
        self._progress.start()
        return self._finished

    def _finished(self, report: ShardReport) -> None:
        if self._as_json:
            print_line(json.dumps(asdict(report)))
        self._progress.advance(self._task, report.images)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def _run(
    function: Callable[..., RunSummary], bundle: str, places: tuple[Path, Path], settings: Settings, *, as_json: bool
) -> None:
    """Call one function of the library with images and output folder, and print what it reports."""
    if (note := taken_instead(bundle)) is not None:
        tell(f"note: {note}")
    with _Progress(as_json=as_json) as progress:
        summary = function(bundle, *places, settings, on_shard=progress)
    _print(summary, as_json=as_json)


def _print(summary: RunSummary, *, as_json: bool) -> None:
    if as_json:
        print_line(json.dumps(asdict(summary)))
        return
    found = f"; {summary.found} shards were there" if summary.found else ""
    damaged = f", {summary.damaged} of which could not be read (column error)" if summary.damaged else ""
    line = (
        f"{summary.out}: {summary.images} images in {summary.shards} shards{found}; computed {summary.computed}"
        f"{damaged} in {summary.seconds:.1f} s with {summary.workers} workers of {summary.threads} threads"
    )
    print_line(printable(line))


if __name__ == "__main__":
    main()
