"""Build the text tower: graph, weights and the tokenizer's merges, checked against torch before anything uses them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from lraee.bundle.manifest import PartEntry, TextInfo
from lraee.bundle.strict_json import write_json
from lraee.errors import ParityError
from lraee.labels.label_set import LabelSet
from lraee.labels.tokenizer import Tokenizer, padded
from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.text import TextPrecision, build_text, operators_of_text
from lraee_exporters.graphs.tokenizer import build_tokenizer
from lraee_exporters.labels import encode_prompts
from lraee_exporters.loading.open_clip_models import LoadedModel
from lraee_exporters.loading.text_tower import TextTower, clip_merges, text_tower_of
from lraee_exporters.parity import compare_stage
from lraee_toolchain.parts.build import save_part, save_parts
from lraee_toolchain.parts.runner import batches

MERGES_NAME = "merges.txt"

TOKENIZER_NAME = "tokenizer.onnx"
TEXT_NAME = "text.json"
"""What the manifest says of the text tower, in its stage."""

PARITY_LABELS = 64
"""Labels whose prompts are compared with torch, in addition to `PARITY_TEXTS`."""

PARITY_TEXTS = (
    "",
    "cat",
    "a photo of a dog.",
    "two cups of tea, 1 spoon",
    "it's a very long text " * 8,
    "été &amp; 日本語",
)
"""Of all lengths: embeddings differ even where a small model knows none of the words."""

LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.9999, "int8": 0.95}
"""Smallest cosine to torch of any text after the mean is taken away. Measured: 1.000000, 0.999993 and 0.982 on
ViT-B/32 with random weights; 1.000000, 1.000000 and 0.994 on the reference, where a wrong activation gives 0.9996: INT8
hides it, and is proved at float32 first."""


def build_text_part(model: LoadedModel, labels: LabelSet, precision: TextPrecision, folder: Path) -> None:
    """Write ``text.onnx``, ``text.data``, ``merges.txt``, ``tokenizer.onnx``, ``parts.json`` and ``text.json``.

    Args:
        model: whose text tower.
        labels: some prompts to compare with torch.
        precision: how weights are stored.
        folder: empty.

    Raises:
        TowerError: it is not CLIP's text tower.
        ParityError: token ids or embeddings are not open_clip's.
    """
    tower, merges = text_tower_of(model), clip_merges()
    some = LabelSet(names=labels.names[:PARITY_LABELS], templates=labels.templates[:1]).prompts()
    texts = [*PARITY_TEXTS, *some]
    theirs = model.tokenizer(texts)
    tokens = _same_tokens(texts, Tokenizer(merges), theirs)
    with torch.inference_mode():
        expected = encode_prompts(model.torch_model, theirs).float().numpy()
    if precision == "int8":
        with TemporaryDirectory(dir=folder) as float_folder:
            _check(Path(float_folder) / _write(tower, "fp32", Path(float_folder)).graph, tokens, expected, "fp32")
    entry = _write(tower, precision, folder)
    _check(folder / entry.graph, tokens, expected, precision)
    (folder / MERGES_NAME).write_text("\n".join(merges) + "\n", "utf-8")
    save_parts([entry], folder)
    (folder / TOKENIZER_NAME).write_bytes(build_tokenizer(merges, tower.context_length))
    info = TextInfo(
        merges=MERGES_NAME, tokenizer=TOKENIZER_NAME, context_length=tower.context_length, precision=precision
    )
    write_json(info, folder / TEXT_NAME)


def _write(tower: TextTower, precision: TextPrecision, folder: Path) -> PartEntry:
    graph, file = build_text(tower, precision)
    return save_part(graph, file, operators_of_text(tower, precision), folder)


def _same_tokens(texts: list[str], tokenizer: Tokenizer, theirs: torch.Tensor) -> NDArray[np.int64]:
    """Tokenize texts, and refuse token ids that are not open_clip's."""
    tokens = padded([tokenizer.row(text, theirs.shape[1]) for text in texts])
    differ = (tokens != theirs.numpy()[:, : tokens.shape[1]]).any(axis=1)
    if differ.any():
        text = texts[int(differ.argmax())]
        raise ParityError(f"the text {text[:40]!r} has other token ids than open_clip gives it; please report it")
    return tokens


def _check(graph: Path, tokens: NDArray[np.int64], expected: NDArray[np.float32], precision: TextPrecision) -> None:
    """Compare a graph's embeddings with torch's."""
    session = make_session(graph, SessionSettings())
    got = np.concatenate([session.run(["embedding"], {"tokens": batch})[0] for batch in batches(tokens)])
    cosine, least = compare_stage("text", got, expected).cosine, LEAST_COSINE[precision]
    if cosine < least:
        raise ParityError(
            f"the exported text tower differs from torch: mean-centred cosine {cosine:.6f}, wanted at least {least} at "
            f"--text {precision}; take a precision with more bits, or leave the text tower away with --text none"
        )
