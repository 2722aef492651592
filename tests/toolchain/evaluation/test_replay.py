"""A replayed policy gives what a real run gives, image by image."""

from __future__ import annotations

import numpy as np
import pytest

import lraee
from lraee.errors import PolicyError
from lraee.policies import Policy
from lraee.policies.spec import parse_policy
from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset
from lraee_toolchain.evaluation.replay import Recording

IMAGES = 48


@pytest.fixture(scope="module")
def model() -> lraee.Model:
    return lraee.load("reference", threads=1)


@pytest.fixture(scope="module")
def pixels(model: lraee.Model):
    return load_pixels(open_dataset(fashion_mnist_test()), model.manifest.preprocessing, range(IMAGES)).pixels


def policies(model: lraee.Model) -> list[Policy]:
    """Every operating point, every exit, and policies that remember."""
    specs = [f"adaptive={point.name}" for point in model.manifest.operating_points]
    specs += [f"exit={exit.block}" for exit in model.manifest.exits]
    return [parse_policy(spec) for spec in (*specs, "full", "confidence=0.9", "entropy=0.3", "patience=2")]


def test_a_replay_decides_as_a_run(model, pixels):
    """Where images leave, what they visited, what they are called; probabilities but for the order of float sums."""
    recording = Recording(model, pixels)
    depths = set()
    for policy in policies(model):
        real, replayed = model.run_pixels(pixels, policy=policy), recording.replay(policy)
        np.testing.assert_array_equal(replayed.exit_block, real.exit_block)
        np.testing.assert_array_equal(replayed.early, real.early)
        np.testing.assert_allclose(replayed.probabilities, real.probabilities, atol=1e-4)
        np.testing.assert_allclose(replayed.gate, real.gate, atol=1e-4)
        assert (replayed.embedding * real.embedding).sum(axis=1).min() > 1 - 1e-4
        assert replayed.visited == real.visited
        np.testing.assert_array_equal(model.flops_of_run(replayed), model.flops_of_run(real))
        depths |= set(real.exit_block.tolist())
    assert len(depths) >= 3  # else nothing was compared


def test_replays_do_not_disturb_each_other(model, pixels):
    """The recording is only read."""
    recording = Recording(model, pixels)
    first = recording.replay(lraee.Adaptive())
    recording.replay(lraee.Full())
    again = recording.replay(lraee.Adaptive())
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


def test_a_policy_that_does_not_suit_the_bundle_is_refused(model, pixels):
    """As by the model itself."""
    with pytest.raises(PolicyError, match="no operating point 'dizzy'"):
        Recording(model, pixels).replay(lraee.Adaptive("dizzy"))
