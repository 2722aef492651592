"""Activation ranges of a stream: exact extremes, percentiles to within a bin, whatever the order and the size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.errors import ExportError
from lraee_toolchain.quantization.ranges import HALF_BINS, RangeCollector

values = st.floats(-1e6, 1e6, width=32)
batches = st.lists(st.lists(values, min_size=1, max_size=40), min_size=1, max_size=6)


def collect(stream: list[np.ndarray]) -> RangeCollector:
    """A collector that has seen every batch."""
    collector = RangeCollector()
    for batch in stream:
        collector.add(np.asarray(batch, np.float32))
    return collector


@given(stream=batches)
def test_minimum_and_maximum_are_exact(stream: list[list[float]]) -> None:
    """To the last bit, over all batches."""
    everything = np.concatenate([np.asarray(batch, np.float32) for batch in stream])
    chosen = collect(stream).minmax()
    assert (chosen.minimum, chosen.maximum) == (everything.min(), everything.max())


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    percent=st.sampled_from([90.0, 99.0, 99.9, 99.99]),
    growth=st.sampled_from([1.0, 0.1, 1.9, 2.1, 50.0, 1e4]),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
)
def test_percentiles_are_within_a_bin_of_the_sorted_values(
    seed: int, percent: float, growth: float, shift: float
) -> None:
    """Also when later batches are much larger or smaller: bins merge, they never lose a count.

    A bin is 1/2048 of at most twice the largest magnitude.
    """
    generator = np.random.default_rng(seed)
    stream = [
        (generator.standard_t(3, 1500) + shift).astype(np.float32) * np.float32(growth**step) for step in range(3)
    ]
    everything = np.sort(np.concatenate(stream).astype(np.float64))
    cut = int((100 - percent) / 200 * len(everything))
    width = 2.001 * np.abs(everything).max() / HALF_BINS
    chosen = collect(stream).percentile(percent)
    assert everything[cut] - width <= chosen.minimum <= everything[cut] + width * 1e-2
    assert everything[-1 - cut] - width * 1e-2 <= chosen.maximum <= everything[-1 - cut] + width


def test_percentiles_agree_with_numpy_on_a_large_stream() -> None:
    """With many values per bin the definitions of a percentile hardly differ."""
    data = np.random.default_rng(0).normal(1.0, 2.0, 200_000).astype(np.float32)
    chosen = collect(np.array_split(data, 13)).percentile(99.0)
    low, high = np.percentile(data, [0.5, 99.5])
    bin_width = 2.001 * np.abs(data).max() / HALF_BINS
    assert abs(chosen.minimum - low) < bin_width
    assert abs(chosen.maximum - high) < bin_width


@given(stream=batches)
def test_all_of_the_values_give_minimum_and_maximum(stream: list[list[float]]) -> None:
    """The 100th percentile is no special case that rounds outwards."""
    collector = collect(stream)
    everything, minmax = collector.percentile(100.0), collector.minmax()
    width = 2.001 * max(abs(minmax.minimum), abs(minmax.maximum), 1e-12) / HALF_BINS
    assert minmax.minimum <= everything.minimum <= minmax.minimum + width
    assert minmax.maximum - width <= everything.maximum <= minmax.maximum


def test_zeros_give_a_range_of_zero_and_may_be_followed_by_anything() -> None:
    """A dead channel in the first batch must not decide the width of the bins for good."""
    collector = collect([np.zeros(100)])
    assert collector.minmax().scale == pytest.approx(1e-12)
    assert (collector.percentile(99.9).minimum, collector.percentile(99.9).maximum) == (0.0, 0.0)
    collector.add(np.linspace(-5, 5, 10_001, dtype=np.float32))
    assert collector.percentile(90.0).maximum == pytest.approx(np.percentile(np.linspace(-5, 5, 10_001), 95), abs=0.06)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_on_one_side_of_zero_stay_on_that_side(sign: float) -> None:
    """No bin reaches over to where nothing was seen."""
    data = sign * np.random.default_rng(1).uniform(2, 3, 5000).astype(np.float32)
    for chosen in (collect([data]).percentile(99.0), collect([data]).minmax()):
        assert min(abs(chosen.minimum), abs(chosen.maximum)) >= 2
        assert np.sign(chosen.minimum) == np.sign(chosen.maximum) == sign


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(broken: float) -> None:
    """An infinite value would have no range, and NaN would be skipped by every comparison."""
    with pytest.raises(ExportError, match="wanted finite numbers"):
        collect([np.ones(5), np.array([1.0, broken, 2.0])])
