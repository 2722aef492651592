"""A block part computes ``x += attention(norm_1(x)); x += mlp(norm_2(x))``, in float32 and with INT8 linear layers."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from lraee_exporters.graphs.block import (
    QUANTIZED_INPUTS,
    BlockForm,
    BlockWeights,
    build_block,
    float_block,
    flops_of_block,
    quantize_block,
)
from lraee_exporters.graphs.layers import AnyLinear
from lraee_exporters.graphs.pooling.merging import MergeForm, flops_of_merging
from lraee_exporters.int8.linear import (
    ALL_LEVELS,
    SMALL_INPUTS,
    SMALL_WEIGHTS,
    ActivationRange,
    Levels,
    QuantizedLinear,
)
from lraee_exporters.tower import LayerNorm, Tower

Array = npt.NDArray[Any]
Merge: TypeAlias = Callable[[Array, Array], Array]
TOKENS = 10


def random_tokens(batch: int, width: int = 32) -> Array:
    """float32 (batch, TOKENS, width), with one channel much larger than the others, as in real towers."""
    tokens = np.random.default_rng(5).standard_normal((batch, TOKENS, width), dtype=np.float32)
    tokens[..., 3] += 6
    return tokens


def block_by_definition(
    weights: BlockWeights, x: Array, sizes: Array | None = None, merge: Merge | None = None
) -> tuple[Array, dict[str, Array]]:
    """The output in float64, and the four values that are quantized; an INT8 layer multiplies its own integers.

    A token that stands for several is attended to as if it were there as often. `merge` stands between attention and
    MLP, and is given tokens and keys.
    """
    batch, tokens, width = x.shape
    seen: dict[str, Array] = {}
    x = x.astype(np.float64)
    y = seen["norm_1"] = norm(weights.norm_1, x)
    query, key, value = (
        linear(layer, y).reshape(batch, tokens, weights.heads, -1).transpose(0, 2, 1, 3)
        for layer in (weights.query, weights.key, weights.value)
    )
    logits = query @ key.transpose(0, 1, 3, 2) / math.sqrt(width / weights.heads)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    if sizes is not None:
        shares *= sizes[:, None, None, :, 0]
    shares /= shares.sum(-1, keepdims=True)
    seen["attention"] = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
    x = x + linear(weights.out, seen["attention"])
    if merge is not None:
        x = merge(x, key)
    seen["norm_2"] = norm(weights.norm_2, x)
    hidden = linear(weights.fc1, seen["norm_2"])
    if weights.activation == "quick_gelu":
        seen["activation"] = hidden / (1 + np.exp(-1.702 * hidden))
    else:
        seen["activation"] = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + linear(weights.fc2, seen["activation"]), seen


def norm(layer: LayerNorm, x: Array) -> Array:
    """Compute a LayerNorm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.epsilon) * layer.weight + layer.bias


def linear(layer: AnyLinear, x: Array) -> Array:
    """A float layer, or an INT8 layer by the formula of Jacob et al. (arXiv 1712.05877, section 2)."""
    if not isinstance(layer, QuantizedLinear):
        return x @ layer.weight.T.astype(np.float64) + layer.bias
    levels = (
        np.clip(np.rint(x / layer.input_scale) + layer.input_zero_point, 0, layer.input_levels) - layer.input_zero_point
    )
    assert layer.bias is not None
    sums = levels @ layer.weight.astype(np.float64) + layer.bias
    return sums * (layer.input_scale * layer.weight_scale.astype(np.float64))


def ranges_of(seen: dict[str, Array]) -> dict[str, ActivationRange]:
    """Minimum and maximum of each quantized value."""
    return {name: ActivationRange(minimum=float(v.min()), maximum=float(v.max())) for name, v in seen.items()}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_float_block_computes_the_definition(
    activation: str, batch: int, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Tolerance: float32 sums of at most 128 products; values are of size 1 to 10."""
    tower, x = make_tower(activation=activation), random_tokens(batch)
    weights = float_block(tower.blocks[0], tower.activation)
    after = run_part(build_block(weights, BlockForm(token_count=TOKENS), number=1), tokens=x)["tokens_out"]
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, block_by_definition(weights, x)[0], atol=2e-5)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_an_observed_block_gives_the_values_that_will_be_quantized(
    activation: str, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """And the same tokens as the block itself, bit for bit."""
    tower, x = make_tower(activation=activation), random_tokens(3)
    weights = float_block(tower.blocks[0], tower.activation)
    plain = run_part(build_block(weights, BlockForm(token_count=TOKENS), number=1), tokens=x)
    observed = run_part(build_block(weights, BlockForm(token_count=TOKENS), number=1, observe=True), tokens=x)
    np.testing.assert_array_equal(observed["tokens_out"], plain["tokens_out"])
    for name, value in block_by_definition(weights, x)[1].items():
        got = observed[f"observed_{name}"]
        np.testing.assert_allclose(got, value.reshape(got.shape), atol=2e-5, err_msg=name)
    assert set(observed) == {"tokens_out", *(f"observed_{name}" for name in QUANTIZED_INPUTS)}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_an_int8_block_stays_close_to_float(
    activation: str, batch: int, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Tolerance: 2 % of what the block adds; 8 bits leave about 0.5 % in each of two layers in a row."""
    tower, x = make_tower(activation=activation), random_tokens(batch)
    expected, seen = block_by_definition(float_block(tower.blocks[0], tower.activation), x)
    weights = quantize_block(tower.blocks[0], tower.activation, ranges_of(seen))
    after = run_part(build_block(weights, BlockForm(token_count=TOKENS), number=1), tokens=x)["tokens_out"]
    error = np.linalg.norm(after - expected) / np.linalg.norm(expected - x)
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize("levels", [ALL_LEVELS, SMALL_WEIGHTS, SMALL_INPUTS], ids=["all", "weights", "inputs"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_an_int8_block_computes_its_own_integers(
    activation: str, levels: Levels, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """A value between two levels may round the other way after a float32 sum, so a few tokens may be off by a level.

    The median shows that the arithmetic is the same; the largest error stays below one level through one weight.
    """
    tower, x = make_tower(activation=activation), random_tokens(3)
    _, seen = block_by_definition(float_block(tower.blocks[0], tower.activation), x)
    ranges = {name: replace(one, levels=levels) for name, one in ranges_of(seen).items()}
    weights = quantize_block(tower.blocks[0], tower.activation, ranges)
    assert weights.saturates is (levels == ALL_LEVELS)
    after = run_part(build_block(weights, BlockForm(token_count=TOKENS), number=1), tokens=x)["tokens_out"]
    error = np.abs(after - block_by_definition(weights, x)[0])
    assert np.median(error) < 2e-6
    assert error.max() < 0.05


def test_an_image_gets_the_same_answer_alone_and_in_a_batch(
    make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Static scales do not depend on the neighbours; INT8 sums are exact, so at most float32 rounding is left."""
    tower, x = make_tower(), random_tokens(3)
    _, seen = block_by_definition(float_block(tower.blocks[0], tower.activation), x)
    part = build_block(
        quantize_block(tower.blocks[0], tower.activation, ranges_of(seen)), BlockForm(token_count=TOKENS), number=1
    )
    together = run_part(part, tokens=x)["tokens_out"]
    for row in range(3):
        np.testing.assert_allclose(run_part(part, tokens=x[row : row + 1])["tokens_out"][0], together[row], atol=2e-6)


def test_values_outside_the_range_saturate(
    make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """With ranges half as wide as the values, the kernel clips as the formula does and never wraps around."""
    tower, x = make_tower(), random_tokens(2)
    _, seen = block_by_definition(float_block(tower.blocks[0], tower.activation), x)
    narrow = ranges_of({name: value / 2 for name, value in seen.items()})
    weights = quantize_block(tower.blocks[0], tower.activation, narrow)
    after = run_part(build_block(weights, BlockForm(token_count=TOKENS), number=1), tokens=x)["tokens_out"]
    error = np.abs(after - block_by_definition(weights, x)[0])
    assert np.median(error) < 2e-6
    assert error.max() < 0.05


def test_a_block_counts_its_matrix_products(make_tower: Callable[..., Tower]) -> None:
    """Twelve width-by-width products a token (q, k, v, out, and four each in fc1 and fc2) and two token by token."""
    tower = make_tower(width=64)
    graph, _ = build_block(float_block(tower.blocks[0], tower.activation), BlockForm(token_count=TOKENS), number=1)
    assert graph.flops == 2 * TOKENS * 12 * 64**2 + 2 * 2 * TOKENS**2 * 64
    assert graph.flops_per_label == 0


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_the_class_only_form_gives_the_class_tokens_row(
    quantized: bool, batch: int, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Over the same weight file, with fewer FLOPs. Tolerance: float32 sums in another order; at INT8 one level of a
    quantized value may round the other way for it.
    """
    tower = make_tower()
    x = random_tokens(batch)
    weights = float_block(tower.blocks[0], tower.activation)
    if quantized:
        _, seen = block_by_definition(weights, x)
        weights = quantize_block(tower.blocks[0], tower.activation, ranges_of(seen))
    whole, row = (build_block(weights, BlockForm(token_count=TOKENS, class_only=c), number=1) for c in (False, True))
    assert row[1].places == whole[1].places
    assert row[1].chunks == whole[1].chunks
    assert row[0].flops < whole[0].flops
    expected = run_part(whole, tokens=x)["tokens_out"][:, :1]
    got = run_part(row, tokens=x)["tokens_out"]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=0.02 if quantized else 2e-6)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sized", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_a_merging_block_computes_the_definition(
    quantized: bool,
    sized: bool,
    batch: int,
    make_tower: Callable[..., Tower],
    run_part: Callable[..., dict[str, Any]],
    merged_by_definition: Callable[..., tuple[Array, Array]],
) -> None:
    """Tokens are merged after the attention, by its keys; a token that stands for several weighs as many.

    Tolerances as for the plain block. All forms of a block read the same weight file.
    """
    tower, x = make_tower(), random_tokens(batch)
    sizes = np.random.default_rng(6).integers(1, 4, (batch, TOKENS, 1)).astype(np.float32) if sized else None
    form, met = MergeForm(token_count=TOKENS, merged=3, width=32, channels=8), {}

    def merge(tokens: Array, keys: Array) -> Array:
        given = {"tokens": tokens, "keys": keys.transpose(2, 0, 1, 3)}
        merged, met["sizes"] = merged_by_definition(given | ({} if sizes is None else {"sizes": sizes}), form)
        return merged

    weights = float_block(tower.blocks[0], tower.activation)
    if quantized:
        _, seen = block_by_definition(weights, x, sizes, merge)
        weights = quantize_block(tower.blocks[0], tower.activation, ranges_of(seen))
    part = build_block(weights, BlockForm(token_count=TOKENS, merged=3, sized=sized), number=1)
    assert part[0].name == "block_01_10_7"
    assert part[1].places == build_block(weights, BlockForm(token_count=TOKENS), number=1)[1].places
    got = run_part(part, tokens=x, **({} if sizes is None else {"sizes": sizes}))
    expected, _ = block_by_definition(weights, x, sizes, merge)
    np.testing.assert_array_equal(got["sizes_out"], met["sizes"])
    error = np.abs(got["tokens_out"] - expected)
    assert error.max() < (0.05 if quantized else 2e-5)
    assert np.median(error) < 2e-6


@pytest.mark.parametrize("class_only", [False, True])
def test_a_block_attends_to_a_token_as_often_as_it_stands_for(
    class_only: bool, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """With copies of a token in place of its size the others get the same. Tolerance: float32 sums."""
    tower, x = make_tower(), random_tokens(2)
    sizes = np.ones((2, TOKENS, 1), np.float32)
    sizes[:, 4] = 3
    repeated = np.concatenate([x, x[:, 4:5], x[:, 4:5]], axis=1)
    weights = float_block(tower.blocks[0], tower.activation)
    sized = build_block(weights, BlockForm(token_count=TOKENS, class_only=class_only, sized=True), number=2)
    assert sized[0].name == ("block_02_class_10" if class_only else "block_02_10_10")
    plain = build_block(weights, BlockForm(token_count=TOKENS + 2, class_only=class_only), number=2)
    got = run_part(sized, tokens=x, sizes=sizes)
    assert set(got) == {"tokens_out"}
    expected = run_part(plain, tokens=repeated)["tokens_out"]
    np.testing.assert_allclose(got["tokens_out"], expected[:, : got["tokens_out"].shape[1]], atol=2e-5)


def test_a_merging_block_counts_fewer_tokens_in_its_mlp(make_tower: Callable[..., Tower]) -> None:
    """Eight products of width by width for each token that is left, and those of the merging."""
    tower = make_tower(width=64)
    weights = float_block(tower.blocks[0], tower.activation)
    graph, _ = build_block(weights, BlockForm(token_count=TOKENS, merged=3, sized=True), number=1)
    form = MergeForm(token_count=TOKENS, merged=3, width=64, channels=64 // weights.heads)
    attention = 2 * TOKENS * 4 * 64**2 + 2 * 2 * TOKENS**2 * 64
    merging = flops_of_merging(form)
    assert graph.flops == attention + merging + 2 * (TOKENS - 3) * 8 * 64**2
    for options in ({"merged": 3, "sized": True}, {}, {"class_only": True}):
        graph, _ = build_block(weights, BlockForm(token_count=TOKENS, **options), number=1)
        form = BlockForm(token_count=TOKENS, **options)
        assert flops_of_block(form, width=64, mlp_width=256, heads=weights.heads) == graph.flops
