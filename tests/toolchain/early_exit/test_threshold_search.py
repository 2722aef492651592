"""Thresholds: an outcome is what a plain loop says, the search finds the best, exits that do not pay are dropped."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate, outcome, pareto_front
from lraee_toolchain.early_exit.threshold_search import LAGRANGE_WEIGHTS, choose, choose_exits, search

LEVELS = (0.1, 0.4, 0.7, 0.9)


def make_scores(seed: int, images: int = 60, exits: int = 2) -> ExitScores:
    """Gates of four levels that know something of what is good, and costs that rise with the depth.

    Of odd seeds, a schedule merges tokens: the end costs less, and is right about others than full depth.
    """
    generator = np.random.default_rng(seed)
    gate = generator.choice(LEVELS, (images, exits)).astype(np.float32)
    merges = seed % 2 == 1
    return ExitScores(
        merged_good=(np.random.default_rng(seed).random(images) < 0.7).astype(np.float64) if merges else None,
        merged_flops=85.0 if merges else None,
        blocks=tuple(range(3, 3 + exits)),
        gate=gate,
        good=(generator.random((images, exits)) < 0.4 + 0.5 * gate).astype(np.float64),
        full_good=(generator.random(images) < 0.75).astype(np.float64),
        exit_flops=np.linspace(30, 80, exits) if exits else np.zeros(0),
        visit_flops=np.full(exits, 2.0),
        full_flops=100.0,
    )


def by_loop(scores: ExitScores, thresholds: tuple[float, ...]) -> tuple[list[float], list[float], list[int]]:
    """Image by image and exit by exit, as the orchestrator walks."""
    good, flops, where = [], [], []
    for image in range(len(scores.full_good)):
        spent = 0.0
        for position, threshold in enumerate(thresholds):
            if math.isinf(threshold):
                continue
            spent += scores.visit_flops[position]
            if scores.gate[image, position] >= np.float32(threshold):
                good.append(scores.good[image, position])
                flops.append(scores.exit_flops[position] + spent)
                where.append(position)
                break
        else:
            good.append(scores.end_good[image])
            flops.append(scores.end_flops + spent)
            where.append(len(thresholds))
    return good, flops, where


threshold = st.one_of(st.sampled_from([*LEVELS, math.inf]), st.floats(0, 1))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), thresholds=st.lists(threshold, min_size=0, max_size=5))
def test_an_outcome_is_what_a_loop_over_images_and_exits_says(seed: int, thresholds: list[float]) -> None:
    """Who leaves where, what it cost with every open exit visited on the way, and whether it was good."""
    scores = make_scores(seed, images=25, exits=len(thresholds))
    good, flops, where = by_loop(scores, tuple(thresholds))
    found = outcome(scores, thresholds)
    np.testing.assert_array_equal(found.good, good)
    np.testing.assert_allclose(found.flops, flops, rtol=1e-12)
    np.testing.assert_array_equal(found.where, where)
    assert found.saved == pytest.approx(1 - np.mean(flops) / 100)
    point = evaluate(scores, thresholds)
    difference = np.array(good) - scores.full_good
    assert point.accuracy == pytest.approx(np.mean(good))
    assert point.saved == pytest.approx(1 - np.mean(flops) / 100)
    assert point.difference == pytest.approx(difference.mean())
    unseen = scores.merged_good is not None or any(exit < len(thresholds) for exit in where)
    assert point.standard_error == pytest.approx(math.sqrt(25 * difference.var() + unseen) / 25)


def test_closed_exits_cost_nothing() -> None:
    """Full depth with every exit closed saves exactly nothing; a visit that nobody uses costs its FLOPs."""
    scores = make_scores(0)
    assert evaluate(scores, (math.inf, math.inf)).saved == 0
    assert evaluate(scores, (math.inf, 1.5)).saved == pytest.approx(-0.02)


@pytest.mark.parametrize("exits", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_up_to_three_exits_no_combination_is_better_than_what_is_found(exits: int, seed: int) -> None:
    """For every Lagrange weight the best of all combinations of gate levels is found; others decide the same."""
    scores = make_scores(seed, exits=exits)
    everything = [evaluate(scores, combination) for combination in itertools.product([*LEVELS, math.inf], repeat=exits)]
    found = search(scores)
    for weight in LAGRANGE_WEIGHTS:
        best = max(point.accuracy + weight * point.saved for point in everything)
        assert max(point.accuracy + weight * point.saved for point in found) >= best - 1e-9


@pytest.mark.parametrize("loss_weight", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_losses_that_count_more_are_searched_for_too(seed: int, loss_weight: float) -> None:
    """A loss is an image that only full depth gets right; for every Lagrange weight the best is found."""
    scores = make_scores(seed)

    def value(thresholds: tuple[float, ...], weight: float) -> float:
        found = outcome(scores, thresholds)
        losses = (scores.full_good > found.good).mean()
        return float(found.good.mean() - (loss_weight - 1) * losses + weight * found.saved)

    everything = list(itertools.product([*LEVELS, math.inf], repeat=2))
    found = [point.thresholds for point in search(scores)]
    for weight in LAGRANGE_WEIGHTS:
        assert max(value(t, weight) for t in found) >= max(value(t, weight) for t in everything) - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_above_three_exits_the_ascent_comes_close_to_the_best(seed: int) -> None:
    """Within two images of a hundred, for every Lagrange weight, on gates that are mostly noise."""
    scores = make_scores(seed, images=100, exits=4)
    everything = [evaluate(scores, combination) for combination in itertools.product([*LEVELS, math.inf], repeat=4)]
    found = search(scores)
    for weight in LAGRANGE_WEIGHTS:
        best = max(point.accuracy + weight * point.saved for point in everything)
        assert max(point.accuracy + weight * point.saved for point in found) >= best - 0.02


def test_every_point_that_is_found_says_what_its_thresholds_do() -> None:
    """The search weighs losses more; what it reports is measured plainly. The first point is full depth."""
    scores = make_scores(1)
    found = search(scores)
    for point in found:
        assert point == evaluate(scores, point.thresholds)
    assert [point.saved for point in found] == sorted(point.saved for point in found)
    assert (math.inf, math.inf) in [point.thresholds for point in found]


def test_without_exits_there_is_only_full_depth() -> None:
    """An export may end without any exit that pays."""
    scores = make_scores(0, exits=0)
    (point,) = search(scores)
    assert (point.thresholds, point.saved, point.accuracy) == ((), 0.0, scores.full_good.mean())


def make_point(accuracy: float, saved: float, *, error: float = 0.0) -> Point:
    """A point relative to a full depth of 0.8."""
    return Point(thresholds=(0.5,), accuracy=accuracy, saved=saved, difference=accuracy - 0.8, standard_error=error)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12))
def test_a_front_holds_exactly_the_points_that_none_beats(pairs: list[tuple[float, float]]) -> None:
    """Every other is worse in both, or equal in one and worse in the other; the front rises in saving."""
    points = [make_point(accuracy, saved) for accuracy, saved in pairs]
    front = pareto_front(points)
    for point in points:
        beaten = any(
            other.accuracy >= point.accuracy and other.saved >= point.saved and other != point for other in points
        )
        assert (point in front) == (not beaten)
    assert [p.saved for p in front] == sorted({p.saved for p in front})


def test_a_difference_is_believed_less_three_standard_errors() -> None:
    """It was the best of many."""
    assert make_point(0.79, 0.2, error=0.01).safe_difference == pytest.approx(-0.04)


def test_the_choice_saves_most_within_the_drop() -> None:
    """A budget of two points, with and without doubt about the difference."""
    points = [make_point(0.8, 0.0), make_point(0.79, 0.2), make_point(0.785, 0.3, error=0.01), make_point(0.7, 0.6)]
    assert choose(points, max_drop=0.02, safe=False) is points[2]
    assert choose(points, max_drop=0.02) is points[1]
    assert choose(points, max_drop=0.0) is points[0]
    assert choose(points[1:], max_drop=0.0) is None
    assert choose(points) is points[3]


def test_the_choice_loses_least_at_a_saving() -> None:
    """`min_saved` replaces the budget; None where no point saves as much."""
    points = [make_point(0.8, 0.0), make_point(0.79, 0.2), make_point(0.75, 0.3), make_point(0.78, 0.35, error=0.02)]
    assert choose(points, max_drop=0.0, min_saved=0.1) is points[1]
    assert choose(points, min_saved=0.3) is points[2]
    assert choose(points, min_saved=0.3, safe=False) is points[3]
    assert choose(points, min_saved=0.9) is None


def with_agreement(scores: ExitScores, seed: int = 5) -> ExitScores:
    """Where an answer is right and that of full depth was too, it agrees with FP32; others do at random."""
    chance = np.random.default_rng(seed).random(scores.good.shape) < 0.3
    agrees = np.where(scores.good * scores.full_good[:, None] > 0, 1.0, chance.astype(np.float64))
    merged = None if scores.merged_good is None else scores.merged_good * scores.full_good
    twin = replace(scores, good=agrees, full_good=np.ones(len(agrees)), merged_good=merged)
    return replace(scores, agreement=twin)


@pytest.mark.parametrize("seed", range(4))
def test_a_steady_difference_counts_right_answers_and_agreement_alike(seed: int) -> None:
    """Also of some images and some exits; the plain difference stays what it was."""
    scores = with_agreement(make_scores(seed, exits=3)).rows(np.arange(10, 50)).subset([0, 2])
    assert scores.agreement is not None
    for thresholds in itertools.product([*LEVELS, math.inf], repeat=2):
        right, agrees = (evaluate(replace(one, agreement=None), thresholds) for one in (scores, scores.agreement))
        met = evaluate(scores, thresholds)
        assert met.difference == right.difference
        assert met.steady_difference == pytest.approx((right.difference + agrees.difference) / 2)
        assert evaluate(scores.steady, thresholds).difference == pytest.approx(met.steady_difference)
        assert evaluate(scores.steady, thresholds).standard_error == pytest.approx(met.steady[1] if met.steady else 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_in_steady_difference_is_searched_for(seed: int) -> None:
    """For every Lagrange weight the best of all combinations is found; without agreement the two are the same."""
    scores = with_agreement(make_scores(seed, exits=2))
    everything = [evaluate(scores, combination) for combination in itertools.product([*LEVELS, math.inf], repeat=2)]
    found = search(scores)
    for weight in LAGRANGE_WEIGHTS:
        best = max(point.steady_difference + weight * point.saved for point in everything)
        assert max(point.steady_difference + weight * point.saved for point in found) >= best - 1e-9
    plain = make_point(0.79, 0.2, error=0.01)
    assert (plain.steady_difference, plain.safe_steady_difference) == (plain.difference, plain.safe_difference)


def test_where_a_saving_is_asked_for_rescues_count_half() -> None:
    """Of two points that save alike, the one that keeps FP32's answers is taken before one that is luckier."""
    lucky = replace(make_point(0.82, 0.3), steady=(-0.02, 0.001))
    faithful = replace(make_point(0.80, 0.3), steady=(-0.01, 0.001))
    assert choose([lucky, faithful], min_saved=0.3) is faithful
    assert choose([lucky, faithful], min_saved=0.3, safe=False) is faithful
    assert choose([lucky, faithful], max_drop=0.0) is lucky  # a budget is one of right answers


def test_gaps_of_the_search_are_filled() -> None:
    """An exit that pays for no weight but a large one: no point is the best between full depth and all images."""
    images = 400
    rank = np.arange(images) / images
    scores = ExitScores(
        blocks=(2,),
        gate=rank.astype(np.float32)[:, None],
        good=np.tile([1.0, 0.0], images // 2)[:, None],  # half right, whatever the gate says
        full_good=np.ones(images),
        exit_flops=np.array([20.0]),
        visit_flops=np.zeros(1),
        full_flops=100.0,
    )
    saved = [point.saved for point in search(scores)]
    assert max(np.diff(saved)) < 0.12
    for share in (0.1, 0.3, 0.5):
        point = choose(search(scores), min_saved=share)
        assert point is not None
        assert point.saved < share + 0.12
        assert point.difference == pytest.approx(-point.saved / 0.8 / 2, abs=0.01)


def useful_and_useless(images: int = 800) -> ExitScores:
    """Exit 0 knows when it is right, exit 1 knows nothing, exit 2 is exit 0 again but deeper."""
    generator = np.random.default_rng(0)
    easy = generator.random(images) < 0.6
    gate = np.stack([np.where(easy, 0.95, 0.05), generator.random(images), np.where(easy, 0.95, 0.05)], axis=1)
    good = np.stack([easy, generator.random(images) < 0.3, easy], axis=1)
    return ExitScores(
        blocks=(4, 6, 8),
        gate=gate.astype(np.float32),
        good=good.astype(np.float64),
        full_good=np.ones(images),
        exit_flops=np.array([40.0, 60.0, 80.0]),
        visit_flops=np.full(3, 1.0),
        full_flops=100.0,
    )


@pytest.mark.parametrize(("drop", "saving"), [(0.01, None), (0.02, None), (0.02, 0.3)])
def test_exits_that_gain_nothing_are_dropped(drop: float, saving: float | None) -> None:
    """Of three exits only the one that knows when it is right, and early, is kept."""
    assert choose_exits(useful_and_useless(), max_drop=drop, min_saved=saving, most=5) == [0]


def test_no_exit_is_kept_where_none_pays() -> None:
    """When every way out loses accuracy that may not be lost."""
    scores = useful_and_useless().subset([1])
    assert choose_exits(scores, max_drop=0.0, min_saved=None, most=5) == []


def test_no_more_exits_are_kept_than_asked_for() -> None:
    """Whatever more would gain."""
    generator = np.random.default_rng(1)
    group = generator.integers(0, 4, 900)
    knows = np.stack([group == k for k in range(3)], axis=1)
    scores = ExitScores(
        blocks=(2, 3, 4),
        gate=np.where(knows, 0.9, 0.1).astype(np.float32),
        good=knows.astype(np.float64),
        full_good=np.ones(900),
        exit_flops=np.array([20.0, 30.0, 40.0]),
        visit_flops=np.full(3, 0.5),
        full_flops=100.0,
    )
    kept = [choose_exits(scores, max_drop=0.01, min_saved=None, most=most) for most in (1, 2, 3, 5)]
    assert [len(exits) for exits in kept] == [1, 2, 3, 3]
    assert kept[0] == [0]
