"""Shards cover every image once, and each file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee.errors import ExportError
from lraee_toolchain.ray.output import remove_unfinished
from lraee_toolchain.ray.shards import TRIES, counted_try, is_finished, shard_at, shard_count, write_shard


@given(images=st.integers(1, 5000), size=st.integers(1, 700))
def test_shards_cover_every_image_once(images: int, size: int) -> None:
    """Whatever the numbers; only the last shard is smaller, and none is empty."""
    shards = [shard_at(number, images, size) for number in range(shard_count(images, size))]
    assert [place for shard in shards for place in range(shard.start, shard.stop)] == list(range(images))
    assert all(shard.stop - shard.start == size for shard in shards[:-1])
    assert 0 < shards[-1].stop - shards[-1].start <= size


@given(images=st.integers(1, 10**9), size=st.integers(1, 10**5))
def test_names_sort_like_numbers(images: int, size: int) -> None:
    """Up to a million shards."""
    last = min(shard_count(images, size), 10**6) - 1
    names = [shard_at(number, images, size).file_name for number in sorted({0, last // 2, last})]
    assert names == sorted(names)
    assert len(set(map(len, names))) == 1


def test_a_shard_is_finished_once_it_is_written_for_this_run(tmp_path: Path) -> None:
    """Not before, not for another run, not as another shard, and not when bytes are missing."""
    shard, table = shard_at(1, 10, 4), pa.table({"position": [4, 5, 6, 7]})
    assert not is_finished(shard, tmp_path, "key")
    size = write_shard(table, shard, tmp_path, "key", {})
    path = tmp_path / shard.file_name
    assert path.stat().st_size == size
    assert [entry.name for entry in tmp_path.iterdir()] == ["shard-000001.parquet"]
    assert is_finished(shard, tmp_path, "key")
    assert not is_finished(shard, tmp_path, "another")
    assert not is_finished(shard_at(0, 10, 4), tmp_path, "key")
    assert not is_finished(shard_at(1, 10, 3), tmp_path, "key")
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_finished(shard, tmp_path, "key")
    pq.write_table(table, path)
    assert not is_finished(shard, tmp_path, "key")


def test_what_a_dead_worker_was_writing_is_removed(tmp_path: Path) -> None:
    """Files and folders of its own; others stay."""
    (tmp_path / ".writing-000003-abc").write_text("half")
    (tmp_path / ".writing-folder").mkdir()
    (tmp_path / ".writing-folder/tokens.npy").write_text("half")
    (tmp_path / "notes.txt").write_text("whole")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_shard_in_which_every_worker_dies_ends_the_run(tmp_path: Path) -> None:
    """After some tries, with an error that names the images; one that was finished leaves no note."""
    shard = shard_at(2, 100, 10)
    with counted_try(shard, tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    dying = [counted_try(shard, tmp_path) for _ in range(TRIES)]
    for one in dying:
        one.__enter__()  # and the process dies here
    with pytest.raises(ExportError, match="5 workers died in images 20 to 29"), counted_try(shard, tmp_path):
        pass


def test_a_full_disk_is_an_error_of_the_shard(tmp_path: Path) -> None:
    """One line, and nothing half written stays; a folder that is gone stands for the disk."""
    with pytest.raises(ExportError, match="shard 0 cannot be written"):
        write_shard(pa.table({"position": [0]}), shard_at(0, 1, 1), tmp_path / "gone", "key", {})
