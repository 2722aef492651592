"""Find, and change, where an ONNX file keeps external data, by reading protobuf's wire format.

ONNX Runtime opens whatever path a graph names. A bundle may come from anywhere, so the paths are checked before a
session is made; the `onnx` package is too large a dependency for a small board, and this needs four message types.

Source: onnx.proto3 (field numbers below) and the protobuf encoding guide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lraee.errors import BundleError

_LENGTH_DELIMITED = 2
_TENSOR_EXTERNAL_DATA = 13
_KEY_LIMIT = 2**32
"""protobuf's C++ parser drops the bits above, so a longer key would be one field here and another one there."""
_NESTING_LIMIT = 100
"""Messages within messages; protobuf's C++ parser, and with it ONNX Runtime, refuses more."""

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
    """Collect every `location` of external data in a serialized ONNX model.

    Args:
        model: the bytes of an .onnx file.
        where: its name, for messages.

    Raises:
        BundleError: the bytes are not protobuf.
    """
    found: set[str] = set()
    pending = [("model", memoryview(model))]
    while pending:
        message, data = pending.pop()
        for number, value, _, _ in _fields(data, where):
            child = _CHILDREN[message].get(number)
            if child == "entry":
                location = _location(value, where)
                found |= set() if location is None else {location}
            elif child is not None:
                pending.append((child, value))
    return found


def with_locations(model: bytes, places: Mapping[str, str], where: str) -> bytes:
    """Change where a model keeps its external data; all other bytes stay as they are.

    Args:
        model: the bytes of an .onnx file.
        places: the new location of each old one.
        where: its name, for messages.

    Raises:
        BundleError: the bytes are not protobuf, or nested deeper than protobuf's parsers go.
    """
    return bytes(_moved("model", memoryview(model), places, where, 0))


def _moved(message: str, data: memoryview, places: Mapping[str, str], where: str, depth: int) -> memoryview | bytes:
    """Change the locations in one message; `data` itself is returned where none changes."""
    if depth > _NESTING_LIMIT:
        raise _damaged(where)
    pieces: list[memoryview | bytes] = []
    copied = 0
    for number, value, start, end in _fields(data, where):
        child = _CHILDREN[message].get(number)
        new: memoryview | bytes = value
        if child == "entry":
            place = places.get(_location(value, where) or "")
            if place is not None:
                new = _field(1, b"location") + _field(2, place.encode())
        elif child is not None:
            new = _moved(child, value, places, where, depth + 1)
        if new is not value:
            pieces += [data[copied:start], _field(number, new)]
            copied = end
    return b"".join([*pieces, data[copied:]]) if pieces else data


def _location(entry: memoryview, where: str) -> str | None:
    """Read the location from an entry of external data; None where the entry is about something else."""
    fields = {number: value for number, value, _, _ in _fields(entry, where)}
    if bytes(fields.get(1, b"")) != b"location":
        return None
    return bytes(fields.get(2, b"")).decode("utf-8", "replace")


def _field(number: int, value: memoryview | bytes) -> bytes:
    """Encode a length-delimited field."""
    return _number(number << 3 | _LENGTH_DELIMITED) + _number(len(value)) + value


def _number(value: int) -> bytes:
    """Encode a number as a varint.

    >>> _number(300).hex()
    'ac02'
    """
    content = b""
    while value > 127:
        content += bytes([value & 127 | 128])
        value >>= 7
    return content + bytes([value])


def _fields(data: memoryview, where: str) -> Iterator[tuple[int, memoryview, int, int]]:
    """Yield (field number, bytes, start, end) of each length-delimited field, and skip the others."""
    position, end = 0, len(data)
    while position < end:
        start = position
        key, position = _varint(data, position, where)
        if key >= _KEY_LIMIT:
            raise _damaged(where)
        kind = key & 7
        if kind == _LENGTH_DELIMITED:
            length, position = _varint(data, position, where)
            if position + length > end:
                raise _damaged(where)
            yield key >> 3, data[position : position + length], start, position + length
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
    return BundleError(f"{where} is not an ONNX model; the bundle is damaged, export it again")
