"""Low-rank updates change only matrices of blocks, and merging them changes nothing."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from lraee_toolchain.adaptation.low_rank import add_low_rank, merge_low_rank
from lraee_toolchain.adaptation.tuning import Watch
from lraee_toolchain.config.learning import Adaptation

OPTIONS = Adaptation(epochs=1, head_epochs=1, exits=(1, 2), rank=4, learning_rate=1e-3, batch_size=16, frozen=0.0)


def test_merged_weights_compute_what_the_updates_did(few_lessons: Any) -> None:
    """Bit for bit, before and after the merge, and no trace of the updates is left."""
    block = copy.deepcopy(few_lessons.model.torch_model.visual.transformer.resblocks[3]).train()
    names = set(block.state_dict())
    tokens = torch.randn(2, 50, few_lessons.model.tower.width, generator=torch.Generator().manual_seed(0))
    before = run(block, tokens)
    learned = add_low_rank(block, rank=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run(block, tokens), before)
    with torch.no_grad():
        for parameter in learned:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    changed = run(block, tokens)
    assert (changed - before).abs().max() > 1e-3
    merge_low_rank(block)
    assert torch.equal(run(block, tokens), changed)
    assert set(block.state_dict()) == names


def run(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Compute without gradients and without the fused kernel for inference, which sums in another order."""
    with torch.no_grad():
        found: torch.Tensor = block(tokens)
    return found


def test_what_is_learned_has_the_rank_that_was_asked_for(few_lessons: Any, tmp_path: Path) -> None:
    """Query, key and value each have their own product; all but the blocks' matrices stays bit for bit."""
    visual, _ = few_lessons.tune(OPTIONS, tmp_path / "rank")
    given, found = few_lessons.model.torch_model.visual.state_dict(), visual.state_dict()
    assert given.keys() == found.keys()
    moved = {name for name in given if not torch.equal(given[name], found[name])}
    assert moved == {name for name in given if ".resblocks." in name and given[name].ndim == 2}
    for name in moved:
        change = (found[name] - given[name]).double()
        for part in change.chunk(3) if name.endswith("in_proj_weight") else [change]:
            sizes = torch.linalg.svdvals(part)
            assert sizes[3] > 10 * sizes[4], name  # what float32 leaves beyond the rank is rounding


def test_an_interrupted_low_rank_tuning_ends_in_the_same_weights(few_lessons: Any, tmp_path: Path) -> None:
    """The updates are what a checkpoint keeps."""
    wanted, _ = few_lessons.tune(OPTIONS, tmp_path / "whole")
    counts: list[int] = []

    def die(count: int) -> None:
        counts.append(count)
        if len(counts) > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        few_lessons.tune(OPTIONS, tmp_path / "killed", watch=Watch(images=die))
    found, _ = few_lessons.tune(dataclasses.replace(OPTIONS), tmp_path / "killed")
    for name, value in wanted.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
