"""Folder, zip and Parquet give the same images at the same positions, and refuse what they cannot give."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lraee.errors import DataError, ImageError
from lraee_toolchain.ray.config import Settings
from lraee_toolchain.ray.items import Item
from lraee_toolchain.ray.sources import open_source

PLAIN = Settings()


def contents(items: list[Item]) -> list[tuple[int, str, bytes | ImageError]]:
    """What does not depend on the place of the images."""
    return [(item.position, item.name, item.content) for item in items]


@pytest.mark.parametrize("kind", ["folder", "zip", "parquet"])
def test_every_form_gives_the_same_images_at_the_same_positions(kind: str, pictures) -> None:
    """From any position to any other, also across row groups."""
    source = open_source(getattr(pictures, kind), PLAIN)
    everything = list(zip(range(len(source)), pictures.names, pictures.contents, strict=True))
    assert contents(list(source.items(0, len(source)))) == everything
    for start, stop in ((0, 1), (6, 15), (13, 14), (14, 28), (39, 40), (5, 5)):
        assert contents(list(source.items(start, stop))) == everything[start:stop]


def test_files_of_a_folder_of_parquet_follow_each_other(tmp_path: Path, parquet_of: Callable[..., Path]) -> None:
    """In the order of their paths; the same name may occur twice, since the position tells images apart."""
    (tmp_path / "b").mkdir()
    parquet_of(tmp_path / "a.parquet", ["one", "two", "two"], [b"1", b"2", b"3"], rows=2)
    parquet_of(tmp_path / "b/c.parquet", ["two"], [b"4"])
    parquet_of(tmp_path / "_unfinished.parquet", ["five"], [b"5"])
    source = open_source(tmp_path, PLAIN)
    assert contents(list(source.items(0, 9))) == [
        (0, "one", b"1"), (1, "two", b"2"), (2, "two", b"3"), (3, "two", b"4"),
    ]  # fmt: skip
    assert contents(list(source.items(2, 4))) == [(2, "two", b"3"), (3, "two", b"4")]


def test_a_row_without_an_image_is_an_error_of_that_row(tmp_path: Path, parquet_of: Callable[..., Path]) -> None:
    """And its name may be missing too."""
    path = parquet_of(tmp_path / "x.parquet", ["one", None, "three"], [b"1", None, b""])
    items = list(open_source(path, PLAIN).items(0, 3))
    assert items[0].content == b"1"
    assert [str(item.content) for item in items[1:]] == [
        f"{path}: row 1 holds no image",
        f"{path}: row 2 (three) holds no image",
    ]
    assert [item.name for item in items] == ["one", "", "three"]


def test_columns_may_be_fields_of_structs(tmp_path: Path) -> None:
    """As data sets of Hugging Face have them."""
    images = [{"bytes": b"1", "path": "one.jpg"}, {"bytes": b"2", "path": "two.jpg"}]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    settings = Settings(image_column="image.bytes", name_column="image.path")
    items = list(open_source(tmp_path / "x.parquet", settings).items(0, 2))
    assert contents(items) == [(0, "one.jpg", b"1"), (1, "two.jpg", b"2")]


@pytest.mark.parametrize(
    ("settings", "message", "setting"),
    [
        (Settings(image_column="jpg"), "has no column 'jpg'; it has label, name, image", "image_column"),
        (Settings(image_column="image.bytes"), "has no column 'image.bytes'", "image_column"),
        (Settings(image_column="name"), "the column 'name' is string, wanted binary", "image_column"),
        (Settings(name_column="path"), "has no column 'path'", "name_column"),
        (Settings(name_column="image"), "the column 'image' is binary, wanted text", "name_column"),
    ],
)
def test_a_column_that_is_not_there_is_refused_by_name(
    settings: Settings, message: str, setting: str, pictures
) -> None:
    """The message lists what there is, and the error says which setting is meant."""
    if settings.image_column == settings.name_column:
        pytest.skip("one column cannot be both")
    with pytest.raises(DataError, match=message) as caught:
        open_source(pictures.parquet, settings)
    assert caught.value.setting == setting


def test_places_without_images_are_refused(tmp_path: Path, parquet_of: Callable[..., Path]) -> None:
    """Nothing there, an empty folder, a folder of other files, Parquet without rows, and what is no Parquet."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("no image")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    parquet_of(tmp_path / "none.parquet", [], [])
    for name, message in {
        "missing": "does not exist",
        "empty": "is an empty folder",
        "other": "holds no image",
        "broken.parquet": "cannot be read as Parquet",
        "none.parquet": "holds no row",
    }.items():
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / name, PLAIN)


def test_the_fingerprint_changes_with_the_images(pictures, tmp_path: Path, parquet_of: Callable[..., Path]) -> None:
    """A file that was replaced, added or removed is noticed without reading any; a copied zip stays the same."""
    shutil.copytree(pictures.folder, tmp_path / "folder")
    shutil.copy(pictures.zip, tmp_path / "copied.zip")
    assert open_source(tmp_path / "copied.zip", PLAIN).fingerprint == open_source(pictures.zip, PLAIN).fingerprint
    seen = {open_source(tmp_path / "folder", PLAIN).fingerprint}
    first = tmp_path / "folder/a/00.png"
    os.utime(first, ns=(1, 1))
    seen.add(open_source(tmp_path / "folder", PLAIN).fingerprint)
    first.unlink()
    seen.add(open_source(tmp_path / "folder", PLAIN).fingerprint)
    assert len(seen) == 3
    rows = [parquet_of(tmp_path / f"{name}.parquet", [name], [b"1"]) for name in "ab"]
    assert len({open_source(path, PLAIN).fingerprint for path in (*rows, pictures.parquet)}) == 3
