"""Policies decide by block, gate and predicted label, and refuse what the bundle does not have."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.manifest import Manifest, Threshold
from lraee.bundle.manifest_file import read_manifest
from lraee.errors import PolicyError
from lraee.policies import Adaptive, ExitAt, Full
from lraee.policies.adaptive import AdaptiveRoute
from lraee.policies.base import Verdict


@pytest.fixture(scope="module")
def manifest(golden) -> Manifest:
    """Read a bundle with one exit after block 1; points `balanced` (0.54) and `by_class` (0.7, 1, 0.6)."""
    return read_manifest(golden)


@pytest.fixture(scope="module")
def without_exits(manifest) -> Manifest:
    """The same bundle, exported without exits."""
    return dataclasses.replace(manifest, exits=(), operating_points=(), default_point=None)


def verdict(gate: list[float], classes: list[int] | None = None, labels: int = 3) -> Verdict:
    """What an exit says when its gate and predicted labels are these."""
    count = len(gate)
    probabilities = np.eye(labels, dtype=np.float32)[classes or [0] * count]
    rows = np.arange(count)
    values = np.array(gate, np.float32)
    return Verdict(np.zeros((count, 2), np.float32), probabilities, np.zeros((count, 3), np.float32), values, rows)


def test_adaptive_takes_the_default_point(manifest):
    """The one that the bundle names."""
    assert Adaptive().bind(manifest) == Adaptive("balanced").bind(manifest)
    assert Adaptive().bind(manifest).thresholds[1].value == 0.54


def test_images_leave_from_the_threshold_on(manifest):
    """A gate that equals its threshold is enough, though the threshold is written with more digits."""
    route = Adaptive(thresholds={1: 0.1}).bind(manifest)
    assert route.leaves(1, verdict([0.0999, 0.1, 0.11])).tolist() == [False, True, True]


def test_adaptive_visits_the_exits_of_its_point_only(manifest):
    """A visit would cost FLOPs."""
    assert Adaptive().bind(manifest).visits(1)
    assert not Adaptive().bind(manifest).visits(2)
    assert not Adaptive(thresholds={}).bind(manifest).visits(1)


def test_thresholds_by_class_follow_the_label_predicted_at_the_exit(manifest):
    """0.7 for the first label, 1.0 for the second, 0.6 for the third."""
    route = Adaptive("by_class").bind(manifest)
    leaves = route.leaves(1, verdict([0.65, 0.75, 0.99, 0.55, 0.65], classes=[0, 0, 1, 2, 2]))
    assert leaves.tolist() == [False, True, False, False, True]
    assert route.leaves(1, verdict([0.7], classes=[0])).tolist() == [True]  # equal, as far as float32 goes


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 2)), min_size=1))
def test_equal_thresholds_by_class_are_one_threshold(images):
    """This holds for all gates and labels."""
    gate, classes = map(list, zip(*images, strict=True))
    met = verdict(gate, classes)
    plain = AdaptiveRoute({1: Threshold(block=1, value=0.5, per_class=None)})
    by_class = AdaptiveRoute({1: Threshold(block=1, value=0.0, per_class=(0.5, 0.5, 0.5))})
    assert np.array_equal(plain.leaves(1, met), by_class.leaves(1, met))


def test_thresholds_by_class_are_refused_for_another_number_of_labels(manifest):
    """They were chosen for the labels of the export."""
    route = Adaptive("by_class").bind(manifest)
    with pytest.raises(PolicyError, match="for the 3 exported labels, the model now has 4; give Adaptive your own"):
        route.leaves(1, verdict([0.5], labels=4))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Adaptive("fast"), r"^there is no operating point 'fast'; this bundle has balanced, by_class$"),
        (Adaptive(thresholds={2: 0.5}), r"^there is no exit after block 2; this bundle has 1$"),
        (Adaptive("balanced", {1: 0.5}), r"^Adaptive has both a point and thresholds; give one of them$"),
        (Adaptive(thresholds={1: float("nan")}), r"^the threshold of block 1 is NaN"),
        (ExitAt(2), r"^there is no exit after block 2; this bundle has 1$"),
        (ExitAt(0), r"^there is no exit after block 0; this bundle has 1$"),
    ],
)
def test_what_the_bundle_does_not_have_is_refused_with_what_it_has(manifest, policy, message):
    """It is refused before anything runs."""
    with pytest.raises(PolicyError, match=message):
        policy.bind(manifest)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Adaptive(), r"^there is no operating point None; this bundle has none$"),
        (Adaptive(thresholds={1: 0.5}), r"^there is no exit after block 1; this bundle has no exits$"),
        (ExitAt(1), r"^there is no exit after block 1; this bundle has no exits$"),
    ],
)
def test_a_bundle_without_exits_says_so(without_exits, policy, message):
    """Only full depth is possible there."""
    with pytest.raises(PolicyError, match=message):
        policy.bind(without_exits)
    assert Full().bind(without_exits).visits(1) is False


def test_exit_at_lets_everybody_out_at_its_block(manifest):
    """The gate does not matter."""
    route = ExitAt(1).bind(manifest)
    assert [route.visits(block) for block in (1, 2)] == [True, False]
    assert route.leaves(1, verdict([0.0, 1.0])).tolist() == [True, True]


def test_full_lets_nobody_out(manifest):
    """It visits no exit either."""
    route = Full().bind(manifest)
    assert not any(route.visits(block) for block in (1, 2))
    assert route.leaves(1, verdict([0.0, 1.0])).tolist() == [False, False]
