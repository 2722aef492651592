"""Run exported parts from a folder during an export, before there is a bundle."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.bundle.manifest import block_names
from lraee.engine.sized_tokens import Tokens, feed_of, run_sized_block
from lraee.ort.sessions import SessionSettings, make_session
from lraee.ort.threads import fitting_threads
from lraee_exporters.graphs.block import QUANTIZED_INPUTS
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_toolchain.parts.scheduled import ScheduledParts

FloatArray = NDArray[np.float32]

BATCH = 16
"""Images that run together; bounds memory."""


def batches(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut an array, which may be memory-mapped, along its first axis into contiguous batches of `BATCH`."""
    return (np.ascontiguousarray(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH))


def run_part(graph: GraphBuilder, file: WeightFile, name: str, inputs: Iterable[NDArray[Any]]) -> Iterator[FloatArray]:
    """Run a stem or block that is not saved yet.

    Args:
        graph: with the output `tokens_out`.
        file: its weights.
        name: of its input.
        inputs: batches of images, such as `batches` gives.

    Yields:
        The outputs of each batch, (images, tokens, width).
    """
    with tempfile.TemporaryDirectory() as folder:
        file.save(Path(folder))
        session = make_session(graph.save(Path(folder)), SessionSettings())
        for batch in inputs:
            yield session.run(["tokens_out"], {name: batch})[0]


class Chain:
    """Stem, blocks and tail of one folder; sessions are made when first used."""

    def __init__(
        self,
        folder: Path,
        depth: int,
        label_matrix: FloatArray,
        logit_scale: float,
        *,
        sigmoid: bool = False,
        threads: int | None = None,
    ) -> None:
        """Name the folder.

        Args:
            folder: holds ``stem.onnx``, ``block_NN.onnx``, ``tail.onnx``, and where there is a class token for the
                last block also ``block_NN_class.onnx``.
            depth: number of blocks.
            label_matrix: (embed_dim, labels) float32.
            logit_scale: factor on the cosine.
            sigmoid: whether the tail's probabilities are sigmoids.
            threads: that run one operator; None takes one for each core that the process may use.
        """
        self._folder = folder
        self.schedule: ScheduledParts | None = None
        self._merged: Path | None = None
        wanted = SessionSettings(threads=threads).thread_count
        fitting = fitting_threads(wanted, sessions=depth + 3)  # the class token's block has two
        self._settings = SessionSettings(threads=fitting)
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._labels = {"label_matrix": label_matrix, "logit_scale": np.array(logit_scale, np.float32)}
        self._sigmoid = sigmoid
        self.names = block_names(depth)

    def under(self, schedule: ScheduledParts, folder: Path) -> Chain:
        """Give the same chain with the parts of a merging schedule, which `sized_after_blocks` and `tail` run.

        Args:
            schedule: names them.
            folder: where those lie that this chain's folder lacks.
        """
        chain = copy.copy(self)
        chain.schedule, chain._merged = schedule, folder
        return chain

    def without_saturation(self) -> Chain:
        """Give the same chain for parts whose products cannot saturate: its sessions take the fast kernel."""
        chain = copy.copy(self)
        chain._settings, chain._sessions = replace(self._settings, saturates=False), {}
        return chain

    def session(self, name: str) -> ort.InferenceSession:
        """Return the session of part `name`, made when it is first asked for."""
        if name not in self._sessions:
            path = self._folder / f"{name}.onnx"
            if self._merged is not None and not path.is_file():
                path = self._merged / path.name
            self._sessions[name] = make_session(path, self._settings)
        return self._sessions[name]

    def has(self, name: str) -> bool:
        """Tell whether the folder holds part `name`."""
        return (self._folder / f"{name}.onnx").is_file()

    def drop(self, name: str) -> None:
        """Free the session of part `name`."""
        self._sessions.pop(name, None)

    def stem(self, pixels: NDArray[np.uint8]) -> FloatArray:
        """Turn (batch, size, size, 3) uint8 into tokens (batch, tokens, width)."""
        tokens: FloatArray = self.session("stem").run(["tokens_out"], {"pixels": pixels})[0]
        return tokens

    def after_blocks(self, pixels: NDArray[np.uint8]) -> Iterator[FloatArray]:
        """Yield tokens before block 1, then after each block."""
        tokens = self.stem(pixels)
        yield tokens
        for name in self.names:
            tokens = self.session(name).run(["tokens_out"], {"tokens": tokens})[0]
            yield tokens

    def sized_after_blocks(self, pixels: NDArray[np.uint8]) -> Iterator[Tokens]:
        """Yield tokens before block 1, then after each block of the schedule, with their sizes once some are merged.

        Under a schedule the last block gives the class token alone where there is one.
        """
        if self.schedule is None:
            yield from self.after_blocks(pixels)
            return
        tokens: Tokens = self.stem(pixels)
        yield tokens
        for name, merged in zip(self.schedule.blocks, self.schedule.merged, strict=True):
            tokens = run_sized_block(self.session(name), tokens, merged=merged > 0)
            yield tokens

    def run_block(self, name: str, tokens: FloatArray) -> FloatArray:
        """Run one block on any number of images, (images, tokens, width) in and out."""
        session = self.session(name)
        return np.concatenate([session.run(["tokens_out"], {"tokens": batch})[0] for batch in batches(tokens)])

    def tail(self, tokens: Tokens) -> tuple[FloatArray, FloatArray]:
        """Compute embedding (batch, embed_dim) and softmax over the labels (batch, labels); exits learn from both."""
        name = "tail" if self.schedule is None else self.schedule.tail
        read = feed_of(tokens)
        given = {"tokens": read["tokens"]} if name == "tail" else read
        embedding, probabilities = self.session(name).run(["embedding", "probabilities"], {**given, **self._labels})
        if self._sigmoid:
            logits = embedding @ self._labels["label_matrix"] * self._labels["logit_scale"]
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        return embedding, probabilities

    def stages(self, pixels: NDArray[np.uint8]) -> list[FloatArray]:
        """Tokens before block 1, after each block, and the embedding, for `check_parity`.

        The embedding is made by the parts of a bundle, whose last block computes the class token alone if it can.
        """
        tokens = list(self.after_blocks(pixels))
        last, class_only = tokens[-1], f"{self.names[-1]}_class"
        if self.has(class_only):
            last = self.session(class_only).run(["tokens_out"], {"tokens": tokens[-2]})[0]
        return [*tokens, self.tail(last)[0]]

    def observe_block(self, name: str, tokens: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Run ``<name>.observed.onnx``: tokens after the block and its `QUANTIZED_INPUTS`."""
        wanted = [f"observed_{value}" for value in QUANTIZED_INPUTS]
        after, *values = self.session(f"{name}.observed").run(["tokens_out", *wanted], {"tokens": tokens})
        return after, dict(zip(QUANTIZED_INPUTS, values, strict=True))

    def observe_tail(self, tokens: FloatArray) -> dict[str, FloatArray]:
        """Run ``tail.observed.onnx``: its quantized inputs by name, each (batch, channels)."""
        session = self.session("tail.observed")
        wanted = [output.name for output in session.get_outputs() if output.name.startswith("observed_")]
        values = session.run(wanted, {"tokens": tokens, **self._labels})
        return {name.removeprefix("observed_"): value for name, value in zip(wanted, values, strict=True)}
