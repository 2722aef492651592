"""Label sets: read from files, refused when they cannot be classes, embedded as open_clip embeds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest

from lraee.errors import LabelsError
from lraee.labels.label_file import read_label_file
from lraee.labels.label_set import LabelSet
from lraee_exporters import labels as labels_module
from lraee_exporters.labels import embed_labels, reference_labels
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.reference_labels import NAMES, PARTITIONS, SYNONYMS, TEMPLATES


def test_label_embeddings_are_open_clips_zero_shot_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same prompts, same averages; tolerance for another batch size in float32. Batches do not show."""
    model = load_model("reference")
    labels = reference_labels()
    expected = open_clip.build_zero_shot_classifier(
        model.torch_model, model.tokenizer, labels.names, labels.templates
    ).T.numpy()
    embeddings = embed_labels(model, labels)
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (10, 128))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    monkeypatch.setattr(labels_module, "PROMPTS_PER_BATCH", 7)
    np.testing.assert_allclose(embed_labels(model, labels), expected, atol=1e-6)


def test_the_shipped_label_file_agrees_with_the_training_words() -> None:
    """Ten names, five prompts; the groups of each partition cover every class once."""
    labels = reference_labels()
    assert (labels.names, labels.templates) == (NAMES, TEMPLATES[:5])
    assert tuple(words[0] for words in SYNONYMS) == NAMES
    for partition in PARTITIONS:
        members = [number for _, group in partition for number in group]
        assert sorted(members) == list(range(10))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "a cat\n\n  a dog  \n"),
        ("labels.txt", "\ufeffa cat\r\na dog"),
        ("labels.json", '["a cat", "a dog"]'),
        ("labels.json", '{"names": ["a cat", "a dog"]}'),
        ("labels.json", '{"names": ["a cat", "a dog"], "templates": ["a photo of a {}."]}'),
    ],
)
def test_label_files_are_text_or_json(name: str, content: str, tmp_path: Path) -> None:
    """Blank lines and blanks around names do not count, a byte order mark neither."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_label_file(path) == LabelSet(names=("a cat", "a dog"), templates=("a photo of a {}.",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "\n\n", "There are no labels"),
        ("twice.txt", "cat\ndog\ncat\n", "twice.txt: labels occur more than once: cat"),
        ("blank.json", '["cat", " "]', "Label 2 of 2 is blank"),
        ("broken.json", "[", "is not JSON"),
        ("number.json", "3", "wanted names as a list of texts"),
        ("numbers.json", "[1, 2]", "wanted names as a list of texts"),
        ("key.json", '{"names": ["cat"], "prompts": []}', "met the keys names, prompts"),
        ("no-names.json", '{"templates": ["{}"]}', "met the keys templates"),
        ("template.json", '{"names": ["cat"], "templates": ["a photo"]}', "met 'a photo'"),
        ("no-template.json", '{"names": ["cat"], "templates": []}', "met no template"),
    ],
)
def test_label_files_that_name_no_classes_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    """Each refusal says what was met."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(LabelsError, match=message):
        read_label_file(tmp_path / name)


def test_missing_and_binary_label_files_are_refused(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(LabelsError, match=r"nowhere\.txt: the label file cannot be read"):
        read_label_file(tmp_path / "nowhere.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(LabelsError, match="cannot be read"):
        read_label_file(tmp_path / "binary.txt")


def test_braces_in_a_name_are_text() -> None:
    """A template's place is filled once, whatever the name holds."""
    assert LabelSet(names=("a {} b",), templates=("see {}.",)).prompts() == ("see a {} b.",)


def test_labels_of_a_small_model_have_its_length(
    small_config: dict[str, Any], write_model_folder: Callable[..., Path]
) -> None:
    """Each label has one row."""
    model = load_model(str(write_model_folder(small_config)), pretrained="random")
    assert embed_labels(model, LabelSet(names=("cat", "dog", "cow"))).shape == (3, 12)
