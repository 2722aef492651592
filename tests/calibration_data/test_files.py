"""What counts as an image, and that nothing in a folder or a zip vanishes without a word."""

import io
import os
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, features

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError, ImageError
from lraee_calibration_data import image_formats
from lraee_calibration_data.dataset import Dataset, load_pixels, open_dataset
from lraee_calibration_data.files import CIRCULAR, HIDDEN, PLAIN
from lraee_calibration_data.image_formats import SUFFIXES, why_unreadable

SMALL = Preprocessing(image_size=8, resize_mode="shortest", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)

READ = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pnm"),
    "TGA": (".tga",),
    "PCX": (".pcx",),
    "QOI": (".qoi",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
}
"""Endings of the formats that some Pillow writes; this one may lack the last three."""

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)
"""How the photo of a telephone begins."""

Make = Callable[[dict[str, bytes]], Path]


def encoded(file_format: str, level: int = 9) -> bytes:
    """The file of a small grey picture."""
    stream = io.BytesIO()
    Image.new("RGB", (10, 9), (level,) * 3).save(stream, file_format)
    return stream.getvalue()


@pytest.fixture(params=["folder", "zip"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Writes files into a folder, or into a zip."""

    def write(files: dict[str, bytes]) -> Path:
        if request.param == "zip":
            with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
                for key, content in files.items():
                    archive.writestr(key, content)
            return tmp_path / "data.zip"
        for key, content in files.items():
            path = tmp_path / "data" / key
            (path if key.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not key.endswith("/"):
                path.write_bytes(content)
        return tmp_path / "data"

    return write


def keys(dataset: Dataset) -> list[str]:
    """List the keys of all images."""
    return [sample.key for sample in dataset.samples]


def test_one_list_says_what_is_an_image_and_all_of_it_is_read(make: Make) -> None:
    """In small and capital letters; `.jfif`, `.jpe`, `.avif` and `.jp2` were dropped in silence."""
    Image.init()
    lacks = {"AVIF": "AVIF" not in Image.SAVE, "QOI": "QOI" not in Image.SAVE}
    lacks["JPEG2000"] = not features.check("jpg_2000")
    formats = {name: endings for name, endings in READ.items() if not lacks.get(name)}
    files = {}
    for name, endings in formats.items():
        content = encoded(name)
        files |= {f"a{ending}": content for ending in endings} | {f"B{endings[0].upper()}": content}
    dataset = open_dataset(make(files))
    assert set(keys(dataset)) == set(files)
    assert len(load_pixels(dataset, SMALL).indices) == len(files)
    assert {ending for endings in READ.values() for ending in endings} <= SUFFIXES
    assert all(why_unreadable(name) == "" for name in files)


def test_an_image_that_this_pillow_cannot_read_is_named_with_the_reason(make: Make) -> None:
    """Refused or skipped as told, like a damaged one; the ending decides nothing where the content is readable."""
    source = make({"a/1.png": encoded("PNG"), "b/2.heic": HEIC, "b/3.heic": encoded("JPEG")})
    reason = r"2\.heic .*this Pillow \(\d.*\) reads no HEIF: save it as PNG or JPEG"
    with pytest.raises(DataError, match=reason + ".*; remove the file$"):
        load_pixels(open_dataset(source), SMALL)
    loaded = load_pixels(open_dataset(source, unreadable="skip"), SMALL)
    assert loaded.indices == (0, 2)
    [(key, said)] = loaded.skipped
    assert key == "b/2.heic"
    assert "reads no HEIF" in said


def test_a_format_that_came_with_a_newer_pillow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow reads AVIF since 11.3; an older one registers no such ending."""
    monkeypatch.setattr(image_formats, "_known_to_pillow", lambda suffix: False)
    assert "reads no AVIF: save it as PNG or JPEG, or install Pillow 11.3 or newer" in why_unreadable("x.AVIF")
    assert why_unreadable("x.jpg") == ""


def test_what_is_passed_over_is_counted_by_its_ending(make: Make) -> None:
    """Texts, videos, archives, what other systems leave; a hidden folder counts once."""
    source = make(
        {
            "cat/1.png": encoded("PNG", 1),
            "dog/2.png": encoded("PNG", 2),
            "notes.TXT": b"",
            "cat/more.txt": b"",
            "dog/film.mp4": b"",
            "more.zip": b"",
            "README": b"",
            "odd.": b"",
            "cat/Thumbs.db": b"",
            "cat/.DS_Store": b"",
            "cat/._1.png": b"",
            ".cache/x.png": b"",
            ".cache/y.png": b"",
            "__MACOSX/cat/._1.png": b"",
        }
    )
    dataset = open_dataset(source)
    assert keys(dataset) == ["cat/1.png", "dog/2.png"]
    assert dataset.passed_over == {HIDDEN: 4, ".txt": 2, PLAIN: 2, ".db": 1, ".mp4": 1, ".zip": 1}
    assert next(iter(dataset.passed_over)) == HIDDEN
    assert dataset.subset([0]).passed_over == dataset.passed_over


def test_a_source_without_images_says_what_it_holds(make: Make) -> None:
    """Instead of leaving the user to guess."""
    with pytest.raises(DataError, match=r"holds no image \(.*\); it has 2 \.nef, 1 hidden; hidden files"):
        open_dataset(make({"1.nef": b"", "2.nef": b"", ".x": b""}))


def test_folders_without_an_image_are_known(make: Make) -> None:
    """The outermost of those inside each other; hidden ones do not count."""
    files = {"cat/1.png": encoded("PNG"), "bird/raw/1.nef": b"", "bird/2.nef": b"", ".x/y.txt": b"", "fish/": b""}
    assert open_dataset(make(files)).without_images == ("bird", "fish")


@pytest.fixture
def plain_user() -> Iterator[None]:
    """Take the rights of a user who is not root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


def test_a_folder_that_may_not_be_listed_is_refused_by_name(shared_root: Path, request: pytest.FixtureRequest) -> None:
    """Its class would disappear; also where unreadable images are skipped, and where it is the source itself."""
    for name in ("cat", "dog"):
        (shared_root / "data" / name).mkdir(parents=True)
        (shared_root / "data" / name / "1.png").write_bytes(encoded("PNG"))
    (shared_root / "data" / "dog").chmod(0o000)
    request.getfixturevalue("plain_user")
    with pytest.raises(DataError, match=r"data/dog cannot be listed: Permission denied; its images would be missing"):
        open_dataset(shared_root / "data", unreadable="skip")
    with pytest.raises(DataError, match=r"data/dog cannot be listed: Permission denied"):
        open_dataset(shared_root / "data" / "dog")
    with pytest.raises(DataError, match=r"data/dog/inside cannot be read: Permission denied"):
        open_dataset(shared_root / "data" / "dog" / "inside")


def test_files_that_may_not_be_read_are_named(shared_root: Path, request: pytest.FixtureRequest) -> None:
    """An image is one that cannot be read; a zip is refused."""
    (shared_root / "1.png").write_bytes(encoded("PNG"))
    (shared_root / "2.png").write_bytes(encoded("PNG"))
    (shared_root / "x.zip").write_bytes(b"")
    for name in ("2.png", "x.zip"):
        (shared_root / name).chmod(0o000)
    request.getfixturevalue("plain_user")
    [(key, reason)] = load_pixels(open_dataset(shared_root, unreadable="skip"), SMALL).skipped
    assert (key, reason.endswith("2.png cannot be read: Permission denied")) == ("2.png", True)
    with pytest.raises(DataError, match=r"x\.zip cannot be read: Permission denied"):
        open_dataset(shared_root / "x.zip")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    """To an image: one that cannot be read. To what may have been a class folder: refused."""
    (tmp_path / "1.png").write_bytes(encoded("PNG"))
    (tmp_path / "2.png").symlink_to("/nowhere/2.png")
    [(key, reason)] = load_pixels(open_dataset(tmp_path, unreadable="skip"), SMALL).skipped
    assert key == "2.png"
    assert reason.endswith("2.png cannot be read: it links to /nowhere/2.png, which is not there")
    (tmp_path / "dog").symlink_to("/nowhere/dog")
    with pytest.raises(DataError, match=r"dog links to /nowhere/dog, which is not there"):
        open_dataset(tmp_path, unreadable="skip")


def test_links_to_each_other_end(tmp_path: Path) -> None:
    """Two folders that link to each other, a link to what lies around the source, and one to itself."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(encoded("PNG"))
        (tmp_path / "data" / name / "other").symlink_to(tmp_path / "data" / other)
    (tmp_path / "data" / "around").symlink_to(tmp_path)
    dataset = open_dataset(tmp_path / "data")
    assert keys(dataset) == ["a/1.png", "a/other/1.png", "b/1.png", "b/other/1.png"]
    assert dataset.passed_over == {CIRCULAR: 3}
    (tmp_path / "data" / "me.png").symlink_to("me.png")
    with pytest.raises(ImageError, match=r"me\.png cannot be read"):
        open_dataset(tmp_path / "data").read(4)


def test_links_inside_a_zip_are_not_dropped(tmp_path: Path) -> None:
    """zip --symlinks stores where a link leads, not what is there."""

    def packed(name: str) -> Path:
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, 0o120777 << 16
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("cat/1.png", encoded("PNG"))
            archive.writestr(link, "../elsewhere")
        return tmp_path / "x.zip"

    with pytest.raises(ImageError, match=r"x\.zip:dog/2\.png cannot be read: it is a link"):
        open_dataset(packed("dog/2.png")).read(1)
    with pytest.raises(DataError, match=r"x\.zip:dog is a link, and images in it would be missing"):
        open_dataset(packed("dog"))


def test_names_in_a_zip_are_read_as_they_were_meant(tmp_path: Path) -> None:
    """UTF-8 without its mark, as macOS writes it, code page 437 otherwise, and slashes of Windows."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("Mu:sli/1.png", "Gru:n/2.png", "dog\\3.png", "bird\\"):
            archive.writestr(name, encoded("PNG"))
    content = (tmp_path / "x.zip").read_bytes()
    content = content.replace(b"Mu:sli", "Müsli".encode()).replace(b"Gru:n", "Grün ".encode("cp437"))
    (tmp_path / "x.zip").write_bytes(content)
    assert open_dataset(tmp_path / "x.zip").labels == ("Grün ", "Müsli", "dog")


def test_an_image_beside_the_class_folders_or_deeper_is_named(make: Make) -> None:
    """It turns the labels off, so whoever wants them is told which file it is."""
    picture = encoded("PNG")
    classes = {f"{label}/{number}.png": picture for label in ("cat", "dog") for number in range(3)}
    dataset = open_dataset(make(classes | {"loose.png": picture}))
    assert (dataset.labels, dataset.obstacle) == ((), "loose.png lies beside folders of images")
    with pytest.raises(DataError, match=r"has no labels; loose\.png lies beside folders of images; put the images"):
        _ = dataset.targets
    assert dataset.subset([0]).obstacle == dataset.obstacle


def test_a_folder_inside_a_class_folder_is_named(make: Make) -> None:
    """By its first image and the number of the others."""
    picture = encoded("PNG")
    classes = {f"{label}/{number}.png": picture for label in ("cat", "dog") for number in range(3)}
    dataset = open_dataset(make(classes | {"cat/old/1.png": picture, "cat/old/2.png": picture}))
    assert dataset.obstacle == "cat/old/1.png and 1 more lie in a folder inside another folder of images"


def test_folders_in_either_unicode_form_are_one_label(make: Make) -> None:
    """macOS writes letters and their accents apart."""
    picture = encoded("PNG")
    source = make({f"{unicodedata.normalize('NFD', 'café')}/1.png": picture, "dog/1.png": picture})
    assert open_dataset(source).labels == ("café", "dog")
