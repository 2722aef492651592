"""Writes the graph with which boards without Pillow resize frames; it is shipped with the runtime.

    python -m lraee_exporters.graphs.resize

The attributes are those with which ONNX Runtime computes what Pillow's BICUBIC does: the coefficient is Pillow's, and
at the border only neighbours inside the image count. Channels come last, so nothing is transposed.
"""

from __future__ import annotations

from onnx import TensorProto, checker, helper

from lraee.images.resize.onnx_resize import GRAPH

OPSET = 19
"""ai.onnx opset: older than the parts', because `Resize` needs no more."""

IR_VERSION = 9
"""IR version of that opset."""


def build() -> bytes:
    """Build the graph that resizes pixels uint8 (1, height, width, 3) to size int64 (2,), (height, width)."""
    node = helper.make_node(
        "Resize",
        ["pixels", "", "", "size"],
        ["resized"],
        mode="cubic",
        cubic_coeff_a=-0.5,
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
        axes=[1, 2],
    )
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, "height", "width", 3])
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [2])
    resized = helper.make_tensor_value_info("resized", TensorProto.UINT8, [1, "new_height", "new_width", 3])
    graph = helper.make_graph([node], "resize", [pixels, size], [resized])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="lraee"
    )
    checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


if __name__ == "__main__":
    GRAPH.write_bytes(build())
