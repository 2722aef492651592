"""Whether early exit beats a smaller static model: the tower cut after one exit, whose head answers every image."""

from __future__ import annotations

from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.wording import percent


def cuts_text(found: Findings) -> str | None:
    """Compare early exit with cuts; None without an evaluation, exits or a default operating point that saves.

    Accuracies are matched by their means on the same images.
    """
    routed, evaluation = found.row, found.metrics.evaluation
    if routed is None or evaluation is None or not evaluation.cuts or routed.flops_saved <= 0:
        return None
    name, wanted = f"`{found.manifest.default_point}`", routed.accuracy.mean
    as_good = [row for row in evaluation.cuts if row.accuracy.mean >= wanted]
    if not as_good:
        best = max(evaluation.cuts, key=lambda row: row.accuracy.mean)
        verdict = (
            f"Early exit beats cutting the tower: no cut is as accurate as {name} ({percent(wanted, 2)}); the best, "
            f"after block {best.block}, reaches {percent(best.accuracy.mean, 2)} and saves "
            f"{percent(best.flops_saved, 1)} of the FLOPs instead of {percent(routed.flops_saved, 1)}."
        )
    else:
        cheapest = max(as_good, key=lambda row: row.flops_saved)
        beats = "beats" if routed.flops_saved > cheapest.flops_saved else "does NOT beat"
        verdict = (
            f"Early exit {beats} cutting the tower: the cheapest cut that is as accurate as {name} "
            f"({percent(wanted, 2)}) is after block {cheapest.block} and saves {percent(cheapest.flops_saved, 1)} of "
            f"the FLOPs; {name} saves {percent(routed.flops_saved, 1)}."
        )
    return f"{verdict} A cut tower runs the same blocks and the same head for every image."
