"""A board installs the base dependencies; importing what runs there must not ask for more."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "open_clip", "onnx", "safetensors", "matplotlib", "PIL")

MODULES = """
import pkgutil, sys
import lraee, lraee_benchmarks, lraee_calibration_data
for package in (lraee, lraee_benchmarks, lraee_calibration_data):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(("__main__", "build_archives")):
            __import__(module.name)
print(*sorted(sys.modules))
"""


def test_base_packages_import_without_the_extras() -> None:
    """Every module of the three packages, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", MODULES], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"lraee.cli", "lraee_benchmarks.cli", "lraee_calibration_data.dataset"} <= imported
    assert imported.isdisjoint(HEAVY)
