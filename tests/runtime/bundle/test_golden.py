"""A bundle of each released format goes on loading and answering as it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lraee

EXPECTED = Path(__file__).parents[1] / "golden" / "format_1.expected.npz"
HOW_TO_CORRECT = (
    "the golden bundle of format 1 does not give the answers that it gave when it was written. If loading or running "
    "changed by mistake, correct that. If other numbers are meant, run `python tests/runtime/golden/make_format_1.py`. "
    "If the format changed, keep this one and add a format_2"
)
PROBABILITY_TOLERANCE = 0.02
COSINE_TOLERANCE = 5e-4
"""Integer products are exact on every CPU, the float operators between them are not: a value that lies on the border
of two of the 256 levels may fall to the other side. With unfused float operators the bundle differs by 1e-6; this
leaves room for a few levels."""


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What the generator saw."""
    with np.load(EXPECTED) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def golden_model(golden) -> lraee.Model:
    """The golden bundle, every file of it checked."""
    return lraee.load(golden, threads=1, verify="all")


@pytest.mark.parametrize(("name", "policy"), [("full", lraee.Full()), ("exit", lraee.ExitAt(1))])
def test_the_golden_bundle_still_answers_the_same(golden_model, expected, name, policy):
    """Embeddings and probabilities, at full depth and at the exit."""
    answers = golden_model.run_pixels(expected["pixels"], policy=policy)
    probabilities, embedding = expected[f"{name}_probabilities"], expected[f"{name}_embedding"]
    assert np.abs(answers.probabilities - probabilities).max() < PROBABILITY_TOLERANCE, HOW_TO_CORRECT
    assert ((answers.embedding * embedding).sum(axis=1) > 1 - COSINE_TOLERANCE).all(), HOW_TO_CORRECT
    if name == "exit":
        assert np.abs(answers.gate - expected["gate"]).max() < PROBABILITY_TOLERANCE, HOW_TO_CORRECT


@pytest.mark.parametrize("point", ["balanced", "by_class"])
def test_the_golden_bundle_still_exits_at_the_same_blocks(golden_model, expected, point):
    """Exact: no gate lies within the tolerance of its threshold."""
    blocks = golden_model.run_pixels(expected["pixels"], policy=lraee.Adaptive(point)).exit_block
    assert 0 < (blocks == 1).sum() < len(blocks)
    assert np.array_equal(blocks, expected[f"{point}_exit_block"]), HOW_TO_CORRECT


def test_the_golden_bundle_is_small(golden):
    """It is kept in the repository for as long as its format is read."""
    assert sum(path.stat().st_size for path in golden.iterdir()) < 60_000
