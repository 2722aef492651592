"""Frames of cameras become RGB."""

from __future__ import annotations

import numpy as np
import pytest

from lraee.errors import ImageError
from lraee.frames import from_bgr, from_grey, from_nv12

LEVELS = np.arange(256)


def formula(y: np.ndarray, u: np.ndarray, v: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    """The rounded coefficients that BT.601 and BT.709 are usually given with, in floats, not yet rounded."""
    y = y.astype(float) if full_range else (y - 16.0) * 255 / 219
    u, v = ((plane - 128.0) * (1 if full_range else 255 / 224) for plane in (u, v))
    if matrix == "bt601":
        return np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], axis=-1)
    return np.stack([y + 1.5748 * v, y - 0.187324 * u - 0.468124 * v, y + 1.8556 * u], axis=-1)


def nv12(luma: np.ndarray, u: np.ndarray, v: np.ndarray, padding: int = 0) -> bytes:
    """Join planes to a buffer, with `padding` bytes of rubbish after each row."""
    rows = np.concatenate([luma, np.stack([u, v], axis=-1).reshape(len(u), -1)]).astype(np.uint8)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=77).tobytes()


def test_bgr_is_reversed():
    """And contiguous, for what comes next."""
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    got = from_bgr(frame)
    assert got[1, 2].tolist() == frame[1, 2, ::-1].tolist()
    assert got.flags.c_contiguous


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1)])
def test_grey_is_repeated(shape):
    """With or without an axis for the channel."""
    got = from_grey(np.arange(8, dtype=np.uint8).reshape(shape))
    assert got.shape == (2, 4, 3)
    assert got[1, 2].tolist() == [6, 6, 6]


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_nv12_follows_the_formula(matrix, full_range):
    """Every Y with every 5th U and V, 52 x 52 of them; one level apart at most, where a sum falls on a half."""
    steps = np.arange(0, 256, 5)
    u, v = (plane.reshape(-1, 1) for plane in np.meshgrid(steps, steps))
    width = 256
    u, v = (np.repeat(plane, width // 2, axis=1) for plane in (u, v))
    luma = np.tile(LEVELS, (2 * len(u), 1))
    got = from_nv12(nv12(luma, u, v), width, len(luma), matrix=matrix, full_range=full_range)
    wide_u, wide_v = (plane.repeat(2, axis=0).repeat(2, axis=1) for plane in (u, v))
    wanted = np.clip(formula(luma, wide_u, wide_v, matrix, full_range).round(), 0, 255)
    apart = np.abs(got - wanted)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (255, 0, 0)),
        ((145, 54, 34), (0, 255, 0)),
        ((41, 240, 110), (0, 0, 255)),
    ],
)
def test_nv12_gives_the_colours_of_the_standard(yuv, rgb):
    """BT.601's black, white and primaries in 8 bits, which are rounded to about one level."""
    y, u, v = (np.full((size, size), value) for size, value in zip((2, 1, 1), yuv, strict=True))
    assert np.abs(from_nv12(nv12(y, u, v), 2, 2).astype(int) - rgb).max() <= 1


def test_each_pair_of_u_and_v_colours_its_four_pixels():
    """And the padding of rows none."""
    generator = np.random.default_rng(0)
    luma = generator.integers(0, 256, (6, 8))
    u, v = generator.integers(0, 256, (2, 3, 4))
    got = from_nv12(nv12(luma, u, v, padding=5), 8, 6, stride=13)
    assert np.array_equal(got, from_nv12(bytearray(nv12(luma, u, v)), 8, 6))
    for row, column in ((0, 0), (5, 7), (3, 4)):
        pair = [plane[row // 2, column // 2].reshape(1, 1) for plane in (u, v)]
        alone = nv12(np.full((2, 2), luma[row, column]), *pair)
        assert (from_nv12(alone, 2, 2) == got[row, column]).all()


def test_a_frame_of_another_shape_is_refused_with_what_was_wanted():
    """The message says what was met as well."""
    with pytest.raises(ImageError, match=r"float32 \(2, 2, 3\); wanted uint8 \(height, width, 3\)"):
        from_bgr(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ImageError, match=r"wanted uint8 \(height, width\)"):
        from_grey(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ImageError, match="no empty axis"):
        from_grey(np.zeros((0, 2), np.uint8))


@pytest.mark.parametrize(
    ("size", "width", "height", "options", "message"),
    [
        (6, 2, 2, {"matrix": "bt2020"}, "wanted one of bt601, bt709"),
        (9, 3, 2, {}, "3 x 2; NV12 has an even width and height"),
        (0, 0, 2, {}, "even width and height"),
        (7, 2, 2, {}, "has 7 bytes, wanted 6 for NV12 of 2 x 2"),
        (6, 4, 2, {"stride": 2}, "stride of 2"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(size, width, height, options, message):
    """Sizes, stride and matrix are checked before anything is computed."""
    with pytest.raises(ImageError, match=message):
        from_nv12(bytes(size), width, height, **options)
