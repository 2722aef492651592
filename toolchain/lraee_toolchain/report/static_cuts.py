"""Whether early exit beats a smaller static model: the tower cut behind one exit, whose head always answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lraee.bundle.manifest import Manifest
from lraee_toolchain.report.bundle_tables import default_row
from lraee_toolchain.report.wording import percent

Row = Mapping[str, Any]


def cuts_text(manifest: Manifest, evaluation: Row | None) -> str | None:
    """One or two sentences for the report; None without an evaluation, exits or a default operating point.

    Accuracies are matched by their means on the same images.
    """
    routed = None if evaluation is None else default_row(manifest, evaluation)
    if routed is None or evaluation is None:
        return None
    cuts = [row for row in evaluation["rows"] if row["name"].startswith("exit=")]
    if not cuts or routed["flops_saved"] <= 0:
        return None
    name, wanted = f"`{manifest.default_point}`", routed["accuracy"]["mean"]
    as_good = [row for row in cuts if row["accuracy"]["mean"] >= wanted]
    if not as_good:
        best = max(cuts, key=lambda row: row["accuracy"]["mean"])
        verdict = (
            f"Early exit beats cutting the tower: no cut is as accurate as {name} ({percent(wanted, 2)}); the best, "
            f"behind block {_block(best)}, reaches {percent(best['accuracy']['mean'], 2)} and saves "
            f"{percent(best['flops_saved'], 1)} of the FLOPs instead of {percent(routed['flops_saved'], 1)}."
        )
    else:
        cheapest = max(as_good, key=lambda row: row["flops_saved"])
        wins = routed["flops_saved"] > cheapest["flops_saved"]
        beats = "beats" if wins else "does NOT beat"
        verdict = (
            f"Early exit {beats} cutting the tower: the cheapest cut that is as accurate as {name} "
            f"({percent(wanted, 2)}) is behind block {_block(cheapest)} and saves "
            f"{percent(cheapest['flops_saved'], 1)} of the FLOPs; {name} saves {percent(routed['flops_saved'], 1)}."
        )
    return f"{verdict} A cut tower runs its blocks and one head, for every image the same."


def _block(row: Row) -> str:
    return str(row["name"]).removeprefix("exit=")
