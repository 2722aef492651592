"""Policies without a learned gate: confidence, entropy and patience, as objects and as specs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lraee
from lraee.bundle.manifest import Manifest
from lraee.bundle.manifest_file import read_manifest
from lraee.errors import PolicyError
from lraee.policies import Adaptive, Confidence, Entropy, ExitAt, Patience, Policy, Replay, Verdict
from lraee.policies.entropy import entropy_nats
from lraee.policies.given_shares import EveryExit
from lraee.policies.spec import parse_policy


@pytest.fixture(scope="module")
def manifest(golden) -> Manifest:
    """Give the golden bundle's manifest, as if it had exits after blocks 1, 2 and 4."""
    met = read_manifest(golden)
    return dataclasses.replace(met, exits=tuple(dataclasses.replace(met.exits[0], block=b) for b in (1, 2, 4)))


def verdict(probabilities: list[list[float]], rows: list[int] | None = None) -> Verdict:
    """What an exit says of these rows when its gate is of no account."""
    count = len(probabilities)
    return Verdict(
        np.zeros((count, 2), np.float32),
        np.array(probabilities, np.float32),
        np.zeros((count, 3), np.float32),
        np.zeros(count, np.float32),
        np.array(rows if rows is not None else range(count), np.intp),
    )


def says(labels: list[int], rows: list[int] | None = None) -> Verdict:
    """An exit that is certain of these labels."""
    return verdict(np.eye(3)[labels].tolist(), rows)


def test_confidence_lets_out_from_the_threshold_on(manifest):
    """A probability that equals it is enough, though it is written with more digits than float32 has."""
    route = Confidence(0.7).bind(manifest)
    assert route.leaves(1, verdict([[0.7, 0.2, 0.1], [0.1, 0.2, 0.69], [0.05, 0.9, 0.05]])).tolist() == [1, 0, 1]
    assert Confidence(1.0).bind(manifest).leaves(1, says([0])).tolist() == [True]


def test_entropy_lets_out_up_to_the_threshold(manifest):
    """A certain answer has none, an even one the logarithm of the number of labels."""
    route = Entropy(0.0).bind(manifest)
    assert route.leaves(1, verdict([[1, 0, 0], [0.9, 0.1, 0]])).tolist() == [True, False]
    route = Entropy(math.log(3) + 1e-6).bind(manifest)
    assert route.leaves(1, verdict([[1 / 3, 1 / 3, 1 / 3]])).tolist() == [True]


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8).filter(lambda p: sum(p) > 0.01))
def test_entropy_is_that_of_the_formula(weights):
    """In nats, within float32; zeros count nothing."""
    p = np.array(weights, np.float64) / np.sum(weights)
    exact = -sum(x * math.log(x) for x in p if x > 0)
    (found,) = entropy_nats(p[None].astype(np.float32))
    assert found == pytest.approx(exact, abs=1e-5)
    assert found.dtype == np.float32
    assert not np.signbit(found)


def test_patience_counts_agreements_in_a_row(manifest):
    """The first exit agrees with no other; a change of the label starts again at 0."""
    route = Patience(1).bind(manifest)
    assert route.leaves(1, says([0, 1, 2])).tolist() == [False, False, False]
    assert route.leaves(2, says([0, 2, 1])).tolist() == [True, False, False]
    assert route.leaves(4, says([2, 2], rows=[1, 2])).tolist() == [True, False]


def test_patience_of_two_wants_three_exits_that_agree(manifest):
    """They must agree in a row."""
    route = Patience(2).bind(manifest)
    for block, labels, leaves in ((1, [0, 1, 1], [0, 0, 0]), (2, [0, 0, 1], [0, 0, 0]), (4, [0, 0, 2], [1, 0, 0])):
        assert route.leaves(block, says(labels)).tolist() == leaves


def test_patience_forgets_agreements_from_before_a_change_of_mind(manifest):
    """Two that agree, and two others that agree, are not three."""
    route = Patience(2).bind(manifest)
    assert [route.leaves(block, says([label])).tolist() for block, label in enumerate([1, 1, 2, 2, 2])] == [
        [False], [False], [False], [False], [True]
    ]  # fmt: skip


def test_patience_knows_images_by_their_row_when_others_have_left(manifest):
    """Also when those in front left for another reason."""
    route = Patience(1).bind(manifest)
    route.leaves(1, says([0, 1, 2, 0, 1]))
    assert route.leaves(2, says([1, 0], rows=[1, 4])).tolist() == [True, False]


def test_each_batch_starts_to_count_from_zero(manifest):
    """The policy is one for all batches, the route is not."""
    policy = Patience(1)
    policy.bind(manifest).leaves(1, says([0]))
    assert policy.bind(manifest).leaves(1, says([0])).tolist() == [False]


@pytest.mark.parametrize("policy", [Confidence(0.5), Entropy(0.5), Patience(1)])
def test_all_exits_are_visited(manifest, policy):
    """No threshold of a block can close one."""
    assert all(policy.bind(manifest).visits(block) for block in (1, 2, 4))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Confidence(1.1), r"^the confidence threshold is 1.1, wanted a probability from 0 to 1$"),
        (Confidence(math.nan), r"^the confidence threshold is nan"),
        (Entropy(-0.1), r"^the entropy threshold is -0.1, wanted nats from 0 on"),
        (Entropy(math.inf), r"^the entropy threshold is inf"),
        (Patience(0), r"^the patience is 0 agreements, wanted at least 1$"),
        (Patience(3), r"^a patience of 3 needs 4 exits, this bundle has 3; ask for less, or export with more exits$"),
    ],
)
def test_what_cannot_be_is_refused(manifest, policy, message):
    """It is refused before anything runs."""
    with pytest.raises(PolicyError, match=message):
        policy.bind(manifest)


@pytest.mark.parametrize("policy", [Confidence(0.5), Entropy(0.5), Patience(1)])
def test_a_bundle_without_exits_says_so(manifest, policy):
    """Full depth is to be asked for by name."""
    with pytest.raises(PolicyError, match=r"exits.*this bundle has (none|0)"):
        policy.bind(dataclasses.replace(manifest, exits=(), operating_points=(), default_point=None))


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("confidence=0.9", Confidence(0.9)),
        (" confidence=1 ", Confidence(1.0)),
        ("entropy=.25", Entropy(0.25)),
        ("patience=2", Patience(2)),
        ("adaptive", Adaptive()),
        ("exit=08", ExitAt(8)),
        ("replay=8:.10, 10:0.25", Replay(((8, 0.1), (10, 0.25)))),
    ],
)
def test_a_spec_is_a_policy(spec: str, policy: Policy):
    """They are typed like the others."""
    assert parse_policy(spec) == policy


@pytest.mark.parametrize(
    "spec",
    ["confidence", "confidence=", "confidence=high", "confidence=nan", "confidence=1e-3", "confidence=-1", "entropy=²",
     "entropy=inf", "patience=0", "patience=1.5", "patience",
     "adaptive=", "full=", "full=1", "deadline=40ms", "patience=" + "9" * 5000, "exit=" + "9" * 5000],
    ids=lambda spec: spec[:16],
)  # fmt: skip
def test_a_spec_with_no_such_number_is_refused(spec: str):
    """The message says what is understood."""
    with pytest.raises(PolicyError, match=r"is not a policy; wanted .*confidence=PROBABILITY.*entropy=NATS.*patience="):
        parse_policy(spec)


def test_the_shipped_model_runs_under_each(model: lraee.Model, photos):
    """Looser thresholds let more out; patience needs as many exits as it says."""
    pixels = np.stack(photos[:16])
    early = [model.run_pixels(pixels, policy=Confidence(level)).early.mean() for level in (0.999, 0.6, 0.0)]
    assert early == sorted(early)
    assert early[-1] == 1
    early = [model.run_pixels(pixels, policy=Entropy(nats)).early.mean() for nats in (0.001, 0.5, 3.0)]
    assert early == sorted(early)
    assert early[-1] == 1
    if len(model.manifest.exits) > 1:
        answers = model.run_pixels(pixels, policy=Patience(1))
        assert all(len(visited) >= 2 for visited in answers.visited)
        assert answers.early.any()


def test_every_exit_is_visited_and_images_leave_only_where_another_policy_lets_them(manifest):
    """What exits say is kept of the last run alone; by default nobody leaves."""
    alone, listening = EveryExit(), EveryExit(ExitAt(2))
    for policy, left in ((alone, []), (listening, [2])):
        for _ in range(2):
            route = policy.bind(manifest)
            said = {block: says([block % 3]) for block in (1, 2, 4)}
            assert all(route.visits(block) for block in said)
            assert [block for block, verdict in said.items() if route.leaves(block, verdict).all()] == left
            assert policy.verdicts == said


def test_replay_lets_out_the_shares_it_was_given(manifest):
    """Over single images as over batches, within one image in a hundred."""
    policy = parse_policy("replay=1:.1,4:.25")
    assert [policy.bind(manifest).visits(block) for block in (1, 2, 4)] == [True, False, True]
    for batch in (1, 16):
        left = {1: 0, 4: 0}
        for _ in range(1600 // batch):
            route, rows = policy.bind(manifest), np.arange(batch)
            for block in left:
                leaving = route.leaves(block, verdict(np.ones((len(rows), 1)).tolist(), rows.tolist()))
                left[block] += int(leaving.sum())
                rows = rows[~leaving]
        assert left[1] == pytest.approx(160, abs=16)
        assert left[4] == pytest.approx(400, abs=16)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("replay=3:.1", "exits after"),
        ("replay=4:.1,1:.1", "rising order"),
        ("replay=1:.1,1:.1", "each once"),
        ("replay=1:.6,2:.6", "together at most 1"),
        ("replay=1:.6,2:.41", "together at most 1"),
        ("replay=1:0", "above 0"),
    ],
)
def test_replay_refuses_what_cannot_be(manifest, spec, says):
    """Unknown exits, blocks out of order, shares beyond 1 or of nothing."""
    with pytest.raises(PolicyError, match=says):
        parse_policy(spec).bind(manifest)


def test_replay_deals_out_the_rows_of_one_batch_and_may_begin_anywhere(manifest):
    """Images of one batch do not all stay or leave; a call can be run again as it was."""
    policy, images = parse_policy("replay=1:.5"), says([0] * 100)
    calls = [policy.bind(manifest).leaves(1, images).tolist() for _ in range(6)]
    assert [sum(leaves) for leaves in calls] == pytest.approx([50] * 6, abs=3)
    assert calls[4] != calls[0]
    assert policy.starting_at(4).bind(manifest).leaves(1, images).tolist() == calls[4]


def test_replay_of_nothing_is_refused_and_of_everything_is_not(manifest):
    """Without a share it would be full depth by another name."""
    with pytest.raises(PolicyError, match="wanted one or more"):
        Replay(()).bind(manifest)
    route = parse_policy("replay=2:1").bind(manifest)
    assert route.leaves(2, says([0] * 50)).all()
