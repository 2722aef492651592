"""An exit part gives embedding, probabilities, gate features and the gate, each by its definition."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lraee.errors import TowerError
from lraee_exporters.graphs.exit import (
    GATE_FEATURES,
    HEAD_INPUTS,
    TOKEN_INPUTS,
    ExitWeights,
    HeadInput,
    TokenShape,
    build_exit,
    flops_of_exit,
    rows_read,
)
from lraee_exporters.graphs.pooling.token_pool import QUERIES, LocalMixing, TokenPool
from lraee_exporters.int8.linear import ActivationRange, quantize_linear
from lraee_exporters.tower import LayerNorm, Linear

Array = npt.NDArray[Any]
TOKENS, WIDTH, EMBED, RANK = 10, 32, 12, 6


def random_tokens(batch: int) -> Array:
    """Draw float32 tokens (batch, TOKENS, WIDTH)."""
    return np.random.default_rng(8).standard_normal((batch, TOKENS, WIDTH), dtype=np.float32) + np.float32(0.5)


def random_exit(reads: HeadInput = "patch_mean", *, class_token: bool = True, **changes: Any) -> ExitWeights:
    """A head with random float layers and a gate that answers neither 0 nor 1; its queries tell tokens apart."""
    generator = np.random.default_rng(9)
    size = WIDTH * rows_read(reads, class_token=class_token)

    def normal(*shape: int) -> Array:
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)

    mixing = LocalMixing(kernel=normal(WIDTH, 1, 3, 3), bias=normal(WIDTH)) if reads == "local" else None
    queries = normal(WIDTH, QUERIES)
    weights = ExitWeights(
        reads=reads,
        norm=LayerNorm(weight=1 + normal(size), bias=normal(size), epsilon=1e-5),
        fc1=Linear(weight=normal(WIDTH, size), bias=normal(WIDTH)),
        fc2=Linear(weight=normal(EMBED, WIDTH), bias=normal(EMBED)),
        logit_bias=None,
        temperature=1.7,
        gate_weights=(2.0, -1.5, 0.03),
        gate_bias=-1.0,
        pool=TokenPool(queries=queries, mixing=mixing) if reads in ("attention", "local") else None,
    )
    return replace(weights, **changes)


def with_bottleneck(weights: ExitWeights) -> ExitWeights:
    """The same exit with random layers through `RANK` channels in place of the first."""
    assert isinstance(weights.fc1, Linear)
    generator, size = np.random.default_rng(10), weights.fc1.weight.shape[1]
    narrow = generator.standard_normal((RANK, size), dtype=np.float32) * np.float32(size**-0.5)
    wide = generator.standard_normal((WIDTH, RANK), dtype=np.float32) * np.float32(RANK**-0.5)
    bias = generator.standard_normal(RANK, dtype=np.float32)
    bottleneck = Linear(weight=narrow, bias=bias)
    return replace(weights, bottleneck=bottleneck, fc1=Linear(weight=wide, bias=weights.fc1.bias))


def quantized(weights: ExitWeights, answers: dict[str, Array]) -> ExitWeights:
    """All layers in INT8, with the ranges of what they read in `exit_by_definition`."""
    layers = {}
    for name in ("bottleneck", "fc1", "fc2"):
        if (layer := getattr(weights, name)) is not None:
            met = answers[f"{name}_input"]
            layers[name] = quantize_linear(layer, ActivationRange(minimum=float(met.min()), maximum=float(met.max())))
    return replace(weights, **layers)


def gelu(x: Array) -> Array:
    """With the error function."""
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def pooled_by_definition(pool: TokenPool, tokens: Array, *, class_token: bool) -> Array:
    """What a head reads of all tokens, written out in float64, one image, query and patch at a time."""
    images = []
    for image in tokens:
        normed = (image - image.mean(-1, keepdims=True)) / np.sqrt(image.var(-1, keepdims=True) + 1e-5)
        first, patches = normed[:class_token], normed[class_token:]
        if pool.mixing is not None:
            side = math.isqrt(len(patches))
            padded = np.pad(patches.reshape(side, side, -1), ((1, 1), (1, 1), (0, 0)))
            kernel = pool.mixing.kernel[:, 0]
            convolved = [
                sum(kernel[:, i, j] * padded[row + i, column + j] for i in range(3) for j in range(3))
                for row in range(side)
                for column in range(side)
            ]
            patches = patches + gelu(np.stack(convolved) + pool.mixing.bias)
        looked_at = patches if pool.mixing is not None else np.concatenate([first, patches])
        means = []
        for query in pool.queries.T:
            scores = np.exp(looked_at @ query)
            means.append(scores @ looked_at / scores.sum())
        rows = [patches.mean(axis=0), *means]
        images.append(np.concatenate([*rows, *first] if pool.mixing is not None else [rows[0], *first, *rows[1:]]))
    return np.stack(images)


def exit_by_definition(
    weights: ExitWeights, tokens: Array, labels: dict[str, Array], *, has_class_token: bool = True
) -> dict[str, Array]:
    """Section 3 of arXiv 2605.26415, written out in float64."""
    x = tokens.astype(np.float64)
    patches, class_token = x[:, int(has_class_token) :], x[:, 0]
    mean = patches.mean(axis=1)
    if weights.pool is not None:
        read = pooled_by_definition(weights.pool, x, class_token=has_class_token)
    else:
        both = np.concatenate([mean, class_token], axis=1)
        read = {"patch_mean": mean, "cls": class_token, "both": both}[weights.reads]
    centred = read - read.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + weights.norm.epsilon)
    normed = normed * weights.norm.weight + weights.norm.bias
    assert isinstance(weights.fc1, Linear)
    assert isinstance(weights.fc2, Linear)
    of_layers = {"fc1_input": normed}
    if weights.bottleneck is not None:
        assert isinstance(weights.bottleneck, Linear)
        narrow = normed @ weights.bottleneck.weight.T + weights.bottleneck.bias
        of_layers, normed = {"bottleneck_input": normed, "fc1_input": narrow}, narrow
    hidden = gelu(normed @ weights.fc1.weight.T + weights.fc1.bias)
    embedding = hidden @ weights.fc2.weight.T + weights.fc2.bias
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    logits = labels["logit_scale"] / weights.temperature * embedding @ labels["label_matrix"]
    shares = np.exp(logits)
    probabilities = shares / shares.sum(-1, keepdims=True)
    top = np.sort(probabilities, axis=1)  # the gate judges the softmax, whatever the loss was
    if weights.logit_bias is not None:
        probabilities = 1 / (1 + np.exp(-logits * weights.temperature - weights.logit_bias))
    distances = np.linalg.norm(patches - mean[:, None], axis=2) ** 2
    features = np.stack([top[:, -1], top[:, -1] - top[:, -2], distances.mean(axis=1)], axis=1)
    gate = 1 / (1 + np.exp(-(features @ np.array(weights.gate_weights) + weights.gate_bias)))
    answers = {"embedding": embedding, "probabilities": probabilities, "features": features, "gate": gate}
    return answers | of_layers | {"fc2_input": hidden}


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("logit_bias", [None, 1.5])
@pytest.mark.parametrize("reads", HEAD_INPUTS)
def test_an_exit_computes_the_definition(
    reads: HeadInput,
    logit_bias: float | None,
    batch: int,
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """Tolerance: float32 sums of at most 64 products; SAV is a sum of 288 squares of size 1."""
    weights, tokens, labels = random_exit(reads, logit_bias=logit_bias), random_tokens(batch), labels_input()
    got = run_part(build_exit(weights, TokenShape(count=TOKENS, width=WIDTH), name="exit_04"), tokens=tokens, **labels)
    expected = exit_by_definition(weights, tokens, labels)
    assert list(got) == ["embedding", "probabilities", "features", "gate"]
    assert 0.02 < expected["gate"].min() <= expected["gate"].max() < 0.98
    for name, tolerance in (("embedding", 1e-6), ("probabilities", 1e-5), ("features", 5e-5), ("gate", 1e-5)):
        assert got[name].shape == expected[name].shape
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance, err_msg=name)


@pytest.mark.parametrize("reads", TOKEN_INPUTS)
def test_an_exit_with_a_bottleneck_computes_the_definition(
    reads: HeadInput, run_part: Callable[..., dict[str, Any]], labels_input: Callable[..., dict[str, Any]]
) -> None:
    """Two layers in place of the first; tolerances as above. In INT8 as close as without."""
    weights, tokens, labels = with_bottleneck(random_exit(reads)), random_tokens(3), labels_input()
    got = run_part(build_exit(weights, TokenShape(count=TOKENS, width=WIDTH), name="exit_04"), tokens=tokens, **labels)
    expected = exit_by_definition(weights, tokens, labels)
    for name, tolerance in (("embedding", 1e-6), ("probabilities", 1e-5), ("features", 5e-5), ("gate", 1e-5)):
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance, err_msg=name)
    int8 = quantized(weights, expected)
    got = run_part(build_exit(int8, TokenShape(count=TOKENS, width=WIDTH), name="exit_04"), tokens=tokens, **labels)
    assert (got["embedding"] * expected["embedding"]).sum(axis=1).min() > math.cos(math.radians(2.5))


@pytest.mark.parametrize("class_token", [True, False], ids=["class-token", "patches-only"])
@pytest.mark.parametrize("reads", ["patch_mean", "cls", "both", "attention"])
def test_an_exit_counts_a_token_as_often_as_it_stands_for(
    reads: HeadInput,
    class_token: bool,
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """In means, in what queries find and in the variance: as if it were there as often. Tolerances as above."""
    if reads in ("cls", "both") and not class_token:
        return
    tokens, labels = random_tokens(3)[:, : TOKENS - 1 + class_token], labels_input()
    count = tokens.shape[1]
    sizes = np.ones((3, count, 1), np.float32)
    sizes[:, 4], sizes[:, 7] = 3, 2
    repeated = np.concatenate([tokens, tokens[:, 4:5], tokens[:, 4:5], tokens[:, 7:8]], axis=1)
    weights = random_exit(reads, class_token=class_token)
    shape = TokenShape(count=count, width=WIDTH, class_token=class_token, patches=count + 3 - class_token)
    sized = build_exit(weights, shape, name="exit_04_merged")
    assert sized[0].name == "exit_04_merged"
    plain = build_exit(weights, TokenShape(count=count + 3, width=WIDTH, class_token=class_token), name="exit_04")
    got = run_part(sized, tokens=tokens, sizes=sizes, **labels)
    expected = run_part(plain, tokens=repeated, **labels)
    for name, tolerance in (("embedding", 1e-6), ("probabilities", 1e-5), ("features", 5e-5), ("gate", 1e-5)):
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance, err_msg=name)


def test_a_local_head_cannot_read_merged_tokens() -> None:
    """They lie in no grid."""
    with pytest.raises(TowerError, match="merging takes apart"):
        build_exit(random_exit("local"), TokenShape(count=8, width=WIDTH, patches=9), name="exit_04")


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("reads", ["patch_mean", "attention", "local"])
def test_an_exit_of_a_tower_without_a_class_token_computes_the_definition(
    reads: HeadInput, batch: int, run_part: Callable[..., dict[str, Any]], labels_input: Callable[..., dict[str, Any]]
) -> None:
    """All nine tokens are patches. Tolerances as above."""
    tokens, labels = random_tokens(batch)[:, 1:].copy(), labels_input()
    weights = random_exit(reads, class_token=False)
    part = build_exit(weights, TokenShape(count=TOKENS - 1, width=WIDTH, class_token=False), name="exit_04")
    got = run_part(part, tokens=tokens, **labels)
    expected = exit_by_definition(weights, tokens, labels, has_class_token=False)
    for name, tolerance in (("embedding", 1e-6), ("probabilities", 1e-5), ("features", 5e-5), ("gate", 1e-5)):
        np.testing.assert_allclose(got[name], expected[name], atol=tolerance, err_msg=name)


def test_a_local_head_wants_a_square_of_patches_and_a_class_token_head_a_class_token() -> None:
    """Seven patches have no grid."""
    with pytest.raises(TowerError, match="square, this tower has 7"):
        build_exit(random_exit("local"), TokenShape(count=8, width=WIDTH), name="exit_04")
    for reads in ("cls", "both"):
        with pytest.raises(TowerError, match="needs a class token"):
            build_exit(random_exit(reads), TokenShape(count=9, width=WIDTH, class_token=False), name="exit_04")


def test_spatial_variance_survives_large_channels_that_all_patches_share(
    run_part: Callable[..., dict[str, Any]], labels_input: Callable[..., dict[str, Any]]
) -> None:
    """Real towers have channels of size 100 in every token; the shortcut of the graph still agrees to 0.1 %."""
    weights, tokens, labels = random_exit(), random_tokens(3), labels_input()
    tokens[:, :, :2] += 100
    got = run_part(build_exit(weights, TokenShape(count=TOKENS, width=WIDTH), name="exit_04"), tokens=tokens, **labels)
    variance = GATE_FEATURES.index("spatial_activation_variance")
    expected = exit_by_definition(weights, tokens, labels)["features"][:, variance]
    np.testing.assert_allclose(got["features"][:, variance], expected, rtol=1e-3)


def test_only_the_class_token_head_reads_the_class_token(
    run_part: Callable[..., dict[str, Any]], labels_input: Callable[..., dict[str, Any]]
) -> None:
    """The paper's SSA head leaves [CLS] out, of the embedding as of the variance."""
    tokens, labels = random_tokens(1), labels_input()
    changed = tokens.copy()
    changed[:, 0] += np.arange(WIDTH, dtype=np.float32)
    for reads in HEAD_INPUTS:
        part = build_exit(random_exit(reads), TokenShape(count=TOKENS, width=WIDTH), name="exit_04")
        before, after = (run_part(part, tokens=value, **labels) for value in (tokens, changed))
        assert np.array_equal(before["embedding"], after["embedding"]) == (reads == "patch_mean")
        assert before["features"][0, 2] == after["features"][0, 2]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("reads", HEAD_INPUTS)
def test_an_int8_exit_stays_close_to_float(
    reads: HeadInput,
    batch: int,
    run_part: Callable[..., dict[str, Any]],
    labels_input: Callable[..., dict[str, Any]],
) -> None:
    """Tolerance: two INT8 products turn the embedding by at most 2 degrees; the variance is not quantized at all."""
    weights, tokens, labels = random_exit(reads), random_tokens(batch), labels_input()
    expected = exit_by_definition(weights, tokens, labels)
    int8 = quantized(weights, expected)
    got = run_part(build_exit(int8, TokenShape(count=TOKENS, width=WIDTH), name="exit_04"), tokens=tokens, **labels)
    assert (got["embedding"] * expected["embedding"]).sum(axis=1).min() > math.cos(math.radians(2))
    np.testing.assert_allclose(got["features"][:, 2], expected["features"][:, 2], atol=5e-5)
    np.testing.assert_allclose(got["gate"], expected["gate"], atol=0.1)


def test_an_exit_counts_its_matrix_products() -> None:
    """Two layers, two averages over the tokens, 9 and 3 products for the gate, and the similarity for each label.

    With attention, scores and means of 8 queries, the mean and the class token over all 10 tokens; with the local head
    9 products for each channel of 9 patches, then 8 queries and the mean over these.
    """
    attention, local = 2 * 2 * 10 * 10 * WIDTH, 2 * 9 * 9 * WIDTH + 2 * 2 * 9 * 9 * WIDTH
    for reads, rows, pool in (
        ("patch_mean", 1, 0), ("cls", 1, 0), ("both", 2, 0), ("attention", 10, attention), ("local", 10, local)
    ):  # fmt: skip
        graph, _ = build_exit(random_exit(reads), TokenShape(count=TOKENS, width=WIDTH), name="exit_04")
        averages = 2 * 2 * TOKENS * WIDTH
        assert graph.flops == 2 * (rows * WIDTH * WIDTH + WIDTH * EMBED) + averages + pool + 2 * (9 + 3)
        assert graph.flops_per_label == 2 * EMBED
        counted = flops_of_exit(reads, token_count=TOKENS, width=WIDTH, embed_dim=EMBED, class_token=True)
        assert counted == graph.flops
    for reads in TOKEN_INPUTS:
        graph, _ = build_exit(
            with_bottleneck(random_exit(reads)), TokenShape(count=TOKENS, width=WIDTH), name="exit_04"
        )
        counted = flops_of_exit(reads, token_count=TOKENS, width=WIDTH, embed_dim=EMBED, class_token=True, rank=RANK)
        assert counted == graph.flops
    for reads in ("patch_mean", "attention", "local"):
        weights = random_exit(reads, class_token=False)
        graph, _ = build_exit(weights, TokenShape(count=9, width=WIDTH, class_token=False), name="exit_04")
        counted = flops_of_exit(reads, token_count=9, width=WIDTH, embed_dim=EMBED, class_token=False)
        assert counted == graph.flops
