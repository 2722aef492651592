"""Gives the parts of a bundle as functions on arrays; each runs an ONNX Runtime session."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lraee.arrays import FloatArray
from lraee.bundle.folder import Bundle
from lraee.bundle.manifest import block_names
from lraee.engine.part_sessions import Sessions
from lraee.labels.matrix import Labels
from lraee.policies.base import Verdict


class Parts:
    """Runs an image tower with its exits for one set of labels; see `lraee.engine.orchestrator.Tower`."""

    def __init__(self, bundle: Bundle, sessions: Sessions, labels: Labels) -> None:
        self.labels = labels
        self._sessions = sessions
        self._exits = {exit.block: exit.part for exit in bundle.manifest.exits}
        self._blocks = block_names(bundle.manifest.tower.blocks)
        self._label_feed = {
            "label_matrix": labels.matrix,
            "logit_scale": np.array(bundle.manifest.logit_scale, np.float32),
        }
        self.depth = bundle.manifest.tower.blocks

    def stem(self, pixels: NDArray[np.uint8]) -> FloatArray:
        """Turn pixels (batch, size, size, 3) uint8 into tokens (batch, tokens, width) float32."""
        tokens = self._sessions.buffers.run_stem(self._sessions["stem"], pixels)
        self._sessions.rest("stem")
        return tokens

    def block(self, number: int, tokens: FloatArray) -> FloatArray:
        """Run block `number`, counted from 1; the output is valid until two more blocks have run on this thread."""
        name = self._blocks[number - 1]
        tokens = self._sessions.buffers.run_block(name, self._sessions[name], tokens)
        self._sessions.rest(name)
        return tokens

    def has_exit(self, number: int) -> bool:
        """Tell whether there is an exit after block `number`."""
        return number in self._exits

    def exit(self, number: int, tokens: FloatArray, rows: NDArray[np.intp]) -> Verdict:
        """Evaluate head and gate of the exit after block `number`."""
        name = self._exits[number]
        embedding, probabilities, features, gate = self._sessions[name].run(
            ["embedding", "probabilities", "features", "gate"], {"tokens": tokens, **self._label_feed}
        )
        self._sessions.rest(name)
        return Verdict(embedding, probabilities, features, gate, rows)

    def tail(self, tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Give embedding and probabilities at full depth."""
        embedding, probabilities = self._sessions["tail"].run(
            ["embedding", "probabilities"], {"tokens": tokens, **self._label_feed}
        )
        self._sessions.rest("tail")
        return embedding, probabilities
