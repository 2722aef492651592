"""The JSON file as a JSON Schema, made from the dataclasses of `results.model`, with their docstrings as descriptions.

    python docs/tools/bench_schema.py > benchmarks/lraee_benchmarks/lraee-bench.schema.json

The schema of this version is shipped as ``lraee-bench.schema.json``; other languages check and read results by it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lraee_benchmarks.results.model import SCHEMA, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def build_schema() -> dict[str, Any]:
    """Make the schema of a whole file."""
    definitions: dict[str, Any] = {}
    report = _object(Report, definitions)
    return {"$schema": DIALECT, "title": SCHEMA, **report, "$defs": dict(sorted(definitions.items()))}


def _object(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe a dataclass: every field is required and no other is allowed."""
    hints, described = get_type_hints(kind), _field_docstrings(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        value = _value(hints[field.name], definitions)
        properties[field.name] = {**value, "description": described[field.name]} if field.name in described else value
    return {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _value(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # a place for it, should it contain itself
            definitions[hint.__name__] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _value(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(arguments[1], definitions)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_value(argument, definitions) for argument in arguments]}
    return {"type": _PLAIN[hint]}


def _field_docstrings(kind: type[Any]) -> dict[str, str]:
    """Find the string below each field, by its name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = " ".join(below.value.value.split())
    return found


if __name__ == "__main__":
    print(json.dumps(build_schema(), indent=1))
