"""Methods are compared at the same saving, on images that chose nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee_exporters.graphs.exit import HEAD_INPUTS
from lraee_toolchain.competitors.class_based import ByClass, ClassBased
from lraee_toolchain.competitors.methods import Entry, Searched, Shared, at_saving, compare, standard_entries, sweep
from lraee_toolchain.competitors.monotone import SLOPES, Monotone, scaled_information
from lraee_toolchain.competitors.pabee import ByPatience, Pabee
from lraee_toolchain.competitors.rules import ByScore, Outputs, outputs_of, point_of, route
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.class_thresholds import class_ease, scaled, separation
from lraee_toolchain.early_exit.exits import TrainedExit, answers_of, best_exits, score, train_exits
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.fitting import fit_routing, with_class_thresholds, with_promise
from lraee_toolchain.early_exit.gates import fit_gate, gate_features, gate_values
from lraee_toolchain.early_exit.heads import head_embeddings, head_input, quantize_head
from lraee_toolchain.early_exit.outcomes import evaluate
from lraee_toolchain.early_exit.risk.risk_control import risk_controlled_point
from lraee_toolchain.early_exit.routing import Routing
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material, Route
from lraee_toolchain.early_exit.threshold_search import search

LABELS, WIDTH, DEPTH = 4, 16, 6
COSTS = Costs(stem=5, block=100, last=100, exits=dict.fromkeys(HEAD_INPUTS, 4), tail=3, depth=DEPTH)
EXITS = (2, 3, 5)


def text() -> np.ndarray:
    """float32 (labels, width), unit rows."""
    directions = np.random.default_rng(99).normal(size=(LABELS, WIDTH))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def material(seed: int, images: int) -> Material:
    """Images whose class shows the better the deeper the block, and the first class better than the last."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, LABELS, images)
    signal = text()[classes]
    noise = (0.1 + 0.1 * classes)[:, None] * generator.normal(size=(images, WIDTH))
    depths = np.linspace(2.0, 0.6, DEPTH)
    mean = np.stack([signal + noise * depth for depth in depths], axis=1).astype(np.float32)
    embedding = (signal + 0.5 * noise).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    probabilities = np.exp(10 * embedding @ text().T)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    token = mean + generator.normal(0, 0.3, mean.shape).astype(np.float32)
    variance = generator.gamma(4, 1, (images, DEPTH)).astype(np.float32)
    features = Features(mean, token, variance, embedding, probabilities)
    return Material(features=features, teacher=Teacher(embedding, probabilities), classes=classes.astype(np.int64))


def one_route(task: ExitTask, heads: Material, gating: Material, promise: Material | None = None) -> list[Route]:
    """Nothing is merged."""
    return [Route(costs=task.costs, heads=heads, gating=gating, promise=promise)]


@pytest.fixture(scope="module")
def heads() -> Material:
    """What heads learn from."""
    return material(0, 600)


@pytest.fixture(scope="module")
def splits() -> tuple[Material, Material]:
    """Gating and evaluation."""
    return material(1, 500), material(2, 400)


@pytest.fixture(scope="module")
def task() -> ExitTask:
    """Heads in float that learn for a second."""
    config = ExportConfig(model="reference", out=Path("unused.lraee"), heads=HeadTraining(epochs=8))
    return ExitTask(labels=text(), logit_scale=10.0, costs=COSTS, config=config, int8=False)


def told(task: ExitTask, **options: object) -> ExitTask:
    """The task with other options of the export."""
    return replace(task, config=replace(task.config, **options))


@pytest.fixture(scope="module")
def exits(task, heads, splits) -> list[TrainedExit]:
    """Trained after blocks 2, 3 and 5."""
    return train_exits(task, heads, splits[0], EXITS, reads="patch_mean")


@pytest.fixture(scope="module")
def gating(task, exits, splits) -> Outputs:
    """What these exits say of the gating split."""
    return outputs_of(task, exits, splits[0])


@pytest.fixture(scope="module")
def entries(task, exits, heads, splits) -> dict[str, Entry]:
    """All methods."""
    return standard_entries(task, exits, heads, *splits, information_to_noise=[9.0, 4.0, 1.0])


def test_outputs_are_what_the_exits_answer(task, exits, splits, gating) -> None:
    """Labels, probabilities and gates are those that heads and gates give one by one."""
    for position, trained in enumerate(exits):
        answers = answers_of(task, trained, splits[0].features)
        np.testing.assert_array_equal(gating.predicted[:, position], answers.probabilities.argmax(axis=1))
        np.testing.assert_array_equal(gating.confidence[:, position], answers.probabilities.max(axis=1))
        np.testing.assert_array_equal(gating.scores.gate[:, position], answers.gate)
        exact = -(answers.probabilities.astype(np.float64) * np.log(answers.probabilities)).sum(axis=1)
        np.testing.assert_allclose(gating.entropy[:, position], exact, atol=1e-5)
    np.testing.assert_array_equal(gating.scores.good, score(task, exits, splits[0]).good)


def test_every_method_is_swept_chosen_and_applied(entries) -> None:
    """At least the wanted saving on the gating split; the result is what the evaluation split gives."""
    wanted = (0.1, 0.3)
    rows = compare(entries, wanted=wanted)
    assert rows.keys() == entries.keys()
    assert len(rows) == 11
    for name, outcomes in rows.items():
        entry = entries[name]
        swept = sweep(entry.method, entry.gating)
        assert [s.point.saved for s in swept] == sorted(s.point.saved for s in swept)
        for share, found in zip(wanted, outcomes, strict=True):
            chosen = at_saving(swept, share)
            if chosen is None:
                assert max(s.point.saved for s in swept) < share
                assert found is None
                continue
            assert chosen.point.saved >= share
            assert chosen.point == point_of(chosen.rule, entry.gating)
            there = point_of(chosen.rule, entry.evaluation)
            assert found.good.shape == found.flops.shape == (400,)
            assert (found.good.mean(), found.saved) == pytest.approx((there.accuracy, there.saved))
    assert sum(at_30 is not None and at_30.good.mean() > 0.6 for _, at_30 in rows.values()) >= 8


def test_only_cls_ee_has_heads_of_its_own(entries) -> None:
    """All others share one table of outputs."""
    tables = {id(entry.gating): [] for entry in entries.values()}
    for name, entry in entries.items():
        tables[id(entry.gating)].append(name)
    assert sorted(map(len, tables.values())) == [1, 10]
    assert ["cls_ee"] in tables.values()


def test_without_information_to_noise_there_is_no_monotone_row(task, exits, heads, splits) -> None:
    """It cannot be made up."""
    assert "lra_ee_monotone" not in standard_entries(task, exits, heads, *splits)


def test_a_saving_that_no_rule_reaches_gives_nothing(gating) -> None:
    """Not the next best thing."""
    swept = sweep(Shared("confidence"), gating)
    assert at_saving(swept, 0.99) is None
    best = at_saving(swept, 0.2)
    assert best is not None
    assert best.point.safe_difference == max(s.point.safe_difference for s in swept if s.point.saved >= 0.2)


def test_the_free_search_on_the_gate_is_the_bundles_own(gating) -> None:
    """Same thresholds, and points that say the same."""
    swept = sweep(Searched("gate"), gating)
    assert [s.rule.thresholds for s in swept] == [point.thresholds for point in search(gating.scores)]
    assert [replace(point, thresholds=()) for point in search(gating.scores)] == [s.point for s in swept]


@pytest.mark.parametrize("kind", ["gate", "confidence", "entropy"])
def test_one_threshold_spans_from_everybody_leaving_to_hardly_anybody(gating, kind) -> None:
    """The same at all exits."""
    swept = sweep(Shared(kind), gating)
    assert all(len(set(s.rule.thresholds)) == 1 for s in swept)
    assert (route(swept[-1].rule, gating).where == 0).all()
    assert (route(swept[0].rule, gating).where == 3).mean() > 0.9


def test_pabee_tries_every_patience(gating) -> None:
    """Up to agreement of all exits."""
    assert Pabee().rules(gating) == [ByPatience(1), ByPatience(2)]


def test_easy_classes_get_lower_thresholds(task, exits, heads, gating) -> None:
    """The first class was made easier than the last; equal limits are one threshold for all."""
    ease = class_ease(task, exits, heads)
    assert ease.shape == (LABELS,)
    assert ease[0] > ease[-1]
    rules = ClassBased(ease).rules(gating)
    for rule in rules:
        thresholds = np.array(rule.thresholds)
        assert (np.diff(thresholds[np.argsort(ease)]) <= 1e-12).all()
    assert any(len(set(rule.thresholds)) == 1 for rule in rules)
    same = next(rule for rule in rules if len(set(rule.thresholds)) == 1)
    plain = ByScore("confidence", (same.thresholds[0],) * 3)
    assert route(same, gating).where.tolist() == route(plain, gating).where.tolist()


def test_the_ease_of_a_class_is_over_its_own_images_and_all_exits(task, exits, heads) -> None:
    """Against a loop; a class without images is as hard as can be."""
    few = heads.rows(np.flatnonzero(heads.classes != 2))
    means = np.zeros((LABELS, LABELS))
    for label in (0, 1, 3):
        own = few.rows(np.flatnonzero(few.classes == label))
        means[label] = np.mean([answers_of(task, e, own.features).probabilities.mean(axis=0) for e in exits], axis=0)
    ease = class_ease(task, exits, few)
    np.testing.assert_allclose(ease, separation(means), atol=1e-6)
    assert ease[2] == 0


def test_without_classes_the_float_towers_label_counts(task, exits, heads) -> None:
    """Label-free exports can have thresholds by class too."""
    free = replace(heads, classes=None)
    named = replace(heads, classes=heads.teacher.probabilities.argmax(axis=1))
    assert class_ease(task, exits, free).tolist() == class_ease(task, exits, named).tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 0.5), st.floats(0.5, 1))
def test_scaled_thresholds_stay_within_their_limits(ease: list[float], low: float, high: float) -> None:
    """Whatever classes are like; the easiest has the lower limit."""
    thresholds = scaled(np.array(ease), low=low, high=high)
    assert (thresholds >= low - 1e-9).all()
    assert (thresholds <= high + 1e-9).all()
    assert thresholds[int(np.argmax(ease))] == pytest.approx(low)


def test_monotone_thresholds_fall_as_information_rises(gating) -> None:
    """In the order of INR, whatever the order of the blocks; closed exits are those that nobody would leave by."""
    rules = Monotone((2.0, 9.0, 5.0)).rules(gating)
    for rule in rules:
        least, most, middle = rule.thresholds
        finite = [t for t in (least, middle, most) if np.isfinite(t)]
        assert finite == sorted(finite, reverse=True)
        closed = ~np.isfinite(rule.thresholds)
        below = [gating.scores.gate[:, exit].max() for exit in np.flatnonzero(~closed)]
        assert all(top >= np.float32(t) for top, t in zip(below, np.array(rule.thresholds)[~closed], strict=True))
    assert len(rules) > 5 * len(SLOPES)


def test_without_a_slope_it_is_one_threshold(gating) -> None:
    """Two numbers include the one-number rule."""
    rules = Monotone((1.0, 2.0, 3.0)).rules(gating)
    assert sum(len({t for t in rule.thresholds if np.isfinite(t)}) == 1 for rule in rules) > 20


def test_equal_information_gives_equal_thresholds() -> None:
    """There is nothing to scale."""
    assert scaled_information([3.0, 3.0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("ratios", [[1.0, 0.0], [1.0, -2.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_information_that_is_no_ratio_is_refused(ratios: list[float]) -> None:
    """Zero information has no logarithm."""
    with pytest.raises(ValueError, match="wanted finite ratios above 0"):
        scaled_information(ratios)


def test_information_for_another_number_of_exits_is_refused(gating) -> None:
    """With both numbers."""
    with pytest.raises(ValueError, match="there are 2 INR for 3 exits"):
        Monotone((1.0, 2.0)).rules(gating)


def test_a_gate_is_fitted_to_and_judges_by_what_its_exit_says(task, exits, splits) -> None:
    """Probabilities at the exit's temperature, and the variance after its own block."""
    features = splits[0].features
    for trained in exits:
        answers = answers_of(task, trained, features)
        variance = features.variance[:, trained.block - 1]
        met = gate_features(answers.probabilities, variance)
        fitted = fit_gate(met, splits[0].good(answers.probabilities))
        np.testing.assert_allclose(fitted.weights, trained.gate.weights, rtol=1e-4)
        np.testing.assert_allclose(answers.gate, gate_values(trained.gate, met), rtol=1e-6)


def test_heads_of_an_int8_export_are_quantized(task, exits, heads, splits) -> None:
    """As they will run."""
    int8 = train_exits(replace(task, int8=True), heads, splits[0], EXITS, reads="patch_mean")
    for plain, quantized in zip(exits, int8, strict=True):
        wanted = quantize_head(plain.head, [head_input(heads.features, plain.block, "patch_mean")])
        probe = head_input(splits[1].features, plain.block, "patch_mean")
        np.testing.assert_allclose(head_embeddings(quantized.head, probe), head_embeddings(wanted, probe), atol=1e-5)
        assert not np.allclose(head_embeddings(quantized.head, probe), head_embeddings(plain.head, probe), atol=1e-5)


def test_every_exit_reads_what_answers_best_there(task, heads, splits) -> None:
    """Each on its own, among heads that were trained alike."""
    by_input = [train_exits(task, heads, splits[0], EXITS, reads=reads) for reads in ("patch_mean", "cls", "both")]
    best = best_exits(task, heads, splits[0], EXITS)
    assert [trained.accuracy for trained in best] == [
        max(t.accuracy for t in each) for each in zip(*by_input, strict=True)
    ]
    assert min(t.accuracy for t in by_input[1]) < min(t.accuracy for t in best)


def test_a_routing_keeps_the_exits_that_pay_or_those_that_were_asked_for(task, heads, splits) -> None:
    """And all of them where the weights are random, which cannot tell."""
    task = told(task, reads="patch_mean")
    chosen = fit_routing(told(task, max_accuracy_drop=2.0), one_route(task, heads, splits[0]), blocks=EXITS)
    assert 0 < len(chosen.exits) < len(EXITS)
    scores = score(task, chosen.exits, splits[0])
    for point in (*chosen.front, *chosen.points.values()):
        assert point == evaluate(scores, point.thresholds)
    assert chosen.points["balanced"].safe_difference >= -0.02
    assert any(name.startswith("saves-") for name in chosen.points)
    asked = fit_routing(told(task, exits=EXITS), one_route(task, heads, splits[0]))
    assert tuple(trained.block for trained in asked.exits) == EXITS
    random = fit_routing(replace(task, is_random=True), one_route(task, heads, splits[0]), blocks=EXITS)
    assert tuple(trained.block for trained in random.exits) == EXITS
    assert set(random.points) == {"balanced", "accurate", "fast"}


def test_a_routing_keeps_every_candidate_as_it_would_be_trained_alone(task, heads, splits) -> None:
    """So that methods which exit everywhere need not train them again."""
    task = told(task, reads="patch_mean", max_accuracy_drop=2.0)
    routing = fit_routing(task, one_route(task, heads, splits[0]), blocks=EXITS)
    again = train_exits(task, heads, splits[0], EXITS, reads="patch_mean")
    assert [(one.block, one.accuracy, one.gate) for one in routing.candidates] == [
        (one.block, one.accuracy, one.gate) for one in again
    ]
    assert set(routing.exits) < set(routing.candidates)


def test_a_promise_is_proved_on_its_own_images_and_keeps_the_other_points(task, heads, splits) -> None:
    """In percent of accuracy, with the confidence that was asked for."""
    task = told(task, reads="patch_mean", exits=(3,), promise=5.0, promise_confidence=0.9, seed=4)
    routing = fit_routing(task, one_route(task, heads, splits[0]))
    promised = with_promise(task, routing, one_route(task, heads, splits[0], splits[1]))
    scores = score(task, routing.exits, splits[1])
    wanted = risk_controlled_point(scores, epsilon=0.05, delta=1 - 0.9, seed=4)
    assert promised.points == {**routing.points, "promised": wanted}


def test_class_thresholds_add_the_point_that_saves_most_within_the_budget(task, heads, splits, gating) -> None:
    """Of all tables by class on the gate, at six decimals; the other points stay, and full depth is the reference."""
    task = told(task, reads="patch_mean", exits=EXITS, max_accuracy_drop=10.0)
    routing = fit_routing(task, one_route(task, heads, splits[0]))
    added = with_class_thresholds(task, routing, heads, splits[0])
    assert {name: point for name, point in added.points.items() if name != "per-class"} == routing.points
    point = added.points["per-class"]
    assert point.per_class is not None
    assert len(set(point.per_class)) > 1
    rule = ByClass("gate", point.per_class)
    outputs = outputs_of(task, routing.exits, splits[0])
    assert replace(point, thresholds=(), per_class=None) == point_of(rule, outputs)
    assert point.thresholds == (max(point.per_class),) * 3
    swept = sweep(ClassBased(class_ease(task, routing.exits, heads), "gate"), outputs)
    assert point.saved == pytest.approx(max(s.point.saved for s in swept if s.point.safe_difference >= -0.1), abs=0.01)


def test_class_thresholds_are_left_out_where_none_meets_the_budget(task, heads, splits) -> None:
    """Or where there is no exit to leave by."""
    task = told(task, reads="patch_mean", exits=EXITS)
    routing = fit_routing(task, one_route(task, heads, splits[0]))
    assert with_class_thresholds(told(task, min_flops_saving=0.99), routing, heads, splits[0]) is routing
    closed = Routing(exits=(), front=(), points={})
    assert with_class_thresholds(task, closed, heads, splits[0]) is closed
