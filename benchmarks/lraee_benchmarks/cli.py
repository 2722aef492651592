"""`lraee-bench`: measure a bundle on this device, and print or write the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lraee.bundle.folder import taken_instead
from lraee.commands.output_files import check_writable, write_file
from lraee.commands.terminal import errors_as_one_line, run_command, show, tell
from lraee.errors import DataError
from lraee.policies.spec import POLICY_SPECS
from lraee_benchmarks.benchmark import OnProgress, run_benchmark
from lraee_benchmarks.config import BenchmarkConfig
from lraee_benchmarks.images import SHIPPED_SOURCES, files_instead
from lraee_benchmarks.render.csv import render_csv
from lraee_benchmarks.render.html import page_of
from lraee_benchmarks.render.markdown import render_markdown
from lraee_benchmarks.render.text import render_text
from lraee_benchmarks.results.model import to_json
from lraee_benchmarks.rows.baselines import BASELINES, Baseline

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_WIDTH = 100
"""Columns that are used of a wider terminal."""


class ThreadPool(StrEnum):
    """Whose threads the sessions use.

    ``session`` is what users of `lraee.load` get: threads that sleep until there is work. The process-wide pool spins,
    which is faster on cores that nothing else wants. With two threads on a Xeon it made the chain of the reference
    model 12 % faster (2.5 to 2.2 ms) and one graph 2 %; with one thread nothing changes.
    """

    session = "session"
    global_ = "global"


OPTIONS = {"unreadable": "pass --unreadable skip"}
"""What to do with an option of this command, by the setting that an error names."""


class ScenarioName(StrEnum):
    """The scenarios of `lraee_benchmarks.results.conditions.Scenario`, for the parser."""

    single_stream = "single-stream"
    offline = "offline"
    deadline = "deadline"


class Unreadable(StrEnum):
    """What happens to images that cannot be decoded."""

    refuse = "refuse"
    skip = "skip"


def main() -> None:
    """Run the command ``lraee-bench``."""
    run_command(app, "lraee-bench", OPTIONS)


def parse_baselines(text: str | None) -> tuple[Baseline, ...] | None:
    """Parse a list with commas or ``none``; None stands for whatever is there.

    Raises:
        typer.BadParameter: a name is not that of a baseline.
    """
    if text is None:
        return None
    if text == "none":
        return ()
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in BASELINES]:
        raise typer.BadParameter(f"{unknown[0]!r} is not a baseline; wanted {', '.join(BASELINES)}, or none")
    return tuple(baseline for baseline in BASELINES if baseline in names)


def writable(path: Path | None) -> Path | None:
    """Refuse, before measuring, a file that could not be written.

    Raises:
        typer.BadParameter: it cannot.
    """
    if path is not None:
        try:
            check_writable(path)
        except DataError as error:
            raise typer.BadParameter(str(error)) from error
    return path


def check_all_different(paths: dict[str, Path | None]) -> None:
    """Refuse one file for two results, one of which would be lost.

    Args:
        paths: by option.

    Raises:
        typer.BadParameter: two options name the same file.
    """
    options: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None or (path.exists() and not path.is_file()):
            continue
        if (other := options.setdefault(path.resolve(), option)) != option:
            raise typer.BadParameter(f"{other} and {option} are both {path}; give each a file of its own")


@app.command()
def bench(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle folder; or photo-clip or reference.")],
    images: Annotated[
        str | None,
        typer.Option(
            metavar="SRC",
            help=f"Folder, zip, {' or '.join(SHIPPED_SOURCES)}; by default the shipped images that suit the bundle.",
            show_default=False,
        ),
    ] = None,
    image_count: Annotated[int, typer.Option(min=1, help="Images to hold in memory and go through in turn.")] = 256,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of one operator; by default as lraee.load.")
    ] = None,
    thread_pool: Annotated[
        ThreadPool, typer.Option(help="Threads of each session as in lraee.load, or one pool that spins.")
    ] = ThreadPool.session,
    scenario: Annotated[
        ScenarioName,
        typer.Option(help="One batch after the other, all images at once, or under deadlines."),
    ] = ScenarioName.single_stream,
    batch: Annotated[int, typer.Option(min=1, help="Images that run together.")] = 1,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{POLICY_SPECS}; may be repeated. By default every operating point and exit.", show_default=False
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help=f"{','.join(BASELINES)} or none; by default the files that are there.", show_default=False),
    ] = None,
    floor: Annotated[
        bool, typer.Option("--floor", help="Also measure the lower bounds: GEMMs alone, one read of the weights.")
    ] = False,
    parts: Annotated[bool, typer.Option("--parts", help="Also time every part of the tower.")] = False,
    energy: Annotated[
        bool, typer.Option("--energy/--no-energy", help="Also measure energy, where the device has a meter.")
    ] = True,
    isolate: Annotated[
        bool | None,
        typer.Option(
            "--isolate/--no-isolate",
            help="A process for each row; by default where a baseline brings threads of its own.",
            show_default=False,
        ),
    ] = None,
    accuracy: Annotated[
        str | None,
        typer.Option(metavar="SRC", help="Labelled images to measure top-1 on; by default none.", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="The export's label file, where it maps folders of --accuracy to labels.", show_default=False
        ),
    ] = None,
    unreadable: Annotated[
        Unreadable, typer.Option(help="Refuse images that cannot be decoded, or skip and name them.")
    ] = Unreadable.refuse,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Rounds to measure; by default as many as --min-seconds take.")
    ] = None,
    min_seconds: Annotated[float, typer.Option(min=0, help="Time to measure when --repeats is not given.")] = 20.0,
    warmup: Annotated[int, typer.Option(min=0, help="Rounds to run before measuring.")] = 5,
    launches: Annotated[
        int, typer.Option(min=1, help="Processes to divide the rounds among; intervals over them predict the next run.")
    ] = 5,
    cold_starts: Annotated[int, typer.Option(min=0, help="Fresh processes to start; 0 for none.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images, the order of rows, the intervals.")] = 0,
    json: Annotated[
        Path | None, typer.Option(help="Write everything, raw samples too.", callback=writable, show_default=False)
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write some images as a Chrome trace.", callback=writable, show_default=False),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write one line a row.", callback=writable, show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write a short report.", callback=writable, show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots.", callback=writable, show_default=False)
    ] = None,
) -> None:
    """Measure latency, FLOPs, exits, memory and start-up of a bundle on this device."""
    check_all_different({"--json": json, "--trace": trace, "--csv": csv, "--markdown": markdown, "--html": html})
    config = BenchmarkConfig(
        bundle=bundle,
        images=images,
        image_count=image_count,
        threads=threads,
        thread_pool="global" if thread_pool is ThreadPool.global_ else "session",
        scenario=scenario.value,
        batch=batch,
        policies=tuple(policy or ()),
        baselines=parse_baselines(baselines),
        floor=floor,
        parts=parts,
        energy=energy,
        trace=trace,
        isolate=isolate,
        accuracy=accuracy,
        labels=labels,
        unreadable=unreadable.value,
        repeats=repeats,
        min_seconds=min_seconds,
        warmup_rounds=warmup,
        launches=launches,
        cold_starts=cold_starts,
        seed=seed,
    )
    with errors_as_one_line(OPTIONS), _progress() as on_progress:
        for note in (taken_instead(bundle), *map(files_instead, (images, accuracy))):
            if note is not None:
                tell(f"note: {note}")
        report = run_benchmark(config, on_progress=on_progress)
    failures: list[DataError] = []  # a disk that is full must not take the table as well
    for path, text in (json, to_json), (csv, render_csv), (markdown, render_markdown), (html, page_of):
        if path is not None:
            try:
                write_file(path, text(report))
            except DataError as error:
                failures.append(error)
    show(render_text(report), widest=_WIDTH)
    with errors_as_one_line():
        if failures:
            raise failures[0]


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Show a bar for each stage on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {}

        def show(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0)
            progress.update(tasks[stage], completed=share)

        yield show
