"""Plots of what exits do, each from plain data to an SVG string for an HTML page.

Shares and accuracies come in as 0 to 1 and are drawn in percent; blocks are counted from 1. The noise of the blocks is
drawn by `lraee_toolchain.report.plots.noise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lraee_benchmarks.analysis.intervals import Estimate
from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.report.plots.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    PALE_GREY,
    PALE_ORANGE,
    PALE_SKY,
    SHAPES,
    block_axis,
    draw_line,
    page,
)

ACCURACY = "top-1 accuracy (%)"
READS: dict[HeadInput, str] = {
    "patch_mean": "mean patch token (SSA)",
    "cls": "class token",
    "both": "both side by side",
}
"""How heads are named by what they read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One way to run the model, as a point of `pareto_plot`."""

    label: str
    """In the legend."""
    saved: float
    """Share of full-depth FLOPs."""
    accuracy: float
    """0 to 1."""
    interval: Estimate | None = None
    """Of the accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Thresholds that no others beat, on one split."""

    label: str
    """Which split it was measured on."""
    saved: tuple[float, ...]
    """Shares of full-depth FLOPs, rising."""
    accuracy: tuple[float, ...]
    """0 to 1, one for each saving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """An accuracy to compare with, drawn as a line across."""

    label: str
    """Such as FP32, full depth."""
    accuracy: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitShare:
    """How many images leave at one place."""

    label: str
    """The block's number, or full depth."""
    share: float
    """0 to 1."""
    deviation: float = 0.0
    """Standard deviation over seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectivity:
    """Whether a gate lets the right images go."""

    label: str
    """The block's number, or all exits."""
    left: Estimate
    """Accuracy of the images that left there, answered there."""
    stayed: Estimate
    """Accuracy of those that went on, as answered in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyCurve:
    """Accuracy of heads that all read the same, each answering for all images."""

    blocks: tuple[int, ...]
    """Behind which they sit, rising."""
    accuracy: tuple[float, ...]
    """0 to 1, one for each block."""
    deviation: tuple[float, ...] = ()
    """Standard deviation over seeds, one for each block, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadrants:
    """How the answers with exits agree with those at full depth, in images."""

    both_right: int
    rescue: int
    """Right with exits, wrong at full depth."""
    loss: int
    """Wrong with exits, right at full depth."""
    both_wrong: int


def pareto_plot(
    fronts: Sequence[Front], *, chosen: Marker | None, levels: Sequence[Level], baselines: Sequence[Marker] = ()
) -> str:
    """Accuracy over FLOPs saved.

    Args:
        fronts: one for each split shown.
        chosen: the operating point, or None.
        levels: full depth in FP32 and INT8.
        baselines: other ways to save.
    """
    with page("pareto", "Top-1 accuracy over the share of FLOPs saved", height_inches=4.6) as drawn:
        axes = drawn.axes("FLOPs saved (%)", ACCURACY)
        _draw_levels(axes, levels)
        for number, front in enumerate(fronts):
            saved, accuracy = [100 * s for s in front.saved], [100 * a for a in front.accuracy]
            draw_line(axes, number, front.label, saved, accuracy, marker=".")
        points = [*baselines] if chosen is None else [chosen, *baselines]
        for number, point in enumerate(points):
            is_chosen = point is chosen
            axes.errorbar(
                100 * point.saved,
                100 * point.accuracy,
                yerr=_error([point.interval]) if point.interval else None,
                fmt="*" if is_chosen else SHAPES[number % len(SHAPES)],
                markersize=13 if is_chosen else 7,
                color=BLACK if is_chosen else COLOURS[-number % len(COLOURS)],
                elinewidth=1.2,
                zorder=4 if is_chosen else 3,
                label=point.label,
            )
        axes.margins(x=0.08, y=0.12)
        drawn.legend(axes)
    return drawn.svg


def exit_shares_plot(shares: Sequence[ExitShare]) -> str:
    """Where images leave.

    Args:
        shares: in order of depth, full depth last.
    """
    with page("shares", "Share of images that leave behind each block", height_inches=3.0) as drawn:
        axes = drawn.axes("left behind block", "images (%)")
        heights = [100 * share.share for share in shares]
        errors = [100 * share.deviation for share in shares]
        colours = [BLUE] * (len(shares) - 1) + [GREY]
        bars = axes.bar(
            range(len(shares)),
            heights,
            width=0.65,
            color=colours,
            yerr=errors if any(errors) else None,
            error_kw={"ecolor": BLACK, "elinewidth": 1.2, "capsize": 3},
        )
        axes.bar_label(bars, fmt="{:.1f}", padding=3, fontsize=9)
        axes.set_xticks(range(len(shares)), [share.label for share in shares])
        axes.margins(y=0.15)
    return drawn.svg


def selectivity_plot(gates: Sequence[Selectivity], *, x_label: str = "exit behind block") -> str:
    """Accuracy of the images that a gate let go, beside those that went on.

    Args:
        gates: one pair of bars each.
        x_label: what their labels are.
    """
    with page("selectivity", "Accuracy of the images that left at an exit and of those that went on") as drawn:
        axes = drawn.axes(x_label, ACCURACY)
        sides = ((-0.2, BLUE, "", "left here", [g.left for g in gates]),
                 (0.2, ORANGE, "//", "went on", [g.stayed for g in gates]))  # fmt: skip
        for offset, colour, hatch, label, intervals in sides:
            bars = axes.bar(
                [number + offset for number in range(len(gates))],
                [100 * interval.mean for interval in intervals],
                width=0.38,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                yerr=_error(intervals),
                error_kw={"ecolor": BLACK, "elinewidth": 1.2, "capsize": 3},
                label=label,
            )
            axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=9)
        axes.set_xticks(range(len(gates)), [gate.label for gate in gates])
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        drawn.legend(axes)
    return drawn.svg


def exit_accuracy_plot(curves: Mapping[HeadInput, AccuracyCurve], *, depth: int, levels: Sequence[Level] = ()) -> str:
    """Accuracy of a head behind each block, by what it reads.

    Args:
        curves: by what the heads read.
        depth: blocks of the tower.
        levels: full depth, to compare with.
    """
    with page("exits", "Accuracy of an exit head behind each block, by what it reads") as drawn:
        axes = drawn.axes("block", ACCURACY)
        for number, (reads, curve) in enumerate(curves.items()):
            values = [100 * accuracy for accuracy in curve.accuracy]
            draw_line(axes, number, READS[reads], curve.blocks, values)
            if curve.deviation:
                low = [value - 100 * spread for value, spread in zip(values, curve.deviation, strict=True)]
                high = [value + 100 * spread for value, spread in zip(values, curve.deviation, strict=True)]
                axes.fill_between(curve.blocks, low, high, color=COLOURS[number], alpha=0.18, linewidth=0)
        _draw_levels(axes, levels)
        block_axis(axes, depth)
        drawn.legend(axes)
    return drawn.svg


def quadrants_plot(quadrants: Quadrants) -> str:
    """The paper's four quadrants, each with its number and share of images."""
    cells = (
        (0, 1, "both right", quadrants.both_right, PALE_GREY),
        (1, 1, "rescue", quadrants.rescue, PALE_SKY),
        (0, 0, "loss", quadrants.loss, PALE_ORANGE),
        (1, 0, "both wrong", quadrants.both_wrong, PALE_GREY),
    )
    total = sum(count for *_, count, _ in cells)
    net = 100 * (quadrants.rescue - quadrants.loss) / total
    with page("quadrants", f"Rescue less loss: {net:+.2f} points", height_inches=3.2) as drawn:
        axes = drawn.axes("full depth", "with exits")
        for x, y, label, count, colour in cells:
            axes.add_patch(Rectangle((x + 0.015, y + 0.015), 0.97, 0.97, facecolor=colour, linewidth=0))
            axes.text(x + 0.5, y + 0.62, label, ha="center", va="center", fontsize=11)
            share = f"{count:,} ({100 * count / total:.1f} %)"
            axes.text(x + 0.5, y + 0.36, share, ha="center", va="center", fontsize=10)
        axes.set(xlim=(0, 2), ylim=(0, 2), xticks=[0.5, 1.5], yticks=[0.5, 1.5])
        axes.set_xticklabels(["right", "wrong"])
        axes.set_yticklabels(["wrong", "right"], rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"rescue less loss: {net:+.2f} points of {total:,} images", fontsize=10, loc="left")
    return drawn.svg


def _draw_levels(axes: Axes, levels: Sequence[Level]) -> None:
    for number, level in enumerate(levels):
        dashes = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))[number % 3]
        axes.axhline(100 * level.accuracy, color=GREY, linestyle=dashes, linewidth=1.4, label=level.label)


def _error(intervals: Sequence[Estimate | None]) -> list[list[float]]:
    """Distances from the means down and up in percent, never negative, as matplotlib wants them."""
    known = [interval for interval in intervals if interval is not None]
    below, above = [i.mean - i.low for i in known], [i.high - i.mean for i in known]
    return [[100 * max(distance, 0.0) for distance in distances] for distances in (below, above)]
