"""Right answers are packed into a text and come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee.errors import DataError
from lraee_benchmarks.analysis.right_answers import pack_right, unpack_right


@given(st.lists(st.booleans(), max_size=70))
def test_what_is_packed_comes_back(right: list[bool]) -> None:
    """Any number of images, also none."""
    values = np.array(right, np.float64)
    assert unpack_right(pack_right(values), len(right)).tolist() == values.tolist()


@pytest.mark.parametrize(("text", "images"), [("gYA=", 17), ("gYA=", 8), ("no bits", 8)])
def test_a_text_of_other_images_is_refused(text: str, images: int) -> None:
    """Rather than pairing answers to different images."""
    with pytest.raises(DataError, match="measure"):
        unpack_right(text, images)
