"""What ONNX Runtime makes of each part is what was declared: one `QGemm` for each linear layer, nothing left over.

A QDQ pattern that does not fuse still gives the right numbers, up to 18 times slower, so only this shows it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import ExportError
from lraee.ort.sessions import SessionSettings, make_session, session_options
from lraee_exporters.graphs import block as block_module
from lraee_exporters.graphs.block import (
    QUANTIZED_INPUTS,
    BlockForm,
    BlockWeights,
    build_block,
    float_block,
    operators_of_block,
    quantize_block,
)
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.exit import (
    HEAD_INPUTS,
    TOKEN_INPUTS,
    ExitWeights,
    HeadInput,
    TokenShape,
    build_exit,
    operators_of_exit,
    rows_read,
)
from lraee_exporters.graphs.fused_operators import check_operators, optimized_operators
from lraee_exporters.graphs.pooling.merging import most_merged, operators_of_merging
from lraee_exporters.graphs.pooling.token_pool import QUERIES, LocalMixing, TokenPool
from lraee_exporters.graphs.stem import build_stem, operators_of_stem
from lraee_exporters.graphs.tail import build_tail, float_tail, operators_of_tail, quantize_tail
from lraee_exporters.int8.linear import SMALL_INPUTS, ActivationRange, quantize_linear
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.tower import LayerNorm, Linear, Tower

RANGE = ActivationRange(minimum=-4.0, maximum=6.0)
RANGES = dict.fromkeys(QUANTIZED_INPUTS, RANGE)
Part = tuple[GraphBuilder, WeightFile]


def save(part: Part, folder: Path) -> Path:
    """Write a part as an export does."""
    graph, file = part
    file.save(folder)
    return graph.save(folder)


def linear(size_in: int, size_out: int, *, int8: bool) -> Any:
    """A random layer."""
    weight = np.random.default_rng(size_in).standard_normal((size_out, size_in), dtype=np.float32)
    layer = Linear(weight=weight, bias=weight[:, 0].copy())
    return quantize_linear(layer, RANGE) if int8 else layer


def exit_of(
    tower: Tower, reads: HeadInput, *, int8: bool, logit_bias: float | None = None, class_token: bool = True
) -> ExitWeights:
    """A random exit for a tower."""
    size = tower.width * rows_read(reads, class_token=class_token)
    kernel = np.ones((tower.width, 1, 3, 3), np.float32)
    mixing = LocalMixing(kernel=kernel, bias=kernel[:, 0, 0, 0]) if reads == "local" else None
    queries = np.random.default_rng(0).standard_normal((tower.width, QUERIES), dtype=np.float32)
    return ExitWeights(
        reads=reads,
        norm=LayerNorm(weight=np.ones(size, np.float32), bias=np.ones(size, np.float32), epsilon=1e-5),
        fc1=linear(size, tower.width, int8=int8),
        fc2=linear(tower.width, tower.embed_dim, int8=int8),
        logit_bias=logit_bias,
        temperature=1.3,
        gate_weights=(1.0, 2.0, 0.1),
        gate_bias=0.5,
        pool=TokenPool(queries=queries, mixing=mixing) if reads in TOKEN_INPUTS else None,
    )


def parts_of(tower: Tower, *, int8: bool) -> Iterator[tuple[Part, dict[str, int]]]:
    """Stem, blocks in all forms and tail, each with its declared operators."""
    yield build_stem(tower, quantized=int8), operators_of_stem(tower, quantized=int8)
    for number, block in enumerate(tower.blocks, start=1):
        activation = tower.activation
        weights = quantize_block(block, activation, RANGES) if int8 else float_block(block, activation)
        forms: list[dict[str, Any]] = [{}, {"sized": True}, {"class_only": True}, {"class_only": True, "sized": True}]
        for class_token in (True, False):
            if merged := min(3, most_merged(tower.tokens, class_token=class_token)):
                merging = {"merged": merged, "class_token": class_token}
                forms += [merging, {**merging, "sized": True}]
        for form in forms:
            part = build_block(weights, BlockForm(token_count=tower.tokens, **form), number=number)
            yield part, operators_of_block(weights, BlockForm(token_count=tower.tokens, **form))
    tail = quantize_tail(float_tail(tower), {"norm_post": RANGE}) if int8 else float_tail(tower)
    part = build_tail(tail, width=tower.width, embed_dim=tower.embed_dim, token_count=tower.tokens)
    yield part, operators_of_tail(tail)


def test_every_part_of_the_shipped_bundle_runs_the_operators_of_its_manifest() -> None:
    """What was declared at export still holds under the ONNX Runtime that is installed."""
    bundle = Bundle(find_bundle("reference"))
    assert len(bundle.manifest.parts) >= 15
    for part in bundle.manifest.parts:
        assert optimized_operators(bundle.folder / part.graph) == part.operators, part.name


def test_a_block_whose_inputs_have_fewer_levels_clips_each_of_them(
    make_tower: Callable[..., Tower], tmp_path: Path
) -> None:
    """Between the two halves of the quantization, which still fuse with the products."""
    tower = make_tower()
    ranges = {name: replace(one, levels=SMALL_INPUTS) for name, one in RANGES.items()}
    weights = quantize_block(tower.blocks[0], tower.activation, ranges)
    for class_only in (False, True):
        form = BlockForm(token_count=tower.tokens, class_only=class_only)
        declared = operators_of_block(weights, form)
        assert declared["Clip"] == declared["QuantizeLinear"] == 4 + class_only
        check_operators(save(build_block(weights, form, number=1), tmp_path), declared)


@pytest.mark.parametrize("int8", [True, False], ids=["int8", "float"])
def test_every_part_of_the_reference_fuses_as_declared(int8: bool, tmp_path: Path) -> None:
    """Stem, all 12 blocks in eight forms and the tail, built again from the shipped weights."""
    parts = list(parts_of(load_model("reference").tower, int8=int8))
    assert len(parts) == 1 + 12 * 8 + 1
    for part, declared in parts:
        check_operators(save(part, tmp_path), declared)


@pytest.mark.parametrize("int8", [True, False], ids=["int8", "float"])
@pytest.mark.parametrize("reads", HEAD_INPUTS)
def test_every_kind_of_exit_fuses_as_declared(
    reads: HeadInput, int8: bool, make_tower: Callable[..., Tower], tmp_path: Path
) -> None:
    """Whatever it reads, with and without a logit bias, a bottleneck and merged tokens."""
    tower = make_tower(width=64)
    for logit_bias in (None, 2.0):
        weights = exit_of(tower, reads, int8=int8, logit_bias=logit_bias)
        part = build_exit(weights, TokenShape(count=tower.tokens, width=tower.width), name="exit_01")
        check_operators(save(part, tmp_path), operators_of_exit(weights))
        if reads != "local":
            part = build_exit(weights, TokenShape(count=tower.tokens, width=tower.width, patches=20), name="exit_01")
            check_operators(save(part, tmp_path), operators_of_exit(weights, sized=True))
        size = tower.width * rows_read(reads, class_token=True)
        narrow = replace(weights, bottleneck=linear(size, 8, int8=int8), fc1=linear(8, tower.width, int8=int8))
        part = build_exit(narrow, TokenShape(count=tower.tokens, width=tower.width), name="exit_01")
        check_operators(save(part, tmp_path), operators_of_exit(narrow))


@pytest.mark.parametrize("reads", ["patch_mean", *TOKEN_INPUTS])
def test_exits_of_towers_without_a_class_token_fuse_as_declared(
    reads: HeadInput, make_tower: Callable[..., Tower], tmp_path: Path
) -> None:
    """All tokens are patches, so that none is closed to a query and none is cut off before the convolution."""
    tower = make_tower(width=64)
    weights = exit_of(tower, reads, int8=True, class_token=False)
    part = build_exit(weights, TokenShape(count=tower.patches, width=tower.width, class_token=False), name="exit_01")
    check_operators(save(part, tmp_path), operators_of_exit(weights, class_token=False))


@pytest.mark.parametrize(
    "variant",
    [
        {"norm_pre": False, "patch_bias": True, "logit_bias": 1.0},
        {"activation": "quick_gelu", "depth": 1},
        {"image_size": 8, "depth": 1},
    ],
    ids=["no-norm-pre", "quick-gelu", "one-patch"],
)
@pytest.mark.parametrize("int8", [True, False], ids=["int8", "float"])
def test_every_variant_of_a_tower_fuses_as_declared(
    variant: dict[str, Any], int8: bool, make_tower: Callable[..., Tower], tmp_path: Path
) -> None:
    """What stem and tail add or leave out, and both activations."""
    for part, declared in parts_of(make_tower(**variant), int8=int8):
        check_operators(save(part, tmp_path), declared)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_blocks_of_full_size_become_six_integer_products(
    activation: str, make_tower: Callable[..., Tower], tmp_path: Path
) -> None:
    """ViT-B/32's shape: six `QGemm`, four quantizations (of the class token once more where it is computed alone), no
    dequantization and no float product of weights.
    """
    tower = make_tower(
        width=768, heads=12, depth=2, patch_size=32, image_size=224, embed_dim=512, activation=activation
    )
    for part, declared in parts_of(tower, int8=True):
        path = save(part, tmp_path)
        check_operators(path, declared)
        found = optimized_operators(path)
        assert "DequantizeLinear" not in found
        assert "Gemm" not in found
        if part[0].name.startswith("block"):
            assert (found["QGemm"], found["QuantizeLinear"]) == (6, 5 if "_class" in part[0].name else 4)
            merging = operators_of_merging(sized=True, class_token=True) if "TopK" in found else {}
            assert found.get("MatMul", 0) <= merging.get("MatMul", 0)  # the attention's stride over the tokens
            assert found["FusedMatMul"] == 2 + merging.get("FusedMatMul", 0)


def test_an_int8_block_transposes_levels_and_no_floats(make_tower: Callable[..., Tower], tmp_path: Path) -> None:
    """Before query, key and value and after the attention, a quarter of the bytes; the products stride over floats."""
    weights, _ = int8_block(make_tower)
    path, target = (
        save(build_block(weights, BlockForm(token_count=10), number=1), tmp_path),
        tmp_path / "optimized.onnx",
    )
    settings = SessionSettings(threads=1)
    options = session_options(settings)
    options.optimized_model_filepath, options.log_severity_level = str(target), 4
    make_session(path, settings, options=options)
    nodes = onnx.load(target, load_external_data=False).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    assert [made_by[node.input[0]] for node in nodes if node.op_type == "Transpose"] == ["QuantizeLinear"] * 2
    strides = [{a.name: a.i for a in node.attribute} for node in nodes if node.op_type == "FusedMatMul"]
    assert [(s["transBatchA"], s["transBatchB"]) for s in strides] == [(1, 1), (0, 1)]


def test_a_bias_of_zeros_changes_nothing_that_is_declared(make_tower: Callable[..., Tower], tmp_path: Path) -> None:
    """In float the bias is omitted, in INT8 it is kept; both fuse as declared."""
    tower = make_tower(depth=1)
    block, bias = tower.blocks[0], np.zeros(32, np.float32)
    plain = replace(block, attention=replace(block.attention, out=replace(block.attention.out, bias=bias)))
    for part, declared in [p for int8 in (True, False) for p in parts_of(replace(tower, blocks=(plain,)), int8=int8)]:
        check_operators(save(part, tmp_path), declared)


def int8_block(make_tower: Callable[..., Tower]) -> tuple[BlockWeights, Linear]:
    """An INT8 block, and its last layer in float."""
    block = make_tower().blocks[0]
    return quantize_block(block, "gelu", RANGES), block.mlp.fc2


def test_a_float_layer_among_int8_layers_is_refused(make_tower: Callable[..., Tower], tmp_path: Path) -> None:
    """The message says what was declared and what was found."""
    weights, fc2 = int8_block(make_tower)
    part = build_block(replace(weights, fc2=fc2), BlockForm(token_count=10), number=1)
    with pytest.raises(ExportError, match=r"block_01\.onnx does not optimize.*'Gemm': \(0, 1\).*'QGemm': \(6, 5\)"):
        check_operators(save(part, tmp_path), operators_of_block(weights, BlockForm(token_count=10)))


def test_a_missing_quantization_of_an_input_is_refused(
    make_tower: Callable[..., Tower], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Query, key and value then dequantize their weights on every run."""
    weights, _ = int8_block(make_tower)
    add_input = block_module.add_input

    def unquantized(graph: Any, value: str, linear: Any, name: str, **arranged: Any) -> str:
        plain = Linear(weight=np.ones((1, 1), np.float32), bias=np.ones(1, np.float32))
        return add_input(graph, value, plain if linear is weights.query else linear, name, **arranged)

    monkeypatch.setattr(block_module, "add_input", unquantized)
    part = build_block(weights, BlockForm(token_count=10), number=1)
    with pytest.raises(ExportError, match=r"'DequantizeLinear': \(0, \d+\).*'QGemm': \(6, 3\)"):
        check_operators(save(part, tmp_path), operators_of_block(weights, BlockForm(token_count=10)))


def test_a_quantized_output_is_refused(make_tower: Callable[..., Tower], tmp_path: Path) -> None:
    """The residual stream stays float: another quantization after a layer costs time and accuracy."""
    weights, _ = int8_block(make_tower)
    graph, file = build_block(weights, BlockForm(token_count=10), number=1)
    scale, zero = graph.constant("s", np.float32(0.1)), graph.constant("z", np.uint8(128))
    (consumer,) = (node for node in graph.nodes if node.output[0] == "residual_1")
    (index,) = (i for i, name in enumerate(consumer.input) if name == "out")
    levels = graph.node("QuantizeLinear", ["out", scale, zero], "out_levels")
    consumer.input[index] = graph.node("DequantizeLinear", [levels, scale, zero], "out_back")
    position = graph.nodes.index(consumer)
    graph.nodes[position:] = [*graph.nodes[-2:], *graph.nodes[position:-2]]
    with pytest.raises(ExportError, match="DequantizeLinear"):
        check_operators(save((graph, file), tmp_path), operators_of_block(weights, BlockForm(token_count=10)))
