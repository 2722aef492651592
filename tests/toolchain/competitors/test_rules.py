"""Rules decide offline what run-time policies decide image by image, and their costs are those of a plain loop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.manifest import Manifest, OperatingPoint, Threshold
from lraee.bundle.manifest_file import read_manifest
from lraee.engine.orchestrator import run
from lraee.policies import Adaptive, Confidence, Entropy, Patience, Policy, Verdict
from lraee_toolchain.competitors.class_based import ByClass
from lraee_toolchain.competitors.pabee import ByPatience, agreements_in_a_row
from lraee_toolchain.competitors.rules import ByScore, Outputs, Rule, outputs_from, point_of, route
from lraee_toolchain.early_exit.outcomes import ExitScores

LABELS = 3
BLOCKS = (2, 3, 5, 6)
DEPTH = 7
BLOCK_FLOPS, EXIT_FLOPS = 10.0, 1.5


@dataclass(frozen=True)
class RecordedTower:
    """A tower whose exits say what was recorded; tokens are (batch, 1, 1), the number of the image."""

    probabilities: np.ndarray
    """(exits, images, labels)."""
    gate: np.ndarray
    """(images, exits)."""
    depth: int = DEPTH

    def stem(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[:, :1, :1, 0].astype(np.float32)

    def block(self, number: int, tokens: np.ndarray) -> np.ndarray:
        return tokens

    def has_exit(self, number: int) -> bool:
        return number in BLOCKS

    def exit(self, number: int, tokens: np.ndarray, rows: np.ndarray) -> Verdict:
        images, position = tokens[:, 0, 0].astype(int), BLOCKS.index(number)
        count = len(images)
        probabilities = self.probabilities[position, images]
        gate = self.gate[images, position]
        return Verdict(np.zeros((count, 2), np.float32), probabilities, np.zeros((count, 3), np.float32), gate, rows)

    def tail(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(tokens), 2), np.float32), np.zeros((len(tokens), LABELS), np.float32)


def recorded(seed: int, images: int = 60) -> tuple[RecordedTower, Outputs]:
    """The same answers as a tower and as outputs; probabilities are rounded so that labels and entropies tie."""
    generator = np.random.default_rng(seed)
    ease = generator.gamma(1.0, 3.0, (1, images, 1))
    logits = ease * (np.eye(LABELS)[generator.integers(0, LABELS, images)] + generator.normal(0, 0.8, (4, images, 3)))
    raised = np.exp(logits)
    probabilities = np.round(raised / raised.sum(axis=2, keepdims=True), 1).astype(np.float32)
    gate = np.round(generator.random((images, 4)), 1).astype(np.float32)
    scores = ExitScores(
        blocks=BLOCKS,
        gate=gate,
        good=(generator.random((images, 4)) < 0.8).astype(np.float64),
        full_good=(generator.random(images) < 0.9).astype(np.float64),
        exit_flops=BLOCK_FLOPS * np.array(BLOCKS),
        visit_flops=np.full(4, EXIT_FLOPS),
        full_flops=BLOCK_FLOPS * DEPTH,
    )
    pieces = [[answers[:20], answers[20:]] for answers in probabilities]
    return RecordedTower(probabilities, gate), outputs_from(pieces, scores)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The golden bundle's, with the exits of these tests and thresholds by class."""
    golden = read_manifest(Path(__file__).parents[2] / "runtime" / "golden" / "format_1.lraee")
    exits = tuple(dataclasses.replace(golden.exits[0], block=block) for block in BLOCKS)
    by_class = tuple(Threshold(block=block, value=0.0, per_class=(0.5, 0.8, 0.3)) for block in BLOCKS)
    point = OperatingPoint(name="by class", thresholds=by_class, flops_saved=0.0, accuracy=None, full_accuracy=None)
    return dataclasses.replace(golden, exits=exits, operating_points=(point,), default_point="by class")


TWINS: list[tuple[Policy, Rule]] = [
    (Confidence(0.8), ByScore("confidence", (0.8,) * 4)),
    (Confidence(0.0), ByScore("confidence", (0.0,) * 4)),
    (Confidence(1.0), ByScore("confidence", (1.0,) * 4)),
    (Entropy(0.6), ByScore("entropy", (-0.6,) * 4)),
    (Entropy(0.0), ByScore("entropy", (0.0,) * 4)),
    (Patience(1), ByPatience(1)),
    (Patience(2), ByPatience(2)),
    (Patience(3), ByPatience(3)),
    (Adaptive(thresholds=dict(zip(BLOCKS, (0.9, 0.8, 0.7, 0.1), strict=True))), ByScore("gate", (0.9, 0.8, 0.7, 0.1))),
    (Adaptive(thresholds={2: 0.9, 5: 0.4}), ByScore("gate", (0.9, np.inf, 0.4, np.inf))),
    (Adaptive(), ByClass("gate", (0.5, 0.8, 0.3))),
]
"""Each policy and the rule that is to decide the same."""


@pytest.mark.parametrize(("policy", "rule"), TWINS, ids=lambda value: repr(value))
def test_a_policy_and_its_rule_decide_the_same(manifest: Manifest, policy: Policy, rule: Rule) -> None:
    """For every image: where it leaves, which exits were visited on the way, and so what it cost."""
    for seed in range(5):
        tower, outputs = recorded(seed)
        pixels = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
        answers = run(tower, pixels, policy.bind(manifest))
        offline = route(rule, outputs)
        left = np.array([*BLOCKS, DEPTH])[offline.where]
        assert answers.exit_block.tolist() == left.tolist()
        assert answers.early.tolist() == (offline.where < 4).tolist()
        visits = np.array([len(visited) for visited in answers.visited])
        np.testing.assert_allclose(offline.flops, BLOCK_FLOPS * answers.exit_block + EXIT_FLOPS * visits)


def test_the_policies_above_are_told_apart_by_these_images(manifest: Manifest) -> None:
    """Else the test above would prove little: most rules let some images out early and some not."""
    _, outputs = recorded(0)
    mixed = [0 < (route(rule, outputs).where < 4).mean() < 1 for _, rule in TWINS]
    assert sum(mixed) >= len(TWINS) - 1  # confidence 0 lets everybody out


@settings(deadline=None)
@given(st.integers(0, 500), st.sampled_from([rule for _, rule in TWINS]))
def test_a_routed_image_is_what_a_loop_says(seed: int, rule: Rule) -> None:
    """Good, FLOPs and place, image by image and exit by exit."""
    _, outputs = recorded(seed, images=15)
    passes, visits, routed = rule.passes(outputs), rule.visits(4), route(rule, outputs)
    for image in range(15):
        spent, place = 0.0, 4
        for exit in range(4):
            spent += EXIT_FLOPS * visits[exit]
            if visits[exit] and passes[image, exit]:
                place = exit
                break
        good = outputs.scores.full_good[image] if place == 4 else outputs.scores.good[image, place]
        assert (routed.where[image], routed.good[image]) == (place, good)
        assert routed.flops[image] == pytest.approx(spent + BLOCK_FLOPS * [*BLOCKS, DEPTH][place])
    point = point_of(rule, outputs)
    assert point.accuracy == pytest.approx(routed.good.mean())
    assert point.saved == pytest.approx(1 - routed.flops.mean() / (BLOCK_FLOPS * DEPTH))
    assert point.thresholds == ()


def test_agreements_are_counted_from_zero_after_every_other_answer() -> None:
    """As PABEE's counter does."""
    predicted = np.array([[1, 1, 1, 1], [1, 2, 2, 2], [1, 2, 1, 2], [0, 0, 3, 3]])
    assert agreements_in_a_row(predicted).tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_a_confidence_score_is_higher_where_an_exit_is_surer() -> None:
    """Entropy is negated."""
    probabilities = np.array([[[0.98, 0.01, 0.01], [0.4, 0.3, 0.3]]], np.float32)
    _, outputs = recorded(0, images=2)
    outputs = outputs_from([[answers] for answers in probabilities], outputs.scores)
    for score in ("confidence", "entropy"):
        confidence = outputs.confidence_score(score)
        assert confidence[0, 0] > confidence[1, 0]
    assert outputs.confidence_score("gate") is outputs.scores.gate
    assert outputs.predicted.tolist() == [[0], [0]]
