"""`sort_photos.py` puts photos into folders of their labels, and loses and overwrites none, even on a full disk."""

from __future__ import annotations

import errno
import io
import shutil
from pathlib import Path

import pytest
from started_programs import CAT, COFFEE, LIGHTHOUSE, OTHER_LIGHTHOUSE, PENGUIN, Run


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SORTED = {
    "espresso/mein schönes Frühstück.JPG": COFFEE,
    "king penguin/-rf.jpg": PENGUIN,
    "lighthouse/photo.jpg": LIGHTHOUSE,
    "lighthouse/photo-2.jpg": OTHER_LIGHTHOUSE,
    "unsure/cat.jpg": CAT,
}
"""Where the photos of `photos` go."""


def test_photos_are_copied_into_folders_of_their_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    """The originals stay, a damaged photo is named, and a second run changes nothing."""
    before, wanted = tree(photos), {name: source.read_bytes() for name, source in SORTED.items()}
    for _ in range(2):
        done = run("sort_photos.py", "photos", "sorted")
        assert done.status == 1
        assert "left: photos/damaged.jpg" in done.err
        assert tree(tmp_path / "sorted") == wanted
        assert tree(photos) == before


def test_photos_are_moved_and_nothing_is_overwritten(run: Run, photos: Path, tmp_path: Path) -> None:
    """Not even a file of the same content; what cannot be read or is no photo stays."""
    taken = tmp_path / "sorted" / "unsure" / "cat.jpg"
    taken.parent.mkdir(parents=True)
    shutil.copy(CAT, taken)
    assert run("sort_photos.py", "photos", "sorted", "--move").status == 1
    wanted = {**SORTED, "unsure/cat-2.jpg": CAT}
    assert tree(tmp_path / "sorted") == {name: source.read_bytes() for name, source in wanted.items()}
    assert tree(photos).keys() == {"damaged.jpg", "notes.txt", ".trash/photo.jpg"}


def test_a_dry_run_says_where_photos_go_and_writes_nothing(run: Run, photos: Path, tmp_path: Path) -> None:
    """One line for each photo that can be read."""
    done = run("sort_photos.py", "photos", "sorted", "--dry-run")
    assert len(done.out) == len(SORTED)
    assert "photos/-rf.jpg -> sorted/king penguin/-rf.jpg (king penguin, 0.94)" in done.out
    assert not (tmp_path / "sorted").exists()


def test_sorting_into_a_folder_below_does_not_sort_what_is_sorted(run: Run, photos: Path) -> None:
    """And a folder is not sorted into itself."""
    (photos / "damaged.jpg").unlink()
    assert run("sort_photos.py", ".", "sorted").status == 0
    assert run("sort_photos.py", "photos", "photos/sorted").status == 0
    assert "5 photos sorted" in run("sort_photos.py", "photos", "photos/sorted", "--dry-run").err
    assert run("sort_photos.py", "photos", "photos").status == 2


def test_an_empty_folder_is_sorted_and_a_missing_one_is_refused(run: Run, tmp_path: Path) -> None:
    """Neither makes a folder."""
    (tmp_path / "empty").mkdir()
    assert run("sort_photos.py", "empty", "sorted").status == 0
    assert run("sort_photos.py", "missing", "sorted").status == 2
    assert not (tmp_path / "sorted").exists()


def test_a_full_disk_loses_no_photo(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a copy is removed, the original stays and is named."""
    before = tree(photos)

    def half(original: io.BufferedReader, copy: io.BufferedWriter) -> None:
        copy.write(original.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", half)
    done = run("sort_photos.py", "photos", "sorted", "--move")
    assert done.status == 1
    assert done.err.count("No space left on device") == len(SORTED)
    assert tree(photos) == before
    assert tree(tmp_path / "sorted") == {}


def test_labels_of_ones_own_become_folders(run: Run, clothes: Path, tmp_path: Path) -> None:
    """Also those that no folder can be called."""
    words = ["--bundle", "reference", "--labels", "bag, trousers/jeans", "--at-least", "0"]
    assert run("sort_photos.py", "clothes", "sorted", *words).status == 0
    assert {path.name for path in (tmp_path / "sorted").iterdir()} == {"bag", "trousers_jeans"}
    assert (tmp_path / "sorted" / "bag" / "bag 0.png").is_file()
    assert run("sort_photos.py", "clothes", "sorted", "--labels", "bag,coat").status == 2  # photo-clip has no texts
