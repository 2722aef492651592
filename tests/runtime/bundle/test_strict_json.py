"""JSON becomes dataclasses exactly or not at all, and the message has the key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.strict_json import decode, encode, parse
from lraee.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """Has one field that checks itself."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}; wanted at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A field of every kind that manifests use."""

    name: str
    flag: bool
    share: float
    kind: Literal["a", "b"]
    inner: Inner
    maybe: Inner | None
    pair: tuple[float, float]
    many: tuple[Inner, ...]
    table: dict[str, int]


FIELDS: dict[str, Any] = {
    "name": "n",
    "flag": True,
    "share": 0.5,
    "kind": "a",
    "inner": {"size": 1},
    "maybe": None,
    "pair": [1.0, 2.0],
    "many": [{"size": 2}, {"size": 3}],
    "table": {"x": 4},
}


def outer(**changes: Any) -> Outer:
    """Decode `FIELDS` with some of them changed."""
    return decode(Outer, {**FIELDS, **changes}, "file.json")


def test_every_kind_of_field_is_read():
    """Lists become tuples, and objects become dataclasses."""
    got = outer(maybe={"size": 7})
    assert got.many == (Inner(size=2), Inner(size=3))
    assert got.maybe == Inner(size=7)
    assert got.pair == (1.0, 2.0)
    assert got.table == {"x": 4}


def test_a_whole_number_is_taken_for_a_float():
    """JSON has one kind of number."""
    share = outer(share=1).share
    assert share == 1.0
    assert isinstance(share, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, r"^file\.json: name is 3 \(int\), wanted str$"),
        ({"name": None}, r"^file\.json: name is None \(NoneType\), wanted str$"),
        ({"flag": 1}, r"^file\.json: flag is 1 \(int\), wanted bool$"),
        ({"share": True}, r"^file\.json: share is True \(bool\), wanted float$"),
        ({"share": "0.5"}, r"^file\.json: share is '0\.5' \(str\), wanted float$"),
        ({"share": float("nan")}, r"^file\.json: share is nan, wanted a finite number$"),
        ({"share": float("-inf")}, r"^file\.json: share is -inf, wanted a finite number$"),
        ({"share": 10**400}, r"^file\.json: share is 1000.*000, wanted a finite number$"),
        ({"kind": "c"}, r"^file\.json: kind is 'c', wanted one of 'a', 'b'$"),
        ({"kind": ["a"]}, r"^file\.json: kind is \['a'\], wanted one of 'a', 'b'$"),
        ({"inner": [1]}, r"^file\.json: inner is \[1\] \(list\), wanted an object$"),
        ({"inner": {"size": True}}, r"^file\.json: inner\.size is True \(bool\), wanted int$"),
        ({"inner": {"size": 1.0}}, r"^file\.json: inner\.size is 1\.0 \(float\), wanted int$"),
        ({"inner": {"size": 0}}, r"^file\.json: inner: size is 0; wanted at least 1$"),
        ({"inner": {"size": 1, "sise": 2}}, r"^file\.json: inner has the unknown key 'sise'; this version reads size$"),
        ({"inner": {}}, r"^file\.json: inner lacks the key 'size'"),
        ({"extra": 1}, r"^file\.json has the unknown key 'extra'; this version reads name, flag"),
        ({"maybe": {"size": None}}, r"^file\.json: maybe\.size is None"),
        ({"pair": [1.0]}, r"^file\.json: pair has 1 entries, wanted 2$"),
        ({"pair": [1.0, float("nan")]}, r"^file\.json: pair\[1\] is nan, wanted a finite number$"),
        ({"many": {"size": 2}}, r"^file\.json: many is \{'size': 2\} \(dict\), wanted a list$"),
        ({"many": [{"size": 2}, {"size": "3"}]}, r"^file\.json: many\[1\]\.size is '3' \(str\), wanted int$"),
        ({"table": []}, r"^file\.json: table is \[\] \(list\), wanted an object$"),
        ({"table": {"x": 4, "y": None}}, r"^file\.json: table\.y is None \(NoneType\), wanted int$"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(changes, message):
    """Every message begins with file and key."""
    with pytest.raises(BundleError, match=message):
        outer(**changes)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "{'a': 1}", "\ufeff{}", "[" * 100_000, "1" * 5000, '{"a": nan}'],
    ids=["empty", "cut", "comma", "quotes", "byte order mark", "deep", "long number", "nan"],
)
def test_what_is_no_json_is_refused_with_its_file(text):
    """Also what Python's parser gives up on."""
    with pytest.raises(BundleError, match=r"^file\.json is not JSON"):
        parse(text, "file.json")


def test_a_key_that_comes_twice_is_refused():
    """Which of the two counts is anybody's guess."""
    with pytest.raises(BundleError, match=r"^file\.json has the key 'b' twice in one object"):
        parse('{"a": {"b": 1, "c": 2, "b": 1}}', "file.json")


def test_a_value_too_deep_to_print_is_still_refused_by_key():
    """The message shows the beginning only."""
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(BundleError, match=r"^file\.json: name is \[\[") as caught:
        outer(name=deep)
    assert len(str(caught.value)) < 200
    while deep:  # taken apart by hand: freeing it at once may exhaust the stack
        deep = deep.pop()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(key=st.sampled_from([*FIELDS, "other"]), value=json_values)
def test_any_value_is_read_whole_or_refused(key, value):
    """Nothing is ignored, nothing is guessed, and no other error gets out."""
    fields = {**FIELDS, key: value}
    try:
        got = decode(Outer, fields, "file.json")
    except BundleError as error:
        assert str(error).startswith("file.json")  # noqa: PT017 - an error is one of two right answers
    else:
        assert encode(got) == fields


inners = st.builds(Inner, size=st.integers(min_value=1))
finite = st.floats(allow_nan=False, allow_infinity=False)
outers = st.builds(
    Outer,
    name=st.text(),
    flag=st.booleans(),
    share=finite,
    kind=st.sampled_from(["a", "b"]),
    inner=inners,
    maybe=st.none() | inners,
    pair=st.tuples(finite, finite),
    many=st.lists(inners, max_size=3).map(tuple),
    table=st.dictionaries(st.text(), st.integers(), max_size=3),
)


@settings(deadline=None)
@given(outers)
def test_writing_and_reading_gives_the_same(value):
    """Values survive the text bit for bit."""
    assert decode(Outer, parse(json.dumps(encode(value)), "file.json"), "file.json") == value
