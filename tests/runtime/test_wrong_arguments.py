"""What a program passes in by mistake is refused where it is given, with what was wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import lraee
from lraee import frames
from lraee.checks import THREADS_PER_CORE
from lraee.cli import app
from lraee.errors import BundleError, DataError, ImageError, LabelsError, PolicyError, SettingsError
from lraee.policies import Confidence, Entropy, Patience, Replay
from lraee.policies.spec import parse_policy
from lraee.search import SearchIndex

PIXELS = np.zeros((28, 28, 3), np.uint8)
EYE = np.eye(128, dtype=np.float32)
TOO_MANY = THREADS_PER_CORE * (os.cpu_count() or 1) + 1


@pytest.mark.parametrize(
    "settings",
    [
        {"threads": 0},
        {"threads": -1},
        {"threads": TOO_MANY},
        {"threads": 10**20},
        {"threads": "2"},
        {"threads": 1.5},
        {"threads": True},
        {"verify": "ALL"},
        {"thread_pool": "swimming"},
        {"memory": "little"},
        {"reading": None},
        {"reading": {"reduce_jpeg": True}},
    ],
)
def test_a_setting_that_does_not_exist_is_refused(settings: dict[str, Any]) -> None:
    """Never taken for the default: ``verify="ALL"`` would verify nothing."""
    with pytest.raises(SettingsError, match=next(iter(settings))):
        lraee.load("reference", **settings)


def test_all_threads_that_make_sense_are_taken() -> None:
    """A number of numpy is accepted too."""
    for threads in (1, np.int64(1), None):
        assert lraee.load("reference", threads=threads).settings.threads == threads  # type: ignore[arg-type] # numpy's


@pytest.mark.parametrize("bundle", [None, 3, b"reference"])
def test_a_bundle_is_a_path(bundle: Any) -> None:
    """No other type can name a folder."""
    with pytest.raises(BundleError, match="wanted the path of a folder"):
        lraee.load(bundle)


@pytest.mark.parametrize(
    "policy",
    [
        "full",
        lraee.Full,
        3,
        lraee.ExitAt("4"),  # type: ignore[arg-type] # on purpose, as below
        lraee.Deadline("40"),  # type: ignore[arg-type]
        lraee.Deadline(None),  # type: ignore[arg-type]
        lraee.Deadline(40, "full"),  # type: ignore[arg-type]
        lraee.Adaptive(thresholds=[0.5]),  # type: ignore[arg-type]
        lraee.Adaptive(thresholds={4: "0.5"}),  # type: ignore[dict-item]
        Confidence("0.5"),  # type: ignore[arg-type]
        Entropy(None),  # type: ignore[arg-type]
        Patience(1.5),  # type: ignore[arg-type]
        Patience("1"),  # type: ignore[arg-type]
        Replay("4:.5"),  # type: ignore[arg-type]
        Replay({4: 0.5}),  # type: ignore[arg-type]
        Replay(((4, "0.5"),)),  # type: ignore[arg-type]
    ],
)
def test_a_policy_is_an_object_of_numbers(model: lraee.Model, policy: Any) -> None:
    """When it is given to a call, to a stream or to `load`."""
    for attempt in (
        lambda: model.classify(PIXELS, policy=policy),
        lambda: model.classify_stream([PIXELS], policy=policy),
        lambda: lraee.load("reference", policy=policy),
    ):
        with pytest.raises(PolicyError):
            attempt()


def test_a_spec_is_a_text() -> None:
    """Specs are typed, so other types are refused."""
    with pytest.raises(PolicyError, match="is not a text"):
        parse_policy(None)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("one", ["photo.jpg", b"photo", Path("photo.jpg"), PIXELS, Image.new("RGB", (9, 9)), None, 3])
def test_one_image_is_not_several(model: lraee.Model, one: Any) -> None:
    """A path would be taken for as many images as it has letters."""
    for attempt in (model.classify_batch, model.embed, model.embed_answers, model.classify_stream):
        with pytest.raises(ImageError, match=r"put a single one into a list: \[image\]"):
            attempt(one)


def test_a_stack_of_arrays_is_several(model: lraee.Model) -> None:
    """Gone through along its first axis."""
    assert len(model.classify_batch(np.stack([PIXELS, PIXELS]))) == 2


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "8", None, True, 10**30])
def test_a_batch_size_is_a_whole_number(model: lraee.Model, batch_size: Any) -> None:
    """From 1 on, in every call that takes one."""
    for attempt in (model.classify_batch, model.embed, model.embed_answers, model.classify_stream):
        with pytest.raises(ImageError, match="batch_size is"):
            attempt([PIXELS], batch_size=batch_size)


@pytest.mark.parametrize("top", [0, -1, 1.5, "1", None])
def test_top_is_a_whole_number(model: lraee.Model, top: Any) -> None:
    """It counts from 1."""
    for attempt in (model.classify, lambda image, top: model.classify_stream([image], top=top)):
        with pytest.raises(SettingsError, match="top is"):
            attempt(PIXELS, top=top)


@pytest.mark.parametrize("pixels", [None, [PIXELS]])
def test_pixels_are_an_array(model: lraee.Model, pixels: Any) -> None:
    """With the shape that is wanted in the message."""
    for attempt in (model.run_pixels, model.stream_pixels):
        with pytest.raises(ImageError, match=r"wanted a uint8 array \(batch, "):
            attempt(pixels)


@pytest.mark.parametrize(
    ("names", "templates"),
    [
        (None, None),
        (b"cat", None),
        ([1, 2], None),
        ([b"a", b"b"], None),
        (["a", None], None),
        (["a", "b"], 3),
        (["a", "b"], [3]),
        (["a", "b"], "a photo of a {}."),
    ],
)
def test_labels_are_texts(model: lraee.Model, names: Any, templates: Any) -> None:
    """And templates too; the model keeps those it has."""
    before = model.labels
    with pytest.raises(LabelsError):
        model.set_labels(names, templates)
    assert model.labels == before


@pytest.mark.parametrize(
    ("names", "embeddings"),
    [
        ("ab", EYE[:2]),
        (None, EYE[:2]),
        ([1, 2], EYE[:2]),
        (["", "b"], EYE[:2]),
        (["a", "b"], [[1.0] * 128, [1.0] * 127]),
        (["a", "b"], np.full((2, 128), "x")),
        (["a", "b"], EYE[:2].astype(complex)),
        (["a", "b"], None),
    ],
)
def test_label_embeddings_are_numbers_for_texts(model: lraee.Model, names: Any, embeddings: Any) -> None:
    """Names are checked as labels that are typed."""
    before = model.labels
    with pytest.raises(LabelsError):
        model.set_label_embeddings(names, embeddings)
    assert model.labels == before


@pytest.mark.parametrize("texts", [None, 3, [1], [b"x"], b"x"])
def test_texts_are_texts(model: lraee.Model, texts: Any) -> None:
    """Bytes and numbers are refused."""
    with pytest.raises(LabelsError, match="wanted a list of str"):
        model.embed_text(texts)


@pytest.mark.parametrize("limit", ["1000", 1.5, float("nan"), None])
def test_a_limit_on_pixels_is_a_whole_number(limit: Any) -> None:
    """NaN would refuse no image at all."""
    with pytest.raises(ImageError, match="max_pixels is"):
        lraee.Reading(max_pixels=limit)


@pytest.mark.parametrize(
    "embeddings", [None, [[1.0]], np.full((2, 8), "a"), EYE.astype(complex), EYE.astype(object), EYE.astype(bool)]
)
def test_an_index_is_of_numbers(embeddings: Any) -> None:
    """When it is built and when it is asked."""
    with pytest.raises(DataError, match="embeddings are"):
        SearchIndex.build(embeddings)
    with pytest.raises(DataError, match="queries are"):
        SearchIndex.build(EYE).search(embeddings)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_an_index_is_of_finite_numbers(value: float) -> None:
    """Also as float32; a query of NaN would be near to any."""
    rows = np.full((1, 128), value)
    with pytest.raises(DataError, match="finite"):
        SearchIndex.build(rows)
    with pytest.raises(DataError, match="finite"):
        SearchIndex.build(EYE).search(rows)  # type: ignore[arg-type] # float64


@pytest.mark.parametrize("top", [0, 1.5, "1", None])
def test_an_index_gives_a_whole_number(top: Any) -> None:
    """The number of nearest embeddings is checked."""
    with pytest.raises(DataError, match="top is"):
        SearchIndex.build(EYE).search(EYE, top=top)


@pytest.mark.parametrize("path", ["no/such/folder/index.npz", "/proc/index.npz", "/"])
def test_an_index_that_cannot_be_written_is_said(path: str) -> None:
    """By an error of the tree."""
    with pytest.raises(DataError, match="cannot be written"):
        SearchIndex.build(EYE).save(path)


def test_an_index_over_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    """The file that was written under another name is removed."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        SearchIndex.build(EYE).save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: frames.from_bgr(None),  # type: ignore[arg-type] # on purpose, as below
        lambda: frames.from_bgr([[1]]),  # type: ignore[arg-type]
        lambda: frames.from_grey("grey"),  # type: ignore[arg-type]
        lambda: frames.from_nv12(None, 2, 2),  # type: ignore[arg-type]
        lambda: frames.from_nv12("abcdef", 2, 2),  # type: ignore[arg-type]
        lambda: frames.from_nv12(np.zeros((3, 2), np.float32), 4, 4),  # type: ignore[arg-type]
        lambda: frames.from_nv12(bytes(6), "2", 2),  # type: ignore[arg-type]
        lambda: frames.from_nv12(bytes(6), 2.0, 2),  # type: ignore[arg-type]
        lambda: frames.from_nv12(bytes(6), 2, 2, stride="2"),  # type: ignore[arg-type]
        lambda: frames.from_nv12(memoryview(bytes(12))[::2], 2, 2),
    ],
)
def test_frames_are_arrays_and_sizes_are_whole(attempt: Callable[[], object]) -> None:
    """Floats of as many bytes are not a frame."""
    with pytest.raises(ImageError):
        attempt()


def test_a_frame_may_be_a_view() -> None:
    """Rows or columns taken out of a larger array."""
    view = np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2]
    expected = frames.from_nv12(np.ascontiguousarray(view), 2, 2)
    np.testing.assert_array_equal(frames.from_nv12(view, 2, 2), expected)
    np.testing.assert_array_equal(frames.from_nv12(bytearray(view.tobytes()), 2, 2), expected)


def test_the_command_refuses_threads_without_end() -> None:
    """In one line, instead of starting them."""
    for threads in (TOO_MANY, 10**20):
        result = CliRunner().invoke(app, ["classify", "reference", "photo.png", "--threads", str(threads)])
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: threads is {threads}, wanted")
        assert len(result.stderr.strip().splitlines()) == 1


def test_the_command_names_its_own_limit_on_pixels(tmp_path: Path) -> None:
    """Which the library does not name: other commands, which lack it, print the same message."""
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    result = CliRunner().invoke(app, ["classify", "reference", str(tmp_path / "photo.png"), "--max-pixels", "5"])
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("scale it down first, or raise --max-pixels")
