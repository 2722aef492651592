"""What the toolchain's tests share: a small zip of shipped images, and one undisturbed export of the reference."""

import resource
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lraee_calibration_data import fashion_mnist_pool
from lraee_toolchain.config import ExportConfig, HeadTraining
from lraee_toolchain.pipeline import ExportResult, export


def pick_images(source: Path, target: Path, *, step: int, start: int = 0) -> Path:
    """Write every `step`-th image of a zip into another."""
    with zipfile.ZipFile(source) as pool, zipfile.ZipFile(target, "w") as few:
        names = sorted(name for name in pool.namelist() if name.endswith(".png"))
        for name in names[start::step]:
            few.writestr(name, pool.read(name))
    return target


@pytest.fixture(scope="session")
def picked() -> Callable[..., Path]:
    """`pick_images` for tests with images of their own."""
    return pick_images


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Small products are quicker on one thread when cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 labelled images of the shipped pool, 24 of each class."""
    return pick_images(fashion_mnist_pool(), tmp_path_factory.mktemp("few") / "few.zip", step=25)


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Let no file grow beyond so many bytes, as `ulimit -f` does, which needs no rights; -1 lifts the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export and what it was told."""

    config: ExportConfig
    result: ExportResult


@pytest.fixture(scope="session")
def small_config(few_images: Path) -> Callable[..., ExportConfig]:
    """A configuration that takes seconds: few images, two exits, two epochs."""

    def make(out: Path, **changes: object) -> ExportConfig:
        options: dict[str, object] = {
            "model": "reference",
            "out": out,
            "train": few_images,
            "exits": (4, 8),
            "reads": "patch_mean",
            "heads": HeadTraining(epochs=2),
            "max_accuracy_drop": 20.0,
        }
        return ExportConfig(**(options | changes))  # type: ignore[arg-type]  # names are the test's own

    return make


@pytest.fixture(scope="session")
def exported(small_config: Callable[..., ExportConfig], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One export of the reference, whose stages are kept for tests that change a late option."""
    folder = tmp_path_factory.mktemp("exported")
    config = small_config(folder / "small.lraee", work=folder / "work")
    return Exported(config=config, result=export(config))
