"""Plots: well-formed, the same every time, self-contained, and with every name and number that was given."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib
import pytest

from lraee_benchmarks.analysis.intervals import Estimate
from lraee_toolchain.evaluation.metrics import ExitShare, Quadrants
from lraee_toolchain.quantization.noise import BlockNoise, EmbeddingDrift, NoiseProfile
from lraee_toolchain.report.plots.exits import (
    Front,
    Level,
    Marker,
    ReleasedAndKept,
    exit_accuracy_plot,
    exit_shares_plot,
    pareto_plot,
    quadrants_plot,
    selectivity_plot,
)
from lraee_toolchain.report.plots.noise import noise_plot, quality_plot

LEVELS = [Level(label="FP32, full depth", accuracy=0.633), Level(label="INT8, full depth", accuracy=0.587)]


def made_profile(depth: int = 12, *, noise: float = 1.0, pathological: int = 9) -> NoiseProfile:
    """Noise that grows with depth, with one block of low INR."""
    drift = EmbeddingDrift(cosine=0.9, angle_degrees=20.0, flipped=0.1)
    blocks = tuple(
        BlockNoise(
            block=block,
            delta_nat=100.0,
            delta_quant=noise * 4 * block,
            cosine=1 - noise * 0.005 * block,
            largest_float=10.0,
            largest_int8=9.5,
            signal=10.0 if block == pathological else 100.0,
            noise_variance=noise * 0.1 * block,
        )
        for block in range(1, depth + 1)
    )
    return NoiseProfile(images=100, blocks=blocks, embedding=drift)


def around(mean: float) -> Estimate:
    """Plus and minus a point."""
    return Estimate(mean=mean, low=mean - 0.01, high=mean + 0.01)


def draw_pareto() -> str:
    """Two methods and a chosen point with its interval."""
    return pareto_plot(
        [
            Front(label="PABEE", saved=(0.0, 0.1, 0.3), accuracy=(0.587, 0.611, 0.53)),
            Front(label='A<b>&"c"', saved=(0.0, 0.1, 0.3), accuracy=(0.587, 0.606, 0.52)),
        ],
        chosen=Marker(label="LRA-EE balanced", saved=0.134, accuracy=around(0.6116)),
        levels=LEVELS,
    )


DRAWN: dict[str, tuple[Callable[[], str], list[str]]] = {
    "noise": (
        lambda: noise_plot({"naive INT8": made_profile(), "strong INT8": made_profile(noise=0.2)}),
        ["block", "noise / change by block (%)", "naive INT8", "strong INT8", "paper, ViT-B/32", "1", "12"],
    ),
    "quality": (
        lambda: quality_plot({"naive INT8": made_profile()}, candidates=(8, 9, 10, 11)),
        ["block", "cosine to FP32", "INR (information / noise)", "naive INT8", "dropped exit"],
    ),
    "pareto": (
        draw_pareto,
        [
            *("FLOPs saved (%)", "top-1 accuracy (%)", "LRA-EE balanced", "PABEE"),
            *('A<b>&"c"', "FP32, full depth", "INT8, full depth"),
        ],
    ),
    "shares": (
        lambda: exit_shares_plot(
            [
                ExitShare(block=8, share=0.101),
                ExitShare(block=10, share=0.253),
                ExitShare(block=None, share=0.646),
            ]
        ),
        ["exit after block", "images (%)", "8", "10", "full depth", "10.1", "25.3", "64.6"],
    ),
    "selectivity": (
        lambda: selectivity_plot(
            [
                ReleasedAndKept(label="with exits", left=around(0.92), stayed=around(0.41)),
                ReleasedAndKept(label="full depth", left=around(0.688), stayed=around(0.37)),
            ]
        ),
        ["answered", "top-1 accuracy (%)", "exited", "went on", "full depth", "92", "41", "69", "37"],
    ),
    "exits": (
        lambda: exit_accuracy_plot(
            {"patch_mean": (0.47, 0.5, 0.6) * 4, "cls": (0.2, 0.4, 0.5) * 4, "both": (0.48, 0.5, 0.6) * 4},
            levels=LEVELS,
        ),
        ["block", "top-1 accuracy (%)", "mean patch token (SSA)", "class token", "both side by side", "12"],
    ),
    "quadrants": (
        lambda: quadrants_plot(Quadrants(both_right=5162, rescue=947, loss=710, both_wrong=3181)),
        [
            *("full depth", "with exits", "both right", "rescue", "loss", "both wrong", "5,162 (51.6 %)"),
            *("947 (9.5 %)", "rescue less loss: +2.37 points of 10,000 images"),
        ],
    ),
}
"""Every plot, and what must be readable in it."""


def texts(svg: str) -> list[str]:
    """What is written in a plot; parts of one text, such as raised exponents, are joined."""
    root = ElementTree.fromstring(svg)
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_says_what_it_shows(name: str) -> None:
    """Axes with units, every name that was given, and for screen readers one sentence."""
    draw, wanted = DRAWN[name]
    svg = draw()
    assert set(wanted) - set(texts(svg)) == set()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert len(root.get("aria-label") or "") > 10


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_data_give_the_same_bytes(name: str) -> None:
    """Reports of equal exports are equal; a user's own matplotlib settings do not show."""
    draw, _ = DRAWN[name]
    first = draw()
    with matplotlib.rc_context({"font.size": 23, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw() == first
        assert matplotlib.rcParams["font.size"] == 23, "and they are as before afterwards"
    assert str(matplotlib.rcParams["svg.hashsalt"]) == "None"


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_can_stand_inside_a_page(name: str) -> None:
    """No prolog, date, style sheet or script, nothing from elsewhere, no fixed size, each id once and used."""
    svg = DRAWN[name][0]()
    assert svg.startswith("<svg ")
    for foreign in ("<?xml", "<!DOCTYPE", "<metadata", "<style", "<script", "<image", "dc:date"):
        assert foreign not in svg
    assert set(re.findall(r'https?://[^"]+', svg)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    head = svg[: svg.index(">")]
    assert 'viewBox="0 0 345.6 ' in head
    assert 'width="100%"' in head
    assert "height" not in head
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert set(ids) == set(re.findall(r'(?:href="|url\()#([^")]+)', svg))


def test_all_plots_in_one_page_share_no_id_of_different_meaning() -> None:
    """An id that two plots share would show one plot's shape in the other."""
    meanings: dict[str, str] = {}
    for draw, _ in DRAWN.values():
        root = ElementTree.fromstring(draw())
        for element in root.iter():
            if name := element.get("id"):
                text = ElementTree.tostring(element, encoding="unicode")
                assert meanings.setdefault(name, text) == text


def test_the_papers_curve_follows_another_depth() -> None:
    """On a tower of 24 blocks it is drawn by share of the depth, and says so."""
    assert "paper, ViT-B/32, by share of depth" in texts(noise_plot({"naive INT8": made_profile(24)}))


def test_nothing_is_crossed_out_where_no_exit_is_dropped() -> None:
    """The legend does not speak of what is not there."""
    svg = quality_plot({"naive INT8": made_profile(pathological=0)}, candidates=(8, 9, 10, 11))
    assert "dropped exit" not in texts(svg)


def test_a_profile_without_noise_can_be_drawn() -> None:
    """Its INR is infinite: the line is missing, the plot is not."""
    svg = quality_plot({"naive INT8": made_profile(noise=0.0)}, candidates=(8, 9))
    assert "INR (information / noise)" in texts(svg)
    assert "naive INT8" in texts(noise_plot({"naive INT8": made_profile(noise=0.0)}))


def test_a_front_needs_no_chosen_point() -> None:
    """A model where no exit pays has a front of one point."""
    svg = pareto_plot([Front(label="gating split", saved=(0.0,), accuracy=(0.6,))], chosen=None, levels=LEVELS)
    assert "gating split" in texts(svg)


def test_plots_leave_pyplot_alone() -> None:
    """It keeps figures in a global and asks for a display."""
    code = "import sys, lraee_toolchain.report.plots.noise, lraee_toolchain.report.plots.exits as p\n"
    code += "p.quadrants_plot(p.Quadrants(both_right=1, rescue=1, loss=0, both_wrong=0))\n"
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
