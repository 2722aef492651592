"""The drawing shows the tokens that the graphs made: each stands for as many patches as its size says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import lraee
from lraee.engine.sized_tokens import SizedTokens
from lraee_toolchain.evaluation.merged_patches import draw_tokens, merged_pictures, tokens_of_patches

BUNDLE = Path(__file__).parents[2] / "runtime" / "golden" / "format_3.lraee"


def pixels(count: int) -> np.ndarray:
    """Noise on which halves are brighter."""
    images = np.random.default_rng(5).integers(0, 120, (count, 16, 16, 3), dtype=np.uint8)
    images[:, :8] += 120
    return images


def test_tokens_hold_as_many_patches_as_the_runtime_says() -> None:
    """In the order of the tokens after the last block that merges, up to the class token."""
    images, model = pixels(6), lraee.load(BUNDLE, threads=1)
    parts = model.parts.under("merge")
    tokens = parts.stem(images)
    for block in range(1, 4):  # merging 2, 3 and 3 of 17
        tokens = parts.block(block, tokens)
    assert isinstance(tokens, SizedTokens)
    found = tokens_of_patches(BUNDLE, "merge", images)
    assert found.shape == (6, 16)
    for of_image, sizes in zip(found, tokens.sizes[:, 1:, 0], strict=True):
        assert len(np.unique(of_image)) == 8
        assert sorted(np.bincount(of_image[of_image >= 0])[np.unique(of_image)]) == sorted(sizes)


def test_merged_patches_have_one_colour_and_lines_stand_between_tokens() -> None:
    """A picture of 4 x 4 patches whose left half is one token."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    tokens = np.array([[0, 0, 1, 2]] * 4).ravel()
    tokens[2::4], tokens[3::4] = range(1, 5), range(5, 9)
    drawn = np.asarray(Image.open(io.BytesIO(draw_tokens(image, tokens, 4))))
    scale = len(drawn) // 16
    assert scale == 10
    left = drawn[:, : 8 * scale]
    assert len(np.unique(left.reshape(-1, 3), axis=0)) == 1
    assert np.abs(left[0, 0].astype(int) - image[:, :8].reshape(-1, 3).mean(axis=0)).max() <= 1
    assert (drawn[:, 8 * scale] == 255).all()
    assert (drawn[4 * scale, 8 * scale :] == 255).all()
    inside = drawn[scale // 2 :: scale, 8 * scale + scale // 2 :: scale]
    assert np.array_equal(inside, image[:, 8:])


def test_pictures_say_how_many_tokens_are_left() -> None:
    """As many for each image."""
    found = merged_pictures(BUNDLE, "merge", pixels(2))
    assert [one.tokens for one in found] == [8, 8]
