"""The tail turns the class token into the CLIP embedding and label probabilities."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lraee_exporters.graphs.tail import build_tail, float_tail, quantize_tail
from lraee_exporters.int8.linear import ActivationRange
from lraee_exporters.tower import Tower

Array = npt.NDArray[Any]
TOKENS = 10


def random_tokens(batch: int) -> Array:
    """Draw float32 tokens (batch, TOKENS, 32)."""
    return np.random.default_rng(6).standard_normal((batch, TOKENS, 32), dtype=np.float32) * 2


def tail_by_definition(tower: Tower, tokens: Array, labels: dict[str, Array]) -> tuple[Array, Array, Array]:
    """Normed class token, unit embedding and probabilities, float64."""
    x, norm = tokens[:, 0].astype(np.float64), tower.norm_post
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.epsilon) * norm.weight + norm.bias
    embedding = normed @ tower.projection
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    logits = labels["logit_scale"] * embedding @ labels["label_matrix"]
    if tower.logit_bias is not None:
        return normed, embedding, 1 / (1 + np.exp(-logits - tower.logit_bias))
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return normed, embedding, shares / shares.sum(-1, keepdims=True)


def build(tower: Tower, weights: Any, *, observe: bool = False) -> Any:
    """Build the part ``tail``."""
    return build_tail(weights, width=tower.width, embed_dim=tower.embed_dim, token_count=tower.tokens, observe=observe)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("logit_bias", [None, -2.5])
def test_a_float_tail_computes_the_definition(
    logit_bias: float | None,
    batch: int,
    make_tower: Callable[..., Tower],
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """Tolerance: float32 sums of 32 products; logits are 20 times the cosine."""
    tower, tokens, labels = make_tower(logit_bias=logit_bias), random_tokens(batch), labels_input()
    got = run_part(build(tower, float_tail(tower)), tokens=tokens, **labels)
    _, embedding, probabilities = tail_by_definition(tower, tokens, labels)
    np.testing.assert_allclose(got["embedding"], embedding, atol=1e-6)
    np.testing.assert_allclose(got["probabilities"], probabilities, atol=2e-5)


def test_an_observed_tail_gives_the_input_of_the_projection(
    make_tower: Callable[..., Tower],
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """This is the normed class token."""
    tower, tokens, labels = make_tower(), random_tokens(3), labels_input()
    got = run_part(build(tower, float_tail(tower), observe=True), tokens=tokens, **labels)
    np.testing.assert_allclose(got["observed_norm_post"], tail_by_definition(tower, tokens, labels)[0], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("logit_bias", [None, -2.5])
def test_an_int8_tail_stays_close_to_float(
    logit_bias: float | None,
    batch: int,
    make_tower: Callable[..., Tower],
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """Tolerance: one INT8 product turns the embedding by about half a degree, cosine 0.9995 and more."""
    tower, tokens, labels = make_tower(logit_bias=logit_bias), random_tokens(batch), labels_input()
    normed, embedding, probabilities = tail_by_definition(tower, tokens, labels)
    weights = quantize_tail(
        float_tail(tower), {"norm_post": ActivationRange(minimum=float(normed.min()), maximum=float(normed.max()))}
    )
    got = run_part(build(tower, weights), tokens=tokens, **labels)
    assert (got["embedding"] * embedding).sum(axis=1).min() > 0.9995
    np.testing.assert_allclose(np.linalg.norm(got["embedding"], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(got["probabilities"], probabilities, atol=0.05)


def test_the_number_of_labels_is_free(
    make_tower: Callable[..., Tower],
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """One graph serves any label set; its FLOPs say what a label costs."""
    tower, tokens = make_tower(), random_tokens(1)
    part = build(tower, float_tail(tower))
    for count in (2, 1000):
        got = run_part(part, tokens=tokens, **labels_input(count=count))["probabilities"]
        assert got.shape == (1, count)
        assert abs(got.sum() - 1) < 1e-5
    assert part[0].flops == 2 * tower.width * tower.embed_dim
    assert part[0].flops_per_label == 2 * tower.embed_dim
