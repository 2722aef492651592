"""The whole tower as one graph is the chain of parts: the same numbers, the same weight files, the same FLOPs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.block import QUANTIZED_INPUTS, BlockForm, build_block, float_block, quantize_block
from lraee_exporters.graphs.builder import INLINE_BYTES, GraphBuilder, WeightFile
from lraee_exporters.graphs.stem import build_stem
from lraee_exporters.graphs.tail import build_tail, float_tail, quantize_tail
from lraee_exporters.graphs.whole_tower import build_whole
from lraee_exporters.int8.linear import ActivationRange
from lraee_exporters.tower import Tower

Array = npt.NDArray[Any]
RANGE = ActivationRange(minimum=-4.0, maximum=4.0)


def build_all(tower: Tower, folder: Path, *, quantized: bool) -> tuple[list[GraphBuilder], GraphBuilder]:
    """Write every part and ``graph.onnx``; gives the parts in order, and the whole."""
    ranges = dict.fromkeys(QUANTIZED_INPUTS, RANGE)
    if quantized:
        blocks = [quantize_block(block, tower.activation, ranges) for block in tower.blocks]
        tail = quantize_tail(float_tail(tower), {"norm_post": RANGE})
    else:
        blocks = [float_block(block, tower.activation) for block in tower.blocks]
        tail = float_tail(tower)
    parts = [build_stem(tower, quantized=quantized)]
    parts += [
        build_block(block, BlockForm(token_count=tower.tokens, class_only=n == tower.depth), number=n)
        for n, block in enumerate(blocks, start=1)
    ]
    parts.append(build_tail(tail, width=tower.width, embed_dim=tower.embed_dim, token_count=tower.tokens))
    files: dict[str, WeightFile] = {}
    for graph, file in parts:
        graph.save(folder)
        file.save(folder)
        files[graph.name.removesuffix("_class")] = file
    whole = build_whole(tower, blocks, tail, files)
    whole.save(folder)
    return [graph for graph, _ in parts], whole


def run(folder: Path, name: str, outputs: list[str], inputs: dict[str, Array]) -> list[Array]:
    """Run one graph of the folder."""
    session = make_session(folder / f"{name}.onnx", SessionSettings(threads=1))
    results: list[Array] = session.run(outputs, inputs)
    return results


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(
    "variant",
    [
        {"activation": "gelu"},
        {"activation": "quick_gelu", "norm_pre": False},
        {"patch_bias": True, "logit_bias": -3.0, "depth": 3},
    ],
    ids=["gelu", "quick-gelu-no-norm-pre", "patch-and-logit-bias"],
)
def test_one_graph_equals_the_chain_of_parts_bit_for_bit(
    variant: dict[str, Any],
    quantized: bool,
    make_tower: Callable[..., Tower],
    labels_input: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """For batches of 1 and 3, so that times of the two may be compared."""
    tower, labels = make_tower(**variant), labels_input()
    parts, whole = build_all(tower, tmp_path, quantized=quantized)
    for batch in (1, 3):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 24, 24, 3), dtype=np.uint8)
        (tokens,) = run(tmp_path, "stem", ["tokens_out"], {"pixels": pixels})
        for graph in parts[1:-1]:
            (tokens,) = run(tmp_path, graph.name, ["tokens_out"], {"tokens": tokens})
        chain = run(tmp_path, "tail", ["embedding", "probabilities"], {"tokens": tokens, **labels})
        together = run(tmp_path, "graph", ["embedding", "probabilities"], {"pixels": pixels, **labels})
        for one, other in zip(chain, together, strict=True):
            np.testing.assert_array_equal(one, other)
    assert whole.flops == sum(graph.flops for graph in parts)
    assert whole.flops_per_label == sum(graph.flops_per_label for graph in parts)


def test_the_whole_graph_adds_no_weights_of_its_own(make_tower: Callable[..., Tower], tmp_path: Path) -> None:
    """It points into the files of the parts; inside it are only scalars and shapes."""
    tower = make_tower()
    parts, _ = build_all(tower, tmp_path, quantized=True)
    written = {path.name for path in tmp_path.iterdir()}
    data = {f"{graph.name.removesuffix('_class')}.data" for graph in parts}
    assert written == {f"{graph.name}.onnx" for graph in parts} | data | {"graph.onnx"}
    model = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    external = [tensor for tensor in model.graph.initializer if tensor.external_data]
    assert len(external) > 2 * 6
    assert all(len(t.raw_data) <= INLINE_BYTES for t in model.graph.initializer)
    places = {(entry.key, entry.value) for tensor in external for entry in tensor.external_data}
    assert {value for key, value in places if key == "location"} == data


def test_one_weight_file_may_stand_for_all(
    make_tower: Callable[..., Tower], labels_input: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The float baseline is one graph with one file."""
    tower, file, labels = make_tower(), WeightFile("fp32.data"), labels_input()
    blocks = [float_block(block, tower.activation) for block in tower.blocks]
    names = ["stem", "block_01", "block_02", "tail"]
    build_whole(tower, blocks, float_tail(tower), dict.fromkeys(names, file), name="fp32").save(tmp_path)
    file.save(tmp_path)
    build_all(tower, tmp_path, quantized=False)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    inputs = {"pixels": pixels, **labels}
    one, other = (run(tmp_path, name, ["embedding"], inputs)[0] for name in ("fp32", "graph"))
    np.testing.assert_array_equal(one, other)


def test_the_image_tower_of_vit_b_32_takes_8_82_gflops(make_tower: Callable[..., Tower]) -> None:
    """Multiply-add counted as 2, attention included; summed over the parts that run, 12 times one block."""
    tower = make_tower(width=768, heads=12, depth=1, patch_size=32, image_size=224, embed_dim=512)
    assert tower.tokens == 50
    stem, _ = build_stem(tower, quantized=False)
    block, _ = build_block(
        float_block(tower.blocks[0], tower.activation), BlockForm(token_count=tower.tokens), number=1
    )
    tail, _ = build_tail(float_tail(tower), width=768, embed_dim=512, token_count=50)
    assert 8.81e9 < stem.flops + 12 * block.flops + tail.flops < 8.83e9
    assert tail.flops_per_label == 1024
