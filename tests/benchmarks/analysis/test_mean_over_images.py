"""Bootstrap intervals: they cover the truth as often as they say, and pairing makes them as narrow as they may be."""

import numpy as np
import pytest

from lraee_benchmarks.analysis import intervals
from lraee_benchmarks.analysis.intervals import mean_over_images


def test_an_interval_covers_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 test sets of 150 images at a true accuracy of 70 %; fewer resamples than usual, for time."""
    monkeypatch.setattr(intervals, "IMAGE_RESAMPLES", 1000)
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        right = (generator.random(150) < 0.7).astype(np.float64)
        interval = mean_over_images(right)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 < covered / 200 < 0.99


def test_the_width_is_that_of_the_normal_approximation() -> None:
    """Plus and minus 1.96 standard errors for a mean over many images."""
    right = (np.random.default_rng(1).random(1000) < 0.6).astype(np.float64)
    interval = mean_over_images(right)
    half = 1.96 * right.std() / np.sqrt(1000)
    assert interval.mean == right.mean()
    assert interval.low == pytest.approx(right.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(right.mean() + half, abs=0.1 * half)


def test_a_paired_difference_is_told_where_two_separate_intervals_overlap() -> None:
    """Two methods that agree on all but 3 % of the images, always in favour of one."""
    generator = np.random.default_rng(2)
    one = (generator.random(800) < 0.7).astype(np.float64)
    other = one.copy()
    other[np.flatnonzero(one == 0)[:24]] = 1
    separate = mean_over_images(one), mean_over_images(other)
    assert separate[0].high > separate[1].low
    paired = mean_over_images(other - one)
    assert 0 < paired.low < 24 / 800 < paired.high
    assert paired.mean == pytest.approx(24 / 800)


def test_equal_answers_differ_by_exactly_nothing() -> None:
    """No interval around zero where there is no doubt."""
    interval = mean_over_images(np.zeros(300))
    assert (interval.low, interval.mean, interval.high) == (0, 0, 0)


def test_the_same_values_give_the_same_interval() -> None:
    """Reports of equal exports are equal."""
    values = np.random.default_rng(3).normal(size=200)
    assert mean_over_images(values) == mean_over_images(values.copy())
