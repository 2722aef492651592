"""Merging makes the pairs and means of its definition, never touches the class token, and breaks ties by place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto

from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import TokenValue
from lraee_exporters.graphs.pooling.merging import MergeForm, add_merging, flops_of_merging, most_merged

Array = npt.NDArray[Any]
WIDTH, HEADS = 16, 2


def form_of(**numbers: Any) -> MergeForm:
    """With the channels of these tests."""
    return MergeForm(width=WIDTH, channels=WIDTH // HEADS, **numbers)


def part(form: MergeForm, *, sized: bool) -> tuple[GraphBuilder, WeightFile]:
    """A part of nothing but the merging."""
    graph, count = GraphBuilder("merging"), form.token_count
    tokens = graph.input("tokens", TensorProto.FLOAT, ["batch", count, WIDTH])
    keys = graph.input("keys", TensorProto.FLOAT, [count, "batch", HEADS, WIDTH // HEADS])
    sizes = graph.input("sizes", TensorProto.FLOAT, ["batch", count, 1]) if sized else None
    merged = add_merging(graph, TokenValue(tokens, count, sizes), keys, form)
    assert merged.sizes is not None
    graph.output(merged.name, "tokens_out", TensorProto.FLOAT, ["batch", form.left, WIDTH])
    graph.output(merged.sizes, "sizes_out", TensorProto.FLOAT, ["batch", form.left, 1])
    return graph, WeightFile("merging.data")


def inputs(batch: int, count: int, *, sized: bool, seed: int = 0) -> dict[str, Array]:
    """Random tokens and keys, and how many tokens each stands for."""
    generator = np.random.default_rng(seed)
    given = {
        "tokens": generator.standard_normal((batch, count, WIDTH), dtype=np.float32),
        "keys": generator.standard_normal((count, batch, HEADS, WIDTH // HEADS), dtype=np.float32),
    }
    return given | ({"sizes": generator.integers(1, 6, (batch, count, 1)).astype(np.float32)} if sized else {})


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sized", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    "form",
    [
        form_of(token_count=50, merged=4),
        form_of(token_count=10, merged=4),
        form_of(token_count=9, merged=1),
        form_of(token_count=16, merged=8, class_token=False),
        form_of(token_count=13, merged=5, class_token=False),
    ],
    ids=str,
)
def test_merging_computes_the_definition(
    form: MergeForm,
    sized: bool,
    batch: int,
    run_part: Callable[..., dict[str, Any]],
    merged_by_definition: Callable[..., tuple[Array, Array]],
) -> None:
    """Also of as many pairs as there can be. Sizes are exact; tokens to float32 rounding."""
    given = inputs(batch, form.token_count, sized=sized)
    got = run_part(part(form, sized=sized), **given)
    tokens, sizes = merged_by_definition(given, form)
    np.testing.assert_array_equal(got["sizes_out"], sizes)
    np.testing.assert_allclose(got["tokens_out"], tokens, atol=1e-6)


def test_the_class_token_stays_alone_and_first(run_part: Callable[..., dict[str, Any]]) -> None:
    """Although it is more similar to a patch than any other token is, and as many pairs merge as there can be."""
    given = inputs(2, 10, sized=True)
    given["keys"][0] = given["keys"][1]
    got = run_part(part(form_of(token_count=10, merged=4), sized=True), **given)
    np.testing.assert_array_equal(got["tokens_out"][:, 0], given["tokens"][:, 0])
    np.testing.assert_array_equal(got["sizes_out"][:, 0], given["sizes"][:, 0])


def test_of_equal_similarities_the_first_goes_first_to_the_first(run_part: Callable[..., dict[str, Any]]) -> None:
    """All keys are alike: token 2 is the first patch in A, and token 1 the first in B."""
    given = inputs(1, 9, sized=False)
    given["keys"][:] = 1
    got = run_part(part(form_of(token_count=9, merged=1), sized=False), **given)
    tokens = given["tokens"][0]
    kept = [tokens[0], tokens[4], tokens[6], tokens[8], (tokens[1] + tokens[2]) / 2, tokens[3], tokens[5], tokens[7]]
    np.testing.assert_allclose(got["tokens_out"][0], np.stack(kept), atol=1e-7)


def test_merging_counts_similarities_and_sums() -> None:
    """25 tokens of A with 25 of B over the channels of one head, and 25 sums over 4 tokens."""
    form = form_of(token_count=50, merged=4)
    assert part(form, sized=True)[0].flops == 2 * 25 * 25 * (WIDTH // HEADS) + 2 * 25 * 4 * WIDTH
    assert flops_of_merging(form) == part(form, sized=False)[0].flops


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("count", range(2, 12))
def test_as_many_pairs_as_can_be_leave_every_token_of_the_second_set(
    count: int, class_token: bool, run_part: Callable[..., dict[str, Any]]
) -> None:
    """No token is lost and none is counted twice."""
    most = most_merged(count, class_token=class_token)
    if most == 0:
        return
    form = form_of(token_count=count, merged=most, class_token=class_token)
    given = inputs(2, count, sized=True)
    got = run_part(part(form, sized=True), **given)
    assert got["tokens_out"].shape[1] == form.left >= form.seconds + class_token
    np.testing.assert_array_equal(got["sizes_out"].sum(axis=1), given["sizes"].sum(axis=1))
