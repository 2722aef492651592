"""Exit heads that learned with the trunk are the exits' own: the same function, kept on disk, not trained anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lraee_toolchain.adaptation.exit_heads import as_heads, build_heads
from lraee_toolchain.early_exit.heads import head_embeddings
from lraee_toolchain.early_exit.task import Head
from lraee_toolchain.early_exit.token_heads.reading import pool_tensors, read_tokens
from lraee_toolchain.early_exit.token_heads.saved import load_heads, save_heads
from lraee_toolchain.early_exit.token_heads.sources import normed_tokens

WIDTH, EMBED = 16, 8


def answers(head: Head, tokens: NDArray[np.float32], *, class_token: bool) -> NDArray[np.float32]:
    """Compute what an exit's head says of raw tokens, as the export does."""
    assert head.pool is not None
    values = torch.from_numpy(normed_tokens(tokens)).float()
    read = read_tokens(values, pool_tensors(head.pool), class_token=class_token)
    return head_embeddings(head, read.numpy())


@pytest.mark.parametrize("class_token", [True, False])
def test_a_learned_head_answers_as_the_exit_will(class_token: bool, tmp_path: Path) -> None:
    """Before and after it was kept; tolerance: exits read tokens that were rounded to FP16."""
    modules = build_heads([3, 5], (WIDTH, EMBED), class_token=class_token, seed=1)
    tokens = np.random.default_rng(0).normal(size=(6, 16 + class_token, WIDTH)).astype(np.float32)
    save_heads(as_heads({3: modules[0], 5: modules[1]}), tmp_path)
    found = load_heads(tmp_path)
    assert list(found) == [3, 5]
    for module, head in zip(modules, found.values(), strict=True):
        with torch.no_grad():
            wanted = module(torch.from_numpy(tokens)).numpy()
        assert np.abs(answers(head, tokens, class_token=class_token) - wanted).max() < 2e-3
    assert np.abs(wanted - answers(found[3], tokens, class_token=class_token)).max() > 0.1


def test_no_heads_are_kept_too(tmp_path: Path) -> None:
    """Those of the control arm, which has no exits."""
    save_heads({}, tmp_path)
    assert load_heads(tmp_path) == {}
