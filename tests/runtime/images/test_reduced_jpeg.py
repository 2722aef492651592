"""Large JPEGs decoded at a fraction of their size stay in place, whichever way they are turned."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ImageError
from lraee.images.preprocess import pixels, resized_size
from lraee.images.read import Pixels, open_image
from lraee.images.reduced_jpeg import open_reduced
from lraee.reading import Reading
from lraee_calibration_data import open_dataset, photos

REDUCED = Reading(reduce_jpeg=True)

MEAN_LEVELS = 3.0
"""Mean difference that is taken for the same picture: 2.6 was the worst of 227 photos at any scale; a picture moved by
half a pixel differs by ten times as much where it has detail."""


def clip(image_size: int, resize_mode: str = "shortest") -> Preprocessing:
    """Give CLIP's preprocessing."""
    return Preprocessing(
        image_size=image_size, resize_mode=resize_mode, interpolation="bicubic", mean=(0,) * 3, std=(1,) * 3
    )


def jpeg(image: Pixels, orientation: int = 1) -> bytes:
    """Make a JPEG of good quality."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def apart(content: bytes, preprocessing: Preprocessing, **settings: bool) -> float:
    """Mean difference in levels to what is decoded at full size."""
    whole = pixels(content, preprocessing, reading=Reading(**settings)).astype(int)
    reduced = pixels(content, preprocessing, reading=Reading(reduce_jpeg=True, **settings))
    assert reduced.shape == whole.shape
    return float(np.abs(reduced - whole).mean())


@pytest.mark.parametrize(("image_size", "scale"), [(72, 2), (36, 4), (18, 8)])
def test_photos_keep_twice_the_models_size_and_look_the_same(image_size, scale):
    """The largest fraction that leaves enough pixels is taken."""
    dataset = open_dataset(photos())
    reduced, differences = 0, []
    for index in range(0, len(dataset), 5):
        content = dataset.read_bytes(index)
        width, height = Image.open(io.BytesIO(content)).size
        new_width, new_height = resized_size(width, height, clip(image_size))
        needs = (2 * new_width, 2 * new_height)
        picture = open_reduced(content, lambda *_, needs=needs: needs, name=None, reading=REDUCED).picture
        assert picture.width >= needs[0]
        assert picture.height >= needs[1]
        reduced += picture.width == -(-width // scale)
        differences.append(apart(content, clip(image_size)))
    assert reduced > 10
    assert max(differences) < MEAN_LEVELS
    assert sum(difference > 0 for difference in differences) >= reduced  # `pixels` keeps no more than that either


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_a_turned_photo_stays_in_place(orientation, mode):
    """The column that stands for less than a pixel may come to lie on any side."""
    dataset = open_dataset(photos())
    photo = dataset.read(3)[:289, :289]
    content = jpeg(photo, orientation)
    assert apart(content, clip(18, mode), exif_orientation=True) < MEAN_LEVELS
    turned = open_reduced(
        content, lambda *_: (36, 36), name=None, reading=Reading(exif_orientation=True, reduce_jpeg=True)
    )
    height, width = photo.shape[:2]
    assert turned.size == ((height, width) if orientation > 4 else (width, height))
    assert max(turned.picture.size) == 37


def test_an_orientation_that_nobody_knows_changes_nothing():
    """Pillow ignores it too."""
    photo = open_dataset(photos()).read(3)
    assert apart(jpeg(photo, 11), clip(36), exif_orientation=True) < MEAN_LEVELS


def test_other_formats_arrays_and_pictures_are_read_as_ever():
    """Only the decoder of JPEGs knows how."""
    photo = open_dataset(photos()).read(3)
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "PNG")
    for source in (buffer.getvalue(), photo, Image.fromarray(photo), open_image(jpeg(photo))):
        assert np.array_equal(pixels(source, clip(18), reading=REDUCED), pixels(source, clip(18)))


def test_a_callers_picture_is_not_reduced(tmp_path):
    """It is opened and not yet decoded, and stays what it is."""
    path = tmp_path / "photo.jpg"
    photo = open_dataset(photos()).read(3)
    path.write_bytes(jpeg(photo))
    with Image.open(path) as opened:
        pixels(opened, clip(18), reading=REDUCED)
        assert opened.size == photo.shape[1::-1]


def test_a_small_jpeg_is_decoded_as_it_is():
    """Less than twice the model's size would be left."""
    content = jpeg(open_dataset(photos()).read(3))
    assert np.array_equal(pixels(content, clip(150), reading=REDUCED), pixels(content, clip(150)))


@pytest.mark.parametrize("reading", [Reading(), REDUCED])
def test_an_error_names_the_image_as_it_is_told(reading):
    """Bytes have no path that could be named."""
    with pytest.raises(ImageError, match=r"^camera 1 is not an image"):
        pixels(b"abc", clip(18), name="camera 1", reading=reading)
