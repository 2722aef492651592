"""Pictures of a report: some of every place, small, and honest about what is not known."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

import lraee
from lraee.bundle.folder import find_bundle
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import open_image
from lraee_calibration_data import fashion_mnist_pool, label_rows, open_dataset
from lraee_toolchain.evaluation.example_images import LARGEST, Answered, choose_pictures, run_pictures

NAMES = ("dress", "coat", "bag")


def made(images: int = 60, size: int = 28) -> Answered:
    """Images that left after blocks 4 and 12 or ran to the end of 12 blocks."""
    generator = np.random.default_rng(0)
    place = np.arange(images) % 3
    return Answered(
        pixels=generator.integers(0, 256, (images, size, size, 3)).astype(np.uint8),
        exit_block=np.array([4, 12, 12], np.int32)[place],
        early=np.array([True, True, False])[place],
        predicted=generator.integers(0, 3, images),
        classes=generator.integers(0, 3, images),
    )


def test_every_place_is_shown_and_not_more_than_asked_for() -> None:
    """An exit after the last block is told from full depth."""
    pictures = choose_pictures(made(), NAMES, each=8, seed=0)
    places = [(picture.block, picture.early) for picture in pictures]
    assert places == [(4, True)] * 8 + [(12, True)] * 8 + [(12, False)] * 8
    few = choose_pictures(made(images=6), NAMES, each=8, seed=0)
    assert len(few) == 6


def test_right_is_what_the_label_says() -> None:
    """Labels and answers are given by name; without labels neither right nor wrong is claimed."""
    pictures = choose_pictures(made(), NAMES, each=20, seed=0)
    assert {picture.right for picture in pictures} == {True, False}
    assert all(picture.right == (picture.label == picture.predicted) for picture in pictures)
    unknown = choose_pictures(dataclasses.replace(made(), classes=None), NAMES, seed=0)
    assert {(picture.label, picture.right) for picture in unknown} == {(None, None)}


@pytest.mark.parametrize(("size", "wanted"), [(28, 28), (224, LARGEST)])
def test_pictures_are_small(size: int, wanted: int) -> None:
    """Large ones are scaled down; small ones keep every pixel."""
    arrays = made(images=3, size=size)
    pictures = choose_pictures(arrays, NAMES, seed=0)
    image = Image.open(io.BytesIO(pictures[0].png))
    assert (image.format, image.size) == ("PNG", (wanted, wanted))
    if size == wanted:
        assert np.array_equal(np.asarray(image), arrays.pixels[0])


def test_the_draw_depends_on_the_seed_alone() -> None:
    """Equal exports show equal pictures."""
    first, again, other = (choose_pictures(made(), NAMES, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_bundle_is_run_at_its_default_point() -> None:
    """Answers are those of `Model.classify`, on images spread over the whole split."""
    bundle = find_bundle("reference")
    model = lraee.load(bundle)
    source = open_dataset(fashion_mnist_pool())
    rows = range(0, len(source), len(source) // 40)
    images = [open_image(source.read_bytes(row), name=source.name(row)) for row in rows]
    pixels = np.stack([preprocess(image, model.manifest.preprocessing) for image in images])
    classes = label_rows(source, model.labels)[list(rows)]
    pictures = run_pictures(bundle, pixels, classes, images=20, each=100)
    assert len(pictures) == 20
    assert len({picture.label for picture in pictures}) >= 8
    by_png = {picture.png: picture for picture in pictures}
    assert len(by_png) == 20
    found = 0
    for array in pixels:
        prediction = model.classify(array)
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", optimize=True)
        if (picture := by_png.get(buffer.getvalue())) is not None:
            found += 1
            assert (picture.block, picture.early) == (prediction.exit_block, prediction.early)
            assert picture.predicted == prediction.label
    assert found == 20
