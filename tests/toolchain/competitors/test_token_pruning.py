"""Pruning saves what it is asked for, keeps what it judges best, and gets every advantage that costs nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.block import BlockForm, build_block, float_block
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.torch_tower.merged_trunk import _attend
from lraee_exporters.torch_tower.trunk import blocks_of
from lraee_toolchain.competitors.token_pruning import SCORES, Score, flops_saved, keep_for, prune, token_counts


def tower(tokens: int = 50) -> Any:
    """The shape of the reference."""
    return SimpleNamespace(
        tokens=tokens,
        patches=tokens - 1,
        depth=12,
        width=128,
        mlp_width=512,
        heads=4,
        patch_size=4,
        embed_dim=128,
        projection=True,
        has_class_token=True,
    )


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("saved", [0.1, 0.3, 0.5])
def test_the_largest_keep_rate_that_saves_enough_is_taken(score: Score, saved: float) -> None:
    """One patch more at each place would save less than was asked for."""
    keep = keep_for(tower(), saved, score)
    counts = token_counts(tower(), keep, score)
    assert flops_saved(tower(), counts) >= saved
    assert flops_saved(tower(), token_counts(tower(), keep + 0.02, score)) < saved
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 12
    assert len(set(counts)) == 4


def test_all_patches_save_nothing() -> None:
    """Nothing is fused either."""
    for score in SCORES:
        assert token_counts(tower(), 1.0, score) == [50] * 12
        assert flops_saved(tower(), [50] * 12) == 0


def test_what_is_judged_best_stays_in_its_order() -> None:
    """By cosine or attention; the fused token is the mean of the rest, weighted by attention."""
    tokens = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    tokens[:, 4] = 3 * tokens[:, 0]
    attention = np.array([[9, 0.1, 0.4, 0.2, 0.05, 0.25]] * 2, np.float32)
    by_attention = prune(tokens, attention, 4, "attention")
    assert np.array_equal(by_attention, tokens[:, [0, 2, 3, 5]])
    assert np.array_equal(prune(tokens, attention, 2, "cosine"), tokens[:, [0, 4]])
    fused = prune(tokens, attention, 4, "attention, rest fused")
    assert np.array_equal(fused[:, :3], tokens[:, [0, 2, 5]])
    rest = (0.2 * tokens[:, 3] + 0.1 * tokens[:, 1] + 0.05 * tokens[:, 4]) / 0.35
    assert np.allclose(fused[:, 3], rest, atol=1e-6)


def test_a_block_gives_the_attention_of_its_class_token(tmp_path: Path) -> None:
    """As torch computes it, summed over the heads; the tokens are those of the plain block."""
    import torch

    model = load_model("reference")
    weights = float_block(model.tower.blocks[2], model.tower.activation)
    tokens = np.random.default_rng(1).normal(size=(3, 50, model.tower.width)).astype(np.float32)
    found = []
    for asked in (False, True):
        graph, file = build_block(weights, BlockForm(token_count=50), number=3, class_attention=asked)
        file.save(tmp_path)
        session = make_session(graph.save(tmp_path), SessionSettings())
        found.append(session.run(None, {"tokens": tokens}))
    assert np.array_equal(found[0][0], found[1][0])
    block: Any = blocks_of(model.torch_model.visual)[2]
    with torch.no_grad():
        _, keys = _attend(block, torch.from_numpy(tokens), None)
        normed = block.ln_1(torch.from_numpy(tokens))
        query, key, _ = torch.nn.functional.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(
            3, dim=-1
        )
        heads, channels = block.attn.num_heads, query.shape[-1] // block.attn.num_heads
        split = [value.view(3, 50, heads, channels).transpose(1, 2) for value in (query, key)]
        assert torch.allclose(split[1].sum(dim=1), keys, atol=1e-5)
        wanted = (split[0] @ split[1].transpose(2, 3) / channels**0.5).softmax(dim=-1)[:, :, 0].sum(dim=1)
    assert np.allclose(found[1][1], wanted.numpy(), atol=1e-5)
