"""The plots of a report, drawn from its findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lraee_benchmarks.analysis.intervals import Estimate
from lraee_benchmarks.render.method_names import METHODS
from lraee_toolchain.evaluation.metrics import AtMatch, FrontPoint, MethodTable, PolicyRow, Selectivity
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.names import way_name
from lraee_toolchain.report.plots.exits import (
    Front,
    Level,
    Marker,
    ReleasedAndKept,
    exit_accuracy_plot,
    pareto_plot,
    selectivity_plot,
)

COMPARED = {
    "PABEE": ("pabee", "pabee_everywhere"),
    "CLS-EE": ("cls_ee",),
    "confidence": ("confidence_shared", "confidence_free"),
    "BranchyNet": ("branchynet",),
    "token pruning": ("token_pruning",),
}
"""Methods whose fronts are drawn; of several variants the one with most points. The table has all."""

MAY_FALL = 0.08
"""Accuracy below full depth at which a front leaves the plot, so that what matters can be told apart."""


def levels_of(found: Findings) -> list[Level]:
    """Give FP32, as given and as tuned, and the bundle's precision at full depth, to compare with."""
    evaluation = found.metrics.evaluation
    assert evaluation is not None
    name = way_name("full", "FP32")
    levels = [Level(label=name, accuracy=evaluation.float_accuracy.mean)]
    if evaluation.given is not None:
        levels = [
            Level(label=f"{name}, as given", accuracy=evaluation.given.accuracy.mean),
            Level(label=f"{name}, tuned", accuracy=evaluation.float_accuracy.mean),
        ]
    if found.precision != "FP32":
        levels.append(Level(label=way_name("full", found.precision), accuracy=evaluation.full.accuracy.mean))
    return levels


def draw_heads(found: Findings) -> str:
    """Draw the accuracy of a head after every block, by what it reads."""
    assert found.metrics.ablations is not None
    return exit_accuracy_plot(found.metrics.ablations.heads, levels=levels_of(found))


def draw_pareto(found: Findings) -> str:
    """Draw accuracy over FLOPs saved, on images that no choice was made on.

    With ablations, the fronts of LRA-EE and of some other methods, mean of the seeds; without, the bundle's own
    operating points. Both with the tower cut after one exit.
    """
    levels, evaluation, ablations = levels_of(found), found.metrics.evaluation, found.metrics.ablations
    assert evaluation is not None
    floor = 0.0 if ablations is None else levels[-1].accuracy - MAY_FALL
    if ablations is None:
        fronts = [_front("operating points of the bundle", _places(evaluation.points), floor)]
        label = f"{found.manifest.default_point}, the default"
        own: PolicyRow | AtMatch | None = found.row
    else:
        fronts = method_fronts(ablations.methods, floor)
        label, own = "LRA-EE, chosen", ablations.methods.lra_ee.at_match
    chosen = None if own is None else Marker(label=label, saved=own.flops_saved, accuracy=own.accuracy)
    fronts.append(_front("tower cut after one exit", _places(evaluation.cuts), floor))
    return pareto_plot([front for front in fronts if front.saved], chosen=chosen, levels=levels)


def _places(rows: Iterable[PolicyRow]) -> list[FrontPoint]:
    return [FrontPoint(saved=row.flops_saved, accuracy=row.accuracy.mean) for row in rows]


def method_fronts(methods: MethodTable, floor: float) -> list[Front]:
    """Give the fronts of LRA-EE and of `COMPARED` above an accuracy; those without a point there are empty."""
    fronts = {row.method: row.front for row in methods.rows}
    picked: dict[str, Sequence[FrontPoint]] = {METHODS["lra_ee"]: methods.lra_ee.front}
    for label, variants in COMPARED.items():
        picked[label] = max((fronts.get(method, ()) for method in variants), key=len)
    return [_front(label, points, floor) for label, points in picked.items()]


def _front(label: str, points: Sequence[FrontPoint], floor: float) -> Front:
    kept = sorted({(point.saved, point.accuracy) for point in points if point.accuracy >= floor})
    return Front(label=label, saved=tuple(saved for saved, _ in kept), accuracy=tuple(accuracy for _, accuracy in kept))


def draw_selectivity(seeds: Sequence[Selectivity]) -> str | None:
    """Draw images that exited and that went on, as answered and at full depth; None where no image exited.

    Bars are means of the seeds, with a line from the lowest to the highest.
    """

    def over(values: Iterable[float | None]) -> Estimate | None:
        known = [value for value in values if value is not None]
        return Estimate(mean=sum(known) / len(known), low=min(known), high=max(known)) if known else None

    pairs = []
    for label, left, stayed in (
        ("with exits", over(s.left_accuracy for s in seeds), over(s.stayed_accuracy for s in seeds)),
        (
            "same images, full depth",
            over(s.full_accuracy_of_left for s in seeds),
            over(s.full_accuracy_of_stayed for s in seeds),
        ),
    ):
        if left is not None and stayed is not None:
            pairs.append(ReleasedAndKept(label=label, left=left, stayed=stayed))
    return selectivity_plot(pairs) if pairs else None
