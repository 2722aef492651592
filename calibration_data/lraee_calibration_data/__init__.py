"""Ships photos and labelled images, and loads folders and archives of images."""

from lraee_calibration_data.crops import augmented_crops
from lraee_calibration_data.dataset import (
    Dataset,
    Loaded,
    Sample,
    Unreadable,
    load_pixels,
    open_dataset,
    with_reason,
)
from lraee_calibration_data.shipped import (
    fashion_mnist_pool,
    fashion_mnist_sample,
    fashion_mnist_test,
    imagenet_labels,
    imagenet_synsets,
    imagenet_templates,
    photo_table,
    photos,
)
from lraee_calibration_data.splits import check_disjoint, split
from lraee_calibration_data.truth import check_classes_are_read, label_rows
from lraee_calibration_data.words import passed_over_words, printable, skipped_words, some_words

__all__ = [
    "Dataset",
    "Loaded",
    "Sample",
    "Unreadable",
    "augmented_crops",
    "check_classes_are_read",
    "check_disjoint",
    "fashion_mnist_pool",
    "fashion_mnist_sample",
    "fashion_mnist_test",
    "imagenet_labels",
    "imagenet_synsets",
    "imagenet_templates",
    "label_rows",
    "load_pixels",
    "open_dataset",
    "passed_over_words",
    "photo_table",
    "photos",
    "printable",
    "skipped_words",
    "some_words",
    "split",
    "with_reason",
]
