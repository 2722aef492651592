"""The parts of a bundle as functions on arrays, each an ONNX Runtime session made when it is first reached."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.buffers import TokenBuffers
from lraee.bundle import Bundle
from lraee.manifest import block_names
from lraee.policies.base import Verdict
from lraee.sessions import SessionSettings, make_session

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels that probabilities are about."""

    names: tuple[str, ...]
    matrix: FloatArray
    """(embed_dim, labels) float32, unit columns, contiguous: text embeddings transposed once."""


class Sessions:
    """Sessions of a bundle by part name, made once and shared by all threads."""

    def __init__(self, bundle: Bundle, settings: SessionSettings) -> None:
        self._bundle = bundle
        self._settings = settings
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._lock = threading.Lock()
        tower = bundle.manifest.tower
        self.buffers = TokenBuffers(tower.tokens, tower.width)

    def __getitem__(self, name: str) -> ort.InferenceSession:
        """The session of part `name`, whose files are verified before it is made."""
        session = self._sessions.get(name)
        if session is None:
            with self._lock:
                session = self._sessions.get(name)
                if session is None:
                    path = self._bundle.checked_part(self._bundle.manifest.part(name))
                    session = self._sessions[name] = make_session(path, self._settings)
        return session

    def warm(self) -> None:
        """Make the sessions of every part that `classify` may reach."""
        manifest = self._bundle.manifest
        names = ["stem", *block_names(manifest.tower.blocks), "tail", *(exit.part for exit in manifest.exits)]
        for name in names:
            self[name]


class Parts:
    """An image tower with its exits for one set of labels; see `lraee.orchestrator.Tower`."""

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
        """(batch, size, size, 3) uint8 to (batch, tokens, width) float32."""
        return self._sessions.buffers.run_stem(self._sessions["stem"], pixels)

    def block(self, number: int, tokens: FloatArray) -> FloatArray:
        """Block `number`, counted from 1; good until the next block but one runs on this thread."""
        name = self._blocks[number - 1]
        return self._sessions.buffers.run_block(name, self._sessions[name], tokens)

    def has_exit(self, number: int) -> bool:
        """Whether there is an exit behind block `number`."""
        return number in self._exits

    def exit(self, number: int, tokens: FloatArray, rows: NDArray[np.intp]) -> Verdict:
        """Head and gate behind block `number`."""
        embedding, probabilities, features, gate = self._sessions[self._exits[number]].run(
            ["embedding", "probabilities", "features", "gate"], {"tokens": tokens, **self._label_feed}
        )
        return Verdict(embedding, probabilities, features, gate, rows)

    def tail(self, tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Embedding and probabilities at full depth."""
        embedding, probabilities = self._sessions["tail"].run(
            ["embedding", "probabilities"], {"tokens": tokens, **self._label_feed}
        )
        return embedding, probabilities
