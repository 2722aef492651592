"""Keep what `make evidence` measured, compare a new run with it, and fill the README's figures from it.

    python benchmarks/evidence/evidence.py images out     # pool.zip and test.zip: the shipped images and those here
    python benchmarks/evidence/evidence.py compare out
    python benchmarks/evidence/evidence.py record out

`compare` names every figure of the reports in a folder that differs from the recorded one; two runs with one seed on
one machine differ in nothing. `record` replaces the recorded figures by those of the folder. Times are left out of
both: they never repeat to the last digit.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lraee_benchmarks.render.table import Table

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
README = ROOT / "README.md"
SHIPPED_IMAGES = ROOT / "calibration_data" / "lraee_calibration_data" / "fashion_mnist"
STUDIES = ("evidence", "outliers", "b32-outliers")
"""Reports that `make evidence` and `make evidence-b32` write, by name."""

TIMES = ("latency",)
"""Keys of metrics.json that hold times."""


def join_images(folder: Path) -> None:
    """Write ``pool.zip`` (10,000 images) and ``test.zip`` (5,000): those that the package ships, and the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pool.zip", "test.zip"):
        archives = [zipfile.ZipFile(source / name) for source in (SHIPPED_IMAGES, FOLDER / "images")]
        members = sorted((member.filename, archive) for archive in archives for member in archive.infolist())
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED) as joined:
            for member, archive in members:
                joined.writestr(zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0)), archive.read(member))


def metrics_of(report: Path) -> dict[str, Any]:
    """What a report measured, without times."""
    metrics: dict[str, Any] = json.loads((report / "metrics.json").read_text("utf-8"))
    return {key: value for key, value in metrics.items() if key not in TIMES}


def recorded(study: str) -> dict[str, Any]:
    """The recorded figures of a study."""
    found: dict[str, Any] = json.loads((FOLDER / f"{study}.json").read_text("utf-8"))
    return found


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Every place where two JSON values differ.

    >>> list(differences({"a": [1, 2]}, {"a": [1, 3]}))
    ['/a/1: 2 was recorded, now 3']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}/{number}")
    elif old != new:
        yield f"{where}: {old} was recorded, now {new}"


def compare(folder: Path) -> int:
    """Print what differs; the number of differences."""
    count, compared = 0, 0
    for study in STUDIES:
        report = folder / f"{study}.report"
        if not report.is_dir():
            print(f"{study}: not measured in {folder}")
            continue
        compared += 1
        if not (FOLDER / f"{study}.json").is_file():
            print(f"{study}: nothing is recorded")
            continue
        found = list(differences(recorded(study), metrics_of(report)))
        count += len(found)
        print(f"{study}: {len(found)} figures differ from the recorded ones")
        print("\n".join(f"  {line}" for line in found[:20]))
    if not compared:
        raise SystemExit(f"{folder} holds none of the reports of make evidence; run it first, or name another folder")
    return count


def record(folder: Path) -> None:
    """Replace the recorded figures by those in a folder, and fill the README."""
    for study in STUDIES:
        if not (folder / f"{study}.report").is_dir() and not (FOLDER / f"{study}.json").is_file():
            raise SystemExit(f"{study} is neither recorded nor in {folder}; run make evidence and make evidence-b32")
    for study in STUDIES:
        report = folder / f"{study}.report"
        if report.is_dir():
            text = json.dumps(metrics_of(report), separators=(",", ":")) + "\n"
            (FOLDER / f"{study}.json").write_text(text, "utf-8")
            (FOLDER / f"{study}.md").write_text((report / "report.md").read_text("utf-8"), "utf-8")
    README.write_text(filled(README.read_text("utf-8")), "utf-8")


def filled(text: str) -> str:
    """A text whose blocks between ``<!-- evidence:NAME -->`` and ``<!-- /evidence -->`` are filled again."""
    tables = {"routing": routing_table, "cuts": cuts_sentence, "outliers": outliers_table}

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{tables[match[2]]()}\n\n{match[3]}"

    return re.sub(r"(<!-- evidence:(\w+) -->).*?(<!-- /evidence -->)", block, text, flags=re.DOTALL)


def routing_table() -> str:
    """What routing adds on the reference, from the paper's T1 and T2."""
    ablations = recorded("evidence")["ablations"]
    main = ablations["precision"]
    ways = {(row["way"], row["precision"]): row for row in ablations["main"]}
    rows = []
    for way, precision, words in (
        ("full", "FP32", "FP32, full depth"),
        ("full", "naive INT8", "naive INT8, full depth"),
        ("full", main, f"{main}, full depth"),
        ("ssa_last", main, f"{main}, a head like those of the exits at the last block"),
        ("routed", main, f"**LRA-EE on {main}**"),
        ("routed_label_free", main, f"**LRA-EE on {main}, no labels**"),
        ("routed_ssa", main, f"LRA-EE on {main}, heads as in the paper (SSA)"),
    ):
        row = ways[way, precision]
        change = "" if precision == "FP32" else _points(row["difference_to_float"])
        rows.append([words, percent(row["accuracy"]["mean"], 2), _saved(row), change])
    header = [f"{ablations['images']:,} images, {ablations['seeds']} seeds", "top-1", "FLOPs saved", "points to FP32"]
    first = Table(header=header, rows=rows)
    others = {row["method"]: row["at_match"] for row in ablations["methods"]["rows"]}
    rows = []
    for method, name in COMPARED.items():
        if (row := others[method]) is None:
            rows.append([name, "", "cannot save as much", ""])
            continue
        change = _points(row["difference_to_lra_ee"])
        rows.append([name, percent(row["accuracy"]["mean"], 2), _saved(row), change])
    second = Table(header=["at the same FLOPs", "top-1", "FLOPs saved", "points to LRA-EE"], rows=rows)
    return f"{first.to_markdown()}\n\n{second.to_markdown()}"


def cuts_sentence() -> str:
    """What early exit saves, and what the tower saves when it is cut after one exit, whose head answers every image.

    Only blocks whose exit the recorded bundle keeps can be cut at. Accuracies are means over the same images.
    """
    rows = recorded("evidence")["evaluation"]["rows"]
    cuts = {int(row["block"]): row for row in rows if row["kind"] == "exit"}
    routed = next(row for row in rows if row["point"] == "balanced")
    as_good = {block: row for block, row in cuts.items() if row["accuracy"]["mean"] >= routed["accuracy"]["mean"]}
    blocks = ", ".join(str(block) for block in sorted(cuts))
    begun = (
        f"Cutting the tower after one block is the simplest way to save. In the recorded bundle (seed 0, exits after "
        f"blocks {blocks}) `balanced` answers {percent(routed['accuracy']['mean'], 2)} right and saves "
        f"{percent(routed['flops_saved'], 1)} of the FLOPs."
    )
    if not as_good:
        best = max(cuts, key=lambda block: float(cuts[block]["accuracy"]["mean"]))
        return (
            f"{begun} No cut is as accurate: the best, after block {best}, answers "
            f"{percent(cuts[best]['accuracy']['mean'], 2)} right and saves {percent(cuts[best]['flops_saved'], 1)}."
        )
    cheapest = max(as_good, key=lambda block: float(as_good[block]["flops_saved"]))
    saved = percent(as_good[cheapest]["flops_saved"], 1)
    return f"{begun} The cheapest cut that is as accurate is after block {cheapest} and saves {saved}."


COMPARED = {
    "confidence_shared": "confidence, one threshold",
    "branchynet": "BranchyNet: entropy, free LCT",
    "cls_ee": "CLS-EE: [CLS] heads, confidence",
    "pabee_everywhere": "PABEE, exits behind every candidate block",
    "token_pruning": "token pruning (in the manner of AdaViT)",
}
"""Rows of the paper's T2 that the README shows, and what it calls them; the reports have all."""


def outliers_table() -> str:
    """What the quantizers and routing do where INT8 fails."""
    rows = []
    for study, words in (("outliers", "`reference`"), ("b32-outliers", "`reference-b32`")):
        noise = [_noise(recorded(study)["noise"][name]) for name in ("naive INT8", "strong INT8")]
        right = accuracies(study)
        shown = [percent(right[name], 2) for name in ("FP32", "naive INT8", "strong INT8")]
        rows.append([words, *shown, " and ".join(noise)])
    return Table(
        header=[
            *("outlier channels times 128", "FP32", "naive INT8", "strong INT8"),
            "noise at the last block, naive and strong",
        ],
        rows=rows,
    ).to_markdown()


def accuracies(study: str) -> dict[str, float]:
    """Top-1 of full depth at every precision that a study measured."""
    metrics = recorded(study)
    if (table := metrics["precisions"]) is not None:
        return {row["precision"]: row["accuracy"]["mean"] for row in table["rows"]}
    rows = metrics["ablations"]["main"]
    return {row["precision"]: row["accuracy"]["mean"] for row in rows if row["way"] == "full"}


def _noise(profile: dict[str, Any]) -> str:
    last = profile["blocks"][-1]
    return f"{100 * last['delta_quant'] / last['delta_nat']:.3g} %"


def percent(share: float, digits: int) -> str:
    """A share of 1 as percent."""
    return f"{100 * share:.{digits}f} %"


def _points(interval: dict[str, float]) -> str:
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _saved(row: dict[str, Any]) -> str:
    if abs(row["flops_saved"]) < 0.001:
        return ""
    spread = f" ± {100 * row['flops_saved_std']:.1f}" if row["flops_saved_std"] else ""
    return f"{100 * row['flops_saved']:.1f}{spread} %"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("images", "compare", "record"))
    parser.add_argument("folder", type=Path, help="where reports and images are, as out")
    arguments = parser.parse_args()
    if arguments.what == "compare":
        return 1 if compare(arguments.folder) else 0
    act = join_images if arguments.what == "images" else record
    act(arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
