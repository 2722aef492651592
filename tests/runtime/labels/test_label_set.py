"""Label files in every form that people have, and labels that a text tower cannot tell apart."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

import lraee
from lraee.bundle.manifest import TextInfo
from lraee.errors import LabelsError
from lraee.labels.label_file import parse_labels, read_label_file
from lraee.labels.label_set import LabelSet, check_told_apart

SHORTS = "swim trunks / shorts"

MAPPED = LabelSet(names=("cat", SHORTS), folders=(("shorts", SHORTS),))


@pytest.fixture
def fresh() -> lraee.Model:
    """A reference model whose labels a test may change."""
    return lraee.load("reference", threads=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", f"cat\nshorts\t{SHORTS}\n"),
        ("x.txt", f"\ufeffcat\t cat\r\n\r\nshorts\t{SHORTS}  \r\n"),
        ("x.json", f'{{"names": {{"cat": "cat", "shorts": "{SHORTS}"}}}}'),
        ("x.csv", f"folder,label\ncat,cat\nshorts,{SHORTS}\n"),
        ("x.csv", f"\ufeffLabel;Folder\r\ncat;\r\n{SHORTS};shorts\r\n;\r\n"),
        ("x.TSV", f'label\tfolder\ncat\t\n"{SHORTS}"\tshorts'),
    ],
)
def test_a_label_file_may_map_folders_to_labels(name: str, content: str, tmp_path: Path) -> None:
    """For names that no folder can have; a folder without an entry is called like its label."""
    (tmp_path / name).write_text(content, "utf-8", newline="")
    assert read_label_file(tmp_path / name) == MAPPED


def test_several_folders_may_have_one_label(tmp_path: Path) -> None:
    """The label is there once, in the place of the first."""
    (tmp_path / "x.txt").write_text("kitten\tcat\ndog\ncat\n")
    assert read_label_file(tmp_path / "x.txt") == LabelSet(names=("cat", "dog"), folders=(("kitten", "cat"),))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_label_files_are_read_as_windows_and_macos_write_them(form: str, encoding: str, tmp_path: Path) -> None:
    """Byte order marks, UTF-16 of Notepad and Excel, Windows' line ends, accents apart from their letters."""
    text = unicodedata.normalize(form, "café au lait\r\nthé \r\n")  # type: ignore[arg-type]  # a form's name
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    assert read_label_file(tmp_path / "x.txt").names == ("café au lait", "thé")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "cat\ndog\n", r"x\.csv: the first line is 'cat'; wanted the names of its columns, label and perhaps"),
        ("x.csv", "id,label\n1,cat\n", r"the first line is 'id, label'; wanted"),
        ("x.csv", "label,folder\na, b,c\n", r"row 2 has 3 cells, wanted 2; put a label with commas into quotation"),
        ("x.csv", "", r"the first line is 'nothing'"),
        ("x.csv", "label\n", "There are no labels"),
        ("x.txt", "a\tb\tc\n", r"line 1 is 'a\\tb\\tc'; wanted a label, or folder, tab, label"),
        ("x.txt", "cat\n\tdog\n", None),
        ("x.txt", "a\tcat\na\tdog\n", r"folders occur more than once: a"),
        ("x.txt", "a/b\tcat\n", r"'a/b' is not the name of a folder"),
        ("x.txt", "café\ncafe\u0301\n", r"labels occur more than once: café"),
        ("x.txt", "Trousers\ntrousers\n", r"x\.txt: labels 'Trousers' and 'trousers' are one to the text tower"),
        ("x.txt", "a &amp; b\na  &  B\n", r"which reads both as 'a & b'; keep one of them"),
        ("x.json", '{"names": {"a": "cat", "a": "dog"}}', r"'a' occurs more than once"),
        ("x.json", '{"names": {"a": 3}}', "wanted names as a list of texts or as an object of folders and labels"),
        ("x.json", '{"names": ["a"], "templates": {"a": "{}"}}', "wanted templates as a list of texts"),
        ("x.txt", "cat\0\n", "it holds zero bytes; .*save it as UTF-8"),
    ],
)
def test_a_label_file_that_would_drop_or_invent_a_label_is_refused(
    name: str, content: str, message: str | None, tmp_path: Path
) -> None:
    """A table's first line never becomes a label that wins."""
    (tmp_path / name).write_text(content, "utf-8")
    if message is None:  # blanks before a label do not name a folder
        assert read_label_file(tmp_path / name).names == ("cat", "dog")
        return
    with pytest.raises(LabelsError, match=message):
        read_label_file(tmp_path / name)


def test_a_label_file_in_an_old_encoding_says_what_to_do(tmp_path: Path) -> None:
    """Notepad's ANSI, and UTF-16 without its mark."""
    (tmp_path / "x.txt").write_bytes("café".encode("cp1252"))
    with pytest.raises(LabelsError, match=r"cannot be read, byte 3 is not UTF-8; .*; save it as UTF-8"):
        read_label_file(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes("cat".encode("utf-16-le"))
    with pytest.raises(LabelsError, match="it holds zero bytes"):
        read_label_file(tmp_path / "x.txt")


@pytest.mark.parametrize(
    "typed", ["nofile.csv", "nofile.TXT", "there/nofile", "/nowhere", "nofile.json", "nofile.md", "a\\b", "nofile.tsv"]
)
def test_a_name_that_looks_like_a_file_and_is_none_is_said_to_be_missing(typed: str) -> None:
    """It was taken for one label."""
    with pytest.raises(LabelsError, match="the label file cannot be read, there is no such file"):
        parse_labels(typed)


def test_typed_labels_are_names_with_commas_between_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slash inside a name makes no file of it; one name alone, a folder, and a file among names are refused."""
    assert parse_labels(f"{SHORTS}, cafe\u0301").names == (SHORTS, "café")
    with pytest.raises(LabelsError, match=r"met the one label 'cat', and there is no file of that name"):
        parse_labels("cat")
    with pytest.raises(LabelsError, match=r"'x\.csv' looks like a file; give one file, or names with commas"):
        parse_labels("x.csv,cat")
    with pytest.raises(LabelsError, match=r"labels 'Cat' and 'cat' are one to the text tower"):
        parse_labels("Cat, cat")
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(LabelsError, match=r"folder: the label file cannot be read, Is a directory"):
        parse_labels("folder")


def test_labels_that_are_one_to_the_text_tower_are_refused_by_both_names(fresh: lraee.Model) -> None:
    """The score would be divided between them, and gates would never be sure."""
    before = fresh.labels
    with pytest.raises(LabelsError, match=r"'Trousers' and 'trousers' are one to the text tower, which reads both as"):
        fresh.set_labels(["dress", "Trousers", "trousers"])
    assert fresh.labels == before


def test_labels_that_differ_only_after_the_context_are_refused(fresh: lraee.Model) -> None:
    """The tower reads a limited number of tokens; a difference within them is enough."""
    text = fresh.manifest.text
    assert isinstance(text, TextInfo)
    long = "coat dress " * text.context_length
    with pytest.raises(LabelsError, match="it reads the same tokens of both, as far as it reads; give names that"):
        fresh.set_labels([f"{long} bag", f"{long} shirt"])
    fresh.set_labels([f"bag {long}", f"shirt {long}"])


def test_a_template_in_which_two_labels_differ_is_enough() -> None:
    """They are refused only where no prompt tells them apart; equal names, as ImageNet's, are not meant."""
    labels = LabelSet(names=("ab", "ac", "ab"), templates=("{}", "x{}"))
    check_told_apart(labels, lambda text: text if text.startswith("x") else text[0])
    with pytest.raises(LabelsError, match="'ab' and 'ac'"):
        check_told_apart(labels, lambda text: text[:2] if text.startswith("x") else text[0])


def test_equal_embeddings_are_refused_by_both_names(fresh: lraee.Model) -> None:
    """Up to rounding and length, wherever they stand among thousands."""
    rows = np.random.default_rng(0).standard_normal((2000, fresh.manifest.tower.embed_dim)).astype(np.float32)
    names = [f"label {number}" for number in range(len(rows))]
    fresh.set_label_embeddings(names, rows)
    rows[1234] = 3 * rows[77] + 1e-6
    with pytest.raises(LabelsError, match="labels 'label 77' and 'label 1234' have the same embedding"):
        fresh.set_label_embeddings(names, rows)
    assert fresh.labels == tuple(names)


def test_names_in_two_unicode_forms_are_one_label(fresh: lraee.Model) -> None:
    """Their embeddings do not matter."""
    with pytest.raises(LabelsError, match="met 2 labels, 1 different"):
        fresh.set_label_embeddings(["café", "cafe\u0301"], np.eye(2, fresh.manifest.tower.embed_dim))
