"""What the toolchain's tests share: exports whose stages are kept."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from lraee.bundle.strict_json import read_json
from lraee_calibration_data import fashion_mnist_pool, fashion_mnist_test
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.metrics import Metrics
from lraee_toolchain.export import export


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Small products are quicker on one thread when cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def with_tables(
    small_config: Callable[..., ExportConfig], picked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> ExportConfig:
    """An export of the reference with outlier channels, strongly quantized, with every table; its stages are kept.

    One seed, few images, heads that learn for seconds.
    """
    folder = tmp_path_factory.mktemp("tables")
    config = small_config(
        folder / "tables.lraee",
        work=folder / "work",
        quantizer="strong",
        inject_outliers=128.0,
        train=picked(fashion_mnist_pool(), folder / "train.zip", step=8),
        calibration=picked(fashion_mnist_pool(), folder / "calibration.zip", step=200, start=1),
        evaluate=picked(fashion_mnist_test(), folder / "test.zip", step=10),
        ablations=True,
        seeds=1,
        heads=HeadTraining(epochs=6),
        max_accuracy_drop=5.0,
        promise=10.0,
    )
    export(config)
    return config


@pytest.fixture(scope="session")
def table_metrics(with_tables: ExportConfig) -> Metrics:
    """Its ``metrics.json``."""
    return read_json(Metrics, with_tables.out.with_suffix(".report") / "metrics.json")


@pytest.fixture(scope="session")
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Let no file grow beyond so many bytes within a `with` statement, as `ulimit -f` does, which needs no rights.

    It ends within the test: pytest reports the test before fixtures are torn down, perhaps into a longer file.
    """

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
