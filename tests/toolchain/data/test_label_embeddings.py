"""An image tower alone is exported with the labels' embeddings, and answers as the whole model does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lraee
from lraee.errors import ExportError, LabelsError, TowerError
from lraee.policies import Full
from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset
from lraee_exporters.labels import embed_labels, reference_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_exporters.loading.sources import REFERENCE_FOLDER
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.label_embeddings import read_label_embeddings
from lraee_toolchain.export import export


@pytest.fixture(scope="module")
def reference() -> LoadedModel:
    """The shipped model."""
    return load_model("reference")


@pytest.fixture(scope="module")
def folder(reference: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reference's settings and its image tower alone, as `visual.state_dict()` saves it."""
    folder = tmp_path_factory.mktemp("image-tower")
    config = (REFERENCE_FOLDER / "open_clip_config.json").read_bytes()
    (folder / "open_clip_config.json").write_bytes(config)
    torch.save(reference.torch_model.visual.state_dict(), folder / "image.pt")
    return folder


def test_an_export_of_an_image_tower_alone_answers_as_the_whole_model(
    folder: Path, reference: LoadedModel, small_config: Callable[..., ExportConfig], tmp_path: Path
) -> None:
    """Embeddings longer than 1 are scaled; the bundle has no text tower and says where its labels are from.

    Tolerance: float32 sums in another order.
    """
    np.save(tmp_path / "labels.npy", 3 * embed_labels(reference, reference_labels()))
    config = small_config(
        tmp_path / "image.lraee",
        model=str(folder),
        labels="reference",
        label_embeddings=tmp_path / "labels.npy",
        logit_scale=reference.tower.logit_scale,
        text="none",
        exits="none",
        precision="fp32",
    )
    model = lraee.load(export(config).bundle, threads=1)
    pixels = load_pixels(open_dataset(fashion_mnist_test()), model.manifest.preprocessing).pixels[:24]
    answers = model.run_pixels(pixels, policy=Full())
    expected = lraee.load("reference", threads=1)
    assert model.labels == expected.labels
    with torch.inference_mode():
        images = torch.stack([reference.transform(_picture(row)) for row in pixels])
        embeddings = reference.torch_model.encode_image(images, normalize=True).numpy()
    logits = reference.tower.logit_scale * embeddings @ embed_labels(reference, reference_labels()).T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(answers.probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-4)
    assert str(model.manifest.provenance["labels"]).startswith("given, ")
    with pytest.raises(LabelsError):
        model.set_labels(["a cat", "a dog"])


def _picture(row: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(row)


def test_an_image_tower_alone_needs_the_labels_and_no_text_tower(
    folder: Path, small_config: Callable[..., ExportConfig], tmp_path: Path
) -> None:
    """The first line names the option, the second what it cannot be combined with."""
    with pytest.raises(TowerError, match=r"image\.pt holds an image tower alone .*--label-embeddings FILE\.npy"):
        export(small_config(tmp_path / "a.lraee", model=str(folder), labels="reference"))
    given = {"model": str(folder), "labels": "reference", "label_embeddings": tmp_path / "labels.npy"}
    with pytest.raises(ExportError, match=r"--label-embeddings come from another text tower .* add --text none"):
        export(small_config(tmp_path / "b.lraee", **given))


def test_label_embeddings_that_are_no_such_array_are_refused(tmp_path: Path) -> None:
    """Missing, no array, pickled, of another shape or type, without direction."""
    path = tmp_path / "labels.npy"
    cases: list[tuple[Any, str]] = [
        (None, "cannot be read as an array; wanted a .npy file with 2 rows of 3 numbers"),
        (b"a web page", "cannot be read as an array"),
        (np.array([{}], dtype=object), "cannot be read as an array"),
        (np.ones((3, 2)), r"holds float64 \(3, 2\), wanted one row of 3 numbers for each of the 2 labels"),
        (np.ones((2, 3), bool), r"holds bool \(2, 3\)"),
        (np.array([[1, 2, 3], [0, 0, 0]]), "the row of 'a dog' is zero or not finite"),
        (np.array([[np.nan, 2, 3], [0, 0, 1]]), "the row of 'a cat' is zero or not finite"),
    ]
    for content, message in cases:
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            np.save(path, content)
        with pytest.raises(LabelsError, match=message):
            read_label_embeddings(path, ("a cat", "a dog"), 3)
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    with pytest.raises(LabelsError, match="holds several arrays"):
        read_label_embeddings(tmp_path / "two.npz", ("a cat", "a dog"), 3)
    np.save(path, np.array([[3, 0, 4], [0, 2, 0]], np.int16))
    np.testing.assert_allclose(read_label_embeddings(path, ("a cat", "a dog"), 3), [[0.6, 0, 0.8], [0, 1, 0]])
