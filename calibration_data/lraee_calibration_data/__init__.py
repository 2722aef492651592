"""Photos and labelled images that ship with the project, and one loader for folders and archives of images."""

from lraee_calibration_data.crops import augmented_crops
from lraee_calibration_data.dataset import Dataset, Loaded, Sample, load_pixels, open_dataset
from lraee_calibration_data.shipped import (
    fashion_mnist_pool,
    fashion_mnist_sample,
    fashion_mnist_test,
    imagenet_labels,
    imagenet_synsets,
    imagenet_templates,
    photos,
)
from lraee_calibration_data.splits import check_disjoint, split
from lraee_calibration_data.truth import label_rows

__all__ = [
    "Dataset",
    "Loaded",
    "Sample",
    "augmented_crops",
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
    "photos",
    "split",
]
