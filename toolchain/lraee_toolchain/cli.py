"""``lraee-export``: parse, build one config, call one function, print."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from lraee.commands.terminal import run_command, tell
from lraee.install import install_command
from lraee.ort.limits import ROOT
from lraee.ort.threads import usable_cores

PROGRAM = "lraee-export"

OPTIONS = {"unreadable": "pass --unreadable skip"}
"""What to do with an option of this command, by the setting that an error names."""

EXTRA_MODULES = ("torch", "open_clip", "onnx", "safetensors", "PIL")

# Read when torch loads. Its threads would else spin between operators, which on cores that are shared makes the heads'
# training take three times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def export_command(
    model: Annotated[str, typer.Argument(help="reference, reference-b32, an open_clip name, or a local folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="bundle to write, ending in .lraee")],
    pretrained: Annotated[str | None, typer.Option(help="tag, checkpoint file, or random[:SEED]")] = None,
    activation: Annotated[str | None, typer.Option(help="gelu or quick_gelu, for bare weights")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="reference, imagenet, imagenet-80, or a file with one label a line (or folder, tab, label)"),
    ] = None,
    label_embeddings: Annotated[
        Path | None, typer.Option(help=".npy, one row a label, for an image tower alone; with --text none")
    ] = None,
    logit_scale: Annotated[float | None, typer.Option(help="for weights without one, 100 for most CLIPs")] = None,
    text: Annotated[
        str, typer.Option(help="text tower for other labels on the device: fp32, fp16, int8, or none: fixed labels")
    ] = "fp16",
    calibration: Annotated[Path | None, typer.Option(help="folder or zip for activation ranges")] = None,
    train: Annotated[Path | None, typer.Option(help="folder or zip for heads, gates and thresholds")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="labelled folder or zip, only for the report")] = None,
    supervision: Annotated[
        str, typer.Option(help="auto (labels where there are class folders), labels, or label-free")
    ] = "auto",
    exits: Annotated[str, typer.Option(help="auto, all, none, or blocks such as 8,10,11")] = "auto",
    reads: Annotated[str, typer.Option(help="what heads read: auto, patch_mean (SSA), cls or both")] = "auto",
    epochs: Annotated[int, typer.Option(help="passes of the heads' training over its images", min=1)] = 30,
    max_accuracy_drop: Annotated[float, typer.Option(help="points the default operating point may lose")] = 0.2,
    min_flops_saving: Annotated[
        float | None, typer.Option(help="share of FLOPs it must save, replaces --max-accuracy-drop")
    ] = None,
    promise: Annotated[
        float | None,
        typer.Option(help="points that the point 'promised' may lose, proved on images kept back"),
    ] = None,
    promise_confidence: Annotated[float, typer.Option(help="probability that the promise is kept")] = 0.9,
    precision: Annotated[str, typer.Option(help="int8 or fp32")] = "int8",
    quantizer: Annotated[str, typer.Option(help="naive, or strong: the best static INT8 of each block")] = "naive",
    inject_outliers: Annotated[
        float | None, typer.Option(help="for studies: scale outlier channels up by this factor, same float function")
    ] = None,
    ranges: Annotated[str, typer.Option(help="activation ranges: minmax or percentile")] = "minmax",
    percentile: Annotated[float, typer.Option(help="for --ranges percentile")] = 99.99,
    baselines: Annotated[bool, typer.Option("--baselines", help="also write what lraee-bench compares with")] = False,
    precisions: Annotated[
        bool, typer.Option("--precisions", help="measure FP32, dynamic, naive and strong INT8 at full depth")
    ] = False,
    ablations: Annotated[bool, typer.Option("--ablations", help="measure the comparison table")] = False,
    seeds: Annotated[int, typer.Option(help="seeds of the comparison table")] = 3,
    seed: Annotated[int, typer.Option(help="of splits, heads and random crops")] = 0,
    work: Annotated[Path | None, typer.Option(help="keep stages here, to resume or to share between exports")] = None,
    unreadable: Annotated[str, typer.Option(help="refuse, or skip and name images that cannot be decoded")] = "refuse",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing bundle")] = False,
) -> None:
    """Export a CLIP image tower as per-block INT8 ONNX with early exits."""
    _require_extra()
    from lraee_toolchain.config import ExportConfig, HeadTraining
    from lraee_toolchain.console import ConsoleProgress, names_taken, summary
    from lraee_toolchain.export import export

    choices: dict[str, Any] = {
        "activation": _choice("--activation", activation, ("gelu", "quick_gelu", None)),
        "text": _choice("--text", text, ("fp32", "fp16", "int8", "none")),
        "supervision": _choice("--supervision", supervision, ("auto", "labels", "label-free")),
        "reads": _choice("--reads", reads, ("auto", "patch_mean", "cls", "both")),
        "precision": _choice("--precision", precision, ("int8", "fp32")),
        "quantizer": _choice("--quantizer", quantizer, ("naive", "strong")),
        "ranges": _choice("--ranges", ranges, ("minmax", "percentile")),
        "unreadable": _choice("--unreadable", unreadable, ("refuse", "skip")),
    }
    config = ExportConfig(
        model=model,
        out=out,
        pretrained=pretrained,
        labels=labels,
        label_embeddings=label_embeddings,
        logit_scale=logit_scale,
        calibration=calibration,
        train=train,
        evaluate=evaluate,
        exits=_parse_exits(exits),
        heads=HeadTraining(epochs=epochs),
        max_accuracy_drop=max_accuracy_drop,
        min_flops_saving=min_flops_saving,
        promise=promise,
        promise_confidence=promise_confidence,
        percentile=percentile,
        inject_outliers=inject_outliers,
        baselines=baselines,
        precisions=precisions,
        ablations=ablations,
        seeds=seeds,
        seed=seed,
        work=work,
        overwrite=overwrite,
        **choices,
    )
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
    """Let torch use no more threads than it has cores' worth of time: it knows of no container's CPU quota."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), usable_cores(root)))


def _choice(option: str, value: str | None, allowed: tuple[str | None, ...]) -> str | None:
    if value not in allowed:
        raise typer.BadParameter(f"{option} is {value!r}, wanted one of {', '.join(a for a in allowed if a)}")
    return value


def _parse_exits(text: str) -> Any:
    if text in ("auto", "all", "none"):
        return text
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"--exits is {text!r}, wanted auto, all, none, or block numbers such as 8,10,11"
        ) from error


def main() -> None:
    """Entry point: errors of the library and warnings become one line."""
    run_command(app, PROGRAM, OPTIONS)


if __name__ == "__main__":
    main()
