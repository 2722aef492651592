"""What ``lraee-export`` shows: a line for each stage, a bar where it takes long, and a summary."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from open_clip import list_models
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from lraee.commands.terminal import print_line, printable, show
from lraee_exporters.loading.sources import REFERENCE_NAMES
from lraee_toolchain.data.labels import LABEL_SETS

if TYPE_CHECKING:
    from lraee_toolchain.export import ExportResult

WORDS = {
    "load": "load the model",
    "labels": "embed the labels",
    "adapted": "tune the trunk",
    "averaged": "average the weights, tune the exit heads on",
    "float": "build the float parts",
    "parity": "prove parity with torch",
    "pixels": "preprocess images",
    "ranges": "calibrate activation ranges",
    "int8": "quantize and build the INT8 parts",
    "dynamic": "build the dynamic INT8 parts",
    "default-dynamic": "quantize the torch tower by default, dynamic",
    "features": "extract features",
    "answers": "run a tower to the end",
    "noise": "measure the noise of every block",
    "exits": "train heads, gates and thresholds",
    "bundle": "pack the bundle",
    "evaluation": "evaluate the bundle",
    "ablations": "measure the comparison table",
    "latency": "time the comparison table",
    "report": "write the report",
    "single": "write one file",
    "held-back": "gather the images that were held back",
    "traced": "export the torch tower as it is",
    "fp32": "build the float graph",
    "floor": "build the graph of bare GEMMs",
    "default-static": "quantize the torch tower by default, static",
    "baselines": "gather the baselines",
}


class ConsoleProgress:
    """Shows the stages of an export on standard error."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._progress.stop()

    def stage(self, name: str, found: bool) -> None:
        """Begin a stage; a result that was found is only named."""
        self._finish()
        words = WORDS.get(name, name)
        if found:
            self._progress.console.print(f"[dim]{words}: found in the work folder[/dim]")
            return
        if not self._progress.console.is_terminal:
            self._progress.console.print(words)
        self._task = self._progress.add_task(words, total=1)

    def steps(self, total: int | None) -> Callable[[int], None]:
        """Give the running stage `total` steps, or with None let it run without a total."""
        task = self._task
        if task is None:
            return lambda done: None
        self._progress.update(task, total=total, completed=0)
        return lambda done: self._progress.advance(task, done)

    def notice(self, text: str) -> None:
        """Print a line above the bars, unwrapped so that it can be searched."""
        self._progress.console.print(Text(f"note: {text}", style="yellow"), soft_wrap=True)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._task]
            total = task.completed if task.total is None else task.total
            self._progress.update(self._task, completed=total, total=total)
            self._task = None


def names_taken(model: str, labels: str | None) -> list[str]:
    """Warn of each argument that is both a name and a file or folder here; names go first."""
    notes = []
    if (model in REFERENCE_NAMES or model.replace("/", "-") in list_models()) and Path(model).is_dir():
        whose = "shipped model" if model in REFERENCE_NAMES else "architecture of open_clip"
        notes.append(f"{model} is taken to be the {whose}; for the folder of that name, give ./{model}")
    if labels in LABEL_SETS and Path(labels).is_file():
        notes.append(f"{labels} is taken to be the shipped label set; for the file of that name, give ./{labels}")
    return notes


def summary(result: ExportResult) -> None:
    """Print where the results are and the report's main tables, as Markdown source where stdout is not a terminal."""
    text = (result.report / "report.md").read_text("utf-8")
    wanted = [
        s
        for s in text.split("\n\n## ")
        if s.startswith(("What tuning gives", "Evaluation", "What routing adds", "Exits"))
    ]
    if sys.stdout.isatty():
        show(*(Markdown("## " + section) for section in wanted))
    else:
        show(*(Text(f"## {section}\n") for section in wanted))
    places = [f"bundle     {result.bundle}", f"report     {result.report / 'report.html'}"]
    places += [] if result.baselines is None else [f"baselines  {result.baselines}"]
    places += [] if result.adapted is None else [f"adapted    {result.adapted}"]
    places += [] if result.single_file is None else [f"one file   {result.single_file}"]
    bundle, measuring = shlex.quote(str(result.bundle)), "measure it with: lraee-bench {bundle}"
    if result.evaluation is not None:
        places.append(f"held back  {result.evaluation}")
        measuring = "measure it with: lraee-bench {bundle} --images {images} --accuracy {images}"
    images = shlex.quote(str(result.evaluation))
    for line in ("", *places, measuring.format(bundle=bundle, images=images)):
        print_line(printable(line))
