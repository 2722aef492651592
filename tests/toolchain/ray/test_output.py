"""An output folder belongs to one run, and goes on only with the same one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lraee.errors import DataError, ExportError
from lraee.reading import Reading
from lraee_toolchain.ray.config import Settings
from lraee_toolchain.ray.output import RECORD, RunRecord, opened_output, record_of
from lraee_toolchain.ray.shards import write_shard

PLAIN = Settings(shard_size=4)


def record(settings: Settings = PLAIN, **changes: object) -> RunRecord:
    """A run over ten images."""
    made = record_of("classify", "a" * 64, 10, "f" * 64, settings)
    return replace(made, **changes)  # type: ignore[arg-type]  # names are the test's own


def numbers(folder: Path, run: RunRecord, *, overwrite: bool = False) -> list[int]:
    """The shards that are missing."""
    with opened_output(folder, run, overwrite=overwrite) as missing:
        return [shard.number for shard in missing]


def finish(folder: Path, run: RunRecord, number: int) -> None:
    """Write a shard of a run."""
    shard = run.shard(number)
    write_shard(pa.table({"position": list(range(shard.start, shard.stop))}), shard, folder, run.key, {})


def test_a_rerun_computes_what_is_missing(tmp_path: Path) -> None:
    """Workers, threads and cluster may be others: they change no answer."""
    run = record()
    assert numbers(tmp_path / "out", run) == [0, 1, 2]
    finish(tmp_path / "out", run, 1)
    (tmp_path / "out/.writing-000002-x").write_text("half")
    assert numbers(tmp_path / "out", record(replace(PLAIN, workers=7, threads=2, address="auto"))) == [0, 2]
    assert not list((tmp_path / "out").glob(".writing-*"))
    for number in (0, 2):
        finish(tmp_path / "out", run, number)
    assert numbers(tmp_path / "out", run) == []
    assert pq.read_table(tmp_path / "out").column("position").to_pylist() == list(range(10))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (record(replace(PLAIN, policy="full")), "its policy is None, wanted 'full'"),
        (record(replace(PLAIN, shard_size=5)), "its shard_size is 4, wanted 5"),
        (record(replace(PLAIN, reading=Reading(reduce_jpeg=True))), "its reading is .*wanted"),
        (record(bundle_sha256="b" * 64), "its bundle sha256 is aaaa"),
        (record(kind="embed"), "its kind is classify, wanted embed"),
        (record(images=11), "its images were 10, wanted 11"),
        (record(fingerprint="e" * 64), "its images have changed"),
    ],
)
def test_a_rerun_with_anything_else_is_refused_in_one_line(other: RunRecord, message: str, tmp_path: Path) -> None:
    """It says what differs, and the shards stay; only when told to does it remove them."""
    finish_first = record()
    assert numbers(tmp_path, finish_first) == [0, 1, 2]
    finish(tmp_path, finish_first, 0)
    with pytest.raises(DataError, match=f"holds another run: {message}") as caught:
        numbers(tmp_path, other)
    assert caught.value.setting == "overwrite"
    assert numbers(tmp_path, finish_first) == [1, 2]
    assert numbers(tmp_path, other, overwrite=True) == list(range(other.shards))


def test_settings_that_a_kind_does_not_look_at_do_not_matter() -> None:
    """Embedding lists no labels, and features are of full depth."""

    def key(kind: str, settings: Settings) -> str:
        return record_of(kind, "a", 1, "f", settings).key  # type: ignore[arg-type]  # a kind

    assert key("embed", PLAIN) == key("embed", replace(PLAIN, top=9))
    assert key("features", PLAIN) == key("features", replace(PLAIN, policy="full"))
    assert key("features", PLAIN) != key("features", replace(PLAIN, token_blocks=(6,)))


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    """Nor are its files removed where output may be replaced."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes.txt and no _run.json"):
        numbers(tmp_path, record())
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["notes.txt"]


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Unless the output may be replaced."""
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(DataError, match="cannot be read as the record of a run"):
        numbers(tmp_path, record())
    assert numbers(tmp_path, record(), overwrite=True) == [0, 1, 2]


def test_two_runs_do_not_write_at_the_same_time(tmp_path: Path) -> None:
    """The second is told; the first goes on."""
    with opened_output(tmp_path, record(), overwrite=False), pytest.raises(ExportError, match="in use by another run"):
        numbers(tmp_path, record())
    assert numbers(tmp_path, record()) == [0, 1, 2]
