"""What a worker writes of a shard equals what the functions that run locally answer, for every form of images.

Workers cut batches inside a shard. Where the local call cuts the same batches, answers are equal bit for bit; elsewhere
to the rounding of float32 sums, for which one part in a hundred thousand is more than enough: products of INT8 are
exact, and no image of a batch reaches into another's sums. Labels and exits are equal.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import BundleError, DataError, LraeeError, SettingsError
from lraee.images.preprocess import pixels as preprocess
from lraee.prediction import Prediction
from lraee_toolchain.early_exit.features import extract_features, load_features
from lraee_toolchain.ray import Settings, read_features
from lraee_toolchain.ray.config import Kind
from lraee_toolchain.ray.extraction import bundle_chain
from lraee_toolchain.ray.output import opened_output
from lraee_toolchain.ray.run import prepare
from lraee_toolchain.ray.worker import compute_shard, make_work, open_same_source

from .conftest import DAMAGED, Pictures

SETTINGS = Settings(shard_size=16, batch_size=8, threads=1)


def compute(kind: Kind, bundle: str, images: Path, out: Path, settings: Settings = SETTINGS) -> Any:
    """Compute every shard in this process, as a worker does, and read the output as one table."""
    job, record = prepare(kind, bundle, images, out, settings)
    with opened_output(out, record, overwrite=False) as missing:
        source, work = open_same_source(job), make_work(job)
        for shard in reversed(missing):  # no shard depends on those before it
            report = compute_shard(job, source, work, shard.number)
            assert report.images == shard.stop - shard.start
            assert report.damaged == (shard.start <= DAMAGED < shard.stop)
    return pq.read_table(out)


def rows_of(table: Any) -> list[dict[str, Any]]:
    """Rows without the error, which names the place of the images."""
    return table.drop_columns("error").to_pylist()


def test_rows_equal_the_local_stream(pictures: Pictures, tmp_path: Path) -> None:
    """Every field of a prediction, at the bundle's own operating point, for each form of images alike."""
    tables = {
        kind: compute("classify", "reference", getattr(pictures, kind), tmp_path / kind)
        for kind in ("folder", "zip", "parquet")
    }
    assert rows_of(tables["folder"]) == rows_of(tables["zip"]) == rows_of(tables["parquet"])
    model = lraee.load("reference", threads=1)
    readable = [pictures.contents[position] for position in pictures.readable]
    local = list(model.classify_stream(readable, batch_size=8))
    rows = rows_of(tables["zip"])
    assert [row["position"] for row in rows] == list(range(40))
    assert [row["name"] for row in rows] == list(pictures.names)
    compare([row for row in rows if row["position"] != DAMAGED], local)


def compare(rows: list[dict[str, Any]], local: list[Prediction]) -> None:
    """Compare the columns of readable images with predictions."""
    for row, one in zip(rows, local, strict=True):
        assert (row["label"], row["exit_block"], row["early"]) == (one.label, one.exit_block, one.early)
        assert (row["flops"], row["schedule"]) == (one.flops, None)
        assert row["probability"] == pytest.approx(one.score, rel=1e-5)
        assert row["gate"] == (None if one.gate is None else pytest.approx(one.gate, rel=1e-5))
        assert row["top_labels"] == [label for label, _ in one.top]
        assert row["top_probabilities"] == pytest.approx([value for _, value in one.top], rel=1e-4)


def test_a_damaged_image_is_named_in_its_row(pictures: Pictures, tmp_path: Path) -> None:
    """With the library's message; every other column of the row is null, and no other row has an error."""
    table = compute("classify", "reference", pictures.zip, tmp_path / "out")
    errors = table.column("error").to_pylist()
    assert [position for position, error in enumerate(errors) if error] == [DAMAGED]
    assert errors[DAMAGED].startswith(f"{pictures.zip}:{pictures.names[DAMAGED]} is damaged")
    (row,) = table.slice(DAMAGED, 1).to_pylist()
    assert {name for name, value in row.items() if value is not None} == {"position", "name", "error"}


@pytest.mark.parametrize("kind", ["classify", "embed", "features"])
def test_a_shard_of_damaged_images_alone_has_its_rows(kind: Kind, pictures: Pictures, tmp_path: Path) -> None:
    """And the whole output still reads as one table."""
    settings = replace(SETTINGS, shard_size=1)
    folder = tmp_path / "images"
    folder.mkdir()
    for position in (DAMAGED - 1, DAMAGED):
        (folder / f"{position}.png").write_bytes(pictures.contents[position])
    job, record = prepare(kind, "reference", folder, tmp_path / "out", settings)
    with opened_output(job.out, record, overwrite=False) as missing:
        source, work = open_same_source(job), make_work(job)
        assert [compute_shard(job, source, work, shard.number).damaged for shard in missing] == [0, 1]
    table = pq.read_table(tmp_path / "out")
    assert [error is None for error in table.column("error").to_pylist()] == [True, False]


def test_the_policy_is_the_one_that_was_asked_for(pictures: Pictures, tmp_path: Path) -> None:
    """An exit for all, and labels listed as many as wanted."""
    settings = replace(SETTINGS, policy="exit=6", top=2)
    table = compute("classify", "reference", pictures.zip, tmp_path / "out", settings)
    assert set(table.column("exit_block").to_pylist()) == {6, None}
    assert {len(labels) for labels in table.column("top_labels").to_pylist() if labels is not None} == {2}


def test_embeddings_equal_the_local_ones(pictures: Pictures, tmp_path: Path) -> None:
    """Bit for bit where batches are the same, as in the shards without a damaged image; at full depth by default."""
    table = compute("embed", "reference", pictures.parquet, tmp_path / "out")
    model = lraee.load("reference", threads=1)
    local = model.embed([pictures.contents[position] for position in pictures.readable], batch_size=8)
    found = np.array([row for row in table.column("embedding").to_pylist() if row is not None], np.float32)
    assert found.shape == (39, 128)
    assert np.array_equal(found[: DAMAGED - 1], local[: DAMAGED - 1])
    assert np.allclose(found, local, rtol=0, atol=1e-5)
    assert table.column("embedding").null_count == 1
    assert set(table.column("exit_block").to_pylist()) == {12, None}


def test_features_equal_a_local_extraction(pictures: Pictures, tmp_path: Path) -> None:
    """Read back they are the arrays that exits are fitted on, bit for bit; tokens too, after the blocks asked for."""
    settings = replace(SETTINGS, token_blocks=(4, 6))
    compute("features", "reference", pictures.folder, tmp_path / "out", settings)
    read = read_features(tmp_path / "out", tmp_path / "read")
    assert read.positions.tolist() == pictures.readable
    assert read.names == tuple(pictures.names[position] for position in pictures.readable)
    assert [name for name, _ in read.damaged] == [pictures.names[DAMAGED]]

    bundle = Bundle(find_bundle("reference"))
    chain = bundle_chain(bundle, threads=1)
    (tmp_path / "local").mkdir()
    pixels = [preprocess(pictures.contents[at], bundle.manifest.preprocessing) for at in pictures.readable]
    extract_features(chain, np.stack(pixels), tmp_path / "local", shards=(4, 6))
    local, found = load_features(tmp_path / "local"), read.features
    for name in ("patch_mean", "class_token", "variance", "embedding", "probabilities"):
        ours, theirs = np.asarray(getattr(found, name)), np.asarray(getattr(local, name))
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours[:16], theirs[:16]), name  # the first shard is the first batch
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5), name
    assert found.tokens is not None
    assert local.tokens is not None
    some = np.array([30, 2], np.int64)
    for ours_tokens, their_tokens in zip(
        found.tokens.tokens(some, (4, 6)), local.tokens.tokens(some, (4, 6)), strict=True
    ):
        assert np.allclose(ours_tokens.values, their_tokens.values, rtol=0, atol=1e-2)  # FP16 has three digits
    depths = lraee.load("reference", threads=1).run_pixels(np.stack(pixels[:16]), policy=lraee.Full())
    assert np.array_equal(found.embedding[:16], depths.embedding)


def test_features_of_another_run_or_half_a_run_are_refused(pictures: Pictures, tmp_path: Path) -> None:
    """Nothing is fitted on half of the images by mistake."""
    compute("embed", "reference", pictures.zip, tmp_path / "embedded")
    with pytest.raises(DataError, match="holds the output of embed, wanted that of features"):
        read_features(tmp_path / "embedded", tmp_path / "read")
    compute("features", "reference", pictures.zip, tmp_path / "out")
    (tmp_path / "out/shard-000001.parquet").unlink()
    with pytest.raises(DataError, match=r"lacks shard-000001.parquet; run the same command again"):
        read_features(tmp_path / "out", tmp_path / "read")
    with pytest.raises(DataError, match="holds no run"):
        read_features(tmp_path, tmp_path / "read")


def test_photos_leave_where_they_leave_locally(tmp_path: Path) -> None:
    """The shipped bundle for photos, whose heads read all tokens."""
    from lraee_calibration_data import photos

    paths = sorted(photos().glob("kodak-*.jpg"))[:10]
    (tmp_path / "photos").mkdir()
    for path in paths:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    settings = replace(SETTINGS, shard_size=4)
    job, record = prepare("classify", "photo-clip", tmp_path / "photos", tmp_path / "out", settings)
    with opened_output(job.out, record, overwrite=False) as missing:
        source, work = open_same_source(job), make_work(job)
        for shard in missing:
            compute_shard(job, source, work, shard.number)
    local = list(lraee.load("photo-clip", threads=1).classify_stream(paths, batch_size=8))
    compare(pq.read_table(tmp_path / "out").to_pylist(), local)


def test_a_worker_refuses_other_images_or_another_bundle_than_the_run_began_with(
    pictures: Pictures, tmp_path: Path
) -> None:
    """A position would mean another image there."""
    job, _ = prepare("embed", "reference", pictures.zip, tmp_path / "out", SETTINGS)
    with pytest.raises(DataError, match="has changed since the run began"):
        open_same_source(replace(job, images=pictures.parquet))
    with pytest.raises(BundleError, match="has changed since the run began"):
        make_work(replace(job, bundle_sha256="0" * 64))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("classify", {"policy": "deadline=40"}, "no common start for a deadline"),
        ("classify", {"policy": "exit=7"}, "7"),
        ("embed", {"policy": "soon"}, "'soon' is not a policy"),
        ("features", {"token_blocks": (4, 12)}, "token_blocks names block 12, wanted 1 to 11"),
    ],
)
def test_settings_that_do_not_fit_the_bundle_are_refused_before_anything_runs(
    kind: Kind, settings: dict[str, Any], message: str, pictures: Pictures, tmp_path: Path
) -> None:
    """And no output folder is made."""
    with pytest.raises(LraeeError, match=message):
        prepare(kind, "reference", pictures.zip, tmp_path / "out", Settings(**settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", 0), ("threads", 0), ("shard_size", 0), ("batch_size", 0.5), ("top", True), ("token_blocks", (8, 6))],
)
def test_settings_out_of_their_range_are_refused_by_name(name: str, value: object) -> None:
    """When they are made."""
    with pytest.raises(SettingsError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]  # what is wrong is meant
