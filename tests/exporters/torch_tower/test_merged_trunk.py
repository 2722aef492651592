"""The torch tower merges the tokens that the graphs merge, and learns through what it merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.block import BlockForm, build_block, float_block
from lraee_exporters.graphs.stem import build_stem
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_exporters.torch_tower.merged_trunk import merge, merging
from lraee_exporters.torch_tower.trunk import Machine, blocks_of, run_tower
from lraee_toolchain.adaptation.views import Views

Array = npt.NDArray[Any]
CPU = Machine(device=torch.device("cpu"), bf16=False)
SCHEDULES = [(0,) * 12, (3,) * 11 + (0,), (0, 0, 9, 0, 7, 1, 0, 2, 2, 0, 1, 0)]


@pytest.fixture(scope="module")
def reference() -> LoadedModel:
    """With its torch model."""
    return load_model("reference")


def pixels() -> Array:
    """Noise with edges, uint8 (6, 28, 28, 3)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
    images[:, :, 14:] //= 4
    return images


def run_parts(model: LoadedModel, schedule: tuple[int, ...], folder: Path) -> tuple[Array, Array | None]:
    """The tokens after the float graphs of all blocks, and their sizes."""
    tower = model.tower

    def run(part: Any, **inputs: Array) -> list[Array]:
        part[1].save(folder)
        return list(make_session(part[0].save(folder), SessionSettings(threads=1)).run(None, inputs))

    (tokens,), sizes = run(build_stem(tower, quantized=False), pixels=pixels()), None
    for number, (block, merged) in enumerate(zip(tower.blocks, schedule, strict=True), start=1):
        weights, count = float_block(block, tower.activation), tokens.shape[1]
        sized = sizes is not None
        part = build_block(weights, BlockForm(token_count=count, merged=merged, sized=sized), number=number)
        tokens, *more = run(part, tokens=tokens, **({} if sizes is None else {"sizes": sizes}))
        sizes = more[0] if more else sizes
    return tokens, sizes


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_torch_tower_merges_what_the_graphs_merge(
    schedule: tuple[int, ...], reference: LoadedModel, tmp_path: Path
) -> None:
    """The same pairs after every block: equal sizes, and tokens to float32 rounding; afterwards it merges nothing."""
    visual, preprocessing = reference.torch_model.visual, reference.tower.preprocessing
    views = Views(mean=preprocessing.mean, std=preprocessing.std, device=CPU.device)
    images = views.plain(pixels())
    with torch.no_grad():
        before = run_tower(visual, images, (12,), CPU)
        with merging(visual, schedule) as after:
            met = run_tower(visual, images, (12,), CPU)
        again = run_tower(visual, images, (12,), CPU)
    tokens, sizes = run_parts(reference, schedule, tmp_path)
    np.testing.assert_allclose(met.tokens[0].numpy(), tokens, atol=2e-4)
    np.testing.assert_array_equal(after[-1].numpy(), np.ones((6, 50, 1)) if sizes is None else sizes)
    assert [one.shape[1] for one in after] == [50 - sum(schedule[: block + 1]) for block in range(12)]
    torch.testing.assert_close(again.embedding, before.embedding, rtol=0, atol=0)


def test_gradients_flow_through_merged_tokens(reference: LoadedModel) -> None:
    """To the first block, and to a token that was merged."""
    visual = reference.torch_model.visual
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    weight = blocks_of(visual)[0].mlp.c_fc.weight
    weight.requires_grad_(True)
    try:
        with merging(visual, SCHEDULES[1]):
            run_tower(visual, images, (), CPU).embedding[:, 0].sum().backward()
        assert weight.grad is not None
        assert float(weight.grad.abs().sum()) > 0
    finally:
        weight.requires_grad_(False)
        weight.grad = None
    tokens = torch.randn(1, 6, 4, requires_grad=True)
    keys = torch.eye(6)[None].clone()
    keys[0, 2] = keys[0, 3]  # token 2 merges into token 3
    merged, sizes = merge(tokens, keys, torch.ones(1, 6, 1), 1, class_token=True)
    assert sizes[0, :, 0].tolist() == [1, 1, 1, 2, 1]
    merged[0, 3].sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[0, :, 0].tolist() == [0, 0, 0.5, 0.5, 0, 0]


def test_of_equal_similarities_the_first_goes_first() -> None:
    """As in the graphs: tokens 2 and 4 are the first patches in A, and token 1 the first in B."""
    tokens, sizes = torch.randn(3, 9, 4), torch.randint(1, 4, (3, 9, 1)).float()
    keys = torch.ones(3, 9, 2)
    merged, after = merge(tokens, keys, sizes, 2, class_token=True)
    first = tokens[:, 1] * sizes[:, 1] + tokens[:, 2] * sizes[:, 2] + tokens[:, 4] * sizes[:, 4]
    torch.testing.assert_close(merged[:, 3], first / (sizes[:, 1] + sizes[:, 2] + sizes[:, 4]))
    torch.testing.assert_close(after.sum(1), sizes.sum(1))
