"""Exit heads that learned with the trunk are the exits' own: the same function, kept on disk, not trained anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lraee_toolchain.adaptation.exit_heads import as_heads, build_heads
from lraee_toolchain.adaptation.lessons import TuningTask
from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.early_exit.heads import head_embeddings
from lraee_toolchain.early_exit.task import Head
from lraee_toolchain.early_exit.token_heads.reading import pool_tensors, read_tokens
from lraee_toolchain.early_exit.token_heads.saved import load_heads, save_heads
from lraee_toolchain.early_exit.token_heads.sources import normed_tokens

WIDTH, EMBED = 16, 8


def task() -> TuningTask:
    """Two exits, whose heads are drawn by seed 1."""
    return TuningTask(
        labels=np.zeros((1, EMBED), np.float32),
        logit_scale=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        exits=(3, 5),
        options=Adaptation(),
        seed=1,
    )


def answers(head: Head, tokens: NDArray[np.float32], *, class_token: bool) -> NDArray[np.float32]:
    """Compute what an exit's head says of raw tokens, as the export does."""
    assert head.pool is not None
    values = torch.from_numpy(normed_tokens(tokens)).float()
    read = read_tokens(values, pool_tensors(head.pool), class_token=class_token)
    return head_embeddings(head, read.numpy())


@pytest.mark.parametrize("class_token", [True, False])
def test_a_learned_head_answers_as_the_exit_will(class_token: bool, tmp_path: Path) -> None:
    """Before and after it was kept; tolerance: exits read tokens that were rounded to FP16."""
    modules = build_heads(task(), WIDTH, class_token=class_token)
    tokens = np.random.default_rng(0).normal(size=(6, 16 + class_token, WIDTH)).astype(np.float32)
    save_heads(as_heads({3: modules[0], 5: modules[1]}), tmp_path)
    found = load_heads(tmp_path)
    assert list(found) == [3, 5]
    for module, head in zip(modules, found.values(), strict=True):
        with torch.no_grad():
            wanted = module(torch.from_numpy(tokens)).numpy()
        assert np.abs(answers(head, tokens, class_token=class_token) - wanted).max() < 2e-3
    assert np.abs(wanted - answers(found[3], tokens, class_token=class_token)).max() > 0.1


def test_heads_go_on_from_those_that_a_task_names() -> None:
    """Block 3 has one and starts from it, block 5 has none and starts anew."""
    new = build_heads(task(), WIDTH, class_token=True)
    with torch.no_grad():
        new[0].queries.add_(1.0)
    found = build_heads(dataclasses.replace(task(), heads=as_heads({3: new[0]})), WIDTH, class_token=True)
    for name, value in new[0].state_dict().items():
        assert torch.equal(found[0].state_dict()[name], value), name
    again = build_heads(dataclasses.replace(task(), heads=as_heads({3: new[0]}), exits=(5,)), WIDTH, class_token=True)
    assert torch.equal(again[0].fc1.weight, build_heads(task(), WIDTH, class_token=True)[0].fc1.weight)


def test_no_heads_are_kept_too(tmp_path: Path) -> None:
    """Those of the control arm, which has no exits."""
    save_heads({}, tmp_path)
    assert load_heads(tmp_path) == {}
