"""Names of operating points say what they save."""

from __future__ import annotations

from lraee_toolchain.early_exit.operating_points import points_of_front
from lraee_toolchain.early_exit.outcomes import Point


def point(saved: float, difference: float) -> Point:
    """A point that saves a share of the FLOPs at a difference in accuracy, without error."""
    return Point(thresholds=(saved,), accuracy=0.7, saved=saved, difference=difference, standard_error=0.0)


def test_a_point_is_named_after_the_tenth_that_it_saves() -> None:
    """Where nothing lies between 5 and 62 %, only that of 62 % has a name, and it is not ``saves-10``."""
    sparse = [point(0.05, -0.005), point(0.625, -0.38)]
    assert {name: found.saved for name, found in points_of_front(sparse, {}).items()} == {"saves-60": 0.625}
    dense = [point(0.12, -0.01), point(0.35, 0.0), point(0.41, -0.02)]
    named = {name: found.saved for name, found in points_of_front(dense, {}).items()}
    assert named == {"saves-30": 0.35, "saves-40": 0.41}, "what saves 12 % loses more than what saves 35 %"


def test_what_has_a_name_gets_no_other() -> None:
    """The default point is not offered twice."""
    known = point(0.35, 0.0)
    assert points_of_front([known], {"balanced": known}) == {}
