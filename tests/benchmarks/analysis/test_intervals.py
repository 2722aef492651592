"""Intervals on arrays whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lraee_benchmarks.analysis.intervals import (
    Launches,
    bootstrap_interval,
    mean_interval,
    median_interval,
    ratio_interval,
    saving_interval,
    student,
)


def test_interval_of_equal_samples_has_no_width() -> None:
    """Nothing moves when every resample is the same."""
    interval = median_interval(np.full(20, 7.0), seed=0)
    assert (interval.low, interval.high) == (7.0, 7.0)


def test_interval_of_a_mean_agrees_with_the_normal_approximation() -> None:
    """400 samples of a normal distribution: 1.96 standard errors to either side, within a tenth of that width."""
    samples = np.random.default_rng(1).normal(10.0, 2.0, 400)
    interval = mean_interval(samples, seed=0)
    error = 1.96 * samples.std() / 20
    assert interval.low == pytest.approx(samples.mean() - error, abs=error / 5)
    assert interval.high == pytest.approx(samples.mean() + error, abs=error / 5)


def test_median_interval_ignores_one_outlier() -> None:
    """A single sample of a second among 1 ms samples moves the mean, not the median."""
    samples = np.ones(100)
    samples[3] = 1000.0
    assert median_interval(samples, seed=0).high == 1.0
    assert mean_interval(samples, seed=0).high > 10.0


def test_pairing_removes_what_both_series_share() -> None:
    """Rounds that differ tenfold, but always 10 % faster: the saving is 10 % in every resample."""
    reference = np.random.default_rng(2).uniform(1.0, 10.0, 50)
    interval = saving_interval(0.9 * reference, reference[None], seed=0)
    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)


@pytest.mark.parametrize("launches", [None, np.repeat(np.arange(5), 10)])
def test_a_reference_that_is_barely_the_fastest_has_an_interval(launches: Launches) -> None:
    """Two full depths of the same speed: the next run may find the other one faster, a far slower third matters not."""
    first, second = np.random.default_rng(6).normal(10.0, 1.0, (2, 50))
    samples = min(first, second, key=np.mean)
    among_equals = saving_interval(samples, np.stack([first, second]), seed=0, launches=launches)
    assert among_equals.low < -0.001
    assert among_equals.high >= 0
    alone = saving_interval(samples, np.stack([samples, samples + 5]), seed=0, launches=launches)
    assert (alone.low, alone.high) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["latency", "ratio"])
def test_nineteen_of_twenty_further_values_lie_in_the_interval(kind: str) -> None:
    """Launches 1 ms apart, samples 0.5: what the whole is for. Drawing five launches again holds 72 of 100 runs."""
    random = np.random.default_rng(7)
    launches = np.repeat(np.arange(5), 20)
    held = 0
    for _ in range(400):
        samples, further = 10 + random.normal(0, 1.0, (2, 5))[:, launches] + random.normal(0, 0.5, (2, 100))
        if kind == "latency":
            found, value = median_interval(samples, seed=0, launches=launches), np.median(further[:20])
        else:
            found, value = ratio_interval(samples, np.ones(100), seed=0, launches=launches), np.median(further)
        held += found.low <= float(value) <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_two_launches_far_apart_leave_no_time_below_zero() -> None:
    """They tell little: whatever is stated must still be possible."""
    samples, launches = np.array([1.0, 1.0, 2.0, 2.0]), np.array([0, 0, 1, 1])
    assert 0 < median_interval(samples, seed=0, launches=launches).low < 0.01
    assert saving_interval(samples, np.full((1, 4), 1.5), seed=0, launches=launches).high <= 1


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (30, 2.042)])
def test_points_of_students_distribution(freedom: int, point: float) -> None:
    """From the tables in every textbook."""
    assert student(freedom) == pytest.approx(point, abs=0.001)


def test_one_seed_gives_one_interval_and_another_seed_another() -> None:
    """Reports can be repeated."""
    samples = np.random.default_rng(3).normal(size=30)
    assert mean_interval(samples, seed=4) == mean_interval(samples, seed=4)
    assert mean_interval(samples, seed=4) != mean_interval(samples, seed=5)


def test_statistic_gets_as_many_indices_as_there_are_samples() -> None:
    """A resample is as large as the sample."""
    sizes: set[int] = set()

    def count(rows: np.ndarray) -> float:
        sizes.add(len(rows))
        return 0.0

    bootstrap_interval(17, count, seed=0, resamples=3)
    assert sizes == {17}
