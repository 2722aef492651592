"""Gives the parts of a bundle as functions on arrays; each runs an ONNX Runtime session."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lraee.arrays import FloatArray
from lraee.bundle.folder import Bundle
from lraee.engine.part_sessions import Sessions
from lraee.engine.sized_tokens import SizedTokens, Tokens, feed_of, run_sized_block
from lraee.labels.matrix import Labels
from lraee.policies.base import Route, Verdict, schedule_of


class Parts:
    """Runs an image tower with its exits for one set of labels; see `lraee.engine.orchestrator.Tower`."""

    def __init__(self, bundle: Bundle, sessions: Sessions, labels: Labels, schedule: str | None = None) -> None:
        """Look up the parts.

        Args:
            bundle: that holds them.
            sessions: of its parts.
            labels: to classify among.
            schedule: name of the merging schedule under which the parts run; None merges nothing.

        Raises:
            BundleError: there is no such schedule.
        """
        self.labels, self.schedule = labels, schedule
        self._bundle, self._sessions = bundle, sessions
        chosen = bundle.manifest.schedule(schedule)
        self._exits = {exit.block: exit.part for exit in chosen.exits}
        self._blocks, self._tail, self._merged = chosen.blocks, chosen.tail, chosen.merged
        self._label_feed = {
            "label_matrix": labels.matrix,
            "logit_scale": np.array(bundle.manifest.logit_scale, np.float32),
        }
        self.depth = bundle.manifest.tower.blocks
        self._others: dict[str | None, Parts] = {}  # never with itself: a model that nobody holds is freed at once

    def under(self, schedule: str | None) -> Parts:
        """Give the parts of the same bundle, for the same labels, under a merging schedule."""
        if schedule == self.schedule:
            return self
        if schedule not in self._others:
            self._others[schedule] = Parts(self._bundle, self._sessions, self.labels, schedule)
        return self._others[schedule]

    def with_labels(self, labels: Labels) -> Parts:
        """Give the parts of the same bundle for other labels, under the same schedule; sessions are shared."""
        return Parts(self._bundle, self._sessions, labels, self.schedule)

    def for_route(self, route: Route) -> Parts:
        """Give the parts that a route runs: those of its merging schedule, if it asks for one."""
        return self.under(schedule_of(route))

    def stem(self, pixels: NDArray[np.uint8]) -> FloatArray:
        """Turn pixels (batch, size, size, 3) uint8 into tokens (batch, tokens, width) float32."""
        tokens = self._sessions.buffers.run_stem(self._sessions["stem"], pixels)
        self._sessions.rest("stem")
        return tokens

    def block(self, number: int, tokens: Tokens) -> Tokens:
        """Run block `number`, counted from 1; the output is valid until two more blocks have run on this thread."""
        name, merged = self._blocks[number - 1], self._merged[number - 1] > 0
        session, after = self._sessions[name], tokens
        if isinstance(tokens, SizedTokens) or merged:
            after = run_sized_block(session, tokens, merged=merged)
        else:
            after = self._sessions.buffers.run_block(name, session, tokens)
        self._sessions.rest(name)
        return after

    def has_exit(self, number: int) -> bool:
        """Tell whether there is an exit after block `number`."""
        return number in self._exits

    def exit(self, number: int, tokens: Tokens, rows: NDArray[np.intp]) -> Verdict:
        """Evaluate head and gate of the exit after block `number`."""
        name = self._exits[number]
        embedding, probabilities, features, gate = self._sessions[name].run(
            ["embedding", "probabilities", "features", "gate"], {**feed_of(tokens), **self._label_feed}
        )
        self._sessions.rest(name)
        return Verdict(embedding, probabilities, features, gate, rows)

    def tail(self, tokens: Tokens) -> tuple[FloatArray, FloatArray]:
        """Give embedding and probabilities at full depth."""
        read = feed_of(tokens)
        given = {"tokens": read["tokens"]} if self._tail == "tail" else read  # a class token needs no size
        embedding, probabilities = self._sessions[self._tail].run(
            ["embedding", "probabilities"], {**given, **self._label_feed}
        )
        self._sessions.rest(self._tail)
        return embedding, probabilities
