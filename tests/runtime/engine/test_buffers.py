"""A thread's buffers stay small, however many batch sizes it has seen."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import lraee
from lraee.engine import buffers


@pytest.fixture
def fresh() -> lraee.Model:
    """A model whose buffers no other test has used."""
    return lraee.load("reference", threads=1)


def images(count: int) -> np.ndarray:
    """Make different pixels for each image."""
    return np.random.default_rng(5).integers(0, 256, (count, 28, 28, 3), np.uint8)


def test_bindings_are_kept_for_the_last_few_batch_sizes(fresh):
    """Compaction makes batches of any size; the answers do not depend on what is kept."""
    pixels = images(40)
    wanted = fresh.run_pixels(pixels, policy=lraee.Full()).embedding
    for count in [*range(40, 0, -1), 3, 17, 40]:
        got = fresh.run_pixels(pixels[:count], policy=lraee.Full()).embedding
        assert got == pytest.approx(wanted[:count], abs=1e-5)
    kept = fresh._sessions.buffers._pairs
    assert len(kept) == buffers.KEPT_SIZES
    assert list(kept)[-3:] == [3, 17, 40]


def test_large_buffers_are_not_kept_for_smaller_batches(fresh, monkeypatch):
    """One large call does not cost memory for ever."""
    pixels = images(64)
    one = fresh._sessions.buffers
    fresh.run_pixels(pixels[:2], policy=lraee.Full())
    small = weakref.ref(one._storage)
    wanted = fresh.run_pixels(pixels, policy=lraee.Adaptive())
    full = one._storage.nbytes
    assert one._storage.shape[1] == 64
    assert small() is None  # bindings to it have gone too
    monkeypatch.setattr(buffers, "KEPT_BYTES", full // 4)
    again = fresh.run_pixels(pixels, policy=lraee.Adaptive())
    assert np.array_equal(again.exit_block, wanted.exit_block)
    assert again.embedding == pytest.approx(wanted.embedding, abs=1e-5)
    fresh.run_pixels(pixels[:2], policy=lraee.Full())
    assert one._storage.nbytes <= full // 4


def test_pixels_need_not_lie_in_one_piece(fresh):
    """Such as every second image, mirrored."""
    pixels = images(8)
    views = pixels[::2, :, ::-1]
    got = fresh.run_pixels(views, policy=lraee.Full()).embedding
    assert np.array_equal(got, fresh.run_pixels(views.copy(), policy=lraee.Full()).embedding)
