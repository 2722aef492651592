"""Finds the data that comes with the package; each folder contains its licence."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ROOT = Path(__file__).resolve().parent


def photos() -> Path:
    """Folder of 104 photos (100 different pictures) for calibration, in no class folders; see its LICENSES.md."""
    return _ROOT / "photos"


def photo_table() -> Path:
    """Table of the photos: file, licence and author, and the label of 13 whose subject is in Tiny-ImageNet-200."""
    return photos() / "manifest.tsv"


def fashion_mnist_pool() -> Path:
    """Zip of 6,000 grey images 28 x 28 from the training half of Fashion-MNIST, 600 of each of 10 classes."""
    return _ROOT / "fashion_mnist" / "pool.zip"


def fashion_mnist_test() -> Path:
    """Zip of 2,000 images from the test half of Fashion-MNIST, 200 of each class; shares none with the pool."""
    return _ROOT / "fashion_mnist" / "test.zip"


def fashion_mnist_sample() -> NDArray[np.uint8]:
    """Pixels of 500 of the test images, uint8 (500, 28, 28): to measure with where no image can be decoded."""
    sample: NDArray[np.uint8] = np.load(_ROOT / "fashion_mnist" / "sample.npy", allow_pickle=False)
    return sample


def imagenet_labels() -> list[str]:
    """Read the 1,000 ImageNet class names of CLIP, in ImageNet's order.

    They are not unique: `missile` and `sunglasses` name two classes each, as in CLIP.
    """
    return [name for _, name in _imagenet_classes()]


def imagenet_synsets() -> list[str]:
    """Read the 1,000 WordNet ids (`n01440764`) in the same order: the folders of an ImageNet copy have these names."""
    return [synset for synset, _ in _imagenet_classes()]


def imagenet_templates() -> list[str]:
    """Read the 80 prompt templates of CLIP, each with one `{}` for the class name."""
    templates: list[str] = json.loads((_ROOT / "imagenet_1k" / "templates.json").read_text(encoding="utf-8"))
    return templates


def _imagenet_classes() -> list[tuple[str, str]]:
    table = (_ROOT / "imagenet_1k" / "classes.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in table.splitlines()]
    return [(synset, name) for _, synset, name, _ in rows]
