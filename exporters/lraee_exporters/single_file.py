"""Writes a bundle at one operating point as one ONNX file, for programs that have nothing but an ONNX session.

    python -m lraee_exporters.single_file reference -o reference.onnx --point balanced

The parts stand in the graph as they are in the bundle, with their weights. Behind each exit there is an `If`: its one
branch gives the exit's answer, the other holds the next blocks and, nested, the exits after them. So weights lie in the
branch that uses them, where ONNX Runtime arranges them for its kernels beforehand; those of an outer graph it does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from lraee.bundle.folder import Bundle, find_bundle, taken_instead
from lraee.bundle.manifest import OperatingPoint, Threshold
from lraee.commands.terminal import errors_as_one_line, print_line, printable, run_command, tell
from lraee.errors import ExportError
from lraee.ort.cpu import int8_products_saturate
from lraee_exporters.graphs.builder import IR_VERSION

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FULL = "full"
"""In place of an operating point: no exit, nothing merged."""

OUTPUTS = ("embedding", "probabilities", "exit_block", "gate")

LARGEST_FILE = 2**31 - 1
"""Bytes that protobuf allows in one message, which an ONNX file without external data is."""

SATURATES = (
    "On x86 without VNNI instructions, sessions with default options give other answers: their products of uint8 and "
    "int8 saturate. Export the bundle with lraee-export --no-saturation, or set the session's entry "
    "session.x64quantprecision to 1 there."
)


@dataclass(slots=True)
class _Graph:
    """Collects the nodes and weights of the whole graph, or of one branch."""

    prefix: str = ""
    """Stands before the names of values that are not of a part."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add an initializer."""
        name = f"{self.prefix}{name}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        """Add a node and give the names of its outputs."""
        names = [f"{self.prefix}{name}" for name in outputs]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], **attributes))
        return names

    def branch(self, name: str, outputs: Sequence[str]) -> onnx.GraphProto:
        """Give it as the branch of an `If`."""
        types = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
        declared = [helper.make_tensor_value_info(one, dtype, None) for one, dtype in zip(outputs, types, strict=True)]
        return helper.make_graph(self.nodes, name, [], declared, self.initializers)


class _Writer:
    """Puts the parts of a bundle together at one operating point."""

    def __init__(self, bundle: Bundle, thresholds: Mapping[int, Threshold], schedule: str | None) -> None:
        self._bundle, self._thresholds = bundle, thresholds
        self._schedule = bundle.manifest.schedule(schedule)
        self._weights: dict[str, bytes] = {}

    def whole(self) -> onnx.GraphProto:
        """Build the graph with its inputs and outputs."""
        manifest, graph = self._bundle.manifest, _Graph()
        size, width = manifest.preprocessing.image_size, manifest.tower.embed_dim
        inputs = [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, size, size, 3]),
            helper.make_tensor_value_info("labels", TensorProto.FLOAT, ["labels", width]),
            helper.make_tensor_value_info("logit_scale", TensorProto.FLOAT, []),
        ]
        graph.constant("labels", self._bundle.label_embeddings)
        graph.constant("logit_scale", np.array(manifest.logit_scale, np.float32))
        graph.node("Transpose", ["labels"], ["label_matrix"], perm=[1, 0])
        tokens = self._part(graph, "stem", {"pixels": "pixels"})["tokens_out"]
        for name, value in zip(OUTPUTS, self._from_block(graph, 1, tokens, None), strict=True):
            graph.node("Identity", [value], [name])
        shapes: tuple[list[int | str | None], ...] = ([1, width], [1, "labels"], [1], [1])
        types = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
        each = zip(OUTPUTS, types, shapes, strict=True)
        outputs = [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in each]
        return helper.make_graph(graph.nodes, "lraee", inputs, outputs, graph.initializers)

    def _from_block(self, graph: _Graph, first: int, tokens: str, sizes: str | None) -> list[str]:
        """Add the tower from a block on, and give the names of the four outputs."""
        for number in range(first, len(self._schedule.blocks) + 1):
            answers = self._part(graph, self._schedule.blocks[number - 1], {"tokens": tokens, "sizes": sizes})
            tokens, sizes = answers["tokens_out"], answers.get("sizes_out", sizes)
            if number in self._thresholds:
                return self._exit(graph, number, tokens, sizes)
        answers = self._part(graph, self._schedule.tail, {"tokens": tokens, "sizes": sizes})
        depth = graph.constant("depth", np.array([len(self._schedule.blocks)], np.int64))
        none = graph.constant("no_gate", np.array([np.nan], np.float32))
        return [answers["embedding"], answers["probabilities"], depth, none]

    def _exit(self, graph: _Graph, block: int, tokens: str, sizes: str | None) -> list[str]:
        """Add an exit, and behind it the rest of the tower in a branch."""
        part = next(one.part for one in self._schedule.exits if one.block == block)
        answers = self._part(graph, part, {"tokens": tokens, "sizes": sizes})
        threshold = self._threshold(graph, block, answers["probabilities"])
        (leaves,) = graph.node("GreaterOrEqual", [answers["gate"], threshold], [f"leaves_{block:02d}"])
        here, later = _Graph(f"left_{block:02d}/"), _Graph(f"after_{block:02d}/")
        here.constant("exit_block_value", np.array([block], np.int64))
        kept = [answers["embedding"], answers["probabilities"], f"{here.prefix}exit_block_value", answers["gate"]]
        left = [here.node("Identity", [value], [name])[0] for name, value in zip(OUTPUTS, kept, strict=True)]
        rest = self._from_block(later, block + 1, tokens, sizes)
        rest = [later.node("Identity", [value], [f"{name}_out"])[0] for name, value in zip(OUTPUTS, rest, strict=True)]
        return graph.node(
            "If",
            [leaves],
            [f"{name}_from_{block:02d}" for name in OUTPUTS],
            then_branch=here.branch(f"left_{block:02d}", left),
            else_branch=later.branch(f"after_{block:02d}", rest),
        )

    def _threshold(self, graph: _Graph, block: int, probabilities: str) -> str:
        """Add the threshold of a block, or the choice of the one for the label that is best there; gives (1,)."""
        threshold = self._thresholds[block]
        if threshold.per_class is None:
            return graph.constant(f"threshold_{block:02d}", np.array([threshold.value], np.float32))
        values = graph.constant(f"thresholds_{block:02d}", np.array(threshold.per_class, np.float32))
        (best,) = graph.node("ArgMax", [probabilities], [f"label_{block:02d}"], axis=1, keepdims=0)
        return graph.node("Gather", [values, best], [f"threshold_{block:02d}"])[0]

    def _part(self, graph: _Graph, name: str, given: Mapping[str, str | None]) -> dict[str, str]:
        """Add the nodes and weights of a part, and give its outputs by their names in the part.

        Args:
            graph: where they go.
            name: of the part, which stands before all its values.
            given: what is connected to its inputs; what it has no input for is left out.
        """
        entry = self._bundle.manifest.part(name)
        self._bundle.checked_part(entry)
        part = onnx.load_model_from_string(self._bundle.content(entry.graph)).graph
        names = {"": "", "label_matrix": "label_matrix", "logit_scale": "logit_scale"}
        for one in part.input:
            if one.name not in names:
                names[one.name] = str(given[one.name])
        for tensor in part.initializer:
            names[tensor.name] = f"{name}/{tensor.name}"
            graph.initializers.append(self._inside(tensor, names[tensor.name]))
        for node in part.node:
            if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
                raise ExportError(f"{entry.graph} has a subgraph in {node.name!r}, which no part of lraee-export has")
            names |= {output: f"{name}/{output}" for output in node.output if output}
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            graph.nodes.append(copied)
            copied.name = f"{name}/{node.name}"
            copied.input[:] = [names[value] for value in node.input]
            copied.output[:] = [names[value] for value in node.output]
        return {one.name: names[one.name] for one in part.output}

    def _inside(self, tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
        """Copy a tensor under another name, its bytes taken from the weight file where they lie there."""
        copied = onnx.TensorProto()
        copied.CopyFrom(tensor)
        copied.name = name
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            location, offset = place["location"], int(place["offset"])
            if location not in self._weights:
                self._weights[location] = self._bundle.content(location)
            copied.raw_data = self._weights[location][offset : offset + int(place["length"])]
            copied.ClearField("external_data")
            copied.ClearField("data_location")
        return copied


def build_single_file(bundle: Bundle, point: str | None = None) -> onnx.ModelProto:
    """Build one model for batch 1 out of the parts of a bundle.

    Inputs: `pixels` (1, size, size, 3) uint8, and with the bundle's own as defaults `labels` (labels, embed_dim)
    float32 with unit rows and `logit_scale` () float32. Outputs: `embedding` (1, embed_dim) float32, `probabilities`
    (1, labels) float32, `exit_block` (1,) int64, the depth at full depth, and `gate` (1,) float32, NaN at full depth.
    Its metadata holds, as JSON, `labels` (names), `preprocessing`, `operating_point`, and `model`.

    Args:
        bundle: of any format; its files are checked.
        point: an operating point, the default one if None, or `FULL`.

    Raises:
        ExportError: there is no such point, or the weights do not fit into one file.
        BundleError: a file of the bundle is damaged.
    """
    manifest = bundle.manifest
    chosen = _point(bundle, point)
    used = manifest.parts_under(chosen.schedule)
    weights = sum(os.path.getsize(bundle.folder / name) for name in {manifest.part(one).data for one in used} if name)
    if weights > LARGEST_FILE:
        raise ExportError(f"the weights take {weights:,} bytes, and one ONNX file holds at most {LARGEST_FILE:,}")
    thresholds = {threshold.block: threshold for threshold in chosen.thresholds}
    graph = _Writer(bundle, thresholds, chosen.schedule).whole()
    model = helper.make_model(graph, opset_imports=_opsets(bundle, used), producer_name="lraee", ir_version=IR_VERSION)
    said = {
        "labels": list(bundle.labels.names),
        "preprocessing": asdict(manifest.preprocessing),
        "operating_point": asdict(chosen),
        "model": {
            **asdict(manifest.model),
            "blocks": manifest.tower.blocks,
            "precision": manifest.precision,
            "saturates": manifest.saturates,
            "probabilities": manifest.probabilities,
            "provenance": manifest.provenance,
        },
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in said.items()})
    return model


def _point(bundle: Bundle, name: str | None) -> OperatingPoint:
    """Find an operating point, or make the one that opens no exit."""
    manifest = bundle.manifest
    name = manifest.default_point or FULL if name is None else name
    for point in manifest.operating_points:
        if point.name == name:
            return point
    if name != FULL:
        known = ", ".join([*(point.name for point in manifest.operating_points), FULL])
        raise ExportError(f"there is no operating point {name!r}; this bundle has {known}")
    return OperatingPoint(name=FULL, thresholds=(), flops_saved=0.0, accuracy=None, full_accuracy=None)


def _opsets(bundle: Bundle, parts: Sequence[str]) -> list[onnx.OperatorSetIdProto]:
    """List the operator sets that the parts import."""
    found: dict[str, int] = {}
    for name in parts:
        part = onnx.load_model_from_string(bundle.content(bundle.manifest.part(name).graph))
        for one in part.opset_import:
            if found.setdefault(one.domain, one.version) != one.version:
                raise ExportError(
                    f"the part {name} has operators of opset {one.version}, others of {found[one.domain]}; export the "
                    "bundle again"
                )
    return [helper.make_opsetid(domain, version) for domain, version in found.items()]


def write_single_file(bundle: Bundle, path: Path, point: str | None = None) -> None:
    """Write what `build_single_file` builds; the file is there whole or not at all.

    Raises:
        ExportError: as there, or the file cannot be written.
        BundleError: as there.
    """
    content = build_single_file(bundle, point).SerializeToString(deterministic=True)
    half = path.with_name(f".{path.name}.half")
    try:
        half.write_bytes(content)
        os.replace(half, path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error


@app.command()
def main(
    bundle: Annotated[str, typer.Argument(help="Folder written by lraee-export, or a shipped bundle.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, ending in .onnx.")],
    point: Annotated[
        str | None, typer.Option(help="Operating point, or full for no exit; by default the bundle's own.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a bundle at one operating point as one ONNX file."""
    with errors_as_one_line():
        if output.suffix != ".onnx":
            raise ExportError(f"--output is {output}, wanted a file that ends in .onnx")
        if output.exists() and not overwrite:
            raise ExportError(f"{output} exists; give another --output, or --overwrite")
        if (instead := taken_instead(bundle)) is not None:
            tell(f"note: {instead}")
        opened = Bundle(find_bundle(bundle))
        write_single_file(opened, output, point)
    print_line(printable(f"{output}: {output.stat().st_size / 1e6:.1f} MB"))
    if opened.manifest.saturates:
        here = " This CPU is one of them." if int8_products_saturate() else ""
        tell(f"note: {SATURATES}{here}")


if __name__ == "__main__":
    run_command(app, "python -m lraee_exporters.single_file")
