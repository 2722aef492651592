"""Preprocessing equals open_clip's, bit for bit."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ImageError
from lraee.images.preprocess import normalize, pixels, resized_size

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
GOLDEN = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "make_preprocess_sizes.py"))
synthetic = GOLDEN["synthetic"]


def preprocessing(image_size: int = 32, resize_mode: str = "shortest", interpolation: str = "bicubic", **fields):
    """CLIP's preprocessing, with a smaller image."""
    fields = {"mean": MEAN, "std": STD, **fields}
    return Preprocessing(image_size=image_size, resize_mode=resize_mode, interpolation=interpolation, **fields)


def test_odd_sizes_give_the_pixels_that_open_clip_gave_when_the_table_was_made():
    """Exact: Pillow resizes in fixed point, so there is nothing to tolerate."""
    rows = [line.split("\t") for line in GOLDEN["TABLE"].read_text().splitlines()]
    wrong = []
    for width, height, mode, interpolation, size, expected in rows:
        settings_ = preprocessing(int(size), mode, interpolation, fill_color=GOLDEN["FILL_COLOR"])
        if GOLDEN["digest"](pixels(synthetic(int(width), int(height)), settings_)) != expected:
            wrong.append((width, height, mode, interpolation))
    assert len(rows) > 250
    assert wrong == []


@pytest.fixture(scope="module")
def image_transform():
    """open_clip's own transform; the import takes seconds, so it happens once."""
    return pytest.importorskip("open_clip").image_transform


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.sampled_from([16, 31, 48]),
    mode=st.sampled_from(["shortest", "squash", "longest"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill_color=st.integers(0, 255),
)
def test_any_size_and_setting_equals_open_clip(image_transform, width, height, size, mode, interpolation, fill_color):
    """Pixels and normalization together are exactly what open_clip feeds to its tower."""
    from PIL import Image

    array = synthetic(width, height)
    ours = preprocessing(size, mode, interpolation, fill_color=fill_color)
    got = normalize(pixels(array, ours), ours)[0]
    if mode == "longest" and 0 in (round(edge * size / max(width, height)) for edge in (width, height)):
        return  # open_clip fails on these
    transform = image_transform(size, False, MEAN, STD, mode, interpolation, fill_color)
    expected = transform(Image.fromarray(array)).numpy()
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("statistics", [(MEAN, STD), ((0.5,) * 3, (0.5,) * 3), ((0, 0, 0), (1, 1, 1))])
def test_normalize_equals_to_tensor_and_normalize_for_every_level(statistics):
    """Exact, for all 256 levels in all three channels."""
    transforms = pytest.importorskip("torchvision.transforms")
    mean, std = statistics
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = transforms.Normalize(mean, std)(transforms.ToTensor()(levels)).numpy()
    got = normalize(np.stack([levels, levels[::-1]]), preprocessing(16, mean=mean, std=std))
    assert got.shape == (2, 3, 16, 16)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert np.array_equal(got[0], expected)


def test_grey_pictures_equal_open_clip(image_transform):
    """Converting before or after resizing makes no difference to grey."""
    from PIL import Image

    grey = Image.fromarray(synthetic(77, 50)[..., 1])
    expected = image_transform(32, False, MEAN, STD)(grey).numpy()
    assert np.array_equal(normalize(pixels(grey, preprocessing()), preprocessing())[0], expected)


def test_an_array_of_the_right_size_is_returned_as_it_is():
    """A camera that delivers the model's size costs nothing."""
    array = synthetic(32, 32)
    for mode in ("shortest", "squash", "longest"):
        assert pixels(array, preprocessing(resize_mode=mode)) is array


def test_an_array_of_the_right_size_needs_no_pillow():
    """A device can run without the extra `image`."""
    program = (
        "import sys, numpy; sys.modules['PIL'] = None; from lraee.images.preprocess import Preprocessing, pixels;"
        "p = Preprocessing(image_size=8, resize_mode='squash', interpolation='bicubic', mean=(0,)*3, std=(1,)*3);"
        "print(pixels(numpy.zeros((8, 8, 3), numpy.uint8), p).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(8, 8, 3)"


def test_nearest_invents_no_colours():
    """Nearest takes pixels as they are, without antialiasing."""
    array = synthetic(200, 150)
    got = pixels(array, preprocessing(interpolation="nearest"))
    known = {tuple(colour) for colour in array.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in got.reshape(-1, 3).tolist()} <= known


def test_one_pixel_fills_the_square():
    """The smallest image is an image."""
    one = np.array([[[10, 20, 30]]], dtype=np.uint8)
    assert (pixels(one, preprocessing()) == (10, 20, 30)).all()


def test_a_line_is_padded_by_longest():
    """Where open_clip would round the short edge to nothing, one row of pixels is left."""
    line = np.full((1, 500, 3), 200, dtype=np.uint8)
    got = pixels(line, preprocessing(resize_mode="longest", fill_color=9))
    assert sorted(np.unique(got)) == [9, 200]


def test_an_image_too_narrow_to_resize_is_refused_with_its_size():
    """Its resized copy would fill the memory of a small board."""
    line = np.zeros((1, 100_000, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match=r"100000 x 1 pixels, too narrow.*crop it first"):
        pixels(line, preprocessing(224))
    with pytest.raises(ImageError, match=r"1 x 1338 pixels, too narrow"):
        pixels(np.zeros((1338, 1, 3), dtype=np.uint8), preprocessing(224))


def test_an_image_that_is_narrow_on_the_way_is_refused_too():
    """Squashed, it would be small in the end, but its widths are resized before its heights."""
    line = np.zeros((1_000_000, 1, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match=r"1 x 1000000 pixels, too narrow"):
        pixels(line, preprocessing(224, "squash"))
    assert pixels(line[:10_000], preprocessing(224, "squash")).shape == (224, 224, 3)


def test_a_crop_is_a_picture_of_its_own():
    """It does not keep what was cut off, and a graph may read it as it lies."""
    got = pixels(np.zeros((40, 60, 3), dtype=np.uint8), preprocessing(32))
    assert got.flags.c_contiguous
    assert got.base is None


def test_the_long_edge_is_truncated_not_rounded():
    """torchvision's arithmetic: int(224 * 500 / 375) is 298, not 299."""
    assert resized_size(500, 375, preprocessing(224)) == (298, 224)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "at least 1 pixel"),
        ({"resize_mode": "crop"}, "shortest, squash, longest"),
        ({"interpolation": "lanczos"}, "bicubic, bilinear, nearest"),
        ({"mean": (0.5, 0.5)}, "three finite numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean is .* three finite numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "above 0"),
        ({"std": (0.5, 0.5)}, "std is .* three finite numbers"),
        ({"std": (0.5, 0.5, float("inf"))}, "std is .* three finite numbers"),
        ({"fill_color": -1}, "0..255"),
        ({"fill_color": 256}, "0..255"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_what_was_wanted(fields, message):
    """A damaged manifest must not become a wrong picture."""
    with pytest.raises(ValueError, match=message):
        preprocessing(**fields)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 8, 8, 3), np.float32), ((1, 8, 8, 4), np.uint8), ((8, 3), np.uint8), ((1,) * 4 + (3,), np.uint8)],
)
def test_normalize_refuses_what_are_not_pixels(shape, dtype):
    """Floats have been normalized already, so they are refused."""
    with pytest.raises(ImageError, match="wanted uint8"):
        normalize(np.zeros(shape, dtype=dtype), preprocessing(8))
