"""Baselines that ONNX Runtime runs as one session, with the session settings of the chain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.errors import SettingsError
from lraee.images.read import Pixels
from lraee.ort.sessions import SessionSettings, session_options
from lraee_benchmarks.rows.float_input import LabelSimilarity, Normalizer

Probabilities = Callable[[Pixels], NDArray[np.float32]]
"""Pixels (batch, size, size, 3) uint8 to label probabilities (batch, labels) float32, which the caller may keep."""

_ENTRIES = (
    "session.use_env_allocators",
    "session.intra_op.allow_spinning",
    "session.force_spinning_stop",
    "session.x64quantprecision",
)


def session_words(settings: SessionSettings) -> dict[str, str]:
    """Say which options sessions have besides the number of threads, as ONNX Runtime gives them back."""
    options = session_options(settings)
    words = {"thread pool": settings.thread_pool, "memory pattern": "on" if options.enable_mem_pattern else "off"}
    for entry in _ENTRIES:
        try:
            words[entry] = options.get_session_config_entry(entry)
        except RuntimeError:  # it is not set
            continue
    return words


def check_threads_alike(row: str, threads: int, wanted: int) -> None:
    """Refuse a row with fewer threads than the others: their latencies could not be compared.

    Raises:
        SettingsError: a limit of the system was too narrow.
    """
    if threads < wanted:
        raise SettingsError(
            f"the row {row} got {threads} of {wanted} threads, since a limit of the system on tasks leaves no room "
            "for more next to the other rows; ask for fewer --threads, or raise the limit"
        )


def label_feed(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Make the inputs of ``graph.onnx`` besides the pixels."""
    return {
        "label_matrix": np.ascontiguousarray(bundle.label_embeddings.T),
        "logit_scale": np.array(bundle.manifest.logit_scale, np.float32),
    }


def pixel_graph(session: ort.InferenceSession, bundle: Bundle) -> Probabilities:
    """Run ``graph.onnx`` or ``fp32.onnx``, which take pixels and labels."""
    labels = label_feed(bundle)

    def run(pixels: Pixels) -> NDArray[np.float32]:
        outputs = session.run(["embedding", "probabilities"], {"pixels": pixels, **labels})
        probabilities: NDArray[np.float32] = outputs[1]
        return probabilities

    return run


def float_graph(session: ort.InferenceSession, bundle: Bundle) -> Probabilities:
    """Run ``static.onnx`` or ``dynamic.onnx``, which take normalised floats and give the embedding."""
    normalize, similarity = Normalizer(bundle.manifest.preprocessing), LabelSimilarity(bundle)

    def run(pixels: Pixels) -> NDArray[np.float32]:
        return similarity(session.run(["embedding"], {"image": normalize(pixels)})[0])

    return run
