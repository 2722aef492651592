"""The builder lays weights out as ONNX Runtime maps them, counts FLOPs, and never mixes up two tensors of one name."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from lraee.bundle.folder import SHIPPED
from lraee.bundle.manifest_file import read_manifest
from lraee.images.resize.onnx_resize import GRAPH as RESIZE_GRAPH
from lraee_exporters.graphs.builder import (
    ALIGNMENT_BYTES,
    INLINE_BYTES,
    IR_VERSION,
    OLDEST_ONNXRUNTIME,
    OPSET,
    GraphBuilder,
    WeightFile,
)
from lraee_exporters.graphs.tokenizer import build_tokenizer

KNOWN = {"1.17": (20, 9), "1.18": (21, 10)}
"""The newest operator set and ONNX format that a release of ONNX Runtime reads, from docs/Versioning.md there."""


def test_external_tensors_are_aligned_and_read_back_as_they_were(tmp_path: Path) -> None:
    """Each starts on a cache line, whatever the sizes before it."""
    graph, file = GraphBuilder("part"), WeightFile("part.data")
    generator = np.random.default_rng(0)
    arrays = {f"w{i}": generator.standard_normal(33 + 7 * i).astype(np.float32) for i in range(5)}
    total = graph.input("x", TensorProto.FLOAT, [1])
    for name, array in arrays.items():
        total = graph.node("Concat", [total, graph.constant(name, array, file)], f"after_{name}", axis=0)
    graph.output(total, "y", TensorProto.FLOAT, ["n"])
    file.save(tmp_path)
    model = onnx.load(graph.save(tmp_path))
    onnx.checker.check_model(model)
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), arrays[tensor.name])
    assert all(offset % ALIGNMENT_BYTES == 0 for offset, _ in file.places.values())
    assert (tmp_path / "part.data").stat().st_size == file.size_bytes


def test_small_tensors_stay_in_the_graph() -> None:
    """Up to the limit inline, one byte above it external; without a file always inline."""
    graph, file = GraphBuilder("part"), WeightFile("part.data")
    graph.constant("small", np.zeros(INLINE_BYTES, np.uint8), file)
    graph.constant("large", np.zeros(INLINE_BYTES + 1, np.uint8), file)
    graph.constant("inside", np.zeros(1000, np.uint8))
    assert list(file.places) == ["large"]
    assert [tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializers] == [False, True, False]


def test_graphs_share_the_tensors_of_one_weight_file() -> None:
    """The whole tower's graph names tensors ``block_01/w``; in the file of block 1 that is ``w``, put there once."""
    file, array = WeightFile("block_01.data"), np.arange(100, dtype=np.float32)
    part, whole = GraphBuilder("block_01"), GraphBuilder("graph")
    part.constant("w", array, file)
    size = file.size_bytes
    whole.constant("block_01/w", array, file)
    assert file.size_bytes == size
    entries = [{e.key: e.value for e in g.initializers[0].external_data} for g in (part, whole)]
    assert entries[0] == entries[1] == {"location": "block_01.data", "offset": "0", "length": "400"}


def test_a_tensor_put_twice_with_other_bytes_is_refused() -> None:
    """Of another length as of the same."""
    file = WeightFile("part.data")
    file.put("w", np.zeros(100, np.float32))
    for other in (np.zeros(99, np.float32), np.ones(100, np.float32)):
        with pytest.raises(ValueError, match=r"tensor 'w' of part\.data is put again"):
            file.put("w", other)


def test_a_value_made_twice_is_refused() -> None:
    """Silently taking the first would compute something else."""
    graph = GraphBuilder("part")
    x = graph.input("x", TensorProto.FLOAT, [1])
    graph.node("Relu", [x], "y")
    with pytest.raises(ValueError, match="'y' of graph part is made twice"):
        graph.node("Relu", [x], "y")
    with pytest.raises(ValueError, match="'y' of graph part is made twice"):
        graph.constant("y", np.zeros(3, np.float32))


def test_a_constant_is_added_once_and_never_with_two_values() -> None:
    """Shapes and axes are asked for again and again; the same name must mean the same value."""
    graph = GraphBuilder("part")
    for _ in range(2):
        assert graph.constant("axis", np.array([1], np.int64)) == "axis"
    assert len(graph.initializers) == 1
    for other in (np.array([2], np.int64), np.array([1], np.int32), np.array(1, np.int64)):
        with pytest.raises(ValueError, match="'axis' of graph part is made twice"):
            graph.constant("axis", other)


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    """Bundles of equal exports are equal, so nothing in a file may depend on time or hash seeds."""
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        graph, file = GraphBuilder("part"), WeightFile("part.data")
        x = graph.input("x", TensorProto.FLOAT, ["batch", 64])
        w = graph.constant("w", np.eye(64, dtype=np.float32), file)
        graph.output(
            graph.node("QuickGelu", [graph.node("Gemm", [x, w], "g")], "q", domain="com.microsoft"),
            "y",
            1,
            ["batch", 64],
        )
        file.save(folder)
        contents.append((graph.save(folder).read_bytes(), (folder / "part.data").read_bytes()))
    assert contents[0] == contents[1]


def test_only_used_operator_sets_are_declared() -> None:
    """com.microsoft appears when a node needs it."""
    graph = GraphBuilder("part")
    x = graph.input("x", TensorProto.FLOAT, [1])
    assert [opset.domain for opset in graph.model().opset_import] == [""]
    graph.node("QuickGelu", [x], "y", domain="com.microsoft")
    assert [opset.domain for opset in graph.model().opset_import] == ["", "com.microsoft"]


def sets_of(content: bytes) -> tuple[int, int]:
    """Operator set of ``ai.onnx`` and version of the format."""
    model = onnx.ModelProto.FromString(content)
    return next(entry.version for entry in model.opset_import if not entry.domain), model.ir_version


def test_every_graph_is_read_by_the_oldest_onnx_runtime_that_bundles_name() -> None:
    """Those of the shipped bundle, its baseline and the runtime, and what is built today."""
    shipped = [*SHIPPED.rglob("*.onnx"), RESIZE_GRAPH]
    assert len(shipped) >= 24
    built = [GraphBuilder("part").model().SerializeToString(), build_tokenizer(["a b"], 8)]
    opset, format_version = KNOWN[OLDEST_ONNXRUNTIME]
    for content in (*(path.read_bytes() for path in shipped), *built):
        found = sets_of(content)
        assert found[0] <= opset
        assert found[1] <= format_version
    assert (opset, format_version) == (OPSET, IR_VERSION)
    assert read_manifest(SHIPPED / "reference.lraee").onnxruntime == OLDEST_ONNXRUNTIME
