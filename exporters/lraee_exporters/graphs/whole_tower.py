"""Builds the whole tower as one graph over the weight files of the parts: the baseline ``graph.onnx``.

It computes exactly what the chain of parts computes at full depth, so the two are compared for time and equality.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from lraee_exporters.graphs.block import BlockForm, BlockWeights, add_block
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import TokenValue
from lraee_exporters.graphs.stem import add_stem, levels_of_stem
from lraee_exporters.graphs.tail import TailWeights, add_label_inputs, add_probabilities, add_tail, declare_prediction
from lraee_exporters.tower import Tower


def build_whole(
    tower: Tower,
    blocks: Sequence[BlockWeights],
    tail: TailWeights,
    files: dict[str, WeightFile],
    *,
    class_only: bool = True,
    name: str = "graph",
) -> GraphBuilder:
    """Build `pixels`, `label_matrix`, `logit_scale` to `embedding`, `probabilities` in one graph.

    Args:
        tower: gives stem and shapes.
        blocks: the weights of every block, in order; stem and tail are INT8 if they are.
        tail: the tail's weights.
        files: weight file by part name (``stem``, ``block_01`` ..., ``tail``); the same object may stand for all.
        class_only: compute only the class token, if there is one, in the last block, as the chain does.
        name: of the graph and its file.
    """
    graph = GraphBuilder(name)
    size = tower.image_size
    levels = levels_of_stem(blocks) if blocks[0].quantized else None
    pixels = graph.input("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    labels = add_label_inputs(graph, tower.embed_dim)
    stem = add_stem(graph, files["stem"], pixels, tower, levels=levels, prefix="stem/")
    tokens = TokenValue(stem, tower.tokens)
    for number, block in enumerate(blocks, start=1):
        part, last = f"block_{number:02d}", number == len(blocks)
        of_class = last and class_only and tower.has_class_token
        form = BlockForm(token_count=tower.tokens, class_only=of_class, prefix=f"{part}/")
        tokens = add_block(graph, files[part], tokens, block, form)
    embedding = add_tail(graph, files["tail"], tokens, tail, prefix="tail/")
    probabilities = add_probabilities(
        graph, embedding, labels, embed_dim=tower.embed_dim, logit_bias=tail.logit_bias, prefix="tail/"
    )
    declare_prediction(graph, embedding, probabilities, tower.embed_dim)
    return graph
