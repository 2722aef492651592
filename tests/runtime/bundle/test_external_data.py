"""Every place where an ONNX file may name external data is found, and any other file is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lraee.bundle.external_data import external_locations, with_locations
from lraee.errors import BundleError

GOLDEN = Path(__file__).parents[1] / "golden" / "format_1.lraee"
OPSETS = [helper.make_opsetid("", 21)]
BLOCK = (GOLDEN / "block_01.onnx").read_bytes()


def external(location: str) -> TensorProto:
    """A tensor whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value="0")
    return tensor


def graph(nodes: list[Any] | None = None, tensors: list[TensorProto] | None = None) -> onnx.GraphProto:
    """A graph of some nodes and initializers."""
    return helper.make_graph(nodes or [], "g", [], [], tensors or [])


def model(content: onnx.GraphProto, **fields: Any) -> onnx.ModelProto:
    """Make a model around a graph."""
    return helper.make_model(content, opset_imports=OPSETS, **fields)


def in_initializer() -> onnx.ModelProto:
    return model(graph(tensors=[external("found")]))


def in_constant() -> onnx.ModelProto:
    return model(graph([helper.make_node("Constant", [], ["c"], value=external("found"))]))


def in_list_of_tensors() -> onnx.ModelProto:
    return model(graph([helper.make_node("Any", [], ["c"], values=[external("other"), external("found")])]))


def in_branch() -> onnx.ModelProto:
    node = helper.make_node("If", ["c"], ["y"], then_branch=graph(), else_branch=graph(tensors=[external("found")]))
    return model(graph([node]))


def in_branch_of_branch() -> onnx.ModelProto:
    inner = graph([helper.make_node("If", ["c"], ["y"], then_branch=graph(tensors=[external("found")]))])
    return model(graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)]))


def in_list_of_graphs() -> onnx.ModelProto:
    return model(graph([helper.make_node("Any", [], [], graphs=[graph(), graph(tensors=[external("found")])])]))


def in_sparse_values() -> onnx.ModelProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    content = graph()
    content.sparse_initializer.append(helper.make_sparse_tensor(external("found"), indices, [8]))
    return model(content)


def in_sparse_indices() -> onnx.ModelProto:
    sparse = onnx.SparseTensorProto(values=helper.make_tensor("v", TensorProto.FLOAT, [4], [0.0] * 4), dims=[8])
    sparse.indices.CopyFrom(external("found"))
    return model(graph([helper.make_node("Constant", [], ["c"], sparse_value=sparse)]))


def in_function() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=external("found"))
    return model(graph(), functions=[helper.make_function("own", "f", [], ["y"], [node], OPSETS)])


def in_default_of_function() -> onnx.ModelProto:
    default = helper.make_attribute("w", external("found"))
    function = helper.make_function("own", "f", [], [], [], OPSETS, attribute_protos=[default])
    return model(graph(), functions=[function])


def in_training_graph() -> onnx.ModelProto:
    content = model(graph())
    content.training_info.add().algorithm.CopyFrom(graph(tensors=[external("found")]))
    return content


BUILDS = [
    in_initializer,
    in_constant,
    in_list_of_tensors,
    in_branch,
    in_branch_of_branch,
    in_list_of_graphs,
    in_sparse_values,
    in_sparse_indices,
    in_function,
    in_default_of_function,
    in_training_graph,
]


@pytest.mark.parametrize("build", BUILDS)
def test_external_data_is_found_wherever_it_is(build):
    """At every depth of a graph."""
    assert "found" in external_locations(build().SerializeToString(), "m.onnx")


def test_a_golden_part_names_its_own_file():
    """A real part is read, not only graphs made here."""
    assert external_locations(BLOCK, "block_01.onnx") == {"block_01.data"}


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])


def test_a_key_beyond_32_bits_is_refused():
    """protobuf in C++ drops the upper bits, so ONNX Runtime would read as `graph` what looks like an unknown field."""
    content = in_initializer()
    hidden = content.graph.SerializeToString()
    content.ClearField("graph")
    key = (7 << 3 | 2) + (1 << 32)
    with pytest.raises(BundleError, match=r"^m\.onnx is not an ONNX model"):
        external_locations(content.SerializeToString() + varint(key) + varint(len(hidden)) + hidden, "m.onnx")


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"\xff" * 20, b"\x3a\x7f", b"\x3b", b"\x39\x00", b"\x3d\x00", b"\x3a", BLOCK[:-1], BLOCK[:1000]],
)
def test_what_ends_early_or_is_no_protobuf_is_refused(content):
    """By the name of the file."""
    with pytest.raises(BundleError, match=r"^m\.onnx is not an ONNX model"):
        external_locations(content, "m.onnx")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_locations_or_a_bundle_error(content):
    """No other error is raised."""
    with contextlib.suppress(BundleError):
        assert isinstance(external_locations(content, "m.onnx"), set)


def locations(message: Message) -> Iterator[str]:
    """What the onnx package finds, by walking over every message there is."""
    if isinstance(message, TensorProto):
        for entry in message.external_data:
            if entry.key == "location":  # bytes when they are not UTF-8
                yield entry.value.decode("utf-8", "replace") if isinstance(entry.value, bytes) else entry.value
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from locations(inner)


@pytest.mark.parametrize("build", BUILDS)
def test_locations_are_changed_wherever_they_are_and_nothing_else_is(build):
    """They change as onnx itself would change them; other places stay."""
    content = build().SerializeToString()
    moved = onnx.ModelProto.FromString(with_locations(content, {"found": "é/" + "x" * 300}, "m.onnx"))
    assert set(locations(moved)) == {"é/" + "x" * 300 if one == "found" else one for one in locations(build())}
    back = with_locations(moved.SerializeToString(), {"é/" + "x" * 300: "found"}, "m.onnx")
    assert onnx.ModelProto.FromString(back) == build()
    assert with_locations(content, {"elsewhere": "x"}, "m.onnx") == content


def test_a_graph_nested_deeper_than_protobuf_goes_is_refused_when_it_is_changed():
    """By its name, not by the end of Python's stack."""
    content = b""
    for depth in range(600):  # graph, node, attribute, and so on outwards
        content = bytes([(6, 5, 1)[depth % 3] << 3 | 2]) + varint(len(content)) + content
    with pytest.raises(BundleError, match=r"^m\.onnx is not an ONNX model"):
        with_locations(bytes([7 << 3 | 2]) + varint(len(content)) + content, {"found": "x"}, "m.onnx")


SAMPLES = {build.__name__: build().SerializeToString() for build in (in_branch_of_branch, in_sparse_indices)}
SAMPLES |= {"in_function": in_function().SerializeToString(), "block_01": BLOCK}


@settings(max_examples=300, deadline=None)
@given(
    sample=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_no_damage_hides_a_location_that_onnx_sees(sample, changes):
    """Whatever protobuf still reads, it finds no location that is not found here."""
    content = bytearray(SAMPLES[sample])
    for position, byte in changes:
        content[position % len(content)] = byte
    try:
        seen = set(locations(onnx.ModelProto.FromString(bytes(content))))
    except DecodeError:
        return
    try:
        found = external_locations(bytes(content), "m.onnx")
    except BundleError:
        return
    assert seen <= found
