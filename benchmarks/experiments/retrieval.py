"""Measure what early exit and small embeddings cost in search: recall, and neighbours of the same label.

    python benchmarks/experiments/retrieval.py BUNDLE [--images SRC] [--queries 1000] [--policy adaptive=balanced]

A quarter of the images, or as many as given, are queries; the rest is searched. The bundle's labels are queries too,
by their text embeddings. Truth is what float embeddings of the bundle at full depth find. ``10 in 10`` is the share of
its ten nearest that are among the ten found, ``1 in 10`` whether its nearest is, ``same label`` the share of the ten
found whose image has the query's label.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.cli import errors_as_one_line
from lraee.model import Model
from lraee.policies import Adaptive, ExitAt, Full, Policy
from lraee.policies.spec import parse_policy
from lraee.search import Kind, SearchIndex
from lraee_benchmarks.images import default_source, open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels

TOP = 10
BATCH = 64

Queries: TypeAlias = Literal["same policy", "full depth", "labels"]
"""How the queries are embedded: images as those searched are, images at full depth, or the labels as texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one way to embed the searched images finds; shares are 0 to 1."""

    images: str
    """Policy, or for full depth the kind of the index."""
    queries: Queries
    flops_saved: float
    bytes_each: float
    ten_in_ten: float
    one_in_ten: float
    same_label: float

    def cells(self) -> list[str]:
        """Give the cells of a table."""
        shares = (self.ten_in_ten, self.one_in_ten, self.same_label)
        named = f"{self.images}, {self.queries}"
        return [named, f"{self.flops_saved:.1%}", f"{self.bytes_each:.0f}", *(f"{share:.1%}" for share in shares)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """What is searched for, and what full depth finds."""

    asked: NDArray[np.intp]
    """(queries,) rows of the images that are queries."""
    kept: NDArray[np.intp]
    """(images,) rows of those that are searched."""
    classes: NDArray[np.int64]
    """(all images,) row of the label."""
    texts: NDArray[np.float32]
    """(labels, embed_dim) unit rows."""
    full: NDArray[np.float32]
    """(all images, embed_dim) at full depth."""

    def row(
        self, index: SearchIndex, images: str, queries: Queries, *, saved: float, found: NDArray[np.float32]
    ) -> Row:
        """Measure one index of the searched images.

        Args:
            index: to search.
            images: name of the row.
            queries: how queries are embedded.
            saved: share of FLOPs.
            found: (all images, embed_dim) embeddings by the policy of the index.
        """
        exact = SearchIndex.build(self.full[self.kept])
        if queries == "labels":
            asked, truth_asked, wanted = self.texts, self.texts, np.arange(len(self.texts))
        else:
            asked = (found if queries == "same policy" else self.full)[self.asked]
            truth_asked, wanted = self.full[self.asked], self.classes[self.asked]
        rows, truth = index.search(asked, top=TOP).rows, exact.search(truth_asked, top=TOP).rows
        hits = (rows[:, :, None] == truth[:, None, :]).any(axis=1)
        return Row(
            images=images,
            queries=queries,
            flops_saved=saved,
            bytes_each=index.size_bytes / len(index),
            ten_in_ten=float(hits.mean()),
            one_in_ten=float(hits[:, 0].mean()),
            same_label=float((self.classes[self.kept][rows] == wanted[:, None]).mean()),
        )


def embed(model: Model, pixels: NDArray[np.uint8], policy: Policy) -> tuple[NDArray[np.float32], float]:
    """Embeddings, and the share of the FLOPs that was saved."""
    answers = [model.run_pixels(pixels[at : at + BATCH], policy=policy) for at in range(0, len(pixels), BATCH)]
    flops = np.concatenate([model.flops_of_run(one) for one in answers])
    return np.concatenate([one.embedding for one in answers]), float(1 - flops.mean() / model.manifest.full_flops)


def policies_of(model: Model) -> dict[str, Policy]:
    """Every operating point and exit of a bundle, by name."""
    points: dict[str, Policy] = {point.name: Adaptive(point.name) for point in model.manifest.operating_points}
    return points | {f"exit={exit.block}": ExitAt(exit.block) for exit in model.manifest.exits}


def measure(model: Model, pixels: NDArray[np.uint8], search: Search, policies: dict[str, Policy]) -> Iterator[Row]:
    """Measure full depth with every kind of index, then every policy."""
    for kind in get_args(Kind):
        index = SearchIndex.build(search.full[search.kept], kind=kind)
        for queries in ("same policy", "labels"):
            yield search.row(index, f"full depth, {kind}", queries, saved=0.0, found=search.full)
    for name, policy in policies.items():
        found, saved = embed(model, pixels, policy)
        index = SearchIndex.build(found[search.kept])
        for queries in get_args(Queries):
            yield search.row(index, name, queries, saved=saved, found=found)


def main() -> None:
    """Embed, search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--images", help="labelled folder or zip; by default the shipped test images")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--policy", action="append", help="may be repeated; by default every point and exit")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    with errors_as_one_line():
        model = lraee.load(options.bundle)
        policies = {spec: parse_policy(spec) for spec in options.policy or ()} or policies_of(model)
        dataset = open_source(options.images or default_source(model.manifest.model))
        classes = label_rows(dataset, model.labels)
        pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
    order = np.random.default_rng(0).permutation(len(pixels))
    asked, kept = np.split(order, [options.queries or len(order) // 4])
    full, _ = embed(model, pixels, Full())
    search = Search(asked=asked, kept=kept, classes=classes, texts=model.bundle.label_embeddings, full=full)
    rows = list(measure(model, pixels, search, policies))
    print(f"{options.bundle}: {len(asked)} queries among {len(kept)} images, embeddings of {full.shape[1]}\n")
    header = ("embeddings, queries", "FLOPs saved", "bytes each", f"{TOP} in {TOP}", f"1 in {TOP}", "same label")
    print(Table(header=header, rows=[row.cells() for row in rows]).to_markdown())
    if options.json is not None:
        found = {"queries": len(asked), "images": len(kept), "rows": [dataclasses.asdict(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
