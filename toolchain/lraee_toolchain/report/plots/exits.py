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
from lraee_toolchain.evaluation.metrics import ExitShare, Quadrants
from lraee_toolchain.report.names import HEADS
from lraee_toolchain.report.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALE_GREY,
    PALE_ORANGE,
    PALE_SKY,
    block_axis,
    draw_line,
    page,
)

ACCURACY = "top-1 accuracy (%)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One way to run the model, as a point of `pareto_plot`."""

    label: str
    """In the legend."""
    saved: float
    """Share of full-depth FLOPs."""
    accuracy: Estimate
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Accuracies and savings of one method at several thresholds."""

    label: str
    """Of the method."""
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
class ReleasedAndKept:
    """Accuracy of the images that gates release and of those that they keep."""

    label: str
    """How both were answered."""
    left: Estimate
    stayed: Estimate


def pareto_plot(fronts: Sequence[Front], *, chosen: Marker | None, levels: Sequence[Level]) -> str:
    """Draw accuracy over FLOPs saved.

    Args:
        fronts: one for each method.
        chosen: the operating point, or None.
        levels: full depth in FP32 and INT8.
    """
    with page("pareto", "Top-1 accuracy over the share of FLOPs saved", height_inches=4.6) as drawn:
        axes = drawn.axes("FLOPs saved (%)", ACCURACY)
        _draw_levels(axes, levels)
        for number, front in enumerate(fronts):
            saved, accuracy = [100 * s for s in front.saved], [100 * a for a in front.accuracy]
            draw_line(axes, number, front.label, saved, accuracy, marker=".")
        if chosen is not None:
            axes.errorbar(
                100 * chosen.saved,
                100 * chosen.accuracy.mean,
                yerr=_error([chosen.accuracy]),
                fmt="*",
                markersize=13,
                color=BLACK,
                elinewidth=1.2,
                zorder=4,
                label=chosen.label,
            )
        axes.margins(x=0.08, y=0.12)
        drawn.legend(axes)
    return drawn.svg


def exit_shares_plot(shares: Sequence[ExitShare]) -> str:
    """Draw where images leave; `shares` are in order of depth, those of full depth last."""
    with page("shares", "Share of images that exit after each block", height_inches=3.0) as drawn:
        axes = drawn.axes("exit after block", "images (%)")
        heights = [100 * place.share for place in shares]
        colours = [GREY if place.block is None else BLUE for place in shares]
        bars = axes.bar(range(len(shares)), heights, width=0.65, color=colours)
        axes.bar_label(bars, fmt="{:.1f}", padding=3, fontsize=9)
        axes.set_xticks(range(len(shares)), [str(place.block or "full depth") for place in shares])
        axes.margins(y=0.15)
    return drawn.svg


def selectivity_plot(gates: Sequence[ReleasedAndKept]) -> str:
    """Draw the accuracy of the images that exited next to that of those that went on, one pair of bars each."""
    with page("selectivity", "Accuracy of the images that exited and of those that went on") as drawn:
        axes = drawn.axes("answered", ACCURACY)
        sides = ((-0.2, BLUE, "", "exited", [g.left for g in gates]),
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


def exit_accuracy_plot(curves: Mapping[HeadInput, Sequence[float]], *, levels: Sequence[Level] = ()) -> str:
    """Draw the accuracy of a head after each block.

    Args:
        curves: accuracies of blocks 1, 2, ..., 0 to 1, by what the heads read.
        levels: full depth, to compare with.
    """
    with page("exits", "Accuracy of an exit head after each block, by what it reads") as drawn:
        axes = drawn.axes("block", ACCURACY)
        for number, (reads, curve) in enumerate(curves.items()):
            blocks = range(1, len(curve) + 1)
            draw_line(axes, number, HEADS[reads], blocks, [100 * accuracy for accuracy in curve])
        _draw_levels(axes, levels)
        block_axis(axes, max(len(curve) for curve in curves.values()))
        drawn.legend(axes)
    return drawn.svg


def quadrants_plot(quadrants: Quadrants) -> str:
    """Draw the paper's four quadrants, each with its number and share of images."""
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
            share = f"{count:,.0f} ({100 * count / total:.1f} %)"
            axes.text(x + 0.5, y + 0.36, share, ha="center", va="center", fontsize=10)
        axes.set(xlim=(0, 2), ylim=(0, 2), xticks=[0.5, 1.5], yticks=[0.5, 1.5])
        axes.set_xticklabels(["right", "wrong"])
        axes.set_yticklabels(["wrong", "right"], rotation=90, va="center")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"rescue less loss: {net:+.2f} points of {total:,.0f} images", fontsize=10, loc="left")
    return drawn.svg


def _draw_levels(axes: Axes, levels: Sequence[Level]) -> None:
    for number, level in enumerate(levels):
        dashes = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))[number % 3]
        axes.axhline(100 * level.accuracy, color=GREY, linestyle=dashes, linewidth=1.4, label=level.label)


def _error(intervals: Sequence[Estimate]) -> list[list[float]]:
    """Give distances from the means down and up in percent, never negative, as matplotlib wants them."""
    below, above = [i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]
    return [[100 * max(distance, 0.0) for distance in distances] for distances in (below, above)]
