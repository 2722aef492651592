"""Costs and answers of a tower where a schedule merges tokens: savings count against all tokens at full depth."""

from dataclasses import replace

import numpy as np

from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.task import Costs, Material, MergedCosts

COSTS = Costs(stem=1, block=20, last=5, exits={"patch_mean": 3}, tail=2, depth=4)
MERGED = MergedCosts(blocks=(18, 15, 12, 4), exits=({"patch_mean": 3},) * 3 + ({"patch_mean": 1},), tail=2)


def test_merged_tokens_cost_less_up_to_every_block_and_full_depth_stays_the_measure() -> None:
    """Without a schedule the end costs what full depth does."""
    assert (COSTS.full, COSTS.end, COSTS.up_to(2), COSTS.exit("patch_mean", 2)) == (68, 68, 41, 3)
    merged = replace(COSTS, merged=MERGED)
    assert (merged.full, merged.end, merged.up_to(2), merged.exit("patch_mean", 4)) == (68, 52, 34, 1)


def test_answers_of_merged_tokens_are_compared_with_those_of_all() -> None:
    """Which is right about another image than the merged ones, also after images were selected."""
    merged, full = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]], np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    nothing = np.zeros((4, 1, 2), np.float32)
    features = Features(nothing, None, nothing[..., 0], full, merged)
    material = Material(features=features, teacher=Teacher(full, full), classes=np.array([0, 1, 2, 2]), unmerged=full)
    assert material.full_good.tolist() == [True, True, True, False]
    assert material.merged_good is not None
    assert material.merged_good.tolist() == [True, True, False, True]
    some = material.rows(np.array([3, 0]))
    assert some.full_good.tolist() == [False, True]
    assert some.merged_good is not None
    assert some.merged_good.tolist() == [True, True]
    plain = replace(material, unmerged=None)
    assert plain.merged_good is None
    assert plain.full_good.tolist() == [True, True, False, True]
