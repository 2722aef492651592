"""Thresholds chosen with a promise keep it where the truth is known and save what can be saved.

The check of promises lets a valid chooser pass and catches those that only look valid.
"""

import math
import re

import numpy as np
import pytest

from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate
from lraee_toolchain.early_exit.risk.risk_control import (
    images_of,
    last_to_pass,
    propose_sequence,
    risk_controlled_point,
)
from lraee_toolchain.evaluation.risk_check import FALSE_ALARM, Chooser, binomial_limit, check_risk


def blind(seed: int, images: int, *, drop: float) -> ExitScores:
    """One exit whose gate is pure chance: with threshold t, exactly ``(1 - t) * drop`` of accuracy is lost.

    Exit and full depth disagree on a tenth of the images.
    """
    generator = np.random.default_rng(seed)
    kind = generator.random(images)
    lost, rescued = kind < 0.05 + drop / 2, kind > 1 - (0.05 - drop / 2)
    easy = generator.random(images) < 0.9
    good, full_good = np.where(rescued, True, easy & ~lost), np.where(lost, True, easy & ~rescued)
    return make_scores(generator.random((images, 1)), good[:, None], full_good)


def knowing(seed: int, images: int) -> ExitScores:
    """Three exits, each surer and better than the one before; gates that are calibrated; full depth has 90 %."""
    generator = np.random.default_rng(seed)
    ease = generator.beta(4, 1, images)[:, None]
    gate = 1 / (1 + np.exp(-(6 * ease - 2 + np.array([0.0, 0.5, 1.0]) + generator.normal(0, 0.5, (images, 3)))))
    draw = generator.random(images)[:, None]  # one draw for all exits: what is right early mostly stays right
    full_good = (draw[:, 0] < 0.98) & (ease[:, 0] > 0.2 * generator.random(images) + 0.3)
    return make_scores(gate, draw < gate, full_good)


def make_scores(gate: np.ndarray, good: np.ndarray, full_good: np.ndarray) -> ExitScores:
    """With costs that rise with the depth, full depth at 100."""
    exits = gate.shape[1]
    return ExitScores(
        blocks=tuple(range(4, 4 + exits)),
        gate=gate.astype(np.float32),
        good=good.astype(np.float64),
        full_good=full_good.astype(np.float64),
        exit_flops=np.linspace(40, 60, exits) if exits > 1 else np.full(exits, 50.0),
        visit_flops=np.full(exits, 0.5),
        full_flops=100.0,
    )


@pytest.mark.parametrize("epsilon", [0.01, 0.02])
def test_the_true_drop_is_above_epsilon_no_more_often_than_delta(epsilon: float) -> None:
    """Of a blind exit, which loses in proportion to what it lets out: every threshold is a step towards the limit.

    A blind exit is also the worst case for a chooser: whatever looks better on the proposing half is luck.
    """
    repeats, drop, delta = 80, 0.04, 0.2
    broken, open_points = 0, 0
    for seed in range(repeats):
        point = risk_controlled_point(blind(seed, 1600, drop=drop), epsilon=epsilon, delta=delta, seed=seed)
        share_leaving = float(np.clip(1 - point.thresholds[0], 0, 1))
        broken += share_leaving * drop > epsilon
        open_points += share_leaving > 0
    assert broken <= binomial_limit(repeats, delta)
    assert open_points > repeats / 4  # it does not keep its promise by never opening an exit


def test_useful_exits_save_and_keep_the_promise() -> None:
    """On gates like real ones nearly every choice saves a lot; the truth is measured on 50,000 images."""
    truth = knowing(999, 50_000)
    points = [risk_controlled_point(knowing(seed, 3000), epsilon=0.01, delta=0.1, seed=seed) for seed in range(20)]
    drops = [-evaluate(truth, point.thresholds).difference for point in points]
    assert np.mean(np.array(drops) > 0.01) <= binomial_limit(20, 0.1) / 20
    assert np.mean([point.saved for point in points]) > 0.2


def test_all_exits_stay_closed_when_nothing_is_proven() -> None:
    """Two hundred images cannot prove a tenth of a point, and exits that only lose prove nothing at all."""
    few = risk_controlled_point(knowing(0, 200), epsilon=0.001, delta=0.05, seed=0)
    losing = make_scores(np.random.default_rng(0).random((2000, 2)), np.zeros((2000, 2)), np.ones(2000))
    bad = risk_controlled_point(losing, epsilon=0.01, delta=0.1, seed=0)
    for point, exits in ((few, 3), (bad, 2)):
        assert point.thresholds == (math.inf,) * exits
        assert (point.saved, point.difference) == (0, 0)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_next_to_no_images_leave_the_exits_closed(images: int) -> None:
    """Nothing to propose on, or nothing to test on."""
    assert risk_controlled_point(knowing(0, images), epsilon=0.1, delta=0.1, seed=0).saved == 0


def test_without_exits_there_is_only_full_depth() -> None:
    """An export may end without any exit that pays."""
    none = make_scores(np.zeros((50, 0)), np.zeros((50, 0)), np.ones(50))
    assert risk_controlled_point(none, epsilon=0.01, delta=0.1, seed=0).thresholds == ()


def test_the_sequence_goes_from_certain_to_bold() -> None:
    """Each point saves more than the one before, and the certainty falls."""
    pool = knowing(1, 1500)
    sequence = propose_sequence(pool, epsilon=0.01)
    saved = [point.saved for point in sequence]
    certainty = [(p.difference + 0.01) / p.standard_error for p in sequence]
    assert len(sequence) > 5
    assert saved == sorted(saved)
    assert saved[0] > 0
    assert certainty == sorted(certainty, reverse=True)
    assert all(point == evaluate(pool, point.thresholds) for point in sequence)


def test_the_test_stops_at_the_first_point_that_fails() -> None:
    """A later point is not chosen although it would pass: that is what makes many tests one."""
    pool = knowing(2, 3000)
    passing = propose_sequence(pool, epsilon=0.01)[0]
    failing = evaluate(pool, (0.0,) * 3)
    assert last_to_pass([passing], pool, epsilon=0.01, delta=0.1) == passing
    assert last_to_pass([failing, passing], pool, epsilon=0.01, delta=0.1) is None
    assert last_to_pass([passing, failing, passing], pool, epsilon=0.01, delta=0.1) is passing


def test_one_half_proposes_and_the_other_tests_and_all_measure() -> None:
    """An image that has proposed proves nothing."""
    pool = knowing(4, 1001)
    order = np.random.default_rng(7).permutation(1001)
    proposing, testing = images_of(pool, order[:500]), images_of(pool, order[500:])
    passed = last_to_pass(propose_sequence(proposing, epsilon=0.05), testing, epsilon=0.05, delta=0.1)
    assert passed is not None
    point = risk_controlled_point(pool, epsilon=0.05, delta=0.1, seed=7)
    assert point == evaluate(pool, passed.thresholds)
    for first, second in ((pool, testing), (proposing, pool)):
        other = last_to_pass(propose_sequence(first, epsilon=0.05), second, epsilon=0.05, delta=0.1)
        assert other is None or other.thresholds != point.thresholds


def test_the_same_seed_gives_the_same_point() -> None:
    """An export can be repeated."""
    pool = knowing(3, 1000)
    assert risk_controlled_point(pool, epsilon=0.02, delta=0.1, seed=5) == risk_controlled_point(
        pool, epsilon=0.02, delta=0.1, seed=5
    )


@pytest.mark.parametrize(
    ("epsilon", "delta", "message"),
    [(1.0, 0.1, "epsilon is 1.0"), (-0.1, 0.1, "epsilon is -0.1"), (0.01, 0.0, "delta is 0.0")],
)
def test_a_promise_that_cannot_be_is_refused(epsilon: float, delta: float, message: str) -> None:
    """With what was met and what is wanted."""
    with pytest.raises(ValueError, match=re.escape(message) + ".*wanted"):
        risk_controlled_point(knowing(0, 100), epsilon=epsilon, delta=delta, seed=0)


def test_some_images_are_taken_in_their_order() -> None:
    """Gates, answers and full depth together."""
    pool = knowing(4, 10)
    few = images_of(pool, np.array([7, 2]))
    assert few.gate.tolist() == pool.gate[[7, 2]].tolist()
    assert few.good.tolist() == pool.good[[7, 2]].tolist()
    assert few.full_good.tolist() == pool.full_good[[7, 2]].tolist()


def reckless(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
    """Everybody leaves at the first exit."""
    return evaluate(scores, (0.0,) * len(scores.blocks))


def best_by_eye(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
    """What saves most while the measured drop is no more than epsilon: the luck of the images is not thought of."""
    points = (evaluate(scores, (level,) * len(scores.blocks)) for level in np.linspace(0, 1, 101))
    return max((point for point in points if point.difference >= -epsilon), key=lambda point: point.saved)


def test_the_risk_controlled_choice_keeps_its_promise_and_saves() -> None:
    """On a pool like a gating and an evaluation split together."""
    check = check_risk(knowing(0, 3000), epsilon=0.01, delta=0.1, seed=0, repeats=40)
    assert check.kept
    assert check.images == 1500
    assert check.mean_saved > 0.1
    assert check.mean_drop < 0.01
    assert check.closed < 0.5


@pytest.mark.parametrize("choose", [reckless, best_by_eye])
def test_a_chooser_without_a_proof_is_caught(choose: Chooser) -> None:
    """Though what it chose looked good enough on the gating images in the second case."""
    check = check_risk(blind(1, 3000, drop=0.04), epsilon=0.01, delta=0.1, seed=0, repeats=40, choose_point=choose)
    assert not check.kept
    assert check.exceeded > check.limit
    assert check.exceeded_on_pool > check.limit


def test_closed_exits_promise_nothing_and_keep_it() -> None:
    """No drop, no saving."""

    def closed(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
        return evaluate(scores, (math.inf,) * len(scores.blocks))

    check = check_risk(knowing(0, 300), epsilon=0.0, delta=0.1, seed=0, repeats=5, choose_point=closed)
    assert check.kept
    assert (check.exceeded, check.mean_drop, check.mean_saved, check.closed) == (0, 0, 0, 1)


def test_every_repeat_measures_on_images_that_the_chooser_did_not_get() -> None:
    """Each chooser gets other images, half of the pool, and another seed."""
    pool = knowing(0, 200)
    pool.gate[:, 0] = np.arange(200)  # tells images apart
    seen = []

    def spy(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
        seen.append((seed, set(scores.gate[:, 0].tolist())))
        return evaluate(scores, (math.inf,) * len(scores.blocks))

    check = check_risk(pool, epsilon=0.1, delta=0.1, seed=0, repeats=4, choose_point=spy)
    assert check.images == 100
    assert [seed for seed, _ in seen] == [0, 1, 2, 3]
    assert all(len(images) == 100 for _, images in seen)
    assert len({frozenset(images) for _, images in seen}) == 4


@pytest.mark.parametrize(("repeats", "delta"), [(1, 0.1), (20, 0.1), (200, 0.1), (200, 0.05), (50, 0.5)])
def test_luck_exceeds_the_limit_rarely_and_would_exceed_one_less_more_often(repeats: int, delta: float) -> None:
    """Against binomial draws counted in logarithms, which is another formula than the one used."""
    counts = np.arange(repeats + 1)
    logarithm = np.array([math.lgamma(repeats + 1) - math.lgamma(k + 1) - math.lgamma(repeats - k + 1) for k in counts])
    chances = np.exp(logarithm + counts * math.log(delta) + (repeats - counts) * math.log(1 - delta))
    limit = binomial_limit(repeats, delta)
    assert chances[limit + 1 :].sum() <= FALSE_ALARM + 1e-9
    assert chances[limit:].sum() > FALSE_ALARM
