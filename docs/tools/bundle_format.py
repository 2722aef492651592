"""Tables of the bundle format: the keys of ``manifest.json`` from its classes, the graphs from the shipped bundle."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
from records import ROOT, table

from lraee.bundle.folder import find_bundle

SOURCES = ROOT / "runtime" / "lraee" / "bundle"

KEYS = {
    "ModelInfo": "model",
    "TowerInfo": "tower",
    "Preprocessing": "preprocessing",
    "QuantizationInfo": "quantization",
    "PartEntry": "parts[]",
    "ExitInfo": "exits[]",
    "GateInfo": "exits[].gate",
    "OperatingPoint": "operating_points[]",
    "Threshold": "operating_points[].thresholds[]",
    "MergeSchedule": "schedules[]",
    "LabelsInfo": "labels",
    "TextInfo": "text",
    "FileEntry": "files[]",
}
"""Each class of the manifest and the key whose value it is."""

SHOWN = {
    "stem": "uint8 RGB pixels to the tokens of the first block",
    "block_01": "one transformer block",
    "block_12": "the last block, where it computes the class token alone",
    "exit_04": "head and gate of an exit",
    "tail": "final LayerNorm, projection, label probabilities",
    "graph": "the whole tower, for comparison",
    "text": "the text tower",
}
"""Parts of the shipped bundle whose inputs and outputs are shown, one of each kind."""


def manifest_tables() -> str:
    """One table for each object of the manifest: key, type and meaning."""
    classes = {node.name: node for path in sorted(SOURCES.glob("*.py")) for node in _classes(path)}
    parts = [f"### The manifest itself\n\n{_keys(classes['Manifest'])}"]
    parts += [
        f"### `{key}`\n\n{ast.get_docstring(classes[name])}\n\n{_keys(classes[name])}" for name, key in KEYS.items()
    ]
    return re.sub(r"\n\nRaises:\n.*?(?=\n\n\|)", "", "\n\n".join(parts), flags=re.DOTALL).replace("``", "`")


def graphs_table() -> str:
    """Inputs and outputs of each kind of part, as ONNX Runtime sees them in the shipped bundle."""
    folder = find_bundle("reference")
    files = {part["name"]: part["graph"] for part in json.loads((folder / "manifest.json").read_text("utf-8"))["parts"]}
    rows = []
    for name, words in SHOWN.items():
        session = onnxruntime.InferenceSession(str(folder / files[name]))
        rows.append([f"`{files[name]}`", words, _values(session.get_inputs()), _values(session.get_outputs())])
    return table(["file", "computes", "inputs", "outputs"], rows, left=4)


def _classes(path: Path) -> Iterator[ast.ClassDef]:
    yield from (node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef))


def _keys(node: ast.ClassDef) -> str:
    rows = []
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        meaning = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meaning = re.sub(r"\s+", " ", str(after.value.value)).replace("|", r"\|")
        rows.append([f"`{statement.target.id}`", f"`{_type(ast.unparse(statement.annotation))}`", meaning])
    return table(["key", "type", "meaning"], rows, left=3)


def _type(annotation: str) -> str:
    for name, key in KEYS.items():
        annotation = annotation.replace(name, key.rpartition(".")[2].removesuffix("[]"))
    annotation = re.sub(r"tuple\[([^\[\]]+), \.\.\.\]", r"list of \1", annotation)
    return annotation.replace("| None", "or null").replace("|", r"\|").replace("Literal", "one of ").replace("'", '"')


def _values(values: list[onnxruntime.NodeArg]) -> str:
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
    return ", ".join(
        f"`{value.name}` {kinds[value.type]} ({', '.join(str(size) for size in value.shape)})" for value in values
    )
