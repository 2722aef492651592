"""One set of heads serves every merging schedule; gates and thresholds are each schedule's own, points the best of all.

Images are made up: their class shows the better the deeper the block, and merging blurs it a little.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.exits import score
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.fitting import PROMISED, fit_routing, with_promise
from lraee_toolchain.early_exit.outcomes import evaluate
from lraee_toolchain.early_exit.routing import Routing, saved_routing
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material, MergedCosts, Route

LABELS, WIDTH, DEPTH = 4, 16, 6
EXITS = (2, 4)
COSTS = Costs(stem=5, block=100, last=100, exits={"patch_mean": 4}, tail=3, depth=DEPTH)
HALF = MergedCosts(blocks=(90, 70, 55, 45, 40, 30), exits=({"patch_mean": 2},) * DEPTH, tail=3)


def labels() -> np.ndarray:
    """float32 (labels, width), unit rows."""
    directions = np.random.default_rng(99).normal(size=(LABELS, WIDTH))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def material(seed: int, images: int, *, blur: float = 0.0) -> Material:
    """A split; with `blur` its tokens are merged ones of the same images."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, LABELS, images)
    noise = 0.35 * generator.normal(size=(images, WIDTH))
    blurred = noise + blur * generator.normal(size=(images, WIDTH))
    depths = np.linspace(1.4, 0.6, DEPTH)
    mean = np.stack([labels()[classes] + blurred * depth for depth in depths], axis=1).astype(np.float32)
    variance = generator.gamma(4, 1, (images, DEPTH)).astype(np.float32)

    def answered(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        embedding = (labels()[classes] + 0.5 * noise).astype(np.float32)
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
        probabilities = np.exp(10 * embedding @ labels().T)
        return embedding, probabilities / probabilities.sum(axis=1, keepdims=True)

    full, merged = answered(noise), answered(blurred)
    features = Features(mean, None, variance, *(merged if blur else full))
    return Material(features=features, teacher=Teacher(*full), classes=classes, unmerged=full[1] if blur else None)


def routes(*, blur: float) -> list[Route]:
    """Without merging, and under one schedule that halves the FLOPs."""
    splits = {"heads": (0, 400), "gating": (1, 600), "promise": (2, 1500)}
    plain = {name: material(*split) for name, split in splits.items()}
    merged = {name: material(*split, blur=blur) for name, split in splits.items()}
    return [
        Route(costs=COSTS, **plain),
        Route(costs=replace(COSTS, merged=HALF), schedule="merged-41", **merged),
    ]


def fitted(blur: float, **changes: Any) -> tuple[ExitTask, list[Route], Routing]:
    """Heads that learn for a second, exits after `EXITS`."""
    options: dict[str, Any] = {"exits": EXITS, "max_accuracy_drop": 4.0, "merge_tokens": (0.4,), **changes}
    config = ExportConfig(
        model="reference", out=Path("unused.lraee"), reads="patch_mean", heads=HeadTraining(epochs=40), **options
    )
    task = ExitTask(labels=labels(), logit_scale=10.0, costs=COSTS, config=config)
    both = routes(blur=blur)
    return task, both, fit_routing(task, both)


@pytest.fixture(scope="module")
def harmless() -> tuple[ExitTask, list[Route], Routing]:
    """Merging that blurs next to nothing."""
    return fitted(0.02)


def test_heads_are_the_same_and_gates_are_each_routes_own(harmless: Any) -> None:
    """Temperatures too; exits after the same blocks, since they were asked for."""
    _, _, routing = harmless
    plain, merged = routing.exits, routing.exits_under("merged-41")
    assert [exit.block for exit in plain] == [exit.block for exit in merged] == list(EXITS)
    for one, other in zip(plain, merged, strict=True):
        assert one.head is other.head
        assert one.gate != other.gate


def test_points_are_those_that_a_run_under_their_schedule_gives(harmless: Any) -> None:
    """Savings count against all tokens at full depth, differences to its answers."""
    task, both, routing = harmless
    by_schedule = {route.schedule: route for route in both}
    assert routing.points["balanced"].schedule == "merged-41"  # which costs nothing here
    for point in (*routing.points.values(), *routing.front):
        route = by_schedule[point.schedule]
        exits = routing.exits_under(point.schedule)
        scores = score(replace(task, costs=route.costs), exits, route.gating, schedule=point.schedule)
        assert point == evaluate(scores, point.thresholds)
    closed = evaluate(scores, [np.inf] * len(EXITS))
    assert closed.saved == pytest.approx(1 - (5 + sum(HALF.blocks) + 3) / COSTS.full)


def test_both_axes_save_more_than_each_alone(harmless: Any) -> None:
    """At the same budget."""
    task, both, routing = harmless
    depth = fit_routing(task, both[:1]).points["balanced"].saved
    width = 1 - (5 + sum(HALF.blocks) + 3) / COSTS.full
    assert routing.points["balanced"].saved > max(depth, width) + 0.05 > 0.1


def test_merging_that_costs_too_much_is_left_alone() -> None:
    """Where it blurs everything, points with a budget merge nothing."""
    _, _, routing = fitted(1.5)
    assert {routing.points[name].schedule for name in ("balanced", "accurate", "fast")} == {None}


def test_a_promise_holds_under_the_schedule_that_saves_most(harmless: Any) -> None:
    """And where nothing passes the test, nothing is merged and no image leaves."""
    task, both, _ = harmless
    task = replace(task, config=replace(task.config, promise=5.0))
    routing = fit_routing(task, both)
    point = with_promise(task, routing, both).points[PROMISED]
    assert point.schedule == "merged-41"
    assert point.saved > 0.4
    assert point.difference > -0.05
    few = [replace(route, promise=route.promise.rows(np.arange(30))) for route in both]
    closed = with_promise(task, routing, few).points[PROMISED]
    assert (closed.schedule, closed.saved, closed.difference) == (None, 0, 0)


def test_the_manifest_names_exits_and_points_by_schedule(harmless: Any) -> None:
    """Parts of exits end in the schedule's name."""
    task, _, routing = harmless
    saved = saved_routing(task, routing, supervision="labels", information_to_noise={2: 3.0})
    assert [exit.part for exit in saved.exits] == ["exit_02", "exit_04"]
    assert [exit.part for exit in saved.merged["merged-41"]] == ["exit_02_merged-41", "exit_04_merged-41"]
    assert {point.name: point.schedule for point in saved.points} == {
        name: point.schedule for name, point in routing.points.items()
    }
