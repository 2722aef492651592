"""How long a block takes here for so many tokens and pairs, for schedules that are to save time and not FLOPs.

Blocks are alike but for their weights, on which time does not depend. So one INT8 block, rounded within made-up ranges,
is timed for some numbers of tokens and of pairs, interleaved, and other numbers are interpolated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.ort.sessions import SessionSettings, make_session
from lraee_benchmarks.running.rounds import time_in_turn
from lraee_exporters.graphs.block import QUANTIZED_INPUTS, BlockForm, build_block, quantize_block
from lraee_exporters.graphs.pooling.merging import most_merged
from lraee_exporters.int8.linear import ActivationRange
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.scheduled import Schedule

THREADS = 1
"""That run a block; what boards with one image at a time use first."""

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the tower's tokens, for which blocks are timed."""

PAIRS = (0.0, 0.03, 0.1, 0.3)
"""Of the tokens that come in, merged."""

ROUNDS = 40

RANGE = ActivationRange(minimum=-4.0, maximum=4.0)


class BlockTimes:
    """Estimates the time of a tower's blocks under any schedule."""

    def __init__(self, tower: Tower) -> None:
        """Time one block in several forms; some seconds.

        Args:
            tower: gives shapes and weights.
        """
        self._tower = tower
        self._tokens = sorted({max(4, round(share * tower.tokens)) for share in SHARES})
        forms = [self._form(tokens, share) for tokens in self._tokens for share in PAIRS]
        last = self._form(tower.tokens, 0.0, class_only=tower.has_class_token)
        times = _time_forms(tower, [*forms, last])
        grid = (len(self._tokens), len(PAIRS))
        self._shares = np.array([form.merged / form.token_count for form in forms]).reshape(grid)
        self._grid = times[:-1].reshape(grid)
        self._last = float(times[-1])

    def _form(self, tokens: int, share: float, *, class_only: bool = False) -> BlockForm:
        most = most_merged(tokens, class_token=self._tower.has_class_token)
        merged = 0 if share == 0 else min(most, max(1, round(share * tokens)))
        return BlockForm(
            token_count=tokens,
            merged=merged,
            sized=not class_only,
            class_token=self._tower.has_class_token,
            class_only=class_only,
        )

    def milliseconds(self, schedule: Schedule) -> float:
        """Estimate the time of all blocks for one image; the last is taken as with all tokens."""
        tokens, total = self._tower.tokens, 0.0
        for merged in schedule[:-1]:
            total += self._one(tokens, merged)
            tokens -= merged
        return total + self._last

    def saving(self, schedule: Schedule) -> float:
        """Give the share of the blocks' time that a schedule saves, below 0 where it takes longer."""
        return 1 - self.milliseconds(schedule) / self.milliseconds((0,) * self._tower.depth)

    def _one(self, tokens: int, merged: int) -> float:
        """Interpolate between the forms that were timed."""
        share = merged / tokens
        rows = [np.interp(share, shares, row) for shares, row in zip(self._shares, self._grid, strict=True)]
        return float(np.interp(tokens, self._tokens, rows))


def _time_forms(tower: Tower, forms: Sequence[BlockForm]) -> NDArray[np.float64]:
    """Give the median milliseconds of one block in each form, one image at a time."""
    ranges = dict.fromkeys(QUANTIZED_INPUTS, RANGE)
    weights = quantize_block(tower.blocks[0], tower.activation, ranges)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder, calls = Path(name), []
        for number, form in enumerate(forms, start=1):
            graph, file = build_block(weights, form, number=number)
            file.save(folder)
            session = make_session(graph.save(folder), SessionSettings(threads=THREADS))
            tokens = generator.normal(size=(1, form.token_count, tower.width)).astype(np.float32)
            sizes = {"sizes": np.ones((1, form.token_count, 1), np.float32)} if form.sized else {}
            calls.append(_Call(session, {"tokens": tokens, **sizes}))
        return np.asarray(np.median(time_in_turn(calls, ROUNDS, warmup_rounds=3), axis=0))


class _Call:
    """One run of a session."""

    def __init__(self, session: ort.InferenceSession, feed: dict[str, NDArray[np.float32]]) -> None:
        self._session, self._feed = session, feed

    def __call__(self) -> object:
        """Run it."""
        return self._session.run(None, self._feed)
