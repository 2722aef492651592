"""Only what is surely the mapping of a session's own weights is ever dropped."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee.ort import mapped_pages
from lraee.ort.mapped_pages import MappedPages, _without, make_mapped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mappings are listed by Linux only")

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted).map(tuple), max_size=6)


@given(spans, spans)
def test_what_was_mapped_before_is_taken_away_address_by_address(after, before):
    """The two lists may overlap in any way."""
    left = _without(after, before)
    known = {address for start, end in before for address in range(start, end)}
    wanted = {address for start, end in after for address in range(start, end)} - known
    assert {address for start, end in left for address in range(start, end)} == wanted


def test_neighbours_are_dropped_together():
    """One call of the system for each run of pages."""
    assert MappedPages([(20, 30), (0, 10), (10, 20), (40, 50)]).spans == [(0, 30), (40, 50)]


@pytest.fixture
def weights(tmp_path) -> Path:
    """Two megabytes in a folder whose name has a space."""
    path = tmp_path / "a b.data"
    path.write_bytes(bytes(range(256)) * (2 << 20 >> 8))
    return path


def map_file(path: Path) -> mmap.mmap:
    """Map a file as ONNX Runtime does."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def test_a_new_mapping_is_found_beside_old_ones(weights):
    """Content is the same after the drop."""
    old = map_file(weights)
    new, pages = make_mapped(lambda: map_file(weights), weights)
    assert sum(end - start for start, end in pages.spans) == 2 << 20
    content = new[:]
    pages.drop()
    assert new[:] == old[:] == content


@pytest.mark.parametrize("name", ["lraee é", "a\u2028b", "a\rb", "a\nb", " a ", "\udcff"])
def test_a_mapping_is_found_in_a_folder_of_any_name(tmp_path, name):
    """Line ends of other systems, blanks at both ends, bytes that are not UTF-8."""
    path = tmp_path / name / "x.data"
    path.parent.mkdir()
    path.write_bytes(bytes(1 << 20))
    _, pages = make_mapped(lambda: map_file(path), path)
    assert sum(end - start for start, end in pages.spans) == 1 << 20


def test_a_mapping_is_found_through_a_link_to_the_file_and_to_its_folder(weights, tmp_path):
    """Linux names the file itself, however it was reached."""
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "folder" / weights.name)
    for path in (tmp_path / "folder" / weights.name, tmp_path / "link"):
        mapped, pages = make_mapped(lambda path=path: map_file(path), path)
        assert sum(end - start for start, end in pages.spans) == 2 << 20
        mapped.close()


def test_when_somebody_else_maps_the_file_at_the_same_time_nothing_is_dropped(weights):
    """Their mapping may end before the session does, and its addresses be used for something else."""
    (first, second), pages = make_mapped(lambda: (map_file(weights), map_file(weights)), weights)
    assert pages.spans == []
    assert first[:9] == second[:9]


def test_a_mapping_that_was_written_to_is_never_dropped(weights):
    """What was written is in memory only."""

    def written() -> mmap.mmap:
        with weights.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapping[70_000] = 255 - mapping[70_000]
        return mapping

    mapping, pages = make_mapped(written, weights)
    assert pages.spans
    content = mapping[:]
    assert content != weights.read_bytes()
    pages.drop()
    assert mapping[:] == content
    assert pages.spans == []


@pytest.mark.parametrize("missing", ["/proc/self/maps", "/proc/self/pagemap"])
def test_where_the_system_does_not_tell_nothing_is_dropped(weights, monkeypatch, missing):
    """As in a sandbox without /proc."""

    def refuse(path, mode):
        if path == missing:
            raise PermissionError(13, "no", missing)
        return open(path, mode)

    monkeypatch.setattr(mapped_pages, "open", refuse, raising=False)
    mapping, pages = make_mapped(lambda: map_file(weights), weights)
    content = mapping[:]
    pages.drop()
    assert pages.spans == []
    assert mapping[:] == content


def test_small_files_and_files_that_are_not_mapped_are_left_alone(weights, tmp_path, monkeypatch):
    """Dropping their pages would win nothing."""
    small = tmp_path / "small.data"
    small.write_bytes(b"1" * 5000)
    mapping, pages = make_mapped(lambda: map_file(small), small)
    assert pages.spans == []
    assert mapping[:1] == b"1"
    assert make_mapped(lambda: 7, weights)[1].spans == []
    monkeypatch.setattr(mapped_pages.sys, "platform", "darwin")
    assert make_mapped(lambda: map_file(weights), weights)[1].spans == []
