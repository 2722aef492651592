"""The label sets that a command names."""

from pathlib import Path

from lraee_exporters.labels import reference_labels
from lraee_toolchain.data.labels import read_labels


def test_imagenet_has_a_thousand_labels() -> None:
    """Names and prompts come with the calibration data; CLIP's two repeated names are kept."""
    labels = read_labels("imagenet")
    assert len(labels.names) == 1000
    assert labels.names[0] == "tench"
    assert set(labels.templates) < set(read_labels("imagenet-80").templates)


def test_the_reference_and_a_file_are_read_by_name(tmp_path: Path) -> None:
    """A name that is no set is a path."""
    path = tmp_path / "labels.txt"
    path.write_text("a cat\na dog\n", encoding="utf-8")
    assert read_labels(str(path)).names == ("a cat", "a dog")
    assert read_labels("reference") == reference_labels()
