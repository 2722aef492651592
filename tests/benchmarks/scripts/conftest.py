"""What tests of the evidence on photos share: its modules, and few images in the place of photos."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lraee_calibration_data import fashion_mnist_pool, fashion_mnist_test

ROOT = Path(__file__).resolve().parents[3]
EVIDENCE = ROOT / "benchmarks" / "evidence"
REFERENCE = ROOT / "exporters" / "lraee_exporters" / "reference"


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The modules of ``benchmarks/evidence``, as their commands see them."""
    names = sorted(path.stem for path in EVIDENCE.glob("*.py"))
    sys.path.insert(0, str(EVIDENCE))
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(EVIDENCE))
    for name in names:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture(scope="module")
def few_photos(picked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``pool.zip``, 240 images to learn from, ``test.zip``, 200 to judge by, and their labels, l.txt."""
    folder = tmp_path_factory.mktemp("photos")
    picked(fashion_mnist_pool(), folder / "pool.zip", step=25)
    picked(fashion_mnist_test(), folder / "test.zip", step=10)
    labels = json.loads((REFERENCE / "labels.json").read_text("utf-8"))
    (folder / "l.txt").write_text("\n".join(labels["names"]) + "\n", "utf-8")
    return folder
