"""One loader for folders and zips, labelled or not."""

import io
import os
import struct
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError, ImageError
from lraee_calibration_data.crops import augmented_crops
from lraee_calibration_data.dataset import load_pixels, open_dataset
from lraee_calibration_data.digest import picture_digest

SMALL = Preprocessing(image_size=8, resize_mode="shortest", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def picture(level: int, file_format: str = "PNG", **options) -> bytes:
    """The file of a small picture of one grey level."""
    buffer = io.BytesIO()
    Image.new("RGB", (10, 9), (level,) * 3).save(buffer, file_format, **options)
    return buffer.getvalue()


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """Write files at relative paths."""
    for key, content in files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """Write files as members of a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in files.items():
            archive.writestr(key, content)
    return path


ANIMALS = {
    "test/dog/b.PNG": picture(2),
    "test/cat/a.png": picture(1),
    "test/cat/c.png": picture(3),
    "test/cat/.hidden.png": b"",
    "__MACOSX/test/cat/a.png": b"",
    ".cache/x.png": b"",
    "test/readme.txt": b"",
}


def test_a_folder_and_a_zip_of_the_same_files_are_the_same_data_set(tmp_path):
    """Order, labels, pixels and fingerprint do not depend on the container."""
    folder = open_dataset(write_folder(tmp_path / "animals", ANIMALS))
    archive = open_dataset(write_zip(tmp_path / "animals.zip", dict(reversed(ANIMALS.items()))))
    for dataset in (folder, archive):
        assert [sample.key for sample in dataset.samples] == ["test/cat/a.png", "test/cat/c.png", "test/dog/b.PNG"]
        assert [sample.label for sample in dataset.samples] == ["cat", "cat", "dog"]
        assert dataset.labels == ("cat", "dog")
        assert dataset.targets.tolist() == [0, 0, 1]
        assert len(dataset) == 3
        assert dataset.read(2)[0, 0].tolist() == [2, 2, 2]
    assert folder.fingerprint == archive.fingerprint


@pytest.mark.parametrize(
    "keys",
    [["a.png", "b.png"], ["photos/a.png", "photos/b.png"], ["a.png", "dog/b.png"], ["cat/a.png", "cat/x/b.png"]],
    ids=["flat", "one folder", "beside a folder", "folder in a folder"],
)
def test_images_that_do_not_lie_in_class_folders_have_no_labels(tmp_path, keys):
    """A guess would be worse than none; asking for labels says how to lay them out."""
    dataset = open_dataset(write_folder(tmp_path, {key: picture(index) for index, key in enumerate(keys)}))
    assert dataset.labels == ()
    assert {sample.label for sample in dataset.samples} == {None}
    with pytest.raises(DataError, match="one folder per class"):
        _ = dataset.targets


def test_the_fingerprint_changes_with_content_name_and_label(tmp_path):
    """A cache keyed by it is never stale."""
    variants = [
        {"a/1.png": picture(1), "b/2.png": picture(2)},
        {"a/1.png": picture(1), "b/2.png": picture(3)},
        {"a/1.png": picture(1), "b/3.png": picture(2)},
        {"a/1.png": picture(1), "c/2.png": picture(2)},
    ]
    sources = [write_zip(tmp_path / f"{index}.zip", files) for index, files in enumerate(variants)]
    assert len({open_dataset(source).fingerprint for source in sources}) == len(variants)


def test_the_digest_sees_the_picture_not_its_metadata():
    """A comment or EXIF block does not make another picture; another compression does."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    plain = picture(9, "JPEG")
    assert picture_digest(picture(9, "JPEG", exif=exif, comment=b"hello")) == picture_digest(plain)
    assert picture_digest(picture(9, "JPEG", quality=10)) != picture_digest(plain)
    assert picture_digest(plain[:-1]) != picture_digest(plain)
    for content in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\xff", picture(1)):
        assert len(picture_digest(content)) == 64


def test_a_subset_keeps_the_classes_of_the_whole(tmp_path):
    """Class 1 is the same class in every split."""
    dataset = open_dataset(write_folder(tmp_path, ANIMALS))
    part = dataset.subset([2])
    assert (len(part), part.labels, part.targets.tolist()) == (1, ("cat", "dog"), [1])
    assert part.digest(0) == dataset.digest(2)
    assert part.fingerprint != dataset.fingerprint


def test_pixels_are_loaded_in_the_order_asked_for(tmp_path):
    """By default all; otherwise the given indices."""
    dataset = open_dataset(write_zip(tmp_path / "animals.zip", ANIMALS))
    loaded = load_pixels(dataset, SMALL, [2, 0])
    assert loaded.pixels.shape == (2, 8, 8, 3)
    assert loaded.pixels[:, 0, 0, 0].tolist() == [2, 1]
    assert (loaded.indices, loaded.skipped) == ((2, 0), ())
    assert [list(batch) for batch in dataset.batches(2)] == [[0, 1], [2]]
    assert np.array_equal(load_pixels(dataset, SMALL).pixels[0], loaded.pixels[1])


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_an_unreadable_image_is_refused_or_skipped_by_name(tmp_path, container):
    """It is never dropped in silence."""
    files = {"a/1.png": picture(1), "a/broken.jpg": picture(1)[:40], "b/2.png": picture(2)}
    source = write_folder(tmp_path, files) if container == "folder" else write_zip(tmp_path / "x.zip", files)
    with pytest.raises(DataError, match=r"a/broken\.jpg .*; remove the file$"):
        load_pixels(open_dataset(source), SMALL)
    dataset = open_dataset(source, unreadable="skip")
    loaded = load_pixels(dataset, SMALL)
    assert loaded.indices == (0, 2)
    assert loaded.pixels[:, 0, 0, 0].tolist() == [1, 2]
    [(key, reason)] = loaded.skipped
    assert key == "a/broken.jpg"
    assert "broken.jpg" in reason
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        dataset.read(1)


def test_a_damaged_member_of_a_zip_is_named_and_can_be_skipped(tmp_path):
    """The checksum of the archive is checked, also for the digest."""
    source = write_zip(tmp_path / "x.zip", {"1.png": picture(1), "2.png": picture(2)})
    content = bytearray(source.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 1
    source.write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.zip:1\.png cannot be read: Bad CRC"):
        open_dataset(source).digest(0)
    dataset = open_dataset(source, unreadable="skip")
    assert len({dataset.digest(0), dataset.digest(1)}) == 2
    assert load_pixels(dataset, SMALL).indices == (1,)


def test_links_are_followed_without_going_round_in_circles(tmp_path):
    """Subsets of large data sets are often made of links."""
    write_folder(tmp_path / "real", {"cat/1.png": picture(1), "dog/2.png": picture(2)})
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        os.symlink(tmp_path / "real" / name, tmp_path / "linked" / name)
    os.symlink(tmp_path / "real", tmp_path / "real" / "cat" / "loop")
    dataset = open_dataset(tmp_path / "linked")
    assert {"cat/1.png", "dog/2.png"} <= {sample.key for sample in dataset.samples}
    assert len(open_dataset(tmp_path / "real")) == 2


def test_a_source_without_images_is_refused(tmp_path):
    """Each way of being empty has its message."""
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "nothing")
    write_zip(tmp_path / "inner.zip", {"a.png": picture(1)})
    with pytest.raises(DataError, match=r"holds no image .*archives inside it are not opened"):
        open_dataset(tmp_path)
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(DataError, match=r"text\.zip is damaged or not a zip"):
        open_dataset(tmp_path / "text.zip")


def test_a_member_that_would_fill_the_memory_is_refused_by_its_size(tmp_path):
    """Half a megabyte of zip, 600 MB of zeros; they are never unpacked."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as member:
        for _ in range(600):
            member.write(bytes(1_000_000))
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"bomb\.zip:a\.png would unpack to 600,000,000 bytes"):
        open_dataset(path).read(0)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_encrypted_zip_is_refused(tmp_path):
    """The message says what to do instead."""
    source = write_zip(tmp_path / "secret.zip", {"a.png": picture(1)})
    content = bytearray(source.read_bytes())
    entry = content.index(b"PK\x01\x02")
    struct.pack_into("<H", content, entry + 8, 1)  # the flag "encrypted" in the central directory
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"secret\.zip is encrypted"):
        open_dataset(source)


def test_threads_may_share_a_zip(tmp_path):
    """Reads from several threads do not mix."""
    dataset = open_dataset(write_zip(tmp_path / "x.zip", {f"{level:03}.png": picture(level) for level in range(60)}))
    with ThreadPoolExecutor(4) as pool:
        levels = [int(pixels[0, 0, 0]) for pixels in pool.map(dataset.read, range(60))]
    assert levels == list(range(60))


def test_crops_are_random_views_that_a_seed_fixes():
    """Inside the image, of the asked area, and different for different images."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    views = augmented_crops(image, 20, seed=1)
    assert len(views) == 20
    assert all(view.dtype == np.uint8 and view.flags.c_contiguous for view in views)
    assert all(0.3 <= view.shape[0] * view.shape[1] / 4800 <= 1 for view in views)
    again, other = augmented_crops(image, 20, seed=1), augmented_crops(image[:, ::-1], 20, seed=1)
    assert all(np.array_equal(left, right) for left, right in zip(views, again, strict=True))
    assert [view.shape for view in other] != [view.shape for view in views]
    assert augmented_crops(image[:1, :1], 1, seed=0)[0].shape == (1, 1, 3)
