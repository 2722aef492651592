"""Read JSON into frozen dataclasses and write it back, refusing whatever does not fit exactly.

A bundle is data from elsewhere: an unknown key may be a typing error or a promise this code cannot keep, so it is
refused with the path of the key, never ignored. A key may be omitted only where its field says so: those that a
format got later, with `OPTIONAL` in their metadata and a default.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from functools import cache
from pathlib import Path
from reprlib import repr as short
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lraee.errors import BundleError

T = TypeVar("T")

OPTIONAL = "optional"
"""Key of a field's metadata: when true, JSON may lack the field, and it has its default then."""


def parse(text: str, where: str) -> Any:
    """Parse JSON text without repeated keys.

    Args:
        text: of a whole file.
        where: the file's name, for messages.

    Raises:
        BundleError: it is not JSON, nested or numbered beyond reason, or an object has one key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise BundleError(f"{where} has the key {twice!r} twice in one object; the file was not written by lraee")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}); the bundle is damaged, export it again") from error


def decode(kind: type[T], value: object, where: str) -> T:
    """Turn parsed JSON into `kind`: a dataclass, tuple, dict, Literal, optional or scalar type.

    Args:
        kind: the type wanted; dataclasses are decoded field by field.
        value: what ``json.loads`` gave.
        where: file and key for messages, such as ``manifest.json: tower``.

    Raises:
        BundleError: a key is unknown or missing, or a value has another type, is not finite or out of its range.
    """
    return _decode(kind, value, where)  # type: ignore[no-any-return]


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (wanted,) = [argument for argument in arguments if argument is not type(None)]
        return _decode(wanted, value, where)
    if origin is Literal:
        if value not in arguments:
            raise BundleError(f"{where} is {short(value)}, wanted one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong_type(where, value, "an object")
        return {key: _decode(arguments[1], item, _inside(where, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if kind is float and type(value) in (int, float):
        return _decode_float(value, where)
    if type(value) is not kind:
        raise _wrong_type(where, value, kind.__name__)
    return value


def _decode_float(value: int | float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BundleError(f"{where} is {short(value)}, wanted a finite number")
    return number


def _decode_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong_type(where, value, "a list")
    if arguments[-1] is Ellipsis:
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise BundleError(f"{where} has {len(value)} entries, wanted {len(arguments)}")
    return tuple(
        _decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong_type(where, value, "an object")
    hints = _hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(value) - set(names)):
        raise BundleError(f"{where} has the unknown key {unknown[0]!r}; this version reads {', '.join(names)}")
    optional = {field.name for field in dataclasses.fields(kind) if field.metadata.get(OPTIONAL)}
    if missing := sorted(set(names) - set(value) - optional):
        raise BundleError(f"{where} lacks the key {missing[0]!r}; the file is incomplete or of another format")
    decoded = {name: _decode(hints[name], value[name], _inside(where, name)) for name in names if name in value}
    try:
        return kind(**decoded)
    except ValueError as error:  # a dataclass that checks its own ranges, such as Preprocessing
        raise BundleError(f"{where}: {error}") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Evaluate the types of a dataclass's fields once: doing it for each of hundreds of entries would take longest."""
    return get_type_hints(kind)


def _inside(where: str, key: str) -> str:
    """Append one more key to `where`: ``manifest.json``, ``manifest.json: tower``, ``manifest.json: tower.width``."""
    return f"{where}.{key}" if ": " in where else f"{where}: {key}"


def _wrong_type(where: str, value: Any, wanted: str) -> BundleError:
    return BundleError(f"{where} is {short(value)} ({type(value).__name__}), wanted {wanted}")


def encode(value: Any) -> Any:
    """Turn a dataclass into plain dicts, lists and scalars for ``json.dumps``; the inverse of `decode`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def read_json(kind: type[T], path: Path) -> T:
    """Read a file that `write_json` wrote.

    Raises:
        BundleError: the file holds something else.
        OSError: it cannot be read.
    """
    return decode(kind, parse(path.read_text("utf-8"), path.name), path.name)


def write_json(value: Any, path: Path) -> None:
    """Write a dataclass, or a tuple or dict of them, as a JSON file.

    Raises:
        ValueError: a number is not finite.
        OSError: the file cannot be written.
    """
    text = json.dumps(encode(value), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", "utf-8")
