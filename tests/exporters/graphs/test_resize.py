"""The graph that the runtime ships is the one that its generator writes."""

from __future__ import annotations

from lraee.images.resize.onnx_resize import GRAPH
from lraee_exporters.graphs.resize import build


def test_the_shipped_graph_is_what_the_generator_writes():
    """Byte for byte; if not, run python -m lraee_exporters.graphs.resize."""
    assert GRAPH.read_bytes() == build()
