"""What stands above everything else in ``report.html``: what was exported, and how well, in one sentence and tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from lraee_benchmarks.render.page import Tile, paragraph, tiles_html
from lraee_toolchain.evaluation.metrics import PolicyRow, Way
from lraee_toolchain.report.bundle_tables import exits_bytes, tower_bytes
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.wording import listed, percent, points, threads_text

RANDOM = "Random weights: speed, size and memory are meaningful; accuracy is not, and is not shown."

PURPOSES = {
    "calibration": "calibration",
    "heads": "heads",
    "gating": "gates and thresholds",
    "promise": "risk control",
    "evaluation": "evaluation",
}
"""The splits in the order of their use."""


def head_html(found: Findings) -> list[Markup]:
    """Write the lead, warnings, tiles, and which images served what."""
    head = [paragraph(_lead(found), "lead")]
    head += [paragraph(text, "notice") for text in warnings_of(found)]
    return [*head, tiles_html(list(_tiles(found))), paragraph(images_text(found), "small")]


def images_text(found: Findings) -> str:
    """Say which images served what."""
    metrics = found.metrics
    counts = ", ".join(
        f"{metrics.images[name]:,} {words}" for name, words in PURPOSES.items() if metrics.images.get(name)
    )
    text = f"Images: {counts}; no image serves two purposes. Supervision of the heads: {metrics.supervision}. "
    if skipped := sum(len(reasons) for reasons in metrics.skipped.values()):
        text += f"{skipped:,} more could not be read; `metrics.json` names them. "
    return f"{text}Seed {found.config.seed}."


def warnings_of(found: Findings) -> Iterator[str]:
    """Say what must not be overlooked."""
    is_random, factor = found.manifest.model.is_random, found.config.inject_outliers
    if is_random:
        yield RANDOM
    if factor is not None:
        yield (
            f"Outlier channels were injected (factor {factor:g}): the float function is the same, but it is harder to "
            "quantize than the model as it was trained. A study, not a result."
        )
    if found.metrics.supervision == "label-free" and not is_random:
        yield "Heads and gates saw no labels: they learned to agree with the float tower."
    if found.metrics.adaptation is not None:
        yield f"The trunk was tuned before the export: {found.metrics.adaptation}."
    yield from (f"{text[:1].upper()}{text[1:]}." for text in found.metrics.notices)


def no_exits_text(found: Findings) -> str:
    """Say why a bundle has no exits."""
    why = "None was asked for" if found.config.exits == "none" else "No exit pays for this model on these images"
    return f"{why}: every image runs to the end."


def _lead(found: Findings) -> str:
    manifest, row, evaluation = found.manifest, found.row, found.metrics.evaluation
    blocks = [exit.block for exit in found.schedule.exits]
    text = (
        f"The image tower of {manifest.model.architecture}, weights `{manifest.model.weights}`, as "
        f"{found.precision} ONNX: one graph for each of its {manifest.tower.blocks} blocks of width "
        f"{manifest.tower.width}, and {f'exits after {_blocks(blocks)}' if blocks else 'no exits'}."
    )
    if row is None or evaluation is None:
        return text
    merged = sum(found.schedule.merged)
    if merged:
        text += f" At `{manifest.default_point}`, {merged} of {manifest.tower.tokens} tokens are merged on the way."
    change = row.difference_to_full
    mean, low, high = (f"{100 * value:+.2f}" for value in (change.mean, change.low, change.high))
    return (
        f"{text} Of {evaluation.images:,} images that no other step has seen, {percent(1 - row.share(None), 1)} exit "
        f"early. That saves {percent(row.flops_saved, 1)} of the FLOPs and changes top-1 by {mean} points ({low} to "
        f"{high}) against full depth."
    )


def _tiles(found: Findings) -> Iterator[Tile]:
    manifest, row = found.manifest, found.row
    full = manifest.full_flops / 1e9
    if row is None:
        yield Tile(name="FLOPs at full depth", value=f"{full:.3g} G", notes=["one image; multiply-add = 2"])
    else:
        note = f"{row.flops / 1e9:.3g} instead of {full:.3g} GFLOPs an image"
        notes = [note, f"operating point `{manifest.default_point}`"]
        yield Tile(name="FLOPs saved", value=percent(row.flops_saved, 1), notes=notes)
    yield from _accuracy_tile(found, row)
    yield from _latency_tile(found)
    exits = exits_bytes(manifest)
    notes = ["image tower", *([f"{exits / 1e6:.3g} MB more for exits"] if exits else [])]
    yield Tile(name="Size", value=f"{tower_bytes(manifest) / 1e6:.3g} MB", notes=notes)
    blocks = [exit.block for exit in found.schedule.exits]
    note = f"after {_blocks(blocks)} of {manifest.tower.blocks}" if blocks else "every image runs to the end"
    yield Tile(name="Exits", value=str(len(blocks)), notes=[note])


def _accuracy_tile(found: Findings, row: PolicyRow | None) -> Iterator[Tile]:
    """Of the default point, or of full depth where exits do not pay."""
    evaluation = found.metrics.evaluation
    if evaluation is None:
        return
    shown = row or evaluation.full
    notes = [f"{100 * shown.accuracy.low:.1f} to {100 * shown.accuracy.high:.1f} (95 %)"]
    if row is not None:
        notes.append(f"{points(row.difference_to_full, 1)} to full depth")
    if found.precision != "FP32":
        tuned = "" if shown.difference_to_given is None else " tuned"
        notes.append(f"{points(shown.difference_to_float, 1)} to FP32{tuned}")
    if shown.difference_to_given is not None:
        notes.append(f"{points(shown.difference_to_given, 1)} to FP32 as given")
    yield Tile(name="Top-1 accuracy", value=percent(shown.accuracy.mean, 1), notes=notes)


def _latency_tile(found: Findings) -> Iterator[Tile]:
    latency = found.metrics.latency
    if latency is None:
        return
    way: Way = "routed_merged" if any(found.schedule.merged) else "routed"
    routed, full = latency.row(way, found.precision), latency.row("full", found.precision)
    if routed is None or full is None:
        return
    notes = [
        f"{routed.mean_ms:.3g} instead of {full.mean_ms:.3g} ms",
        f"mean, batch 1, {threads_text(latency.threads)}",
    ]
    yield Tile(name="Latency saved", value=percent(routed.saved, 1), notes=notes)


def _blocks(blocks: Sequence[int]) -> str:
    return f"{'block' if len(blocks) == 1 else 'blocks'} {listed(blocks)}"
