"""Measure what early exit and small embeddings cost in search: recall, and neighbours of the same label.

    python benchmarks/experiments/retrieval.py BUNDLE [--images SRC] [--queries 1000]

A quarter of the images, or as many as given, are queries; the rest is searched. Truth is what float embeddings at full
depth find. ``10 in 10`` is the share of its ten nearest that are among the ten found, ``1 in 10`` whether its nearest
is, ``same label`` the share of the ten found whose image has the query's label.
"""

from __future__ import annotations

import argparse
from typing import get_args

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.cli import errors_as_one_line
from lraee.model import Model
from lraee.policies import Adaptive, ExitAt, Full, Policy
from lraee.search import Kind, SearchIndex
from lraee_benchmarks.images import default_source, open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import load_pixels

TOP = 10
BATCH = 64


def embed(model: Model, pixels: NDArray[np.uint8], policy: Policy) -> tuple[NDArray[np.float32], float]:
    """Embeddings, and the share of the FLOPs that was saved."""
    answers = [model.run_pixels(pixels[at : at + BATCH], policy=policy) for at in range(0, len(pixels), BATCH)]
    flops = np.concatenate([model.flops_of_run(one) for one in answers])
    return np.concatenate([one.embedding for one in answers]), float(1 - flops.mean() / model.manifest.full_flops)


def shares(found: NDArray[np.intp], truth: NDArray[np.intp], same: NDArray[np.bool_]) -> list[str]:
    """The three shares as cells of a table."""
    hits = (found[:, :, None] == truth[:, None, :]).any(axis=1)
    return [f"{share:.1%}" for share in (hits.mean(), hits[:, 0].mean(), same.mean())]


def main() -> None:
    """Embed, search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--images", help="labelled folder or zip; by default the shipped test images")
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    with errors_as_one_line():
        model = lraee.load(options.bundle)
        dataset = open_source(options.images or default_source(model.manifest.model))
        labels = np.array(dataset.targets)
        pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
    order = np.random.default_rng(0).permutation(len(pixels))
    asked, kept = np.split(order, [options.queries or len(order) // 4])
    full, _ = embed(model, pixels, Full())
    truth = SearchIndex.build(full[kept]).search(full[asked], top=TOP).rows

    def row(name: str, saved: float, queries: NDArray[np.float32], index: SearchIndex) -> list[str]:
        found = index.search(queries, top=TOP).rows
        same = labels[kept][found] == labels[asked][:, None]
        return [name, f"{saved:.1%}", f"{index.size_bytes / len(index):.0f}", *shares(found, truth, same)]

    rows = [
        row(f"full depth, {kind}", 0.0, full[asked], SearchIndex.build(full[kept], kind=kind))
        for kind in get_args(Kind)
    ]
    policies: dict[str, Policy] = {point.name: Adaptive(point.name) for point in model.manifest.operating_points}
    policies |= {f"exit={exit.block}": ExitAt(exit.block) for exit in model.manifest.exits}
    for name, policy in policies.items():
        early, saved = embed(model, pixels, policy)
        index = SearchIndex.build(early[kept])
        rows.append(row(f"{name}, queries too", saved, early[asked], index))
        rows.append(row(f"{name}, queries at full depth", saved, full[asked], index))
    print(f"{options.bundle}: {len(asked)} queries among {len(kept)} images, embeddings of {full.shape[1]}\n")
    header = ("embeddings", "FLOPs saved", "bytes each", f"{TOP} in {TOP}", f"1 in {TOP}", "same label")
    print(Table(header=header, rows=rows).to_markdown())


if __name__ == "__main__":
    main()
