"""Open vocabulary: labels typed on the device are embedded as at export, set whole or refused in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lraee
from lraee.bundle.folder import find_bundle
from lraee.cli import app
from lraee.engine import text_tower as text_module
from lraee.errors import BundleError, LabelsError

GROUPS = ("footwear", "garment", "bag")
"""Words that the reference's text tower was trained with."""

TOLERANCE = 1e-5
"""Sums in another order: batches at export and here differ in length."""


@pytest.fixture
def fresh() -> lraee.Model:
    """A reference model whose labels a test may change."""
    return lraee.load("reference", threads=1)


def matrix(model: lraee.Model) -> np.ndarray:
    """(labels, embed_dim), as the graphs get them."""
    return model.parts.labels.matrix.T


def test_the_exported_labels_are_embedded_as_torch_embedded_them(fresh):
    """Same prompts, same means: the file of the bundle comes from open_clip."""
    fresh.set_labels(fresh.labels)
    np.testing.assert_allclose(matrix(fresh), fresh.bundle.label_embeddings, atol=TOLERANCE)


def test_three_lines_classify_a_photo_with_typed_labels(photos):
    """Of 32 photos nearly all fall into their group; 99.5 % of 5,000 do."""
    model = lraee.load("reference")
    names = [model.classify(photo).label for photo in photos]
    model.set_labels(GROUPS)
    group = dict.fromkeys(names, "garment") | {"bag": "bag"}
    group |= dict.fromkeys(("sandal", "sneaker", "ankle boot"), "footwear")
    found = [model.classify(photo).label for photo in photos]
    assert model.labels == GROUPS
    assert sum(label == group[name] for label, name in zip(found, names, strict=True)) >= len(photos) - 1


def test_labels_are_the_means_over_their_templates(fresh):
    """By hand from the embeddings of the prompts; a template of one's own replaces those of the bundle."""
    templates = ("a photo of a {}.", "{}")
    fresh.set_labels(("shoe", "dress"), templates)
    rows = (
        fresh.embed_text(["a photo of a shoe.", "shoe", "a photo of a dress.", "dress"]).reshape(2, 2, -1).mean(axis=1)
    )
    np.testing.assert_allclose(matrix(fresh), rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=TOLERANCE)
    assert np.linalg.norm(fresh.embed_text("shoe"), axis=1) == pytest.approx([1], abs=TOLERANCE)
    assert fresh.embed_text([]).shape == (0, 128)


def test_thousands_of_labels_run_in_batches_and_keep_their_order(fresh, monkeypatch):
    """Batches of texts of like length; the order of the labels is that of the call."""
    words = ("coat", "dress", "shirt", "bag", "sandal", "pullover", "trousers")  # others are one to this small tower
    names = [" ".join(some) for count in (1, 2, 3) for some in permutations(words, count)][:200]
    fresh.set_labels(names, ["{}"])
    rows = matrix(fresh).copy()
    monkeypatch.setattr(text_module, "TEXTS_PER_RUN", 7)
    np.testing.assert_allclose(fresh.embed_text(names), rows, atol=TOLERANCE)


def test_labels_that_were_embedded_before_are_remembered(fresh, monkeypatch):
    """This holds for the same templates, in another order, and together with new labels."""
    fresh.set_labels(GROUPS)
    wanted = matrix(fresh).copy()
    embedded: list[str] = []
    embed = text_module.TextTower.embed
    monkeypatch.setattr(
        text_module.TextTower, "embed", lambda self, texts: embedded.extend(texts) or embed(self, texts)
    )
    fresh.set_labels(GROUPS[::-1])
    assert embedded == []
    assert np.array_equal(matrix(fresh), wanted[::-1])
    fresh.set_labels(("dress", *GROUPS), ["{}"])
    assert embedded == ["dress", *GROUPS]


def test_what_is_remembered_is_bounded(fresh, monkeypatch):
    """And what is forgotten is embedded again, to the same."""
    monkeypatch.setattr(text_module, "LABELS_REMEMBERED", 4)
    for names in (GROUPS, ("dress", "coat"), ("shirt", "sandal", "sneaker", "pants", "top", "boot"), GROUPS):
        fresh.set_labels(names)
    assert len(fresh._text._remembered) <= 6
    other = lraee.load("reference", threads=1)
    other.set_labels(GROUPS)
    np.testing.assert_allclose(matrix(fresh), matrix(other), atol=TOLERANCE)


def test_labels_set_in_one_thread_are_seen_whole_in_others(fresh, photos):
    """While eight threads classify; each answer comes from one of the sets."""
    sets = [GROUPS, ("shoe", "dress"), fresh.labels]
    done = False

    def change() -> None:
        nonlocal done
        for names in sets * 10:
            fresh.set_labels(names)
        done = True

    def watch() -> int:
        seen = 0
        while not done:
            prediction = fresh.classify(photos[seen % len(photos)], top=100)
            assert {label for label, _ in prediction.top} in [set(names) for names in sets]
            seen += 1
        return seen

    with ThreadPoolExecutor(9) as pool:
        watching = [pool.submit(watch) for _ in range(8)]
        pool.submit(change).result()
        assert sum(task.result() for task in watching) >= 8


@pytest.mark.parametrize("memory", ["normal", "low"])
def test_low_memory_gives_the_same_embeddings(fresh, memory):
    """The text tower's weights are dropped after each run like those of the image tower."""
    other = lraee.load("reference", threads=1, memory=memory)
    np.testing.assert_allclose(other.embed_text(GROUPS), fresh.embed_text(GROUPS), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ("shoe,dress", None, "names is the text 'shoe,dress', wanted a list"),
        ([], None, "There are no labels"),
        (["shoe"], None, "met 1 labels, 1 different"),
        (["shoe", "shoe"], None, "met 2 labels, 1 different"),
        (["shoe", " "], None, "Label 2 of 2 is blank"),
        (["shoe", "dress"], [], "met no template"),
        (["shoe", "dress"], ["a photo"], "Templates: met 'a photo'"),
    ],
)
def test_labels_that_cannot_be_embedded_are_refused_and_change_nothing(fresh, names, templates, message):
    """The model keeps the labels from before."""
    before = fresh.labels
    with pytest.raises(LabelsError, match=message):
        fresh.set_labels(names, templates)
    assert fresh.labels == before


def test_a_bundle_without_a_text_tower_says_so(golden):
    """Bundles of before have none; what to do is said."""
    model = lraee.load(golden, threads=1)
    for call in (lambda: model.set_labels(["a", "b"]), lambda: model.embed_text("a")):
        with pytest.raises(LabelsError, match=r"this bundle has no text tower.*--text fp16"):
            call()


@pytest.mark.parametrize("name", ["text.onnx", "text.data", "merges.txt"])
def test_a_damaged_text_tower_is_refused_when_it_is_used(name, tmp_path):
    """Images are classified until then; `verify` finds it at once."""
    folder = Path(shutil.copytree(find_bundle("reference"), tmp_path / "copy.lraee"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    model = lraee.load(folder, threads=1)
    with pytest.raises(BundleError, match=rf"^{name} has SHA-256"):
        model.set_labels(GROUPS)
    assert model.labels == model.bundle.labels.names
    with pytest.raises(BundleError, match=rf"^{name} has SHA-256"):
        lraee.load(folder, verify="all")


def test_merges_that_are_no_pairs_are_refused(tmp_path):
    """By line, also where the hash is right."""
    folder = Path(shutil.copytree(find_bundle("reference"), tmp_path / "copy.lraee"))
    content = b"t h\nno pair here\n"
    (folder / "merges.txt").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (entry,) = [entry for entry in manifest["files"] if entry["name"] == "merges.txt"]
    entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match=r"^merges\.txt: line 2 is 'no pair here', wanted two tokens"):
        lraee.load(folder, threads=1).embed_text("a")


@pytest.mark.parametrize("kind", ["typed", "text", "json"])
def test_the_command_takes_labels_typed_or_from_a_file(kind, photos, tmp_path):
    """Blanks around commas do not count; a JSON file may bring its templates."""
    image = tmp_path / "image.npy.png"
    pytest.importorskip("PIL.Image").fromarray(photos[0]).save(image)
    labels = {"typed": "footwear, garment ,bag", "text": "labels.txt", "json": "labels.json"}[kind]
    if kind != "typed":
        labels = str(tmp_path / labels)
        content = "\n".join(GROUPS) if kind == "text" else json.dumps({"names": GROUPS, "templates": ["{}"]})
        Path(labels).write_text(content, "utf-8")
    arguments = ["classify", "reference", str(image), "--labels", labels, "--top", "3"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in GROUPS)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("footwear", "error: labels: met the one label 'footwear', and there is no file of that name"),
        ("Trousers,trousers", "error: labels 'Trousers' and 'trousers' are one to the text tower, which reads both as"),
        ("nowhere.csv", "error: nowhere.csv: the label file cannot be read, there is no such file"),
        ("there/nowhere", "error: there/nowhere: the label file cannot be read, there is no such file"),
        ("a,,b", "error: Label 2 of 3 is blank"),
        ("nowhere.txt", "error: nowhere.txt: the label file cannot be read"),
    ],
)
def test_labels_that_are_none_are_one_line_on_stderr(labels, said):
    """With exit status 1, before any image is read."""
    result = CliRunner().invoke(app, ["classify", "reference", "nowhere.png", "--labels", labels])
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert len(result.stderr.splitlines()) == 1
