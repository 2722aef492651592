"""``lraee-export``: parse, build one config, call one function, print."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lraee.commands.terminal import run_command, tell
from lraee.install import install_command
from lraee.ort.limits import ROOT
from lraee.ort.threads import usable_cores

PROGRAM = "lraee-export"

OPTIONS = {"unreadable": "pass --unreadable skip"}
"""Advice that names an option of this command, by the setting that an error names."""

CHOICES = {
    "activation": ("gelu", "quick_gelu"),
    "text": ("fp32", "fp16", "int8", "none"),
    "supervision": ("auto", "labels", "label-free"),
    "reads": ("auto", "patch_mean", "cls", "both", "attention", "local"),
    "merge_for": ("flops", "latency"),
    "thresholds": ("per-exit", "per-class"),
    "precision": ("int8", "fp32"),
    "quantizer": ("naive", "strong"),
    "tables": ("all", "exported"),
    "ranges": ("minmax", "percentile"),
    "unreadable": ("refuse", "skip"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
"""Values of options that are names."""

EXTRA_MODULES = ("torch", "open_clip", "onnx", "safetensors", "PIL")

# torch reads this when it loads. Otherwise its threads spin between operators, and on shared cores the heads' training
# takes three times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

IMAGES, TOWER, INT8 = "Images and labels", "Model", "Quantization"
EXITS, TUNING, REPORT, RUN = "Early exits", "Tuning the trunk", "Report and baselines", "This run"
"""Groups of options in the help."""


class GroupedHelp(TyperCommand):
    """A command whose plain help lists the options by their ``rich_help_panel``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or RUN, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _option(group: str, text: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=group, **settings)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(cls=GroupedHelp)
def export_command(
    model: Annotated[
        str,
        typer.Argument(help="reference, reference-b32, an open_clip name, or a local folder", rich_help_panel=TOWER),
    ],
    out: Annotated[Path, _option(TOWER, "bundle to write, ending in .lraee", "--out", "-o")],
    pretrained: Annotated[str | None, _option(TOWER, "tag, checkpoint file, or random[:SEED]")] = None,
    activation: Annotated[str | None, _option(TOWER, "gelu or quick_gelu, for bare weights")] = None,
    logit_scale: Annotated[float | None, _option(TOWER, "for weights without one, 100 for most CLIPs")] = None,
    text: Annotated[
        str, _option(TOWER, "text tower for other labels on the device: fp32, fp16, int8, or none: fixed labels")
    ] = "fp16",
    notice: Annotated[
        str | None, _option(TOWER, "one line on origin and licences, kept in the bundle and shown by info")
    ] = None,
    inject_outliers: Annotated[
        float | None, _option(TOWER, "for studies: scale outlier channels up by this factor, same float function")
    ] = None,
    labels: Annotated[
        str | None,
        _option(IMAGES, "reference, imagenet, imagenet-80, or a file with one label a line (or folder, tab, label)"),
    ] = None,
    label_embeddings: Annotated[
        Path | None, _option(IMAGES, ".npy, one row a label, for an image tower alone; with --text none")
    ] = None,
    train: Annotated[Path | None, _option(IMAGES, "folder or zip for heads, gates and thresholds")] = None,
    calibration: Annotated[Path | None, _option(IMAGES, "folder or zip for activation ranges")] = None,
    evaluate: Annotated[Path | None, _option(IMAGES, "labelled folder or zip, only for the report")] = None,
    evaluate_share: Annotated[
        float | None, _option(IMAGES, "share of --train to hold back for the report, in place of --evaluate")
    ] = None,
    supervision: Annotated[
        str, _option(IMAGES, "auto (labels where there are class folders), labels, or label-free")
    ] = "auto",
    unreadable: Annotated[str, _option(IMAGES, "refuse, or skip and name images that cannot be decoded")] = "refuse",
    exits: Annotated[str, _option(EXITS, "auto, all, none, or blocks such as 8,10,11")] = "auto",
    reads: Annotated[
        str,
        _option(
            EXITS,
            "what heads read: auto, patch_mean (SSA), cls, both, attention or local; auto tries the last two where the "
            "others are more than a point below full depth, local in the first third of the blocks",
        ),
    ] = "auto",
    disk_limit: Annotated[float, _option(EXITS, "GB of disk for the tokens that attention and local heads read")] = 20,
    epochs: Annotated[int, _option(EXITS, "passes of the heads' training over its images", min=1)] = 30,
    head_rank: Annotated[
        int | None,
        _option(EXITS, "rank of the first layer of attention and local heads: smaller, faster bundles", min=1),
    ] = None,
    label_share: Annotated[
        float,
        _option(EXITS, "share of labels in what heads learn, the rest being FP32's answers"),
    ] = 1.0,
    teacher_views: Annotated[
        int,
        _option(EXITS, "views of an image over which FP32's answers are averaged, to learn from", min=1),
    ] = 1,
    teacher_flip: Annotated[
        bool,
        _option(EXITS, "mirror every second of those views; wrong for text", "--teacher-flip/--teacher-no-flip"),
    ] = True,
    merge_tokens: Annotated[
        list[str] | None,
        _option(
            EXITS,
            "also merge similar tokens: auto, a share of the FLOPs such as 0.3, pairs in every block such as 4, or in "
            "each such as 0,2,4,4; may be repeated",
        ),
    ] = None,
    merge_for: Annotated[
        str, _option(EXITS, "what a share in --merge-tokens is of: flops, or latency on this machine")
    ] = "flops",
    max_accuracy_drop: Annotated[float, _option(EXITS, "points the default operating point may lose")] = 0.2,
    min_flops_saving: Annotated[
        float | None, _option(EXITS, "share of FLOPs it must save, replaces --max-accuracy-drop")
    ] = None,
    thresholds: Annotated[
        str, _option(EXITS, "per-exit, or per-class: add the point 'per-class', one threshold for each label")
    ] = "per-exit",
    promise: Annotated[
        float | None, _option(EXITS, "points that the point 'promised' may lose, proved on images kept back")
    ] = None,
    promise_confidence: Annotated[float, _option(EXITS, "probability that the promise is kept")] = 0.9,
    adapt: Annotated[
        bool, _option(TUNING, "tune the image trunk on --train, so that early exits know more", "--adapt")
    ] = False,
    adapt_epochs: Annotated[int | None, _option(TUNING, "passes over the heads' images, 5 by default")] = None,
    adapt_learning_rate: Annotated[float | None, _option(TUNING, "of the last block, 5e-5 by default")] = None,
    adapt_rank: Annotated[
        int | None, _option(TUNING, "tune low-rank updates of the blocks' matrices, merged; all weights by default")
    ] = None,
    adapt_exits: Annotated[
        str | None,
        _option(TUNING, "exits to tune for: all (from half of the depth), blocks, or none: only full depth"),
    ] = None,
    adapt_exit_weight: Annotated[
        float | None, _option(TUNING, "weight of all exits' losses against that of full depth, 3 by default")
    ] = None,
    adapt_average: Annotated[
        float | None,
        _option(TUNING, "share of the tuned weights where they are averaged with those as given, 1 by default"),
    ] = None,
    adapt_flip: Annotated[
        bool | None,
        _option(TUNING, "mirror images at random; wrong for text", "--adapt-flip/--adapt-no-flip"),
    ] = None,
    device: Annotated[str, _option(TUNING, "where to tune: auto, cpu, cuda or mps")] = "auto",
    precision: Annotated[str, _option(INT8, "int8 or fp32")] = "int8",
    quantizer: Annotated[str, _option(INT8, "naive, or strong: the best static INT8 of each block")] = "naive",
    ranges: Annotated[str, _option(INT8, "activation ranges: minmax or percentile")] = "minmax",
    percentile: Annotated[float, _option(INT8, "for --ranges percentile")] = 99.99,
    no_saturation: Annotated[
        bool,
        _option(
            INT8,
            "half as many levels, so that sessions with default options are exact on every CPU",
            "--no-saturation",
        ),
    ] = False,
    single_file: Annotated[
        bool, _option(REPORT, "also write the default operating point as one ONNX file", "--single-file")
    ] = False,
    baselines: Annotated[bool, _option(REPORT, "also write what lraee-bench compares with", "--baselines")] = False,
    precisions: Annotated[
        bool, _option(REPORT, "measure FP32, dynamic, naive and strong INT8 at full depth", "--precisions")
    ] = False,
    ablations: Annotated[bool, _option(REPORT, "measure the comparison table", "--ablations")] = False,
    tables: Annotated[
        str, _option(REPORT, "what the table fits exits for: all, or exported: the bundle's precision and supervision")
    ] = "all",
    seeds: Annotated[int, _option(REPORT, "seeds of the comparison table")] = 3,
    seed: Annotated[int, _option(RUN, "of splits, heads and random crops")] = 0,
    workers: Annotated[
        int | None, _option(RUN, "threads that decode images; one for each usable core by default")
    ] = None,
    work: Annotated[Path | None, _option(RUN, "keep stages here, to resume or to share between exports")] = None,
    overwrite: Annotated[
        bool, _option(RUN, "replace an existing bundle, and what lies beside it of its export", "--overwrite")
    ] = False,
) -> None:
    """Export a CLIP image tower as per-block INT8 ONNX with early exits."""
    options: dict[str, Any] = dict(locals())
    _require_extra()
    from lraee_toolchain.config.learning import Adaptation, HeadTraining
    from lraee_toolchain.config.options import ExportConfig
    from lraee_toolchain.console import ConsoleProgress, names_taken, summary
    from lraee_toolchain.export import export

    for name, allowed in CHOICES.items():
        _check_choice(name, options[name], allowed)
    options |= {
        "exits": _parse_exits(exits),
        "merge_tokens": tuple(wish for text in merge_tokens or () for wish in _parse_merging(text)),
        "heads": HeadTraining(
            epochs=options.pop("epochs"),
            rank=options.pop("head_rank"),
            label_share=options.pop("label_share"),
            teacher_views=options.pop("teacher_views"),
            teacher_flip=options.pop("teacher_flip"),
        ),
    }
    tuning = {name: options.pop(name) for name in list(options) if name.startswith("adapt_")}
    options["adapt"] = _tuning(tuning, Adaptation) if adapt else None
    if not adapt:
        _refuse_tuning(tuning)
    config = ExportConfig(**options)
    for note in names_taken(model, labels):
        tell(f"note: {note}")
    _bound_torch()
    with ConsoleProgress() as progress:
        result = export(config, progress)
    summary(result)
    for name, reason in result.failed_baselines.items():
        tell(f"{PROGRAM}: the {name} baseline could not be made, all else is written: {reason}")
    if result.failed_baselines:
        raise typer.Exit(1)


def _require_extra() -> None:
    missing = [name for name in EXTRA_MODULES if find_spec(name) is None]
    if missing:
        tell(f"{PROGRAM} needs {', '.join(missing)}: {install_command('export')}")
        raise typer.Exit(1)


def _bound_torch(root: Path = ROOT) -> None:
    """Bound torch's threads by the container's CPU quota, which torch does not read."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), usable_cores(root)))


def _check_choice(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{option} is {value!r}, wanted one of {', '.join(allowed)}")


def _parse_exits(text: str, option: str = "--exits", names: tuple[str, ...] = ("auto", "all", "none")) -> Any:
    if text in names:
        return text
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} is {text!r}, wanted {', '.join(names)}, or block numbers such as 8,10,11"
        ) from error


def _parse_merging(text: str) -> tuple[Any, ...]:
    from lraee_toolchain.config.options import AUTO_MERGING

    if text == "auto":
        return AUTO_MERGING
    try:
        return (float(text),) if "." in text else (tuple(int(item) for item in text.split(",")),)
    except ValueError as error:
        raise typer.BadParameter(
            f"--merge-tokens is {text!r}, wanted auto, a share such as 0.3, or whole numbers such as 4 or 0,2,4,4"
        ) from error


def _tuning(given: dict[str, Any], kind: Callable[..., Any]) -> Any:
    """Build the settings of tuning from the options that were given."""
    settings = {name.removeprefix("adapt_"): value for name, value in given.items() if value is not None}
    if "exits" in settings:
        settings["exits"] = _parse_exits(settings["exits"], "--adapt-exits", ("all", "none"))
    return kind(**settings)


def _refuse_tuning(given: dict[str, Any]) -> None:
    """Refuse settings of tuning that nobody asked for."""
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{option} says how --adapt tunes the trunk; add --adapt, or drop {option}")


def main() -> None:
    """Entry point: errors of the library and warnings become one line."""
    run_command(app, PROGRAM, OPTIONS)


if __name__ == "__main__":
    main()
