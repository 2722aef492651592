"""Rows of the shipped bundle: which there are, and that they compute what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import lraee
from lraee.engine.orchestrator import Answers
from lraee.errors import PolicyError
from lraee.policies.spec import POLICY_SPECS
from lraee_benchmarks.images import load_sample
from lraee_benchmarks.render.wording import KIND_TEXTS
from lraee_benchmarks.results.model import BY_IMAGE, RowKind
from lraee_benchmarks.rows.baselines import BASELINES
from lraee_benchmarks.rows.policy_rows import KINDS, Variant, chain_policies, chain_variant

GOLDEN = Path(__file__).parents[2] / "runtime" / "golden"


@pytest.fixture(scope="module")
def model() -> lraee.Model:
    """The shipped bundle."""
    return lraee.load("reference", threads=1)


@pytest.fixture(scope="module")
def pixels(model: lraee.Model) -> NDArray[np.uint8]:
    """Eight garments as one batch."""
    sample = load_sample("fashion-mnist", model.manifest.preprocessing, count=8, batch=8, seed=0)
    return sample.batches[0]


def chain_variants(model: lraee.Model, specs: Sequence[str]) -> list[Variant[Answers]]:
    """The chain's rows, as a measurement opens them."""
    return [chain_variant(model, name, policy) for name, policy in chain_policies(model.manifest, specs).items()]


def test_default_rows_are_the_named_points_all_exits_and_full_depth(model: lraee.Model) -> None:
    """Each once, named as it would be typed; the points of the Pareto front only when asked for."""
    names = [variant.name for variant in chain_variants(model, [])]
    points = [f"adaptive={point.name}" for point in model.manifest.operating_points if "-" not in point.name]
    assert len(points) < len(model.manifest.operating_points)
    assert names == [*points, *(f"exit={exit.block}" for exit in model.manifest.exits), "full"]


def test_full_depth_is_always_run_and_never_twice(model: lraee.Model) -> None:
    """Savings need something to be compared with."""
    assert [variant.name for variant in chain_variants(model, ["full"])] == ["full"]
    exit = f"exit={model.manifest.exits[0].block}"
    assert [variant.name for variant in chain_variants(model, [exit])] == [exit, "full"]


def test_the_default_point_is_spelled_out(model: lraee.Model) -> None:
    """`adaptive` and `adaptive=POINT` are one row."""
    point = f"adaptive={model.manifest.default_point}"
    assert [variant.name for variant in chain_variants(model, ["adaptive", point])] == [point, "full"]


def test_full_depth_with_merged_tokens_is_a_row_of_its_own_kind() -> None:
    """Savings are never counted against it; its exits run when asked for."""
    merging = lraee.load(GOLDEN / "format_3.lraee", threads=1)
    found = {variant.name: variant.kind for variant in chain_variants(merging, [])}
    assert found == {
        "adaptive=balanced": "adaptive",
        "adaptive=accurate": "adaptive",
        "full@merge": "merged",
        "exit=2": "exit",
        "full": "full",
    }
    asked = {variant.name: variant.kind for variant in chain_variants(merging, ["full@merge", "exit=3@merge"])}
    assert asked == {"full@merge": "merged", "exit=3@merge": "exit", "full": "full"}
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    (row,) = [variant for variant in chain_variants(merging, ["full@merge"]) if variant.kind == "merged"]
    assert (row.read(row.run(pixels)).flops < merging.manifest.full_flops).all()


def test_an_exit_that_the_bundle_lacks_is_refused(model: lraee.Model) -> None:
    """Before anything is timed."""
    with pytest.raises(PolicyError, match="no exit after block 99"):
        chain_variants(model, ["exit=99"])


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("adaptive", "adaptive"),
        ("full", "full"),
        ("exit=5", "exit"),
        ("confidence=0.9", "confidence"),
        ("entropy=0.5", "entropy"),
        ("patience=1", "patience"),
        ("deadline=40", "deadline"),
    ],
)
def test_a_row_is_of_the_kind_of_its_policy(model: lraee.Model, spec: str, kind: str) -> None:
    """Heuristics are no fixed exits: their images leave where they like."""
    assert chain_variants(model, [spec])[0].kind == kind


def test_every_policy_that_can_be_typed_has_a_kind() -> None:
    """A new policy needs one here, and a description in the reports."""
    typed = {re.match(r"\w+", spec.strip())[0] for spec in POLICY_SPECS.split("|")}  # type: ignore[index]  # they match
    assert set(KINDS.values()) == typed
    assert set(KIND_TEXTS) == set(get_args(RowKind)) == typed | {"merged"} | set(BASELINES)
    assert set(BY_IMAGE) == typed - {"full", "exit", "deadline"}


@pytest.mark.parametrize("spec", ["confidence=0.5", "entropy=1", "patience=1"])
def test_heuristics_visit_every_exit_on_their_way(model: lraee.Model, pixels: NDArray[np.uint8], spec: str) -> None:
    """Which their FLOPs count: leaving at an exit costs more than going straight to it."""
    variants = {variant.name: variant for variant in chain_variants(model, [])}
    (routed, _) = chain_variants(model, [spec])
    outcome = routed.read(routed.run(pixels))
    first, *later = [exit.block for exit in model.manifest.exits]
    assert outcome.early.any()
    for block, flops, early in zip(outcome.exit_block, outcome.flops, outcome.early, strict=True):
        name = f"exit={block}" if early else "full"
        straight = int(variants[name].read(variants[name].run(pixels)).flops[0])
        assert (flops == straight) if early and block == first else (flops > straight)
    assert later


def test_rows_cost_what_ran(model: lraee.Model, pixels: NDArray[np.uint8]) -> None:
    """Full depth costs the manifest's FLOPs; an exit costs less; exits say where they are."""
    variants = {variant.name: variant for variant in chain_variants(model, [])}
    full = variants["full"].read(variants["full"].run(pixels))
    assert full.flops.tolist() == [model.manifest.full_flops] * 8
    assert not full.early.any()
    first = model.manifest.exits[0].block
    left = variants[f"exit={first}"].read(variants[f"exit={first}"].run(pixels))
    assert left.exit_block.tolist() == [first] * 8
    assert left.early.all()
    assert (left.flops < full.flops).all()
