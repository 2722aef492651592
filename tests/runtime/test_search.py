"""Search among embeddings: what is nearest, how much it takes, and files that are not an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import lraee
from lraee.errors import DataError
from lraee.search import CHUNK, Kind, SearchIndex

KINDS: tuple[Kind, ...] = get_args(Kind)


def unit(count: int, width: int, seed: int = 0) -> np.ndarray:
    """(count, width) float32 of unit length."""
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_float_search_is_the_sorted_cosine() -> None:
    """The search runs over several chunks, best first."""
    rows, queries = unit(CHUNK + 500, 16), unit(5, 16, seed=1)
    found = SearchIndex.build(rows).search(queries, top=700)
    cosine = queries @ rows.T
    np.testing.assert_array_equal(found.rows, np.argsort(-cosine, axis=1, kind="stable")[:, :700])
    np.testing.assert_allclose(found.scores, np.sort(cosine, axis=1)[:, :-701:-1], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_in_chunks_answers_as_one_in_a_single_chunk(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk has its own rows and scales."""
    index = SearchIndex.build(unit(60, 16) * np.linspace(1, 9, 60, dtype=np.float32)[:, None], kind=kind)
    whole = index.search(unit(5, 16, seed=1), top=6)
    monkeypatch.setattr(lraee.search, "CHUNK", 7)
    chunks = index.search(unit(5, 16, seed=1), top=6)
    np.testing.assert_array_equal(chunks.rows, whole.rows)
    np.testing.assert_allclose(chunks.scores, whole.scores, rtol=1e-5, atol=1e-5)


def test_bits_are_signs_about_the_mean_of_all() -> None:
    """Of embeddings that share a direction, as those of CLIP do: plain signs would be alike."""
    rows = (unit(200, 32) + 5).astype(np.float32)
    queries = rows[:9]
    found = SearchIndex.build(rows, kind="binary").search(queries, top=3)
    centre = rows.mean(axis=0)
    products = (queries - centre) @ np.sign(rows - centre).T
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(9))
    np.testing.assert_allclose(found.scores, -np.sort(-products, axis=1)[:, :3], atol=1e-4)


def test_of_equals_the_earlier_comes_first() -> None:
    """Whatever the order in which they were found."""
    rows = np.repeat(unit(3, 8), 4, axis=0)
    found = SearchIndex.build(rows).search(rows[5:6], top=12)
    assert found.rows[0, :4].tolist() == [4, 5, 6, 7]


def test_one_more_than_asked_for_is_left_out() -> None:
    """Also where it is only one."""
    found = SearchIndex.build(unit(4, 8)).search(unit(2, 8, seed=1), top=3)
    assert found.rows.shape == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_finds_itself(kind: Kind) -> None:
    """Also when it is kept as bits."""
    rows = unit(500, 128)
    found = SearchIndex.build(rows, kind=kind).search(rows, top=1)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(500))


def test_sizes_are_as_told() -> None:
    """A quarter and a scale, and one bit for each value and the mean."""
    rows = unit(100, 64)
    sizes = {kind: SearchIndex.build(rows, kind=kind).size_bytes for kind in KINDS}
    assert sizes == {"float32": 100 * 256, "int8": 100 * 68, "binary": 100 * 8 + 256}


def test_int8_is_within_half_a_step() -> None:
    """The step is that of each embedding's own scale."""
    rows = unit(50, 32)
    index = SearchIndex.build(rows, kind="int8")
    apart = np.abs(index.codes * index.scales[:, None] - rows)
    assert (apart <= 0.5001 * index.scales[:, None]).all()
    assert (np.abs(index.codes).max(axis=1) == 127).all()  # the whole range is used


def test_an_embedding_of_zeros_is_like_nothing() -> None:
    """Its scale must not be a division by zero."""
    rows = np.concatenate([unit(2, 8), np.zeros((1, 8), np.float32)])
    found = SearchIndex.build(rows, kind="int8").search(rows[:1], top=3)
    assert found.scores[0, found.rows[0] == 2] == 0


def test_fewer_than_asked_for_are_all_that_there_are() -> None:
    """They come in order."""
    found = SearchIndex.build(unit(3, 8)).search(unit(2, 8, seed=1), top=10)
    assert found.rows.shape == found.scores.shape == (2, 3)
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_read_back(tmp_path: Path, kind: Kind) -> None:
    """With the same answers, and nothing else in the folder."""
    index = SearchIndex.build(unit(40, 16), kind=kind)
    index.save(tmp_path / "index.npz")
    again = SearchIndex.load(tmp_path / "index.npz")
    queries = unit(4, 16, seed=2)
    np.testing.assert_array_equal(again.search(queries).rows, index.search(queries).rows)
    assert [path.name for path in tmp_path.iterdir()] == ["index.npz"]


def test_an_index_that_cannot_be_put_in_place_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half that was written under another name is removed, where a folder has taken the place."""
    (tmp_path / "index.npz").mkdir()
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    with pytest.raises(DataError, match=r"index\.npz cannot be written"):
        SearchIndex.build(unit(3, 8)).save(tmp_path / "index.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["index.npz"]


@pytest.mark.parametrize(
    ("kind", "codes", "centre"),
    [
        ("int8", np.zeros((2, 8), np.float32), np.empty(0)),
        ("float32", np.zeros(8, np.float32), np.empty(0)),
        ("float32", np.zeros((0, 8), np.float32), np.empty(0)),
        ("binary", np.zeros((2, 1), np.uint8), np.zeros(9)),
        ("int4", np.zeros((2, 8), np.int8), np.empty(0)),
    ],
)
def test_a_file_whose_arrays_contradict_its_kind_is_refused(tmp_path: Path, kind: str, codes: Any, centre: Any) -> None:
    """Type, shape and length are checked."""
    scales = np.zeros(len(codes) if kind == "int8" else 0)
    np.savez(tmp_path / "index.npz", kind=np.array(kind), codes=codes, scales=scales, centre=centre)
    with pytest.raises(DataError, match="not a search index"):
        SearchIndex.load(tmp_path / "index.npz")


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    """Missing, another file, pickles, and arrays that do not belong together."""
    path = tmp_path / "index.npz"
    with pytest.raises(DataError, match="not a search index"):
        SearchIndex.load(path)
    np.save(tmp_path / "one.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match="single array"):
        SearchIndex.load(tmp_path / "one.npy")
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="not a search index"):
        SearchIndex.load(path)
    arrays = {"kind": np.array("int8"), "codes": np.zeros((3, 8), np.int8), "centre": np.empty(0)}
    np.savez(path, **arrays, scales=np.zeros(2))
    with pytest.raises(DataError, match="scales"):
        SearchIndex.load(path)
    np.savez(path, **arrays, scales=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not a search index"):
        SearchIndex.load(path)


@pytest.mark.parametrize(
    ("rows", "kind", "says"),
    [
        (np.zeros((0, 8), np.float32), "int8", "count, embed_dim"),
        (np.full((2, 8), np.nan, np.float32), "int8", "finite"),
        (np.ones((2, 9), np.float32), "binary", "whole bytes"),
        (np.ones((2, 12), np.float32), "binary", "whole bytes"),
        (np.ones((2, 8), np.float32), "int4", "kind is 'int4'"),
    ],
)
def test_what_cannot_be_indexed_is_refused(rows: np.ndarray, kind: Kind, says: str) -> None:
    """The message says what was wanted."""
    with pytest.raises(DataError, match=says):
        SearchIndex.build(rows, kind=kind)


@pytest.mark.parametrize(
    ("width", "top", "says"),
    [(16, 1, r"wanted \(queries, 8\)"), (4, 1, r"wanted \(queries, 8\)"), (8, 0, "top is 0, wanted at least 1")],
)
def test_queries_of_another_model_and_for_nothing_are_refused(width: int, top: int, says: str) -> None:
    """Their length gives them away."""
    with pytest.raises(DataError, match=says):
        SearchIndex.build(unit(3, 8), kind="binary").search(unit(1, width), top=top)


def test_clothes_find_their_kind() -> None:
    """Embeddings of the shipped bundle, left where gates say: where they left is told, and neighbours share a label."""
    model = lraee.load("reference", threads=1)
    from lraee_calibration_data import fashion_mnist_sample

    images = [np.repeat(grey[:, :, None], 3, axis=2) for grey in fashion_mnist_sample()[:200]]
    answers = model.embed_answers(images, policy=lraee.Adaptive())
    assert answers is not None
    assert (answers.exit_block < 12).any()
    np.testing.assert_array_equal(answers.embedding, model.embed(images, policy=lraee.Adaptive()))
    full = model.embed_answers(images, policy=lraee.Full())
    assert full is not None
    found = SearchIndex.build(answers.embedding, kind="int8").search(answers.embedding, top=2)
    label = full.probabilities.argmax(axis=1)
    assert (label[found.rows[:, 1]] == label).mean() > 0.7
    assert model.embed_answers([]) is None
