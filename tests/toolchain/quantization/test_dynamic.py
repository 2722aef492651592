"""Dynamic INT8: the parts run as a chain, stay close to float, and hold no float weights where int8 was promised."""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.build import build_float, load_parts
from lraee_toolchain.parts.runner import Chain
from lraee_toolchain.quantization.dynamic import build_dynamic

LABELS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Both parts folders of one tower."""

    tower: Tower
    float_parts: Path
    dynamic: Path

    def chain(self, folder: Path) -> Chain:
        """Its parts, on one thread, with labels that point nowhere in particular."""
        labels = np.random.default_rng(0).normal(size=(self.tower.embed_dim, LABELS)).astype(np.float32)
        labels /= np.linalg.norm(labels, axis=0)
        return Chain(folder, self.tower.depth, labels, self.tower.logit_scale, threads=1)

    def graph(self, part: str) -> onnx.GraphProto:
        """A dynamic part as it was written, before ONNX Runtime fuses it."""
        return onnx.load(self.dynamic / f"{part}.onnx").graph


def build(tower: Tower, root: Path) -> Built:
    """Both folders below `root`."""
    folders = root / "float", root / "dynamic"
    for folder in folders:
        folder.mkdir()
    build_float(tower, folders[0])
    build_dynamic(*folders)
    return Built(tower=tower, float_parts=folders[0], dynamic=folders[1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The reference model."""
    tower = load_model("reference", pretrained=None, activation=None).tower
    return build(tower, tmp_path_factory.mktemp("built"))


def garments(tower: Tower) -> np.ndarray:
    """32 test images."""
    dataset = open_dataset(fashion_mnist_test())
    return load_pixels(dataset.subset(range(0, len(dataset), len(dataset) // 32)[:32]), tower.preprocessing).pixels


def test_embeddings_stay_close_to_float_without_being_float(built: Built) -> None:
    """Cosine above 0.99 for each image; equality would mean that nothing was quantized."""
    pixels = garments(built.tower)
    exact, coarse = (built.chain(folder).stages(pixels)[-1] for folder in (built.float_parts, built.dynamic))
    assert coarse.shape == (32, built.tower.embed_dim)
    assert (exact * coarse).sum(axis=1).min() > 0.99
    assert np.abs(exact - coarse).max() > 1e-4


def test_the_chain_gives_probabilities(built: Built) -> None:
    """The tail takes labels as inputs, like every other tail."""
    chain = built.chain(built.dynamic)
    probabilities = chain.tail(chain.stages(garments(built.tower))[-2])[1]
    assert probabilities.shape == (32, LABELS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_quick_gelu_is_no_obstacle(built: Built, tmp_path: Path) -> None:
    """onnx does not know that operator and cannot infer what comes out of it; OpenAI's towers have it."""
    quick = build(replace(built.tower, activation="quick_gelu"), tmp_path)
    pixels = garments(quick.tower)
    exact, coarse = (quick.chain(folder).stages(pixels)[-1] for folder in (quick.float_parts, quick.dynamic))
    assert (exact * coarse).sum(axis=1).min() > 0.99
    assert sum(node.op_type == "MatMulInteger" for node in quick.graph("block_01").node) == 6


@pytest.mark.parametrize(("part", "products"), [("block_01", 6), ("block_12", 6), ("tail", 1)])
def test_linear_layers_are_integer_products_of_inputs_quantized_at_run_time(
    built: Built, part: str, products: int
) -> None:
    """Query, key and value share one quantized input, so a block has four of them."""
    operators = [node.op_type for node in built.graph(part).node]
    assert operators.count("MatMulInteger") == products
    assert operators.count("DynamicQuantizeLinear") == (4 if products == 6 else 1)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(operators)


@pytest.mark.parametrize("part", ["block_01", "block_07", "block_12", "tail"])
def test_no_float_product_with_constant_weights_is_left(built: Built, part: str) -> None:
    """Only attention, and the cosine with labels that are an input."""
    graph = built.graph(part)
    constants = {tensor.name for tensor in graph.initializer}
    left = [node.name for node in graph.node if node.op_type in ("Gemm", "MatMul") and constants & set(node.input)]
    assert left == []


@pytest.mark.parametrize("part", ["block_01", "block_12", "tail"])
def test_weights_are_int8_with_a_scale_for_each_output_channel(built: Built, part: str) -> None:
    """All 8 bits of them, around zero."""
    graph = built.graph(part)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            weight, zero_point = tensors[node.input[1]], tensors[node.input[3]]
            assert weight.data_type == zero_point.data_type == TensorProto.INT8
            levels = onnx.numpy_helper.to_array(weight)
            assert np.abs(levels.astype(int)).max() == 127
            assert not onnx.numpy_helper.to_array(zero_point).any()
            scale = onnx.numpy_helper.to_array(tensors[node.input[1].replace("_quantized", "_scale")])
            assert scale.shape == (levels.shape[1],)


def test_the_part_list_has_the_float_parts_flops(built: Built) -> None:
    """FLOPs count products, whatever their precision; the one graph is left away."""
    exact, coarse = ({part.name: part for part in load_parts(f)} for f in (built.float_parts, built.dynamic))
    assert list(coarse) == [name for name in exact if name != "graph"]
    for name, part in coarse.items():
        assert (part.flops, part.flops_per_label) == (exact[name].flops, exact[name].flops_per_label)
        assert (built.dynamic / part.graph).is_file()
        assert part.data is not None
        assert (built.dynamic / part.data).is_file()
    assert coarse["stem"].operators == exact["stem"].operators
    assert "Gemm" not in coarse["block_01"].operators


def test_blocks_take_less_than_a_third_of_the_float_ones(built: Built) -> None:
    """A quarter for the weights, and scales and graphs, which weigh more in a model as small as this."""
    exact, coarse = (sum(p.stat().st_size for p in f.glob("block_??.*")) for f in (built.float_parts, built.dynamic))
    assert coarse < exact / 3


def test_building_is_silent_and_repeatable(
    built: Built, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing printed or logged, no handler left behind, nothing written beside the float parts, the same bytes."""
    handlers, before = list(logging.getLogger().handlers), sorted(built.float_parts.iterdir())
    build_dynamic(built.float_parts, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.getLogger().handlers == handlers
    assert sorted(built.float_parts.iterdir()) == before
    first, second = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in f.iterdir()}
        for f in (built.dynamic, tmp_path)
    )
    assert first == second
