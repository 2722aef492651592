"""A bundle of each released format goes on loading and answering as it did."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lraee
from lraee.bundle.manifest import FORMAT
from lraee.errors import BundleError
from lraee.policies.given_shares import EveryExit

FOLDER = Path(__file__).parents[1] / "golden"
HOW_TO_CORRECT = (
    "a golden bundle does not give the answers that it gave when it was written. If loading or running changed by "
    "mistake, correct that. If other numbers are meant, run its generator in tests/runtime/golden. If the format "
    "changed, keep this one and add another with its own generator"
)
PROBABILITY_TOLERANCE = 0.02
COSINE_TOLERANCE = 5e-4
"""Integer products are exact on every CPU, the float operators between them are not: a value that lies on the border
of two of the 256 levels may fall to the other side. With unfused float operators the bundle differs by 1e-6; this
leaves room for a few levels."""

READS = {1: {"both"}, 2: {"attention", "local"}, 3: {"both"}, 4: {"both"}}
"""What the exits of each golden bundle read."""


@dataclasses.dataclass(frozen=True)
class Golden:
    """A golden bundle, every file of it checked, and what its generator saw."""

    folder: Path
    model: lraee.Model
    expected: dict[str, np.ndarray]

    @property
    def depths(self) -> dict[str, Any]:
        """Policies that answer at one depth, by the name of their expected answers."""
        found: dict[str, Any] = {}
        for schedule in (None, *(one.name for one in self.model.manifest.schedules)):
            end = "" if schedule is None else f"_{schedule}"
            found[f"full{end}"] = lraee.Full(schedule)
            exits = self.model.manifest.schedule(schedule).exits
            found |= {f"exit_{exit.block}{end}": lraee.ExitAt(exit.block, schedule) for exit in exits}
        return found

    @property
    def schedules(self) -> list[str]:
        """Names of the merging schedules."""
        return [schedule.name for schedule in self.model.manifest.schedules]

    @property
    def points(self) -> list[str]:
        """Names of the operating points."""
        return [point.name for point in self.model.manifest.operating_points]


@pytest.fixture(scope="module", params=sorted(READS))
def kept(request: pytest.FixtureRequest) -> Golden:
    """The golden bundle of one format."""
    folder = FOLDER / f"format_{request.param}.lraee"
    with np.load(FOLDER / f"format_{request.param}.expected.npz") as stored:
        expected = dict(stored)
    golden = Golden(folder, lraee.load(folder, threads=1, verify="all"), expected)
    assert golden.model.manifest.format == request.param
    assert {exit.reads for exit in golden.model.manifest.exits} == READS[request.param]
    return golden


def test_there_is_a_golden_bundle_of_every_format() -> None:
    """Whoever raises the format keeps one of it."""
    assert sorted(READS) == list(range(1, FORMAT + 1))
    assert sorted(path.name for path in FOLDER.glob("*.lraee")) == [f"format_{number}.lraee" for number in READS]


@pytest.mark.parametrize("batch", [1, 8])
def test_a_golden_bundle_still_answers_the_same(kept: Golden, batch: int) -> None:
    """Embeddings and probabilities, at full depth and at every exit, for one image and several."""
    for name, policy in kept.depths.items():
        for start in range(0, len(kept.expected["pixels"]), batch):
            rows = slice(start, start + batch)
            answers = kept.model.run_pixels(kept.expected["pixels"][rows], policy=policy)
            probabilities = kept.expected[f"{name}_probabilities"][rows]
            embedding = kept.expected[f"{name}_embedding"][rows]
            assert np.abs(answers.probabilities - probabilities).max() < PROBABILITY_TOLERANCE, HOW_TO_CORRECT
            assert ((answers.embedding * embedding).sum(axis=1) > 1 - COSINE_TOLERANCE).all(), HOW_TO_CORRECT
            assert answers.schedule == (name.split("_")[-1] if name.endswith("merge") else None)
            if not name.startswith("full"):
                gate = kept.expected[f"{name}_gate"][rows]
                assert np.abs(answers.gate - gate).max() < PROBABILITY_TOLERANCE, HOW_TO_CORRECT


def test_a_golden_bundle_still_exits_at_the_same_blocks_with_the_same_labels(kept: Golden) -> None:
    """Exact: no gate lies within the tolerance of its threshold, and no two labels are as close."""
    met = set()
    for point in kept.points:
        answers = kept.model.run_pixels(kept.expected["pixels"], policy=lraee.Adaptive(point))
        met |= set(answers.exit_block.tolist())
        assert len(set(answers.exit_block.tolist())) > 1
        assert np.array_equal(answers.exit_block, kept.expected[f"{point}_exit_block"]), HOW_TO_CORRECT
        assert np.array_equal(answers.probabilities.argmax(axis=1), kept.expected[f"{point}_label"]), HOW_TO_CORRECT
    manifest = kept.model.manifest
    blocks = {exit.block for one in (None, *kept.schedules) for exit in manifest.schedule(one).exits}
    assert met == blocks | {kept.model.manifest.tower.blocks}


def test_a_policy_that_listens_runs_under_the_schedule_of_the_policy_within(kept: Golden) -> None:
    """Every exit of that schedule answers, and images leave as without the listener; so with a deadline far away."""
    pixels = kept.expected["pixels"]
    for point in kept.model.manifest.operating_points:
        alone = kept.model.run_pixels(pixels, policy=lraee.Adaptive(point.name))
        listening = EveryExit(lraee.Adaptive(point.name))
        for policy in (listening, lraee.Deadline(1e6, lraee.Adaptive(point.name))):
            within = kept.model.run_pixels(pixels, policy=policy)
            assert within.schedule == alone.schedule == point.schedule
            np.testing.assert_array_equal(within.exit_block, alone.exit_block)
        exits = kept.model.manifest.schedule(point.schedule).exits
        assert set(listening.verdicts) <= {exit.block for exit in exits}


def test_streams_and_low_memory_give_the_same_labels_and_exits(kept: Golden) -> None:
    """At every operating point, merged tokens included."""
    pixels, small = kept.expected["pixels"], lraee.load(kept.folder, memory="low")
    for point in kept.points:
        policy = lraee.Adaptive(point)
        streamed = kept.model.stream_pixels(pixels, policy=policy, batch_size=3, max_lag=5)
        for answers in (streamed, small.run_pixels(pixels, policy=policy)):
            np.testing.assert_array_equal(answers.exit_block, kept.expected[f"{point}_exit_block"])
            np.testing.assert_array_equal(answers.probabilities.argmax(axis=1), kept.expected[f"{point}_label"])


def test_no_expected_answer_is_close_to_another(kept: Golden) -> None:
    """What the test before relies on."""
    for point in kept.model.manifest.operating_points:
        block = kept.expected[f"{point.name}_exit_block"]
        end = "" if point.schedule is None else f"_{point.schedule}"
        probabilities = kept.expected[f"full{end}_probabilities"]
        for exit in kept.model.manifest.schedule(point.schedule).exits:
            here = (block == exit.block)[:, None]
            probabilities = np.where(here, kept.expected[f"exit_{exit.block}{end}_probabilities"], probabilities)
        second, first = np.sort(probabilities, axis=1)[:, -2:].T
        assert (first - second).min() > 2 * PROBABILITY_TOLERANCE
        for threshold in point.thresholds:
            if threshold.per_class is None:
                inside = block >= threshold.block
                gate = kept.expected[f"exit_{threshold.block}{end}_gate"][inside]
                assert np.abs(gate - threshold.value).min() > PROBABILITY_TOLERANCE


def test_a_golden_bundle_of_a_format_to_come_is_refused(kept: Golden, tmp_path: Path) -> None:
    """With what is read and what to do; so is a format 1 whose exits read what it does not know."""
    folder = Path(shutil.copytree(kept.folder, tmp_path / "x.lraee"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": FORMAT + 1}), "utf-8")
    said = f"format is {FORMAT + 1}, this version of lraee reads 1 to {FORMAT}; update lraee or export again"
    with pytest.raises(BundleError, match=said):
        lraee.load(folder)
    if manifest["format"] == 2:
        (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 1}), "utf-8")
        with pytest.raises(BundleError, match="reads 'attention', which is not in format 1, wanted format 2"):
            lraee.load(folder)
    if manifest["format"] == 3:
        (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 2}), "utf-8")
        with pytest.raises(BundleError, match="schedules are not in format 2, wanted format 3"):
            lraee.load(folder)


def test_the_golden_bundles_are_small(kept: Golden) -> None:
    """They are kept in the repository for as long as their format is read."""
    assert sum(path.stat().st_size for path in kept.folder.iterdir()) < 180_000
