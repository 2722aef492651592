"""Builds the merging of similar tokens, which stands between a block's attention and its MLP (ToMe, arXiv 2210.09461).

Tokens are dealt out in turn to two sets, A and B. Each token of A finds the token of B whose keys are most similar
(cosine of the mean over the heads); the `merged` best pairs become one token each, their mean weighted by how many
tokens each stands for. The class token is in A and is never merged. Of equally similar tokens the first goes first.

    order of the tokens after it: those of A that were not merged, by their place, then all of B.

The sum of what goes into each token of B is one small GEMM with zeros and ones: `ScatterElements` takes a fifth longer.
One `TopK` ranks the tokens of A, another brings those that stay back into their order. How many tokens each token
stands for is a second tensor, `sizes` (batch, tokens, 1), between parts; before the first merging there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, numpy_helper

from lraee_exporters.graphs.builder import GraphBuilder
from lraee_exporters.graphs.layers import TokenValue

NEVER = -4.0
"""Added to the similarity of the class token, which is below that of any other token then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeForm:
    """Says how many tokens there are and how many pairs of them become one."""

    token_count: int
    """Patches, and the class token if there is one."""
    merged: int
    """Pairs that become one token each; at least 1, at most `most_merged`."""
    width: int
    """Channels of a token."""
    channels: int
    """Channels of one head's keys."""
    class_token: bool = True
    """Whether token 0 is a class token."""
    prefix: str = ""
    """Stands before every name, ending in "/", when several parts share a graph."""

    @property
    def firsts(self) -> int:
        """The number of tokens in A."""
        return (self.token_count + 1) // 2

    @property
    def seconds(self) -> int:
        """The number of tokens in B."""
        return self.token_count // 2

    @property
    def left(self) -> int:
        """The number of tokens afterwards."""
        return self.token_count - self.merged


def most_merged(token_count: int, *, class_token: bool) -> int:
    """Give the most pairs that one merging can make.

    >>> most_merged(50, class_token=True), most_merged(49, class_token=False), most_merged(2, class_token=True)
    (24, 24, 0)
    """
    firsts = (token_count + 1) // 2 - class_token
    return max(0, min(firsts, token_count // 2))


def flops_of_merging(form: MergeForm) -> int:
    """Count the FLOPs of matching and merging for one image, multiply-add = 2."""
    return 2 * form.firsts * form.seconds * form.channels + 2 * form.seconds * form.merged * form.width


def add_merging(graph: GraphBuilder, tokens: TokenValue, keys: str, form: MergeForm) -> TokenValue:
    """Add the merging to `graph`.

    Args:
        graph: where the nodes go.
        tokens: to be merged.
        keys: (token_count, batch, heads, channels) float32.
        form: numbers of tokens and channels.

    Returns:
        The merged tokens, with their sizes.
    """
    p, sizes = form.prefix, tokens.sizes
    graph.flops += flops_of_merging(form)
    stays, goes, partner = _add_matching(graph, keys, form)
    pairs = graph.constant(f"{p}seconds", np.arange(form.seconds, dtype=np.int64)[None, :, None])
    by_pair = graph.node("Transpose", [partner], f"{p}partner_row", perm=[0, 2, 1])
    joins = graph.node("Equal", [pairs, by_pair], f"{p}joins_flags")
    joins = graph.node("Cast", [joins], f"{p}joins", to=TensorProto.FLOAT)  # (batch, seconds, merged)

    weighted = tokens.name if sizes is None else graph.node("Mul", [tokens.name, sizes], f"{p}weighted_tokens")
    gone = graph.node("GatherND", [weighted, goes], f"{p}merged_tokens", batch_dims=1)
    seconds = _add_seconds(graph, weighted, form, f"{p}second_tokens")
    seconds = graph.node("Add", [seconds, graph.node("MatMul", [joins, gone], f"{p}joined")], f"{p}sums")
    kept = graph.node("GatherND", [tokens.name, stays], f"{p}kept_tokens", batch_dims=1)
    if sizes is None:
        axis = graph.constant(f"{p}axis_2", np.array([2], np.int64))
        one = graph.constant(f"{p}one", np.float32(1))
        counts = graph.node("ReduceSum", [joins, axis], f"{p}joined_sizes", keepdims=1)
        second_sizes = graph.node("Add", [counts, one], f"{p}second_sizes")
        shape = graph.node("Shape", [stays], f"{p}kept_shape")
        ones = numpy_helper.from_array(np.ones(1, np.float32))
        kept_sizes = graph.node("ConstantOfShape", [shape], f"{p}kept_sizes", value=ones)
    else:
        gone_sizes = graph.node("GatherND", [sizes, goes], f"{p}merged_sizes", batch_dims=1)
        joined_sizes = graph.node("MatMul", [joins, gone_sizes], f"{p}joined_sizes")
        own = _add_seconds(graph, sizes, form, f"{p}own_sizes")
        second_sizes = graph.node("Add", [own, joined_sizes], f"{p}second_sizes")
        kept_sizes = graph.node("GatherND", [sizes, stays], f"{p}kept_sizes", batch_dims=1)
    means = graph.node("Div", [seconds, second_sizes], f"{p}means")
    merged = graph.node("Concat", [kept, means], f"{p}merged", axis=1)
    left = graph.node("Concat", [kept_sizes, second_sizes], f"{p}sizes_left", axis=1)
    return TokenValue(merged, form.left, left)


def _add_matching(graph: GraphBuilder, keys: str, form: MergeForm) -> tuple[str, str, str]:
    """Add the choice of pairs.

    Returns:
        Places of the tokens of A that stay, rising, (batch, firsts - merged, 1); of those that are merged, the most
        similar first, (batch, merged, 1); and for each of these its partner's place in B, (batch, merged, 1); int64.
    """
    p = form.prefix
    heads = graph.constant(f"{p}axis_heads", np.array([2], np.int64))
    total = graph.node("ReduceSum", [keys, heads], f"{p}keys_of_heads", keepdims=0)
    unit = graph.node("LpNormalization", [total], f"{p}unit_keys", axis=-1, p=2)
    firsts = _add_every_second(graph, unit, (0, form.token_count, 0), f"{p}first_keys")
    seconds = _add_every_second(graph, unit, (1, form.token_count, 0), f"{p}second_keys")
    firsts = graph.node("Transpose", [firsts], f"{p}first_keys_by_image", perm=[1, 0, 2])
    seconds = graph.node("Transpose", [seconds], f"{p}second_keys_by_image", perm=[1, 2, 0])
    cosines = graph.node("MatMul", [firsts, seconds], f"{p}similarities")
    one = graph.constant(f"{p}best_of_all", np.array([1], np.int64))
    best, partners = graph.node_with_outputs(
        "TopK", [cosines, one], [f"{p}best", f"{p}partners"], axis=-1, largest=1, sorted=1
    )
    if form.class_token:
        closed = np.zeros((1, form.firsts, 1), np.float32)
        closed[0, 0] = NEVER
        best = graph.node("Add", [best, graph.constant(f"{p}class_is_closed", closed)], f"{p}best_of_patches")
    every = graph.constant(f"{p}every_first", np.array([form.firsts], np.int64))
    _, ranked = graph.node_with_outputs(
        "TopK", [best, every], [f"{p}ranked_similarities", f"{p}ranked"], axis=1, largest=1, sorted=1
    )
    sizes = graph.constant(f"{p}merged_and_kept", np.array([form.merged, form.firsts - form.merged], np.int64))
    goes, stays = graph.node_with_outputs("Split", [ranked, sizes], [f"{p}goes", f"{p}stays"], axis=1)
    count = graph.constant(f"{p}kept_count", np.array([form.firsts - form.merged], np.int64))
    stays, _ = graph.node_with_outputs(
        "TopK", [stays, count], [f"{p}stays_in_order", f"{p}stays_from"], axis=1, largest=0, sorted=1
    )
    partner = graph.node("GatherElements", [partners, goes], f"{p}partner", axis=1)
    two = graph.constant(f"{p}two_sets", np.int64(2))
    stays = graph.node("Mul", [stays, two], f"{p}places_that_stay")
    return stays, graph.node("Mul", [goes, two], f"{p}places_that_go"), partner


def _add_seconds(graph: GraphBuilder, value: str, form: MergeForm, name: str) -> str:
    """Select the tokens of B, (batch, seconds, ...)."""
    return _add_every_second(graph, value, (1, form.token_count, 1), name)


def _add_every_second(graph: GraphBuilder, value: str, span: tuple[int, int, int], name: str) -> str:
    """Select every second place of one axis, from a start to an end: (start, end, axis)."""
    names = [
        graph.constant(f"{name}_{what}", np.array([place], np.int64))
        for what, place in zip(("from", "to", "axis"), span, strict=True)
    ]
    step = graph.constant(f"{name}_step", np.array([2], np.int64))
    return graph.node("Slice", [value, *names, step], name)


def operators_of_merging(*, sized: bool, class_token: bool) -> dict[str, int]:
    """Count what ONNX Runtime must run for the merging after fusion, by operator name.

    Args:
        sized: whether tokens that come in may stand for several.
        class_token: whether token 0 is a class token.
    """
    counts = {
        "ReduceSum": 1, "LpNormalization": 1, "Transpose": 1, "FusedMatMul": 1, "Add": 1 + class_token, "TopK": 3,
        "Split": 1, "GatherElements": 1, "Equal": 1, "Cast": 1, "GatherND": 2, "MatMul": 1, "Slice": 3, "Div": 1,
        "Concat": 2, "Mul": 2,
    }  # fmt: skip
    if sized:
        return counts | {"Mul": 3, "GatherND": 4, "MatMul": 2, "Slice": 4, "Add": 2 + class_token}
    return counts | {"ReduceSum": 2, "Shape": 1, "ConstantOfShape": 1, "Add": 2 + class_token}
