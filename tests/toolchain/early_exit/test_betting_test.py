"""The p-value is small for a broken promise no more often than it says, and small soon for one that is kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee_toolchain.early_exit.risk.betting_test import drop_p_value

IMAGES = 7
SEQUENCES = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=IMAGES)))
"""Everything that seven images can do."""


@pytest.fixture(scope="module", params=[(0.0, 0.3), (0.1, 0.4), (0.3, 0.3), (0.6, 0.1)], ids=str)
def exact(request: pytest.FixtureRequest) -> tuple[float, np.ndarray]:
    """Epsilon, and the p-value of every sequence of seven losses."""
    epsilon, delta = request.param
    return epsilon, np.array([drop_p_value(losses, epsilon=epsilon, delta=delta) for losses in SEQUENCES])


@settings(deadline=None)
@given(rescue=st.floats(0, 1), more=st.floats(0, 1), level=st.floats(0.01, 0.99))
def test_a_true_null_is_rejected_no_more_often_than_the_level(
    exact: tuple[float, np.ndarray], rescue: float, more: float, level: float
) -> None:
    """Exactly, by adding up the probability of every sequence, whatever losses and rescues are: no simulation."""
    epsilon, p_values = exact
    rescue *= (1 - epsilon) / 2
    loss = rescue + epsilon + more * (1 - epsilon - 2 * rescue)  # on average epsilon or more is lost
    chances = np.array([rescue, 1 - rescue - loss, loss]).clip(0)
    of_sequence = chances[(SEQUENCES + 1).astype(int)].prod(axis=1)
    assert of_sequence[p_values <= level].sum() <= level + 1e-9


def test_a_promise_that_is_kept_is_proven_on_a_few_thousand_images() -> None:
    """Two of a hundred lost, two rescued, one point may be lost: the power that makes the test worth having."""
    generator = np.random.default_rng(0)
    proven = [
        drop_p_value(generator.choice([-1.0, 0.0, 1.0], 3000, p=[0.02, 0.96, 0.02]), epsilon=0.01, delta=0.1) <= 0.1
        for _ in range(100)
    ]
    assert np.mean(proven) > 0.65


def test_no_images_prove_nothing() -> None:
    """And a hundred that agree do not prove one in a hundred; three hundred do."""
    assert drop_p_value(np.zeros(0), epsilon=0.01, delta=0.1) == 1
    assert drop_p_value(np.zeros(100), epsilon=0.01, delta=0.1) > 0.1
    assert drop_p_value(np.zeros(1000), epsilon=0.01, delta=0.1) < 0.1


def test_a_drop_that_is_too_large_is_never_small() -> None:
    """Every image lost: the gambler keeps what he started with at best."""
    assert drop_p_value(np.ones(500), epsilon=0.02, delta=0.05) == 1
