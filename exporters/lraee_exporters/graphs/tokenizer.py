"""Builds the tokenizer as an ONNX graph, from texts to token ids, for runtimes in other languages than Python.

It uses onnxruntime-extensions' operator `CLIPTokenizer`; the session must register that library. The runtime's own
`lraee.labels.tokenizer` is exact, and the operator is not: texts must be cleaned first
(`lraee.labels.tokenizer.clean`), and the operator splits runs of digits, some contractions and letters younger than its
tables unlike open_clip. All of ImageNet's 1,000 prompts and at least 416 of 500 difficult texts, cleaned, get
open_clip's ids; `tests/exporters/graphs/test_tokenizer.py` holds that. docs/tokenizer.md shows its use.

It takes one text at a time: when one of several texts is cut, the operator (0.15) forgets the others.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lraee.errors import MissingExtraError
from lraee.install import install_command
from lraee.labels.tokenizer import byte_characters
from lraee_exporters.graphs.builder import IR_VERSION, OPSET

DOMAIN = "ai.onnx.contrib"


def build_tokenizer(merges: Sequence[str], context_length: int) -> bytes:
    """Build the graph from `text` (1,) string to `tokens` (1, context_length) int64: start, the text, end, zeros, as in
    open_clip.

    Args:
        merges: two tokens each, in their order.
        context_length: longer texts are cut, and keep their end token.
    """
    letters = list(byte_characters().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    nodes = [
        helper.make_node(
            "CLIPTokenizer",
            ["text"],
            ["padded", "mask"],
            domain=DOMAIN,
            vocab=json.dumps(vocabulary),
            merges="\n".join(["#version: 0.2", *merges]),
            padding_length=context_length,
        ),
        helper.make_node("Where", ["is_last", "end", "padded"], ["ended"]),  # a text that was cut has lost its end
        helper.make_node("Cast", ["ended"], ["ended_narrow"], to=TensorProto.INT32),  # as in text.onnx
        helper.make_node("ArgMax", ["ended_narrow"], ["end_place"], axis=1, keepdims=1),
        helper.make_node("LessOrEqual", ["places", "end_place"], ["is_text"]),
        helper.make_node("Where", ["is_text", "ended", "nothing"], ["tokens"]),
    ]
    places = np.arange(context_length, dtype=np.int64)[None]
    constants = {
        "places": places,
        "is_last": places == context_length - 1,
        "end": np.array([len(vocabulary) - 1], np.int64),
        "nothing": np.zeros(1, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "tokenizer",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, context_length])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="lraee")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def extensions_library() -> Path:
    """Find the file to register with ``SessionOptions.register_custom_ops_library``; the package itself is not
    imported.

    Raises:
        MissingExtraError: onnxruntime-extensions is not installed.
    """
    found = importlib.util.find_spec("onnxruntime_extensions")
    folder = None if found is None or found.origin is None else Path(found.origin).parent
    files = [] if folder is None else sorted(folder.glob("_extensions_pydll*"))
    libraries = [file for file in files if file.suffix in (".so", ".pyd", ".dylib")]
    if not libraries:
        raise MissingExtraError(f"running tokenizer.onnx needs onnxruntime-extensions: {install_command('export')}")
    return libraries[0]
