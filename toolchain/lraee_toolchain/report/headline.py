"""What stands above everything else in ``report.html``: what was exported, and how well, in one sentence and tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from lraee.bundle.manifest import Manifest
from lraee_benchmarks.render.page import Tile, paragraph, tiles_html
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.report.bundle_tables import default_row, part_sizes, precision_name, tower_bytes
from lraee_toolchain.report.wording import listed, percent

RANDOM = "Random weights: speed, size and memory mean something here, accuracy does not and is not given."

PURPOSES = {
    "calibration": "calibration",
    "heads": "heads",
    "gating": "gates and thresholds",
    "promise": "the promise",
    "evaluation": "evaluation",
}
"""The splits in the order of their use."""


def head_html(manifest: Manifest, metrics: dict[str, Any], config: ExportConfig) -> list[Markup]:
    """Lead, warnings, tiles, and which images served what."""
    head = [paragraph(_lead(manifest, metrics), "lead")]
    head += [paragraph(text, "notice") for text in warnings_of(manifest, metrics, config)]
    return [*head, tiles_html(list(_tiles(manifest, metrics))), paragraph(images_text(metrics, config), "small")]


def images_text(metrics: dict[str, Any], config: ExportConfig) -> str:
    """Which images served what."""
    images = metrics["images"]
    counts = ", ".join(f"{images[name]:,} {words}" for name, words in PURPOSES.items() if images.get(name))
    text = f"Images: {counts}; no picture serves two purposes. Supervision of the heads: {metrics['supervision']}. "
    if skipped := sum(len(reasons) for reasons in metrics.get("skipped", {}).values()):
        text += f"{skipped:,} more could not be read; `metrics.json` names them. "
    return f"{text}Seed {config.seed}."


def warnings_of(manifest: Manifest, metrics: dict[str, Any], config: ExportConfig) -> Iterator[str]:
    """What must not be overlooked."""
    if manifest.model.is_random:
        yield RANDOM
    if config.inject_outliers is not None:
        yield (
            f"Outlier channels were injected (factor {config.inject_outliers:g}): the float function is the same, its "
            "quantization is harder than that of the model as it was trained. A study, not a result."
        )
    if metrics["supervision"] == "label-free" and not manifest.model.is_random:
        yield "Heads and gates saw no labels: they learned to agree with the float tower."
    yield from (f"{text[:1].upper()}{text[1:]}." for text in metrics.get("notices", ()))


def no_exits_text(config: ExportConfig) -> str:
    """Why a bundle has none."""
    why = "None was asked for" if config.exits == "none" else "No exit pays for this model on these images"
    return f"{why}: every image runs to the end."


def _lead(manifest: Manifest, metrics: dict[str, Any]) -> str:
    tower, blocks = manifest.tower, [exit.block for exit in manifest.exits]
    exits = f"exits behind {_blocks(blocks)}" if blocks else "no exits"
    text = (
        f"The image tower of {manifest.model.architecture}, weights `{manifest.model.weights}`, as "
        f"{precision_name(manifest)} ONNX: one graph for each of its {tower.blocks} blocks of width {tower.width}, "
        f"and {exits}."
    )
    row = default_row(manifest, metrics["evaluation"])
    if row is None:
        return text
    early = 1 - row["exit_shares"].get("full", 0.0)
    change = row["difference_to_full"]
    low, high = 100 * change["low"], 100 * change["high"]
    return text + (
        f" Of {metrics['evaluation']['images']:,} images that no other step has seen, {percent(early, 1)} leave early. "
        f"That saves {percent(row['flops_saved'], 1)} of the FLOPs and changes top-1 by "
        f"{100 * change['mean']:+.2f} points ({low:+.2f} to {high:+.2f}) against full depth."
    )


def _tiles(manifest: Manifest, metrics: dict[str, Any]) -> Iterator[Tile]:
    evaluation, full = metrics["evaluation"], manifest.full_flops / 1e9
    row = default_row(manifest, evaluation)
    if row is None:
        yield Tile(name="FLOPs at full depth", value=f"{full:.3g} G", notes=["one image; multiply-add = 2"])
    else:
        note = f"{row['flops'] / 1e9:.3g} instead of {full:.3g} GFLOPs an image"
        notes = [note, f"operating point `{manifest.default_point}`"]
        yield Tile(name="FLOPs saved", value=percent(row["flops_saved"], 1), notes=notes)
    if (shown := row or _full(evaluation)) is not None:
        interval = shown["accuracy"]
        notes = [f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f} (95 %)"]
        if row is not None:
            notes.append(f"{_change(row['difference_to_full'])} to full depth")
        if manifest.precision != "fp32":
            notes.append(f"{_change(shown['difference_to_float'])} to FP32")
        yield Tile(name="Top-1 accuracy", value=percent(interval["mean"], 1), notes=notes)
    yield from _latency_tile(metrics)
    sizes = part_sizes(manifest)
    exits = sum(size for name, size in sizes.items() if name.startswith("exit"))
    notes = ["image tower", *([f"{exits / 1e6:.3g} MB more for exits"] if exits else [])]
    yield Tile(name="Size", value=f"{tower_bytes(manifest) / 1e6:.3g} MB", notes=notes)
    blocks = [exit.block for exit in manifest.exits]
    note = f"behind {_blocks(blocks)} of {manifest.tower.blocks}" if blocks else "every image runs to the end"
    yield Tile(name="Exits", value=str(len(blocks)), notes=[note])


def _latency_tile(metrics: dict[str, Any]) -> Iterator[Tile]:
    latency, ablations = metrics.get("latency"), metrics["ablations"]
    if latency is None or ablations is None:
        return
    name = ablations["main"]
    routed, full = latency["rows"].get(f"LRA-EE on {name}"), latency["rows"].get(f"{name}, full depth")
    if routed is None or full is None:
        return
    threads = "1 thread" if latency["threads"] == 1 else f"{latency['threads']} threads"
    notes = [f"{routed['mean_ms']:.3g} instead of {full['mean_ms']:.3g} ms", f"mean, batch 1, {threads}"]
    yield Tile(name="Latency saved", value=percent(routed["saved"], 1), notes=notes)


def _full(evaluation: dict[str, Any] | None) -> Any:
    """Full depth of a bundle whose exits do not pay."""
    rows = [] if evaluation is None else evaluation["rows"]
    return next((row for row in rows if row["name"] == "full depth"), None)


def _change(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:+.1f} [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"


def _blocks(blocks: list[int]) -> str:
    return f"{'block' if len(blocks) == 1 else 'blocks'} {listed(blocks)}"
