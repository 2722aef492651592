"""A board has the base dependencies alone: importing there asks for nothing else, and takes little time."""

from __future__ import annotations

import subprocess
import sys

SECONDS = 0.5
"""For importing lraee and opening a bundle; 0.2 s on the two cores where this was written."""


def run(code: str) -> list[str]:
    """What a fresh process prints, as words."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_lraee_and_loading_a_bundle_needs_numpy_and_onnx_runtime_only():
    """Even Pillow is not needed by a device with a camera that gives arrays."""
    loaded = set(run("import sys, lraee; lraee.load('reference').warm(); print(*sys.modules)"))
    assert {"lraee", "numpy", "onnxruntime"} <= loaded
    heavy = {"torch", "open_clip", "onnx", "PIL", "safetensors", "matplotlib", "typer", "rich", "ftfy"}
    assert loaded.isdisjoint(heavy | {"onnxruntime_extensions", "lraee_exporters", "lraee_toolchain"})


EVERY_MODULE = """
import importlib, pkgutil, sys
for name in ("lraee", "lraee_benchmarks", "lraee_calibration_data"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
print(*sys.modules)
"""


def test_every_module_of_the_base_packages_imports_without_the_export_extra():
    """The arrow of dependence points from the toolchain to the runtime and never back."""
    loaded = set(run(EVERY_MODULE))
    assert {"lraee.model", "lraee.cli", "lraee_benchmarks.cli", "lraee_calibration_data.dataset"} <= loaded
    heavy = {"torch", "torchvision", "open_clip", "onnx", "safetensors", "matplotlib", "PIL"}
    assert loaded.isdisjoint(heavy | {"lraee_exporters", "lraee_toolchain"})


TIMED = """
import time
start = time.perf_counter()
import lraee
lraee.load("reference")
print(time.perf_counter() - start)
"""


def test_importing_and_loading_takes_less_than_half_a_second():
    """The best of five fresh processes, so that other work on the machine does not count; sessions come later."""
    best = min(float(run(TIMED)[0]) for _ in range(5))
    assert best < SECONDS, f"import and load took {best:.2f} s; look at `python -X importtime -c 'import lraee'`"
