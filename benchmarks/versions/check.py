"""What a fresh environment must be able to do; it runs there, from an empty folder, and needs nothing but lraee.

    python check.py base|image|export

Prints one JSON object: for `base` and `image` the answers, for `export` how far the exported bundle agrees with the
shipped one. Whatever fails is an exception, and the exit status.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee_calibration_data import fashion_mnist_pool, fashion_mnist_sample, fashion_mnist_test, photos

IMAGES = 100
LABELS = ["footwear", "a garment", "bag"]
TRAINING = 60
"""Images of each class that the export learns from; its answers at full depth do not depend on them."""


def run(*command: str) -> str:
    """Run a command of this environment; what it prints.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0:
        last = " | ".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise RuntimeError(f"{' '.join(command[1:])} ended with status {done.returncode}: {last}")
    return done.stdout


def program(name: str) -> str:
    """The path of a command of this environment; run with its Python, since its first line may be too long."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def sample() -> NDArray[np.uint8]:
    """Shipped test images, (IMAGES, 28, 28, 3)."""
    images = fashion_mnist_sample()
    grey = images[:: len(images) // IMAGES]
    return np.repeat(grey[..., None], 3, axis=3)


def base() -> dict[str, Any]:
    """The shipped bundle with arrays: verified, described, its labels and others, early exit and full depth; help."""
    for words in (["-m", "lraee"], ["-m", "lraee", "classify"], [program("lraee-bench")], [program("lraee-export")]):
        run(sys.executable, *words, "--help")
    run(sys.executable, "-m", "lraee", "verify", "reference")
    run(sys.executable, "-m", "lraee", "info", "reference")
    model = lraee.load("reference")
    early, full = model.run_pixels(sample()), model.run_pixels(sample(), policy=lraee.Full())
    answers = {"early": names(model, early), "exit_block": early.exit_block.tolist(), "full": names(model, full)}
    model.set_labels(LABELS)
    return {**answers, "set_labels": names(model, model.run_pixels(sample(), policy=lraee.Full()))}


def names(model: Any, answers: Any) -> list[str]:
    """Give the label of each image."""
    return [model.labels[index] for index in answers.probabilities.argmax(axis=1)]


def image() -> dict[str, Any]:
    """Image files: PNG through the command, a photo through Pillow's resizing, whole and reduced."""
    with zipfile.ZipFile(fashion_mnist_test()) as archive:
        members = [name for name in sorted(archive.namelist()) if name.endswith(".png")][::400]
        files = [archive.extract(name) for name in members]
    photo = str(photos() / "kodak-1.jpg")
    run(sys.executable, "-m", "lraee", "classify", "reference", *files, photo)
    model = lraee.load("reference")
    reduced = lraee.load("reference", reading=lraee.reading.Reading(reduce_jpeg=True))
    classified = [model.classify(file, policy=lraee.Full()).label for file in [*files, photo]]
    return {"files": [*classified, reduced.classify(photo, policy=lraee.Full()).label]}


def export() -> dict[str, Any]:
    """A small export of the reference with everything that `lraee-export` writes next to a bundle."""
    small = "small.zip"
    with zipfile.ZipFile(fashion_mnist_pool()) as pool, zipfile.ZipFile(small, "w") as archive:
        taken: dict[str, int] = {}
        for name in sorted(pool.namelist()):
            label = name.rpartition("/")[0]
            taken[label] = taken.get(label, 0) + 1
            if taken[label] <= TRAINING and not name.endswith("/"):
                archive.writestr(name, pool.read(name))
    options = ["--train", small, "--exits", "4,8", "--reads", "both", "--epochs", "1", "--baselines"]
    run(sys.executable, program("lraee-export"), "reference", "-o", "small.lraee", *options)
    wanted = [Path("small.report", name) for name in ("report.html", "report.md", "metrics.json")]
    wanted += [Path("small.baselines", f"{name}.onnx") for name in ("fp32", "static", "dynamic")]
    assert all(path.is_file() for path in wanted), [str(path) for path in wanted if not path.is_file()]
    model, shipped = lraee.load("small.lraee"), lraee.load("reference")
    early = model.run_pixels(sample())
    assert early.probabilities.shape == (IMAGES, len(shipped.labels))
    pairs = [names(each, each.run_pixels(sample(), policy=lraee.Full())) for each in (model, shipped)]
    return {"equal_labels": sum(one == other for one, other in zip(*pairs, strict=True))}


if __name__ == "__main__":
    print(json.dumps({"base": base, "image": image, "export": export}[sys.argv[1]]()))
