"""Read the label set that a command names: the reference model's, ImageNet's, or a file."""

from __future__ import annotations

from pathlib import Path

import lraee_calibration_data
from lraee.errors import LabelsError
from lraee.labels.label_file import read_label_file
from lraee.labels.label_set import LabelSet
from lraee_exporters.labels import reference_labels

LABEL_SETS = ("reference", "imagenet", "imagenet-80")
"""Names that `read_labels` knows."""

IMAGENET_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""Seven of CLIP's 80 ImageNet templates, found by forward selection by its authors (their prompt engineering notebook)
to be about as good as all 80."""


def read_labels(name: str) -> LabelSet:
    """Read the label set called `reference`, `imagenet` or `imagenet-80`, or a file.

    Raises:
        LabelsError: the file is missing or malformed.
    """
    if name == "reference":
        return reference_labels()
    if name in ("imagenet", "imagenet-80"):
        return imagenet_labels(all_templates=name == "imagenet-80")
    if not Path(name).exists():
        raise LabelsError(
            f"--labels is {name!r}, and there is no such file; wanted reference, imagenet, imagenet-80, or a label file"
        )
    return read_label_file(Path(name))


def imagenet_labels(*, all_templates: bool = False) -> LabelSet:
    """Make the 1,000 classes of ImageNet and their prompts.

    Two of CLIP's names stand for two classes each (missile, sunglasses), as in all published zero-shot figures.

    Args:
        all_templates: CLIP's 80 templates instead of `IMAGENET_TEMPLATES`, which take a tenth of the time.
    """
    templates = tuple(lraee_calibration_data.imagenet_templates()) if all_templates else IMAGENET_TEMPLATES
    return LabelSet(names=tuple(lraee_calibration_data.imagenet_labels()), templates=templates)
