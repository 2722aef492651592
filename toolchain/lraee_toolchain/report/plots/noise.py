"""Plots of INT8 noise over the blocks, each from noise profiles to an SVG string for an HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lraee_toolchain.config.options import Precision
from lraee_toolchain.quantization.noise import PAPER_NOISE_CURVE, NoiseProfile, inr_limit, pathological
from lraee_toolchain.report.plots.style import BLACK, COLOURS, GREY, block_axis, draw_line, page


def noise_plot(profiles: Mapping[Precision, NoiseProfile]) -> str:
    """Draw noise against signal of every block, one line for each precision, and the paper's curve, dashed.

    The paper's curve is drawn over the same share of the depth. Profiles are all of one depth.
    """
    depth = max(len(profile.blocks) for profile in profiles.values())
    with page("noise", "Quantization noise relative to what each block changes, by block") as drawn:
        axes = drawn.axes("block", "noise / change by block (%)")
        for number, (label, profile) in enumerate(profiles.items()):
            values = [100 * block.noise_to_signal for block in profile.blocks]
            draw_line(axes, number, label, [block.block for block in profile.blocks], values)
        x = [block * depth / len(PAPER_NOISE_CURVE) for block in range(1, len(PAPER_NOISE_CURVE) + 1)]
        words = "paper, ViT-B/32" if depth == len(PAPER_NOISE_CURVE) else "paper, ViT-B/32, by share of depth"
        axes.plot(x, PAPER_NOISE_CURVE, color=GREY, linestyle=(0, (4, 3)), label=words)
        axes.set_ylim(bottom=0)
        block_axis(axes, depth)
        drawn.legend(axes)
    return drawn.svg


def quality_plot(profiles: Mapping[Precision, NoiseProfile], *, candidates: Sequence[int]) -> str:
    """Draw cosine and Information-to-Noise Ratio of every block, with the exits that pruning drops crossed out.

    Args:
        profiles: by precision, all of one depth; each is pruned by its own ratios.
        candidates: blocks that may get an exit.
    """
    depth = max(len(profile.blocks) for profile in profiles.values())
    description = "Cosine of INT8 to FP32 and information-to-noise ratio, by block"
    with page("quality", description, height_inches=5.0) as drawn:
        upper, lower = drawn.figure.subplots(2, 1, sharex=True)
        crossed = False
        for number, (label, profile) in enumerate(profiles.items()):
            blocks = [block.block for block in profile.blocks]
            draw_line(upper, number, label, blocks, [block.cosine for block in profile.blocks])
            ratios = [_finite(block.information_to_noise) for block in profile.blocks]
            draw_line(lower, number, label, blocks, ratios)
            limit = inr_limit(profile, candidates)
            if limit > 0:
                ends = [min(candidates) - 0.4, max(candidates) + 0.4]
                lower.plot(ends, [limit] * 2, color=COLOURS[number], linestyle=":", linewidth=1.4)
            dropped = pathological(profile, candidates)
            for axes, values in ((upper, [b.cosine for b in profile.blocks]), (lower, ratios)):
                axes.plot(
                    dropped,
                    [values[block - 1] for block in dropped],
                    linestyle="none",
                    marker="x",
                    markersize=11,
                    markeredgewidth=2.2,
                    color=BLACK,
                    label="dropped exit" if dropped and not crossed and axes is upper else None,
                )
            crossed = crossed or bool(dropped)
        upper.plot([], [], color=GREY, linestyle=":", linewidth=1.4, label="half the candidates' mean")
        upper.set_ylabel("cosine to FP32")
        lower.set_ylabel("INR (information / noise)")
        lower.set_yscale("log")
        lower.set_xlabel("block")
        block_axis(lower, depth)
        drawn.legend(upper)
    return drawn.svg


def _finite(value: float) -> float:
    """Turn infinite ratios into gaps of the line."""
    return value if math.isfinite(value) else math.nan
