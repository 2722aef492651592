"""Building blocks of reports: tables, the drawing of the tower, the commands that repeat an export."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lraee_benchmarks.render.page import table_html
from lraee_benchmarks.render.table import Table
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.report.command import commands_of
from lraee_toolchain.report.tower_drawing import TowerDrawing

TABLE = Table(title="T", header=["a|b", "n"], rows=[["x<y", "1.00 % [0.5, 2]"], ["`z`", "-"]], highlight=["`z`"])


def test_a_table_is_the_same_in_markdown_and_html() -> None:
    """Bars are escaped in one, angle brackets in the other; an interval is set apart."""
    assert TABLE.to_markdown() == "| a\\|b | n |\n| --- | ---: |\n| x<y | 1.00 % [0.5, 2] |\n| `z` | - |"
    html = table_html(TABLE)
    assert '<th scope="row">x&lt;y</th><td>1.00 % <span class="interval">[0.5, 2]</span></td>' in html
    assert '<tr class="chosen"><th scope="row"><code>z</code></th>' in html


@pytest.mark.parametrize("width", [360, 960])
@pytest.mark.parametrize("depth", [1, 12, 24])
def test_the_tower_fits_its_width(width: int, depth: int) -> None:
    """All boxes lie inside, whatever the depth and the shares."""
    exits = [depth]
    svg = TowerDrawing(depth=depth, exits=exits, shares={depth: 0.9}).svg(width)
    root = ElementTree.fromstring(svg)
    boxes = list(root.iter("rect"))
    assert len(boxes) == depth + (2 if width == 960 else 0)
    for box in boxes:
        assert float(box.get("x") or -1) >= 0
        assert float(box.get("x") or 0) + float(box.get("width") or 0) <= width


def test_the_tower_says_who_leaves_where() -> None:
    """As text for readers and beside each exit; the rest runs to the end."""
    tower = TowerDrawing(depth=12, exits=[4, 9], shares={4: 0.5, 9: 0.25}, dropped=[11])
    svg = tower.svg(960)
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert [text for text in texts if "%" in text] == ["50 %", "25 %", "25.0 % to the end"]
    assert svg.count("dropped") == 1
    assert tower.describe() == (
        "12 blocks; images that exit: 50.0 % after block 4, 25.0 % after block 9; 25.0 % run to the end."
    )
    unknown = TowerDrawing(depth=12, exits=[4, 9])
    assert "%" not in unknown.svg(960) + unknown.describe()


def test_the_stream_grows_thinner_by_what_leaves() -> None:
    """Heights of the band before and after an exit are as the shares."""
    svg = TowerDrawing(depth=4, exits=[2], shares={2: 0.75}).svg(960)
    path = re.search(r'class="stream" d="([^"]+)"', svg)
    assert path is not None
    heights = [float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)", path[1])]
    top = heights[-1]
    assert heights[2] - top == pytest.approx(0.25 * (heights[0] - top), abs=0.2)


def test_commands_repeat_an_export() -> None:
    """Defaults are left out, words are quoted for a shell, and no folder of this machine is told."""
    config = ExportConfig(
        model="local-dir:/home/somebody/my model",
        out=Path("/home/somebody/a.lraee"),
        train=Path("photos/mine"),
        exits=(4, 8),
        max_accuracy_drop=1.5,
        ablations=True,
        heads=HeadTraining(epochs=3),
        work=Path("/home/somebody/work"),
        overwrite=True,
    )
    assert commands_of(config) == [
        "lraee-export 'local-dir:my model' -o a.lraee --train photos/mine --exits 4,8 --max-accuracy-drop 1.5 "
        "--ablations --epochs 3",
        "lraee-bench a.lraee",
    ]
