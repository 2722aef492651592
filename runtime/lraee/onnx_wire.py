"""Find where an ONNX file keeps external data, by reading protobuf's wire format.

ONNX Runtime opens whatever path a graph names. A bundle may come from anywhere, so the paths are checked before a
session is made; the `onnx` package is too large a dependency for a small board, and this needs four message types.

Source: onnx.proto3 (field numbers below) and the protobuf encoding guide.
"""

from __future__ import annotations

from collections.abc import Iterator

from lraee.errors import BundleError

_LENGTH_DELIMITED = 2
_TENSOR_EXTERNAL_DATA = 13
_KEY_LIMIT = 2**32
"""protobuf's C++ parser drops the bits above, so a longer key would be one field here and another one there."""

# message -> field number -> message of that field
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {_TENSOR_EXTERNAL_DATA: "entry"},
}


def external_locations(model: bytes, where: str) -> set[str]:
    """Every `location` of external data in a serialized ONNX model.

    Args:
        model: the bytes of an .onnx file.
        where: its name, for messages.

    Raises:
        BundleError: the bytes are no protobuf.
    """
    found: set[str] = set()
    pending = [("model", memoryview(model))]
    while pending:
        message, data = pending.pop()
        for number, value in _fields(data, where):
            child = _CHILDREN[message].get(number)
            if child == "entry":
                entry = dict(_fields(value, where))
                if bytes(entry.get(1, b"")) == b"location":
                    found.add(bytes(entry.get(2, b"")).decode("utf-8", "replace"))
            elif child is not None:
                pending.append((child, value))
    return found


def _fields(data: memoryview, where: str) -> Iterator[tuple[int, memoryview]]:
    """(field number, bytes) of each length-delimited field; other fields are stepped over."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position, where)
        if key >= _KEY_LIMIT:
            raise _damaged(where)
        kind = key & 7
        if kind == _LENGTH_DELIMITED:
            length, position = _varint(data, position, where)
            if position + length > end:
                raise _damaged(where)
            yield key >> 3, data[position : position + length]
            position += length
        elif kind == 0:
            _, position = _varint(data, position, where)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
            if position > end:
                raise _damaged(where)
        else:
            raise _damaged(where)


def _varint(data: memoryview, position: int, where: str) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _damaged(where)


def _damaged(where: str) -> BundleError:
    return BundleError(f"{where} is no ONNX model; the bundle is damaged, export it again")
