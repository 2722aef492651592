"""The attention pool, folded around its constant query, is the attention that SigLIP's towers compute."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lraee.errors import TowerError
from lraee_exporters.graphs.exit import ExitWeights, TokenShape, build_exit
from lraee_exporters.graphs.fused_operators import check_operators
from lraee_exporters.graphs.stem import build_stem, operators_of_stem
from lraee_exporters.graphs.tail import (
    build_tail,
    float_tail,
    operators_of_tail,
    quantize_tail,
    quantized_inputs_of_tail,
)
from lraee_exporters.int8.linear import ActivationRange
from lraee_exporters.tower import Activation, AttentionPool, LayerNorm, Linear, Mlp, Tower

Array = npt.NDArray[Any]
WIDTH, HEADS, TOKENS = 32, 4, 9


def normal(*shape: int, scale: float = 0.3, seed: int = 0) -> Array:
    """Draw float32 values of any shape."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32) * np.float32(scale)


def linear(size_in: int, size_out: int, seed: int) -> Linear:
    """Make a linear layer with a bias."""
    return Linear(weight=normal(size_out, size_in, seed=seed), bias=normal(size_out, seed=seed))


@pytest.fixture
def tower(make_tower: Callable[..., Tower]) -> Tower:
    """A SigLIP tower: no class token, an attention pool, no projection."""
    plain = make_tower(width=WIDTH, heads=HEADS, patch_bias=True, norm_pre=False, logit_bias=-2.5)
    pool = AttentionPool(
        query=normal(WIDTH, scale=1.0),
        key=linear(WIDTH, WIDTH, 1),
        value=linear(WIDTH, WIDTH, 2),
        out=linear(WIDTH, WIDTH, 3),
        norm=LayerNorm(weight=1 + normal(WIDTH, seed=4), bias=normal(WIDTH, seed=5), epsilon=1e-6),
        mlp=Mlp(fc1=linear(WIDTH, 2 * WIDTH, 6), fc2=linear(2 * WIDTH, WIDTH, 7)),
        heads=HEADS,
    )
    return replace(
        plain,
        class_embedding=None,
        positions=np.ascontiguousarray(plain.positions[1:]),
        pooling="attention",
        attention_pool=pool,
        projection=None,
    )


def apply(layer: Linear, x: Array) -> Array:
    """Compute a linear layer in float64."""
    return x @ layer.weight.T.astype(np.float64) + layer.bias


def norm(layer: LayerNorm, x: Array) -> Array:
    """Compute a LayerNorm in float64."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.epsilon) * layer.weight + layer.bias


def activate(name: Activation, x: Array) -> Array:
    """Compute either kind of GELU."""
    if name == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def embed_by_definition(tower: Tower, tokens: Array) -> Array:
    """Keys and values of every token, as torch computes them; unit rows."""
    pool = tower.attention_pool
    assert pool is not None
    x = norm(tower.norm_post, tokens.astype(np.float64))
    query = pool.query.astype(np.float64).reshape(1, HEADS, 1, -1)
    key, value = (
        apply(layer, x).reshape(len(x), TOKENS, HEADS, -1).transpose(0, 2, 1, 3) for layer in (pool.key, pool.value)
    )
    weights = np.exp(query @ key.transpose(0, 1, 3, 2) / math.sqrt(WIDTH // HEADS))
    weights /= weights.sum(-1, keepdims=True)
    pooled = apply(pool.out, (weights @ value).transpose(0, 2, 1, 3).reshape(len(x), WIDTH))
    hidden = activate(tower.activation, apply(pool.mlp.fc1, norm(pool.norm, pooled)))
    pooled = pooled + apply(pool.mlp.fc2, hidden)
    if tower.projection is not None:
        pooled = pooled @ tower.projection
    if tower.projection_bias is not None:
        pooled = pooled + tower.projection_bias
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("projects", [False, True])
def test_the_folded_pool_computes_the_definition(
    activation: Activation,
    projects: bool,
    tower: Tower,
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """Float within rounding, INT8 within 4 degrees; sigmoids also where they are tiny."""
    tower = replace(tower, activation=activation)
    if projects:
        tower = replace(tower, projection=normal(WIDTH, 12), projection_bias=normal(12, seed=9))
    tokens, labels = normal(3, TOKENS, WIDTH, scale=2.0), labels_input(embed_dim=tower.embed_dim)
    wanted = embed_by_definition(tower, tokens)
    sizes = {"width": WIDTH, "embed_dim": tower.embed_dim, "token_count": TOKENS}
    tail = float_tail(tower)
    got = run_part(build_tail(tail, **sizes, observe=True), tokens=tokens, **labels)
    np.testing.assert_allclose(got["embedding"], wanted, atol=2e-6)
    logits = labels["logit_scale"] * wanted @ labels["label_matrix"] - 2.5
    np.testing.assert_allclose(got["probabilities"], 1 / (1 + np.exp(-logits)), rtol=1e-4)
    names = quantized_inputs_of_tail(tail)
    assert list(names) == ["attention", "norm", "activation", *(["pooled"] if projects else [])]
    ranges = {
        name: ActivationRange(
            minimum=float(got[f"observed_{name}"].min()), maximum=float(got[f"observed_{name}"].max())
        )
        for name in names
    }
    int8 = run_part(build_tail(quantize_tail(tail, ranges), **sizes), tokens=tokens, **labels)
    assert (int8["embedding"] * wanted).sum(axis=1).min() > math.cos(math.radians(4))
    assert operators_of_tail(quantize_tail(tail, ranges))["QGemm"] == 3 + projects


def test_the_pool_counts_a_token_as_often_as_it_stands_for(
    tower: Tower,
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """As if it were there as often. Tolerance: float32 sums."""
    tail, tokens = float_tail(tower), normal(2, TOKENS, WIDTH)
    labels = labels_input(embed_dim=tower.embed_dim)
    sizes = np.ones((2, TOKENS, 1), np.float32)
    sizes[:, 2] = 3
    widths = {"width": WIDTH, "embed_dim": tower.embed_dim}
    sized = build_tail(tail, **widths, token_count=TOKENS, sized=True)
    assert (sized[0].name, sized[1].location) == (f"tail_{TOKENS}", "tail.data")
    sized[1].save(tmp_path)
    check_operators(sized[0].save(tmp_path), operators_of_tail(tail, sized=True))
    got = run_part(sized, tokens=tokens, sizes=sizes, **labels)
    repeated = np.concatenate([tokens, tokens[:, 2:3], tokens[:, 2:3]], axis=1)
    expected = run_part(build_tail(tail, **widths, token_count=TOKENS + 2), tokens=repeated, **labels)
    np.testing.assert_allclose(got["embedding"], expected["embedding"], atol=2e-6)


def test_the_pool_costs_a_few_rows_and_not_every_token(tower: Tower) -> None:
    """Two products with (width, heads) for each token, and the layers of one row."""
    graph, _ = build_tail(float_tail(tower), width=WIDTH, embed_dim=WIDTH, token_count=TOKENS)
    rows = 2 * (2 * WIDTH * WIDTH + 2 * WIDTH * 2 * WIDTH)
    assert graph.flops == 2 * 2 * TOKENS * WIDTH * HEADS + rows


def test_a_stem_without_a_class_token_adds_no_row(tower: Tower, run_part: Callable[..., dict[str, Any]]) -> None:
    """All of its tokens are patches."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    got = run_part(build_stem(tower, quantized=False), pixels=pixels)["tokens_out"]
    assert got.shape == (2, TOKENS, WIDTH)
    mean, std = tower.preprocessing.mean, tower.preprocessing.std
    patch = ((pixels[0, 8:16, :8] / 255 - mean) / std).transpose(2, 0, 1)
    assert tower.patch_bias is not None
    first_of_second_row = (tower.patch_kernel * patch).sum(axis=(1, 2, 3)) + tower.patch_bias + tower.positions[3]
    np.testing.assert_allclose(got[0, 3], first_of_second_row, atol=1e-5)
    assert "Pad" not in operators_of_stem(tower, quantized=True)


def test_an_exit_averages_all_tokens_and_cannot_read_a_class_token(
    run_part: Callable[..., dict[str, Any]], labels_input: Callable[..., dict[str, Any]]
) -> None:
    """SAV and mean over all tokens."""
    weights = ExitWeights(
        reads="patch_mean",
        norm=LayerNorm(weight=np.ones(WIDTH, np.float32), bias=np.zeros(WIDTH, np.float32), epsilon=1e-5),
        fc1=linear(WIDTH, WIDTH, 1),
        fc2=linear(WIDTH, 12, 2),
        logit_bias=None,
        temperature=1.0,
        gate_weights=(1.0, 1.0, 1.0),
        gate_bias=0.0,
    )
    tokens = normal(2, TOKENS, WIDTH)
    part = build_exit(weights, TokenShape(count=TOKENS, width=WIDTH, class_token=False), name="exit_01")
    variance = run_part(part, tokens=tokens, **labels_input())["features"][:, 2]
    expected = ((tokens - tokens.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(variance, expected, rtol=1e-4)
    with pytest.raises(TowerError, match="reads 'both' needs a class token"):
        build_exit(
            replace(weights, reads="both"), TokenShape(count=TOKENS, width=WIDTH, class_token=False), name="exit_01"
        )


def test_a_tower_whose_pooling_does_not_fit_its_parts_is_refused(tower: Tower) -> None:
    """Each contradiction is refused by itself."""
    first = normal(WIDTH)
    for change in (
        {"pooling": "cls"},
        {"attention_pool": None},
        {"class_embedding": first, "positions": np.concatenate([first[None], tower.positions])},
    ):
        with pytest.raises(TowerError, match="met the pooling"):
            replace(tower, **change)
    with pytest.raises(TowerError, match="a projection bias without a projection"):
        replace(tower, projection_bias=first)
    assert tower.attention_pool is not None
    with pytest.raises(TowerError, match=r"AttentionPool\.heads: met 5"):
        replace(tower.attention_pool, heads=5)


def test_the_fingerprint_covers_the_pool_and_holds_for_older_towers(
    tower: Tower, make_tower: Callable[..., Tower]
) -> None:
    """A tower without the later fields has the fingerprint that bundles of it carry."""
    assert tower.attention_pool is not None
    turned = replace(tower.attention_pool, query=tower.attention_pool.query[::-1].copy())
    assert replace(tower, attention_pool=turned).fingerprint() != tower.fingerprint()
    plain = make_tower()
    biased = replace(plain, projection_bias=np.zeros(plain.embed_dim, np.float32))
    assert biased.fingerprint() != plain.fingerprint()
