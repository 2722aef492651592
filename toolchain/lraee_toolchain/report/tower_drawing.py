"""The tower as a drawing: its blocks in a row, and under them the stream of images, which grows thinner at each exit.

Colours come from the page's style sheet, so the drawing follows light and dark.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BLOCKS_TOP, BLOCK_HEIGHT = 8.0, 38.0
STREAM_TOP, STREAM_HEIGHT = 56.0, 64.0
CORNER = 6.0
"""Inner radius where images turn off."""
DROP = 24.0
"""From the stream's lower edge to the arrow's end."""
STUB = 3.0
"""Width of an exit whose share is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerDrawing:
    """The tower and what images do in it."""

    depth: int
    exits: Sequence[int]
    """Blocks with an exit, rising."""
    shares: Mapping[int, float] | None = None
    """Share of images that exit after each block, 0 to 1; None when not known."""
    dropped: Sequence[int] = ()
    """Blocks where quantization noise forbids an exit."""

    def svg(self, width: int) -> str:
        """Draw an ``<svg>`` element `width` units wide; one unit should be about one pixel."""
        return _Draw(self, width).svg()

    def describe(self) -> str:
        """Describe the drawing for screen readers."""
        if not self.exits:
            return f"{self.depth} blocks without exits."
        if self.shares is None:
            return f"{self.depth} blocks; exits after {', '.join(str(block) for block in self.exits)}."
        left = ", ".join(f"{100 * self.shares.get(block, 0.0):.1f} % after block {block}" for block in self.exits)
        return f"{self.depth} blocks; images that exit: {left}; {100 * self.rest:.1f} % run to the end."

    @property
    def rest(self) -> float:
        """Share of images that run to the end."""
        return max(1 - sum((self.shares or {}).values()), 0.0)


class _Draw:
    """Computes the coordinates for one width."""

    def __init__(self, tower: TowerDrawing, width: int) -> None:
        self.tower, self.width = tower, width
        self.is_wide = width >= 600
        ends = 1.5 if self.is_wide else 0.0  # stem and tail, in blocks; small drawings name blocks only
        self.unit = (width - 8) / (tower.depth + 2 * ends)
        self.start = 4 + ends * self.unit
        largest = max((tower.shares or {}).values(), default=0.0)
        self.scale = min(STREAM_HEIGHT, 0.9 * self.unit / largest) if largest > 0 else STREAM_HEIGHT
        if tower.shares is None:
            self.scale = 20.0
        self.bottom = STREAM_TOP + self.scale + CORNER + DROP

    def right(self, block: int) -> float:
        """Return where `block` ends on x; block 0 is the stem."""
        return self.start + block * self.unit

    def svg(self) -> str:
        """Draw everything."""
        height = self.bottom + 24
        parts = [*self._ends(), *(self._block(block) for block in range(1, self.tower.depth + 1))]
        parts += self._stream()
        return (
            f'<svg class="tower" viewBox="0 0 {self.width} {height:.0f}" role="img" '
            f'aria-label="{html.escape(self.tower.describe())}">{"".join(parts)}</svg>'
        )

    def _ends(self) -> list[str]:
        if not self.is_wide:
            return []
        width = 1.5 * self.unit
        return [
            self._box("end", 4, width, "stem"),
            self._box("end", self.right(self.tower.depth), width, "tail"),
        ]

    def _block(self, block: int) -> str:
        kind = "block exit" if block in self.tower.exits else "block"
        kind += " dropped" if block in self.tower.dropped else ""
        shown = self.unit >= 15 or block in (1, self.tower.depth) or block in self.tower.exits
        return self._box(kind, self.right(block - 1), self.unit, str(block) if shown else "")

    def _box(self, kind: str, x: float, width: float, text: str) -> str:
        gap = min(3.0, 0.12 * width)
        box = f'<rect x="{x + gap / 2:.1f}" y="{BLOCKS_TOP}" width="{width - gap:.1f}" height="{BLOCK_HEIGHT}" rx="4"/>'
        label = f'<text x="{x + width / 2:.1f}" y="{BLOCKS_TOP + BLOCK_HEIGHT / 2 + 4.5}">{text}</text>' if text else ""
        return f'<g class="{kind}">{box}{label}</g>'

    def _stream(self) -> list[str]:
        shares = self.tower.shares
        end = self.width - 4.0
        remaining, leaving = 1.0, []
        lower = [(4.0, STREAM_TOP + self.scale)]
        for block in self.tower.exits:
            x, low = self.right(block), STREAM_TOP + self.scale * remaining
            share = 0.0 if shares is None else shares.get(block, 0.0)
            thickness = STUB if shares is None else self.scale * share
            if thickness > 0:
                leaving.append(self._leave(x, low, thickness))
                leaving.append(self._label(x + CORNER + thickness / 2, None if shares is None else share))
            remaining -= share
            lower += [(x, low), (x, low - self.scale * share)]
        lower.append((end, lower[-1][1]))
        edge = " ".join(f"L{x:.1f} {y:.1f}" for x, y in lower)
        stream = f'<path class="stream" d="M4 {STREAM_TOP} {edge} L{end:.1f} {STREAM_TOP} Z"/>'
        rest = ""
        if shares is not None:
            words = f"{100 * self.tower.rest:.1f} % to the end" if self.is_wide else f"{100 * self.tower.rest:.0f}"
            y = self.bottom + 16
            rest = f'<text class="rest" x="{end:.1f}" y="{y:.1f}">{words}</text>'
        return [stream, *leaving, rest]

    def _leave(self, x: float, low: float, thickness: float) -> str:
        """Draw a band that turns off the stream's lower edge and runs down."""
        outer, down = CORNER + thickness, max(self.bottom, low + CORNER + 8)
        turn, near, far = low + CORNER, x + CORNER, x + outer
        around = f"A{outer:.1f} {outer:.1f} 0 0 1 {far:.1f} {turn:.1f}"
        back = f"V{turn:.1f} A{CORNER} {CORNER} 0 0 0 {x:.1f} {low:.1f}"
        edge = f"M{x:.1f} {low - thickness:.1f} {around} V{down:.1f} H{near:.1f} {back} Z"
        return f'<path class="leave" d="{edge}"/>'

    def _label(self, x: float, share: float | None) -> str:
        digits = 1 if self.is_wide and share is not None and share < 0.1 else 0  # labels of neighbours must not touch
        words = "exit" if share is None else f"{100 * share:.{digits}f}" + (" %" if self.is_wide else "")
        return f'<text x="{x:.1f}" y="{self.bottom + 16:.1f}">{words}</text>'
