"""Reads encoded images from columns of Parquet files, whose rows may be more than memory holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lraee.errors import DataError, ImageError
from lraee_toolchain.ray.config import Settings
from lraee_toolchain.ray.items import Item

ROWS = 64
"""Rows that are decoded together: a few megabytes of photos."""

_FOOTER = 8
"""Bytes at the end of a file: the size of its metadata and a mark."""


def find_parquet(path: Path) -> list[Path]:
    """Find the Parquet files of a folder, at any depth, sorted by their paths, or a file itself; none elsewhere."""
    if path.is_dir():
        found = [file for file in path.rglob("*.parquet") if not _is_hidden(file.relative_to(path))]
        return sorted(found, key=lambda file: file.relative_to(path).as_posix())
    return [path] if path.is_file() and path.suffix == ".parquet" else []


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


class ParquetSource:
    """The rows of Parquet files, one file after the other."""

    def __init__(self, path: Path, files: Sequence[Path], settings: Settings) -> None:
        """Read the metadata of every file.

        Args:
            path: that was given.
            files: in the order of their rows.
            settings: name the columns.

        Raises:
            DataError: a file cannot be read, lacks a column or has one of another type; or there is no row.
        """
        self._path, self._files = path, files
        self._image, self._name = settings.image_column, settings.name_column
        self._rows: list[int] = []
        state = hashlib.sha256()
        for file in files:
            try:
                with pq.ParquetFile(file) as opened:
                    self._check(opened.schema_arrow, file)
                    self._rows.append(opened.metadata.num_rows)
                footer = _footer(file)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read as Parquet: {error}; write it again, or remove it") from error
            state.update(f"{file.relative_to(path).as_posix()}\0".encode(errors="surrogateescape") + footer)
        self.fingerprint = state.hexdigest()
        if not sum(self._rows):
            raise DataError(f"{path} holds no row; give Parquet with encoded images")

    def __len__(self) -> int:
        return sum(self._rows)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        """Read the rows from position `start` up to `stop`, in order; row groups outside are not touched."""
        begin = 0
        for file, rows in zip(self._files, self._rows, strict=True):
            if begin < stop and start < begin + rows:
                for row, name, content in self._file_rows(file, max(start - begin, 0), min(stop - begin, rows)):
                    called = f"{file}: row {row}" + (f" ({name})" if name else "")
                    given = content if content else ImageError(f"{called} holds no image")
                    yield Item(position=begin + row, name=name or "", called=called, content=given)
            begin += rows

    def _file_rows(self, file: Path, start: int, stop: int) -> Iterator[tuple[int, str | None, bytes | None]]:
        with pq.ParquetFile(file) as opened:
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            begins = [sum(sizes[:group]) for group in range(len(sizes))]
            groups = [group for group, begin in enumerate(begins) if begin < stop and start < begin + sizes[group]]
            row = begins[groups[0]]
            for batch in opened.iter_batches(batch_size=ROWS, row_groups=groups, columns=[self._image, self._name]):
                if row + len(batch) > start and row < stop:
                    names, contents = (_values(batch, column) for column in (self._name, self._image))
                    for at in range(max(start - row, 0), min(stop - row, len(batch))):
                        yield row + at, names[at].as_py(), contents[at].as_py()
                row += len(batch)

    def _check(self, schema: Any, file: Path) -> None:
        wanted = {self._image: (pa.types.is_binary, pa.types.is_large_binary), self._name: (_is_text,)}
        for column, kinds in wanted.items():
            kind = _type_of(schema, column)
            option = "image_column" if column == self._image else "name_column"
            if kind is None:
                raise DataError(
                    f"{file} has no column {column!r}; it has {', '.join(schema.names)}: name the one with "
                    f"{'encoded images' if column == self._image else 'their names'}",
                    setting=option,
                )
            if not any(is_kind(kind) for is_kind in kinds):
                meant = "binary: encoded images" if column == self._image else "text: their names"
                raise DataError(f"{file}: the column {column!r} is {kind}, wanted {meant}", setting=option)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _type_of(schema: Any, column: str) -> Any:
    """Find the type of a column, or of a field of a column of structs; None where there is none."""
    first, *inner = column.split(".")
    if schema.get_field_index(first) < 0:
        return None
    kind = schema.field(first).type
    for name in inner:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        kind = kind.field(name).type
    return kind


def _values(batch: Any, column: str) -> Any:
    """Give the values of a column, or of a field of a column of structs."""
    first, *inner = column.split(".")
    values = batch.column(first)
    for name in inner:
        values = pc.struct_field(values, name)
    return values


def _footer(file: Path) -> bytes:
    """Read the metadata at the end of a file: types, rows, sizes and places of every column."""
    with file.open("rb") as opened:
        opened.seek(-_FOOTER, 2)
        size = int.from_bytes(opened.read(4), "little")
        opened.seek(-_FOOTER - size, 2)
        return opened.read(size)
