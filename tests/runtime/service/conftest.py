"""A service with the default limits, and images to send to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Service, serving

from lraee_calibration_data import fashion_mnist_test, open_dataset, photo_table


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The reference with the default limits."""
    with serving(tmp_path_factory.mktemp("service"), "reference") as started:
        yield started


@pytest.fixture(scope="session")
def clothes() -> list[bytes]:
    """PNG files of the shipped test images, from all classes."""
    dataset = open_dataset(fashion_mnist_test())
    return [dataset.read_bytes(index) for index in range(0, len(dataset), len(dataset) // 24)][:24]


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A shipped photo, as JPEG."""
    return (photo_table().parent / "skimage-coffee.jpg").read_bytes()
