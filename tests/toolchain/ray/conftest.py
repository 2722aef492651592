"""What these tests share: images in every form that a run takes, one of them damaged."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lraee_calibration_data import fashion_mnist_test, open_dataset

ray = pytest.importorskip("ray", reason="the extra ray is not installed; not every Python has wheels of Ray")
pa = pytest.importorskip("pyarrow", reason="the extra ray is not installed")

IMAGES = 40
DAMAGED = 17
"""Position of the image that cannot be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The same images as a folder, a zip and Parquet."""

    folder: Path
    zip: Path
    parquet: Path
    contents: tuple[bytes, ...]
    names: tuple[str, ...]

    @property
    def readable(self) -> list[int]:
        """Positions of the images that can be decoded."""
        return [position for position in range(len(self.contents)) if position != DAMAGED]


def write_parquet(path: Path, names: Sequence[str], contents: Sequence[bytes | None], rows: int = 7) -> Path:
    """A file with row groups of a few rows each, so that no shard begins with one."""
    import pyarrow.parquet as pq

    columns = {"name": pa.array(names, pa.string()), "image": pa.array(contents, pa.binary())}
    table = pa.table({"label": pa.nulls(len(names)), **columns})
    pq.write_table(table, path, row_group_size=rows)
    return path


@pytest.fixture(scope="session")
def parquet_of() -> Callable[..., Path]:
    """`write_parquet` for tests with rows of their own."""
    return write_parquet


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Forty images, every fiftieth of the shipped ones, in two folders."""
    root = tmp_path_factory.mktemp("pictures")
    dataset = open_dataset(fashion_mnist_test())
    contents = [dataset.read_bytes(index) for index in range(0, len(dataset), len(dataset) // IMAGES)]
    contents[DAMAGED] = contents[DAMAGED][:60]
    names = [f"{'ab'[position >= 25]}/{position:02d}.png" for position in range(IMAGES)]
    with zipfile.ZipFile(root / "pictures.zip", "w") as packed:
        for name, content in zip(names, contents, strict=True):
            path = root / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            packed.writestr(name, content)
    (root / "folder/notes.txt").write_text("no image")
    return Pictures(
        folder=root / "folder",
        zip=root / "pictures.zip",
        parquet=write_parquet(root / "pictures.parquet", names, contents),
        contents=tuple(contents),
        names=tuple(names),
    )
