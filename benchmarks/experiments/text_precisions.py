"""Measure what each way to store a text tower costs: size, load, time for a label, and cosine to float32.

    python benchmarks/experiments/text_precisions.py MODEL [--pretrained TAG] [--labels imagenet]
        [--texts 200] [--threads 2]

Exports the model once for each precision with ``lraee-export``, which compares the float32 text tower with torch and
stops if they differ; the other two are compared with that one here. Prompts run 32 at a time, as `Model.set_labels`
runs them. The image tower's stages are made once, since the three exports share a work folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.cli import errors_as_one_line
from lraee.engine.text_tower import TEXTS_PER_RUN
from lraee.labels.label_set import LabelSet
from lraee.labels.tokenizer import Tokenizer, padded
from lraee.ort.sessions import SessionSettings, make_session
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_benchmarks.running.rounds import time_in_turn

PRECISIONS = ("fp32", "fp16", "int8")
"""Values of ``lraee-export --text``; the first is what the others are compared with."""
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of one precision, a line of the table."""

    megabytes: float
    """Graph and weights, 10^6 bytes."""
    load_s: float
    ms: float
    """Median milliseconds of a prompt."""
    embeddings: NDArray[np.float32]
    """(texts, embed_dim) float32 of unit length."""


def export(precision: str, folder: Path, options: argparse.Namespace) -> Bundle:
    """Export the model with its text tower stored as `precision`.

    Raises:
        subprocess.CalledProcessError: the export failed; it has said why.
    """
    out = folder / f"{precision}.lraee"
    command: list[str | Path] = [Path(sys.executable).with_name("lraee-export"), options.model, "--out", out]
    command += ["--text", precision, "--exits", "none", "--work", folder / "work"]
    for name in ("pretrained", "labels"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", value]
    subprocess.run(command, check=True, stdout=sys.stderr)  # the table alone goes to stdout
    return Bundle(out)


def measure(bundle: Bundle, batches: list[NDArray[np.int64]], *, threads: int) -> Measured:
    """Load the text tower of a bundle and embed batches of token ids, (texts, tokens) int64."""
    part = bundle.manifest.part("text")
    path = bundle.checked_part(part)
    begun = time.perf_counter()
    session = make_session(path, SessionSettings(threads=threads))
    loaded = time.perf_counter() - begun

    def embed() -> NDArray[np.float32]:
        return np.concatenate([session.run(["embedding"], {"tokens": batch})[0] for batch in batches])

    embeddings = embed()
    return Measured(
        megabytes=bundle.manifest.bytes_of("text") / 1e6,
        load_s=loaded,
        ms=float(np.median(time_in_turn([embed], REPEATS))) / len(embeddings),
        embeddings=embeddings,
    )


def least_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Smallest cosine between rows of the same number; rows need not be of unit length."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).min())


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pretrained")
    parser.add_argument("--labels", help="as of lraee-export")
    parser.add_argument("--texts", type=int, default=200, help="prompts at most")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, errors_as_one_line():
        bundles = {precision: export(precision, Path(name), options) for precision in PRECISIONS}
        first = bundles[PRECISIONS[0]]
        text = first.manifest.text
        assert text is not None, "lraee-export --text fp32 puts a text tower into the bundle"
        tokenizer = Tokenizer(first.merges(text.merges))
        labels = LabelSet(names=first.labels.names, templates=first.labels.templates)
        texts = sorted(labels.prompts()[: options.texts], key=lambda prompt: len(tokenizer.encode(prompt)))
        rows = [tokenizer.row(prompt, text.context_length) for prompt in texts]
        batches = [padded(rows[start : start + TEXTS_PER_RUN]) for start in range(0, len(rows), TEXTS_PER_RUN)]
        found = {key: measure(bundle, batches, threads=options.threads) for key, bundle in bundles.items()}
    print(
        f"{device_line(describe_device())}; {options.threads} threads; {len(rows)} prompts, "
        f"{np.mean([len(row) for row in rows]):.1f} tokens on average; median of {REPEATS} runs\n"
    )
    exact = found[PRECISIONS[0]].embeddings
    mean = exact.mean(axis=0)
    lines = []
    for precision, row in found.items():
        cosine, centred = least_cosine(row.embeddings, exact), least_cosine(row.embeddings - mean, exact - mean)
        numbers = (f"{row.megabytes:.1f}", f"{row.load_s:.2f}", f"{row.ms:.3f}")
        lines.append([precision, *numbers, f"{cosine:.6f}", f"{centred:.6f}"])
    cosines = ("smallest cosine to fp32", "the same after the mean is subtracted")
    print(Table(header=("stored as", "MB", "load s", "ms a prompt", *cosines), rows=lines).to_markdown())


if __name__ == "__main__":
    main()
