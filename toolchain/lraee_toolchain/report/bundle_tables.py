"""Tables of a bundle: its parts, exits and operating points, what it does on unseen images, and where it came from.

Those of the comparisons between ways to export and to leave are in `lraee_toolchain.report.study_tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lraee.bundle.manifest import Manifest
from lraee_benchmarks.render.table import MISSING, Table
from lraee_toolchain.report.wording import accuracy, percent, points

Row = Mapping[str, Any]


def precision_name(manifest: Manifest) -> str:
    """As in `lraee_toolchain.stages.Precision`."""
    return "FP32" if manifest.quantization is None else f"{manifest.quantization.quantizer} INT8"


def default_row(manifest: Manifest, evaluation: Row | None) -> Row | None:
    """The evaluation of the default operating point; None without one."""
    if evaluation is None:
        return None
    wanted = f"adaptive={manifest.default_point}"
    return next((row for row in evaluation["rows"] if row["name"] == wanted), None)


def by_depth(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of images by block, full depth last.

    >>> by_depth({"full": 0.5, "10": 0.2, "8": 0.3})
    {'8': 0.3, '10': 0.2, 'full': 0.5}
    """
    return dict(sorted(shares.items(), key=lambda item: (item[0] == "full", int(item[0]) if item[0] != "full" else 0)))


def part_sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of graph and weights by part."""
    size = {entry.name: entry.size_bytes for entry in manifest.files}
    return {part.name: size[part.graph] + (size[part.data] if part.data else 0) for part in manifest.parts}


def tower_bytes(manifest: Manifest) -> int:
    """Stem, blocks and tail; exits, the text tower and the one graph for comparison do not run at full depth."""
    return sum(size for name, size in part_sizes(manifest).items() if not name.startswith(("exit", "graph", "text")))


def parts_table(manifest: Manifest) -> Table:
    """FLOPs and bytes of each part."""
    sizes = part_sizes(manifest)
    full = manifest.full_flops
    rows = []
    for part in manifest.parts:
        flops = manifest.flops_of(part.name, manifest.labels.count)
        rows.append([part.name, f"{flops / 1e6:.2f}", percent(flops / full, 1), f"{sizes[part.name] / 1e6:.3f}"])
    last = manifest.part(f"block_{manifest.tower.blocks:02d}").flops
    dense = full + (manifest.part("block_01").flops - last)
    pruned = (
        f" The last block computes only the token that the tail reads: full depth takes {full / 1e6:.1f} MFLOPs, "
        f"{percent(1 - full / dense, 1)} less than the {dense / 1e6:.1f} of all tokens. Savings are counted against "
        f"the former; against the latter {percent(0.5, 0)} would be {percent(1 - 0.5 * full / dense, 1)}."
        if full < dense
        else ""
    )
    text = (
        ""
        if manifest.text is None
        else " `text` embeds other labels: its FLOPs are those of one prompt as long as can be."
    )
    return Table(
        title="Parts",
        note="FLOPs of one image: multiply-add = 2, matrix products only. `graph` is the whole tower as one graph over "
        f"the weights of the other parts, for comparison; it is not needed to run.{pruned}{text}",
        header=["part", "MFLOPs", "of full depth", "MB"],
        rows=rows,
    )


def measure_of(manifest: Manifest) -> str:
    """What the gating split was judged by."""
    labelled = not manifest.exits or manifest.exits[0].supervision == "labels"
    return "accuracy" if labelled else "agreement with FP32"


def exits_table(manifest: Manifest) -> Table:
    """Heads; without their accuracy for random weights."""
    random = manifest.model.is_random
    with_ratio = not random and any(exit.information_to_noise is not None for exit in manifest.exits)
    header = ["behind block", "head reads", "temperature", *(["INR"] if with_ratio else [])]
    header += [] if random else [f"{measure_of(manifest)} alone, gating split"]
    rows = []
    for exit in manifest.exits:
        cells = [str(exit.block), exit.reads, f"{exit.temperature:.2f}"]
        if with_ratio:
            cells.append(MISSING if exit.information_to_noise is None else f"{exit.information_to_noise:,.0f}")
        rows.append(cells if random else [*cells, percent(exit.accuracy or 0.0)])
    return Table(title="Exits", header=header, rows=rows)


def points_table(manifest: Manifest) -> Table:
    """Operating points as they were chosen, on the gating split."""
    random, measure = manifest.model.is_random, measure_of(manifest)
    rows = []
    for point in manifest.operating_points:
        cells = [point.name, ", ".join(f"{t.block}: {t.value:.3f}" for t in point.thresholds) or "none"]
        if not random:
            cells += [
                percent(point.flops_saved, 1),
                percent(point.accuracy or 0.0),
                percent(point.full_accuracy or 0.0),
            ]
        rows.append(cells)
    header = ["operating point", "thresholds by block"]
    header += [] if random else ["FLOPs saved", f"{measure}, gating split", "at full depth"]
    return Table(
        title="Thresholds of the operating points",
        note="" if random else "As they were chosen, on the gating split; the evaluation split took no part in it.",
        header=header,
        rows=rows,
        highlight=[manifest.default_point or ""],
    )


def evaluation_table(manifest: Manifest, evaluation: Row) -> Table:
    """Every policy of the bundle on unseen images."""
    rows = [["FP32, full depth", accuracy(evaluation["float"]["accuracy"]), "", "", ""]]
    for row in evaluation["rows"]:
        shares = ", ".join(f"{name}: {100 * share:.0f}" for name, share in by_depth(row["exit_shares"]).items())
        difference = points(row["difference_to_full"]) if row["name"] != "full depth" else ""
        rows.append([row["name"], accuracy(row["accuracy"]), difference, percent(row["flops_saved"], 1), shares])
    return Table(
        title="Every policy of the bundle",
        note=f"{evaluation['images']:,} images that no other step has seen, run by the runtime from the finished "
        "bundle. 95 % bootstrap intervals over images; differences are paired, in points, to full depth.",
        header=["policy", "top-1", "against full depth", "FLOPs saved", "left behind block (%)"],
        rows=rows,
        highlight=[f"adaptive={manifest.default_point}"],
    )


def parity_table(stages: Sequence[Row]) -> Table:
    """Of the float graphs."""
    return Table(
        title="Parity of the float graphs with torch",
        note="Smallest mean-centred cosine over the images, and largest error over the spread between images.",
        header=["stage", "cosine", "error"],
        rows=[[stage["name"], f"{stage['cosine']:.7f}", f"{stage['error']:.1e}"] for stage in stages],
    )


def provenance_table(manifest: Manifest) -> Table:
    """What the bundle was made from."""
    return Table(
        title="Fingerprints and versions",
        header=["made from", "version or fingerprint"],
        rows=[[name, f"`{value}`"] for name, value in manifest.provenance.items()],
        words=(0, 1),
    )
