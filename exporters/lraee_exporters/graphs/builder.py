"""Builds one ONNX part node by node, with its weights in an external data file.

Graphs are written directly instead of traced from a torch module: a traced, then quantized block has
about 57 nodes, the built one 22, and every node here is there because ONNX Runtime runs it fast.
Weights lie in ``<part>.data`` next to the graph, so that they are memory-mapped and so that
``graph.onnx``, the whole tower as one graph, can point at the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""ai.onnx opset of every part: the first with `Gelu`. The lower it is, the older the runtimes that read a bundle."""

IR_VERSION = 9
"""Of that opset."""

OLDEST_ONNXRUNTIME = "1.17"
"""The first release of ONNX Runtime that knows this opset, and runs every part of a bundle."""

MICROSOFT_OPSET = 1
"""com.microsoft opset, for QuickGelu."""

ALIGNMENT_BYTES = 64
"""External tensors start at multiples of a cache line."""

INLINE_BYTES = 128
"""Tensors up to this size stay inside the graph: scalars, shapes, zero points."""


@dataclass(slots=True)
class WeightFile:
    """Collects the external data of one part: named tensors laid one after the other.

    Putting a name again with the same bytes returns the first place, which is how ``graph.onnx`` shares
    the files of the parts.
    """

    location: str
    """File name as written into the graph, relative to it."""
    chunks: list[bytes] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> (offset, length) in bytes."""
    size_bytes: int = 0

    def put(self, name: str, array: np.ndarray) -> tuple[int, int]:
        """Append `array` under `name`, or find it; gives its (offset, length) in bytes."""
        raw = np.ascontiguousarray(array).tobytes()
        if name in self.places:
            chunk = self.chunks[2 * list(self.places).index(name) + 1]  # each comes after its padding
            if chunk != raw:
                raise ValueError(f"tensor {name!r} of {self.location} is put again with other bytes")
            return self.places[name]
        padding = -self.size_bytes % ALIGNMENT_BYTES
        self.chunks += [b"\0" * padding, raw]
        offset = self.size_bytes + padding
        self.size_bytes = offset + len(raw)
        self.places[name] = (offset, len(raw))
        return self.places[name]

    def save(self, folder: Path) -> None:
        """Write the weight file into `folder`."""
        with (folder / self.location).open("wb") as file:
            file.writelines(self.chunks)


@dataclass(slots=True)
class GraphBuilder:
    """Collects the nodes, weights, inputs and outputs of one ONNX graph, and counts its FLOPs.

    `flops` counts multiply-adds of GEMMs as 2 and nothing else (LayerNorm, softmax and activations
    are left out), per image: the convention under which the image tower of ViT-B/32 has 8.82 GFLOPs.
    """

    name: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    flops: int = 0
    flops_per_label: int = 0
    names: set[str] = field(default_factory=set)

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input; a string in `shape` is a symbolic axis."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        self.names.add(name)
        return name

    def output(self, value: str, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare `value` as the graph output `name`, by renaming the value where it is produced and used."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, met in enumerate(names):
                    if met == value:
                        names[i] = name
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def constant(self, name: str, array: np.ndarray | np.generic, file: WeightFile | None = None) -> str:
        """Add an initializer: inside the graph when small or without `file`, else external."""
        array = np.asarray(array)
        if file is None or array.nbytes <= INLINE_BYTES:
            tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        else:
            tensor = self._external(name, array, file)
        if name not in self.names:
            self.names.add(name)
            self.initializers.append(tensor)
        elif not any(met == tensor for met in self.initializers if met.name == name):
            raise ValueError(f"the value {name!r} of graph {self.name} is made twice")
        return name

    @staticmethod
    def _external(name: str, array: np.ndarray, file: WeightFile) -> TensorProto:
        """Put a tensor into `file` and describe where it is."""
        offset, length = file.put(name.removeprefix(f"{Path(file.location).stem}/"), array)
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", file.location), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def node(self, operator: str, inputs: Sequence[str], name: str, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, called `name`; gives that name."""
        return self.node_with_outputs(operator, inputs, [name], domain=domain, **attributes)[0]

    def node_with_outputs(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; gives their names."""
        for name in outputs:
            if name in self.names:
                raise ValueError(f"the value {name!r} of graph {self.name} is made twice")
            self.names.add(name)
        self.nodes.append(
            helper.make_node(operator, list(inputs), list(outputs), name=outputs[0], domain=domain, **attributes)
        )
        return list(outputs)

    def model(self) -> onnx.ModelProto:
        """Give the finished model."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", MICROSOFT_OPSET))
        return helper.make_model(graph, opset_imports=opsets, producer_name="lraee", ir_version=IR_VERSION)

    def save(self, folder: Path) -> Path:
        """Write ``<name>.onnx`` into `folder`; the weight files are saved by their owner."""
        path = folder / f"{self.name}.onnx"
        path.write_bytes(self.model().SerializeToString(deterministic=True))
        return path
