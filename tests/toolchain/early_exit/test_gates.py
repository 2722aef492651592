"""The gate's logistic regression finds what generated the data, and its scaling is folded in without a trace."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.manifest import GateInfo
from lraee_toolchain.early_exit.gates import fit_gate, gate_features, gate_values


def scattered(count: int, seed: int = 0) -> np.ndarray:
    """float32 (count, 3): confidence, margin and a variance of quite another size."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1, count)
    return np.stack(
        [confidence, confidence * generator.uniform(0, 1, count), generator.gamma(4, 120, count)], 1
    ).astype(np.float32)


def cross_entropy(gate: GateInfo, features: np.ndarray, good: np.ndarray) -> float:
    """Mean over images."""
    value = np.clip(gate_values(gate, features).astype(np.float64), 1e-9, 1 - 1e-9)
    return float(-np.where(good, np.log(value), np.log(1 - value)).mean())


def test_the_features_are_confidence_margin_and_variance() -> None:
    """Of the two largest probabilities, wherever they stand."""
    probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0]], np.float32)
    features = gate_features(probabilities, np.array([7.0, 8.0], np.float32))
    np.testing.assert_allclose(features, [[0.6, 0.3, 7.0], [0.5, 0.0, 8.0]], rtol=1e-6)


def test_a_known_gate_is_recovered() -> None:
    """From 40,000 images drawn from it; what counts is the value, since confidence and margin go together."""
    truth = GateInfo(weights=(6.0, 2.0, -0.004), bias=-3.0)
    features = scattered(40_000)
    value = gate_values(truth, features)
    good = np.random.default_rng(1).random(len(value)) < value
    found = fit_gate(features, good)
    np.testing.assert_allclose(found.weights, truth.weights, rtol=0.15)
    assert np.abs(gate_values(found, features) - value).max() < 0.03


def test_the_mean_gate_is_the_share_of_good_answers() -> None:
    """The bias is all but free of weight decay, so the gate is calibrated on its own split."""
    features = scattered(3000)
    good = np.random.default_rng(2).random(3000) < features[:, 0]
    assert gate_values(fit_gate(features, good), features).mean() == pytest.approx(good.mean(), abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    scale=st.tuples(*[st.floats(1e-3, 1e4)] * 3),
    shift=st.tuples(*[st.floats(-5, 5)] * 3),
    seed=st.integers(0, 100),
)
def test_units_of_the_features_do_not_matter(scale: tuple[float, ...], shift: tuple[float, ...], seed: int) -> None:
    """Scaled and shifted features give a gate that says the same of every image: the folding is exact.

    Shifts are in units of the scale; float32 features leave an error of 1e-3.
    """
    features = scattered(300, seed) / np.array([1, 1, 400], np.float32)
    good = np.random.default_rng(seed).random(300) < features[:, 0]
    changed = ((features.astype(np.float64) + shift) * scale).astype(np.float32)
    one, other = fit_gate(features, good), fit_gate(changed, good)
    np.testing.assert_allclose(gate_values(one, features), gate_values(other, changed), atol=2e-3)


def test_the_folded_gate_equals_the_standardized_one() -> None:
    """Fitting on standardized features and applying to standardized features is the same gate."""
    features = scattered(2000)
    good = np.random.default_rng(3).random(2000) < features[:, 0]
    center, spread = features.mean(axis=0), features.std(axis=0)
    standardized = ((features - center) / spread).astype(np.float32)
    gate = fit_gate(standardized, good)
    natural = np.array(gate.weights) / spread
    folded = fit_gate(features, good)
    np.testing.assert_allclose(folded.weights, natural, rtol=1e-3)
    assert folded.bias == pytest.approx(gate.bias - (natural * center).sum(), rel=1e-3)


def test_a_feature_that_never_varies_gets_no_weight() -> None:
    """Its spread would be divided by; the other features are fitted as without it."""
    features = scattered(500)
    features[:, 2] = 431.7
    good = np.random.default_rng(4).random(500) < features[:, 0]
    gate = fit_gate(features, good)
    assert gate.weights[2] == 0
    assert np.isfinite([*gate.weights, gate.bias]).all()
    assert gate.weights[0] != 0


@pytest.mark.parametrize("always", [True, False])
def test_an_exit_that_is_always_or_never_right_has_a_finite_gate(always: bool) -> None:
    """The likelihood alone would send the weights to infinity."""
    features = scattered(200)
    gate = fit_gate(features, np.full(200, always))
    values = gate_values(gate, features)
    assert np.isfinite([*gate.weights, gate.bias]).all()
    assert (values > 0.99).all() if always else (values < 0.01).all()


def test_separable_answers_give_a_steep_and_finite_gate() -> None:
    """Right exactly above a confidence: the gate orders the images so."""
    features = scattered(400)
    good = features[:, 0] > 0.6
    gate = fit_gate(features, good)
    values = gate_values(gate, features)
    assert np.isfinite([*gate.weights, gate.bias]).all()
    assert values[good].min() > values[~good].max() - 0.3
    assert ((values > 0.5) == good).mean() > 0.95


def test_no_other_gate_near_by_fits_better() -> None:
    """Newton's method ends in the minimum, up to what weight decay costs."""
    features = scattered(1000)
    good = np.random.default_rng(5).random(1000) < features[:, 0]
    gate = fit_gate(features, good)
    best = cross_entropy(gate, features, good)
    for index in range(3):
        for factor in (0.8, 1.25):
            weights = list(gate.weights)
            weights[index] *= factor
            other = GateInfo(weights=(weights[0], weights[1], weights[2]), bias=gate.bias)
            assert cross_entropy(other, features, good) > best - 2e-3
