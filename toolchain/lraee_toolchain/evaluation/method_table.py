"""T2: LRA-EE and every other way to spend fewer FLOPs, at the FLOPs that LRA-EE saves.

All methods of `competitors.methods.standard_entries` get the exits that LRA-EE chose, for each seed its own, and are
swept on the same gating split. Others are given more: PABEE also exits after every candidate block, since patience
needs many; LGViT does too, with heads of its own, where all tokens are at hand; token pruning and token merging keep
the whole depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_exporters.graphs.exit import TOKEN_INPUTS, HeadInput
from lraee_exporters.tower import Tower as TowerModel
from lraee_toolchain.competitors.lgvit import lgvit_exits
from lraee_toolchain.competitors.methods import Entry, Searched, Shared, compare, standard_entries
from lraee_toolchain.competitors.pabee import Pabee
from lraee_toolchain.competitors.rules import Method, Outputs, outputs_of
from lraee_toolchain.competitors.token_merging import even_schedule, measure_merged
from lraee_toolchain.competitors.token_pruning import SCORES, measure_pruned
from lraee_toolchain.early_exit.exits import TrainedExit, candidates
from lraee_toolchain.early_exit.outcomes import outcome
from lraee_toolchain.early_exit.routing import Routing
from lraee_toolchain.evaluation.metrics import LRA_EE, AtMatch, ExitAlone, FrontPoint, MethodRow, MethodTable
from lraee_toolchain.evaluation.paper_tables import full_depth
from lraee_toolchain.evaluation.setting import Setting, Tower
from lraee_toolchain.parts.runner import Chain

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Savings on the gating split at which each method's front is drawn."""

TOKEN_LEVELS = (0.15, 0.3, 0.45)
"""Savings at which token pruning and merging are run besides the matched one; each is a run of the whole tower."""

SEARCHED = "lra_ee_free"
"""The entry of `standard_entries` whose thresholds are searched as the bundle's."""
PRUNING, MERGING = "token_pruning", "token_merging"
PABEE_EVERYWHERE = "pabee_everywhere"
LGVIT, LGVIT_FREE = "lgvit", "lgvit_free"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reached:
    """What one method does at one saving."""

    accuracy: float
    saved: float
    """Share of full-depth FLOPs."""
    good: NDArray[np.float64] | None
    """(images,) 1 where the answer is right, at LRA-EE's saving alone: kept for every level it would take memory."""


Levels: TypeAlias = list[Reached | None]
"""One method at LRA-EE's saving and at `LEVELS`; None where it cannot save that much."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runnable:
    """The tower itself with the images of the evaluation split, for methods that drop or merge tokens."""

    tower: TowerModel
    chain: Chain
    parts: Path
    """Folder of the chain's parts."""
    pixels: NDArray[np.uint8]
    """(images, size, size, 3)."""


def measure_methods(
    tower: Tower,
    setting: Setting,
    routings: Sequence[Routing],
    runnable: Runnable,
    information_to_noise: Mapping[int, float],
) -> MethodTable:
    """Measure every method at LRA-EE's saving, and its front.

    Args:
        tower: the precision to compare on.
        setting: labels, costs and options.
        routings: LRA-EE's, one for each seed.
        runnable: the same tower, for token pruning and merging.
        information_to_noise: INR by block, for thresholds that are monotone in it.
    """
    by_seed, rivals_of_seeds = list[dict[str, Levels]](), list[dict[str, Entry]]()
    for seed, routing in enumerate(routings):
        rivals_of_seeds.append(_rivals(tower, setting, routing, seed))
        by_seed.append(_methods_of_seed(tower, setting, routing, seed, (rivals_of_seeds[-1], information_to_noise)))
        setting.advance(1)
    nothing: Levels = [None] * (1 + len(LEVELS))
    names = dict.fromkeys(name for methods in by_seed for name in methods)
    collected = {
        name: [list(level) for level in zip(*(methods.get(name, nothing) for methods in by_seed), strict=True)]
        for name in names
    }
    matched = float(np.mean([found.saved for found in collected[LRA_EE][0] if found is not None]))
    collected[PRUNING] = _pruned(tower, setting, runnable, matched)
    collected[MERGING] = _merged(tower, setting, runnable, matched)
    lra_ee, full = _mean_good(collected[LRA_EE][0]), full_depth(tower).mean
    rows = tuple(
        MethodRow(method=name, front=_front(levels), at_match=_at_match(levels[0], lra_ee, full))
        for name, levels in collected.items()
    )
    return MethodTable(matched=matched, rows=rows, alone=_alone(rivals_of_seeds))


def _methods_of_seed(
    tower: Tower,
    setting: Setting,
    routing: Routing,
    seed: int,
    others: tuple[Mapping[str, Entry], Mapping[int, float]],
) -> dict[str, Levels]:
    """Measure each method at LRA-EE's saving and at `LEVELS`; only LRA-EE itself when it kept no exit.

    Args:
        tower: the precision to compare on.
        setting: labels, costs and options.
        routing: LRA-EE's of this seed.
        seed: of splits and heads.
        others: methods with exits of their own, and INR by block.
    """
    balanced = routing.points["balanced"]
    found = outcome(setting.score(routing.exits, tower.evaluation), balanced.thresholds)
    own: Levels = [_reached(found.good, found.saved), *(None for _ in LEVELS)]
    methods: dict[str, Levels] = {LRA_EE: own}
    if not routing.exits:
        return methods
    rivals, information_to_noise = others
    entries = {**_entries(tower, setting, routing, seed, information_to_noise), **rivals}
    for name, entry in entries.items():
        (outcomes,) = compare({name: entry}, wanted=(balanced.saved, *LEVELS)).values()
        methods[name] = [
            None if one is None else _reached(one.good, one.saved, kept=level == 0)
            for level, one in enumerate(outcomes)
        ]
    own[1:] = methods[SEARCHED][1:]
    return methods


def _reached(good: NDArray[np.float64], saved: float, *, kept: bool = True) -> Reached:
    return Reached(accuracy=float(good.mean()), saved=saved, good=good if kept else None)


def _mean_good(seeds: Levels) -> NDArray[np.float64]:
    """(images,) averaged over the seeds that reach a saving."""
    kept = [found.good for found in seeds if found is not None and found.good is not None]
    return np.asarray(np.mean(kept, axis=0))


def _entries(
    tower: Tower, setting: Setting, routing: Routing, seed: int, information_to_noise: Mapping[int, float]
) -> dict[str, Entry]:
    """Gather the methods that take LRA-EE's exits."""
    heads, gating = setting.divide(tower, seed)
    task, ratios = setting.task_of(tower, seed), [information_to_noise[trained.block] for trained in routing.exits]
    return standard_entries(task, routing.exits, heads, gating, tower.evaluation, information_to_noise=ratios)


def _rivals(tower: Tower, setting: Setting, routing: Routing, seed: int) -> dict[str, Entry]:
    """Gather the methods that exit after every candidate block."""
    heads, gating = splits = setting.divide(tower, seed)
    task, blocks = setting.task_of(tower, seed), candidates("auto", setting.costs.depth)
    reads: HeadInput = "both" if setting.config.reads == "auto" else setting.config.reads
    if [found.block for found in routing.candidates] == list(blocks):
        everywhere = list(routing.candidates)  # of the same seed and images
    else:
        everywhere = setting.train(tower, splits, blocks, reads, seed)

    def entry(method: Method, outputs: tuple[Outputs, Outputs]) -> Entry:
        return Entry(method=method, gating=outputs[0], evaluation=outputs[1])

    def both(exits: Sequence[TrainedExit]) -> tuple[Outputs, Outputs]:
        return outputs_of(task, exits, gating), outputs_of(task, exits, tower.evaluation)

    rivals = {PABEE_EVERYWHERE: entry(Pabee(), both(everywhere))}
    if setting.config.reads in TOKEN_INPUTS:
        found = both(lgvit_exits(task, heads, gating, blocks, everywhere))
        rivals |= {LGVIT: entry(Shared("confidence"), found), LGVIT_FREE: entry(Searched("confidence"), found)}
    return rivals


def _alone(seeds: Sequence[Mapping[str, Entry]]) -> tuple[ExitAlone, ...]:
    """Measure every exit of `_rivals` alone on the evaluation split."""
    met: dict[tuple[HeadInput, int], list[float]] = {}
    for rivals in seeds:
        of_seed: dict[tuple[HeadInput, int], float] = {}
        for name in (PABEE_EVERYWHERE, LGVIT):
            if (entry := rivals.get(name)) is not None:
                scores = entry.evaluation.scores
                places = zip(entry.evaluation.reads, scores.blocks, strict=True)
                of_seed |= dict(zip(places, scores.good.mean(axis=0).tolist(), strict=True))
        for place, share in of_seed.items():
            met.setdefault(place, []).append(share)
    return tuple(
        ExitAlone(reads=reads, block=block, per_seed=tuple(shares)) for (reads, block), shares in sorted(met.items())
    )


def _pruned(tower: Tower, setting: Setting, runnable: Runnable, matched: float) -> list[Levels]:
    """Run token pruning at the matched saving and at `TOKEN_LEVELS`; nothing is trained, so there are no seeds.

    Of its scores the best at each saving is taken, on the evaluation images themselves.
    """
    classes = tower.evaluation.classes
    assert classes is not None
    images, rows = (runnable.pixels, classes), list[Levels]()
    for saved in (matched, *TOKEN_LEVELS):
        found = [
            measure_pruned(runnable.chain, runnable.parts, runnable.tower, images, saved=saved, score=score)
            for score in SCORES
        ]
        best = max(found, key=lambda pruned: float(pruned.good.mean()))
        rows.append([_reached(best.good, best.saved) if best.saved >= saved - 0.05 else None])
        setting.advance(1)
    return rows


def _merged(tower: Tower, setting: Setting, runnable: Runnable, matched: float) -> list[Levels]:
    """Run even token merging at the matched saving and at `TOKEN_LEVELS`; nothing is trained, so there are no seeds."""
    classes = tower.evaluation.classes
    assert classes is not None
    rows: list[Levels] = []
    for saved in (matched, *TOKEN_LEVELS):
        found: Reached | None = None
        if (schedule := even_schedule(runnable.tower, saved)) is not None:
            images = runnable.pixels, classes
            merged = measure_merged(runnable.chain, runnable.parts, runnable.tower, images, schedule)
            found = _reached(merged.good, merged.saved)
        rows.append([found])
        setting.advance(1)
    return rows


def _front(levels: Sequence[Levels]) -> tuple[FrontPoint, ...]:
    """Average the seeds at each saving that the method reaches with all of them."""
    front = []
    for level in levels:
        found = [seed for seed in level if seed is not None]
        if len(found) == len(level):
            saved, accuracy = (np.mean(values) for values in zip(*((s.saved, s.accuracy) for s in found), strict=True))
            front.append(FrontPoint(saved=float(saved), accuracy=float(accuracy)))
    return tuple(sorted(front, key=lambda point: point.saved))


def _at_match(seeds: Levels, lra_ee: NDArray[np.float64], full: NDArray[np.float64]) -> AtMatch | None:
    """Summarize one method at LRA-EE's saving."""
    found = [seed for seed in seeds if seed is not None]
    if len(found) < len(seeds):
        return None
    good, saved = _mean_good(seeds), [seed.saved for seed in found]
    return AtMatch(
        accuracy=mean_over_images(good),
        flops_saved=float(np.mean(saved)),
        flops_saved_std=float(np.std(saved)),
        difference_to_lra_ee=mean_over_images(good - lra_ee),
        difference_to_int8=mean_over_images(good - full),
    )
