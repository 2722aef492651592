"""The JSON file: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import get_args

import pytest

from lraee.errors import BundleError, DataError
from lraee_benchmarks.results.model import SCHEMA, Accuracy, Floor, PartTime, Report, RowKind, from_json, to_json


def test_json_round_trip(make_report: Callable[..., Report], accuracy: Accuracy, floor: Floor) -> None:
    """With and without the parts that are optional."""
    report = make_report()
    rows = tuple(dataclasses.replace(row, accuracy=accuracy) for row in report.rows)
    for variant in (
        report,
        make_report(cold_start=None),
        make_report(floor=floor),
        make_report(parts=(PartTime(part="stem", p50_ms=0.4, share_of_full=0.02),)),
        make_report(rows=rows, accuracy_source="fashion-mnist"),
    ):
        assert from_json(to_json(variant)) == variant


def test_raw_samples_are_in_the_json(make_report: Callable[..., Report]) -> None:
    """Anyone can compute another statistic."""
    raw = json.loads(to_json(make_report()))
    assert raw["schema"] == SCHEMA
    assert raw["rows"][0]["samples_ms"] == [9.0, 9.0]


@pytest.mark.parametrize("kind", get_args(RowKind))
def test_every_kind_of_row_is_read_back(make_report: Callable[..., Report], kind: RowKind) -> None:
    """And no other word is a kind."""
    report = make_report(rows=(dataclasses.replace(make_report().rows[0], kind=kind),))
    text = to_json(report)
    assert from_json(text) == report
    with pytest.raises(BundleError, match=r"report: .*kind"):
        from_json(text.replace(f'"kind": "{kind}"', '"kind": "luck"'))


def test_another_schema_is_refused(make_report: Callable[..., Report]) -> None:
    """A file of another version is not half understood, be it later or the one before."""
    for other in ("lraee-bench/2", "lraee-bench/4"):
        text = to_json(make_report()).replace(SCHEMA, other)
        with pytest.raises(DataError, match=rf"schema '{other}', wanted '{SCHEMA}'; measure again"):
            from_json(text)


def test_text_that_is_no_json_is_refused() -> None:
    """The message says what to do."""
    with pytest.raises(DataError, match="not JSON"):
        from_json("{")


def test_an_unknown_key_is_refused(make_report: Callable[..., Report]) -> None:
    """Named with its path."""
    raw = json.loads(to_json(make_report()))
    raw["device"]["colour"] = "green"
    with pytest.raises(BundleError, match=r"report: device has the unknown key 'colour'"):
        from_json(json.dumps(raw))


def test_row_is_found_by_its_name(make_report: Callable[..., Report]) -> None:
    """None where there is no such row."""
    report = make_report()
    assert report.row("graph") is report.rows[2]
    assert report.row("fp32") is None
