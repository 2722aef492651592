"""The torch tower merges the tokens that the graphs merge, and learns through what it merges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from lraee.ort.sessions import SessionSettings, make_session
from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset
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


def run_parts(
    model: LoadedModel,
    schedule: tuple[int, ...],
    folder: Path,
    change: Callable[[onnx.ModelProto], None] = lambda graph: None,
) -> tuple[Array, Array | None]:
    """The tokens after the float graphs of all blocks, each changed beforehand, and their sizes."""
    tower = model.tower

    def run(part: Any, **inputs: Array) -> list[Array]:
        part[1].save(folder)
        path = part[0].save(folder)
        graph = onnx.load(path, load_external_data=False)
        change(graph)
        path.write_bytes(graph.SerializeToString())
        return list(make_session(path, SessionSettings(threads=1)).run(None, inputs))

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


def in_every_image(name: str, **attributes: int) -> Callable[[onnx.ModelProto], None]:
    """Sets attributes of the node of that name, where there is one."""

    def change(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            for attribute in node.attribute:
                if node.name == name and attribute.name in attributes:
                    attribute.i = attributes[attribute.name]

    return change


def passing_on(name: str, place: int = 0) -> Callable[[onnx.ModelProto], None]:
    """Puts one input of the node of that name in the place of its output, where there is one."""

    def change(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            if node.name == name:
                kept, output = node.input[place], node.output[0]
                node.CopyFrom(onnx.helper.make_node("Identity", [kept], [output], name=name))

    return change


MISTAKES: dict[str, Callable[[onnx.ModelProto], None]] = {
    "the least similar pairs merge": in_every_image("ranked_similarities", largest=0),
    "each finds its least similar partner": in_every_image("best", largest=0),
    "the class token merges": passing_on("best_of_patches"),
    "tokens that stay are out of order": in_every_image("stays_in_order", largest=1),
    "sums in place of means": passing_on("means"),
    "a token counts once in a mean": passing_on("weighted_tokens"),
    "similarity of keys that are not of unit length": passing_on("unit_keys"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_in_merging_changes_the_tokens(mistake: str, reference: LoadedModel, tmp_path: Path) -> None:
    """By far more than rounding, so that the test above would see it."""
    tokens, _ = run_parts(reference, SCHEDULES[1], tmp_path)
    changed, _ = run_parts(reference, SCHEDULES[1], tmp_path, MISTAKES[mistake])
    assert np.abs(changed - tokens).max() > 0.05


def test_pairs_agree_with_torch_on_real_images(reference: LoadedModel, tmp_path: Path) -> None:
    """After every block, given the same tokens and sizes: at least 99.5 % of the tokens, each to float32 rounding."""
    tower, visual, schedule = reference.tower, reference.torch_model.visual, SCHEDULES[1]
    dataset = open_dataset(fashion_mnist_test()).subset(range(64))
    views = Views(mean=tower.preprocessing.mean, std=tower.preprocessing.std, device=CPU.device)
    images = views.plain(load_pixels(dataset, tower.preprocessing).pixels)
    with torch.no_grad(), merging(visual, schedule) as sizes:
        answers = run_tower(visual, images, range(1, 13), CPU)
    for number in range(2, 12):
        tokens, counts = answers.tokens[number - 2].numpy(), sizes[number - 2].numpy()
        form = BlockForm(token_count=tokens.shape[1], merged=schedule[number - 1], sized=True)
        graph, weights = build_block(float_block(tower.blocks[number - 1], tower.activation), form, number=number)
        weights.save(tmp_path)
        session = make_session(graph.save(tmp_path), SessionSettings(threads=1))
        met, met_sizes = session.run(None, {"tokens": tokens, "sizes": counts})
        near = np.abs(met - answers.tokens[number - 1].numpy()).max(axis=2) < 2e-4
        same = near & (met_sizes == sizes[number - 1].numpy())[:, :, 0]
        assert same.mean() >= 0.995, number


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
