"""Run a batch once through the tower and every exit, then any number of policies over what was recorded.

The orchestrator is the runtime's own: it gets a tower whose tokens are row numbers and whose exits look their answers
up. A policy's decisions are therefore those of a real run, at the cost of one run for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee.engine.orchestrator import Answers, run
from lraee.model import Model
from lraee.policies import Full, Policy
from lraee.policies.base import Verdict
from lraee.policies.given_shares import EveryExit

FloatArray = NDArray[np.float32]


class Recording:
    """What stem, blocks, exits and tail said of one batch; a tower for `lraee.engine.orchestrator.run`."""

    def __init__(self, model: Model, pixels: NDArray[np.uint8], schedule: str | None = None) -> None:
        """Run the batch to the end.

        Args:
            model: a bundle, loaded.
            pixels: (batch, size, size, 3) uint8.
            schedule: merging schedule to run under, by name.
        """
        every_exit = EveryExit(Full(schedule))
        self._model, self._end = model, model.run_pixels(pixels, policy=every_exit)
        self._verdicts = every_exit.verdicts
        self.depth = model.manifest.tower.blocks

    def replay(self, policy: Policy) -> Answers:
        """Compute what a run of the batch under `policy` gives.

        Raises:
            PolicyError: the bundle lacks what the policy asks for.
        """
        numbers: NDArray[Any] = np.arange(len(self._end.exit_block))
        return run(self, numbers, policy.bind(self._model.manifest))

    def stem(self, pixels: NDArray[Any]) -> FloatArray:
        """Take row numbers, which stand for images."""
        return pixels.astype(np.float32)

    def block(self, number: int, tokens: FloatArray) -> FloatArray:
        """Pass the row numbers on, since nothing is left to compute."""
        return tokens

    def has_exit(self, number: int) -> bool:
        """Say whether the bundle has an exit after this block."""
        return number in self._verdicts

    def exit(self, number: int, tokens: FloatArray, rows: NDArray[np.intp]) -> Verdict:
        """Look up what the exit said of these rows."""
        asked, verdict = tokens.astype(np.intp), self._verdicts[number]
        return Verdict(
            embedding=verdict.embedding[asked],
            probabilities=verdict.probabilities[asked],
            features=verdict.features[asked],
            gate=verdict.gate[asked],
            rows=rows,
        )

    def tail(self, tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Look up what the tail said of these rows."""
        asked = tokens.astype(np.intp)
        return self._end.embedding[asked], self._end.probabilities[asked]
