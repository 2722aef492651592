"""The data in the package is what its documentation says, and every file has a licence."""

import hashlib
import zipfile
from collections import Counter

import pytest

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError
from lraee_calibration_data import build_archives, shipped
from lraee_calibration_data.dataset import load_pixels, open_dataset
from lraee_calibration_data.splits import check_disjoint

SMALL = Preprocessing(image_size=32, resize_mode="shortest", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
CLASSES = ("ankle boot", "bag", "coat", "dress", "pullover", "sandal", "shirt", "sneaker", "t-shirt", "trousers")


def test_all_photos_can_be_read_and_100_are_different():
    """104 files; four Kodak photos are also in CQ100."""
    photos = open_dataset(shipped.photos())
    assert len(load_pixels(photos, SMALL).pixels) == 104
    assert len({photos.digest(index) for index in range(len(photos))}) == 100
    assert photos.labels == ()


def test_every_photo_has_a_licence_an_author_and_a_source():
    """In the manifest, and readable for people in LICENSES.md."""
    lines = shipped.photo_table().read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t") == ["file", "licence", "licence_url", "attribution", "source", "label"]
    rows = [line.split("\t") for line in lines[1:]]
    assert all(len(row) == 6 and all(row[:5]) for row in rows)
    assert sorted(row[0] for row in rows) == sorted(path.name for path in shipped.photos().glob("*.jpg"))
    summary = (shipped.photos() / "LICENSES.md").read_text(encoding="utf-8")
    for file, licence, _, attribution, _, _ in rows:
        assert f"`{file}`: {attribution.split(' | ')[0]}" in summary
        assert licence.split("-")[0].split(":")[0].split(" (")[0].removesuffix(" 1.0") in summary


@pytest.mark.parametrize("folder", ["fashion_mnist", "imagenet_1k"])
def test_other_data_has_its_licence_beside_it(folder):
    """Wheels collect files called LICENSE."""
    text = (shipped.photos().parent / folder / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in text


def test_fashion_mnist_is_balanced_and_its_halves_share_no_picture():
    """600 and 200 of each of ten classes, from the training and the test half."""
    pool, test = open_dataset(shipped.fashion_mnist_pool()), open_dataset(shipped.fashion_mnist_test())
    assert pool.labels == test.labels == CLASSES
    assert set(Counter(pool.targets.tolist()).values()) == {600}
    assert set(Counter(test.targets.tolist()).values()) == {200}
    assert pool.read(0).shape == (28, 28, 3)
    check_disjoint({"pool": pool, "test": test})


def test_the_archives_are_rebuilt_byte_for_byte(tmp_path):
    """Building from the shipped archives takes all their images, and gives the same files."""
    build_archives.main([str(shipped.fashion_mnist_pool()), str(shipped.fashion_mnist_test()), str(tmp_path)])
    for path in (shipped.fashion_mnist_pool(), shipped.fashion_mnist_test()):
        built, kept = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / path.name, path))
        assert built == kept


def test_a_source_with_too_few_images_is_refused(tmp_path):
    """Rather than packing an unbalanced archive."""
    source = tmp_path / "few.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("pool/bag/1.png", b"")
    with pytest.raises(DataError, match="1 images of class 'bag'; wanted 2"):
        build_archives.build(source, tmp_path / "out.zip", per_class=2)


def test_the_imagenet_texts_are_those_of_open_clip():
    """1,000 names and ids, 80 templates."""
    labels, synsets, templates = shipped.imagenet_labels(), shipped.imagenet_synsets(), shipped.imagenet_templates()
    assert (len(labels), len(set(labels)), len(set(synsets)), len(templates)) == (1000, 998, 1000, 80)
    assert (labels[0], synsets[0]) == ("tench", "n01440764")
    assert all(template.count("{}") == 1 for template in templates)
    open_clip = pytest.importorskip("open_clip")
    assert labels == list(open_clip.IMAGENET_CLASSNAMES)
    assert templates == [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_the_shipped_data_stays_below_nine_and_a_half_megabytes():
    """It is part of every install."""
    folders = [shipped.photos().parent / name for name in ("photos", "fashion_mnist", "imagenet_1k")]
    size_bytes = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert size_bytes < 9_500_000
