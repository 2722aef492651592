"""``classify --html`` and ``--truth``: a page with every image, and how many answers are right."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import lraee
from lraee.cli import app
from lraee.commands.page import LARGEST
from lraee.commands.truth import read_truth
from lraee.errors import DataError, LabelsError
from lraee_calibration_data import fashion_mnist_test, open_dataset, photo_table, photos

LABELS = ("bag", "trousers")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bag, trousers and a sandal of the shipped test images; the name of the last is markup."""
    dataset, folder = open_dataset(fashion_mnist_test()), tmp_path_factory.mktemp("images")
    paths = {"bag": folder / "bag.png", "trousers": folder / "trousers.png", "sandal": folder / "<b>&sandal.png"}
    for label, path in paths.items():
        index = next(i for i, sample in enumerate(dataset.samples) if sample.label == label)
        path.write_bytes(dataset.read_bytes(index))
    return paths


def table(folder: Path, rows: Mapping[str, str], heads: str = "file\tlabel") -> Path:
    """Write a table of files and labels."""
    path = folder / "truth.tsv"
    path.write_text("\n".join([heads, *(f"{file}\t{label}" for file, label in rows.items())]) + "\n", "utf-8")
    return path


def classify(*arguments: str | Path) -> Result:
    """``python -m lraee classify reference``."""
    return CliRunner().invoke(app, ["classify", "reference", *map(str, arguments)])


def test_the_page_shows_every_image_with_its_answer(images: dict[str, Path], tmp_path: Path) -> None:
    """Label, block, cost, right or wrong; names are not markup; the pictures lie in the page."""
    model = lraee.load("reference")
    answers = {label: model.classify(path) for label, path in images.items()}
    wrong = next(label for label in model.labels if label != answers["sandal"].label)
    rows = {images["bag"].name: answers["bag"].label, images["sandal"].name: wrong}
    truth, out = table(images["bag"].parent, rows), tmp_path / "page.html"
    done = classify(*images.values(), "--truth", truth, "--html", out)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 4
    assert "1 of 2 answers are right, 1 wrong." in done.stderr
    page = out.read_text("utf-8")
    items = re.findall(r"<li.*?</li>", page, re.DOTALL)
    assert [re.search('class="(.*?)"', item)[1] for item in items] == ["right", "", "wrong"]  # type: ignore[index]
    for item, (label, answer) in zip(items, answers.items(), strict=True):
        assert f"<b>{answer.label} {answer.score:.0%}</b>" in item
        where = f"left after block {answer.exit_block} of 12" if answer.early else "ran all 12 blocks"
        assert where in item
        picture = re.search(r"data:image/jpeg;base64,([^\"]+)", item)
        assert picture is not None, label
        assert Image.open(io.BytesIO(base64.b64decode(picture[1]))).size == (28, 28)
    assert f"wrong: it is {wrong}" in items[2]
    assert "&lt;b&gt;&amp;sandal.png" in items[2]
    assert "<b>&sandal" not in page
    cost = sum(answer.flops for answer in answers.values()) / 3 / model.manifest.full_flops
    assert f"3 images, of which {sum(a.early for a in answers.values())} left early; on average {cost:.1%}" in page


def test_large_pictures_are_made_smaller_and_authors_are_named(tmp_path: Path) -> None:
    """The shipped photos: those under CC BY have to be credited where they are shown."""
    photo, out = photos() / "cq100-king-penguin.jpg", tmp_path / "page.html"
    rows = dict.fromkeys([photo.name], "\tBen Tubby | https://example.org\tCC BY 2.0")
    truth = table(tmp_path, {f"{photo.parent}/{name}": cells for name, cells in rows.items()},
                  "file\tlabel\tattribution\tlicence")  # fmt: skip
    assert classify(photo, "--truth", truth, "--html", out).exit_code == 0
    page = out.read_text("utf-8")
    assert "<small>Ben Tubby, CC BY 2.0</small>" in page
    picture = re.search(r"base64,([^\"]+)", page)
    assert picture is not None
    assert max(Image.open(io.BytesIO(base64.b64decode(picture[1]))).size) == LARGEST


def test_an_image_that_cannot_be_read_costs_no_page(images: dict[str, Path], tmp_path: Path) -> None:
    """The others are shown."""
    out = tmp_path / "page.html"
    done = classify(images["bag"], tmp_path / "missing.png", "--html", out)
    assert done.exit_code == 1
    assert out.read_text("utf-8").count("<li") == 1


def test_a_page_that_cannot_be_written_is_said_before_anything_runs(images: dict[str, Path]) -> None:
    """One line, and no answer that would have to be computed again."""
    done = classify(images["bag"], "--html", "/proc/page.html")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: /proc/page.html cannot be written")


def test_a_table_alone_gives_its_labelled_images(images: dict[str, Path]) -> None:
    """In its order; without a table, or without labels in it, there is nothing to do."""
    rows = {images["trousers"].name: "trousers", images["sandal"].name: "", images["bag"].name: "bag"}
    truth = table(images["bag"].parent, rows)
    done = classify("--truth", truth, "--json")
    assert done.exit_code == 0, done.output
    answered = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    assert answered == [str(images["trousers"].resolve()), str(images["bag"].resolve())]
    for options in ((), ("--truth", table(images["bag"].parent, {images["bag"].name: ""}))):
        done = classify(*options)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "no image is given; give files, - for stdin, or --truth" in done.stderr


def test_a_page_replaces_no_image_and_no_table(images: dict[str, Path]) -> None:
    """A slip of the hand loses nothing."""
    truth = table(images["bag"].parent, {images["bag"].name: "bag"})
    for path in (images["bag"], truth):
        before = path.read_bytes()
        done = classify(images["bag"], "--truth", truth, "--html", path)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "would replace" in done.stderr
        assert path.read_bytes() == before


def test_the_shipped_photos_have_labels(tmp_path: Path) -> None:
    """At least twelve, each of a photo that is there; the table can be given as it is."""
    lines = photo_table().read_text("utf-8").splitlines()
    labels = sorted({cells[-1] for cells in (line.split("\t") for line in lines[1:]) if cells[-1]})
    truth = read_truth(photo_table(), labels)
    labelled = [path for path, row in truth.items() if row.label is not None]
    assert len(labelled) >= 12
    assert all(Path(path).is_file() for path in truth)


@pytest.mark.parametrize(
    ("heads", "rows", "error", "message"),
    [
        ("name\tlabel", {"a.png": "bag"}, DataError, "the first line is 'name, label' and lacks 'file'"),
        ("", {}, DataError, "the first line is 'nothing' and lacks 'file'"),
        ("file\tlabel", {"a.png": "bag", "./a.png": "bag"}, DataError, "line 3 names ./a.png again"),
        ("file\tlabel", {"a.png": "bags"}, LabelsError, "line 2 has the label 'bags', which is none of the model's 2"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(
    tmp_path: Path, heads: str, rows: dict[str, str], error: type[Exception], message: str
) -> None:
    """In one line that says what is wanted."""
    with pytest.raises(error, match=re.escape(message)):
        read_truth(table(tmp_path, rows, heads), LABELS)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Neither a picture nor a folder is one."""
    (tmp_path / "a.tsv").write_bytes(b"\xff\xfe\x00\x81")
    for path in (tmp_path / "a.tsv", tmp_path, tmp_path / "missing.tsv"):
        with pytest.raises(DataError, match="cannot be read as a table"):
            read_truth(path, LABELS)
