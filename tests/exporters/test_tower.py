"""The framework-free description of an image tower: it is complete, checked, and computes what open_clip computes."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import TowerError
from lraee_exporters.loading.open_clip_models import tower_of
from lraee_exporters.tower import LayerNorm, Linear, Tower

Array = npt.NDArray[Any]

PREPROCESSING = Preprocessing(
    image_size=24, resize_mode="shortest", interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
)


def describe(model: Any) -> Tower:
    """A tower of a small model."""
    return tower_of(model, model_id="small", weights="random", architecture="small", preprocessing=PREPROCESSING)


def embed_with_numpy(tower: Tower, images: Array) -> Array:
    """The tower's definition, written out: float64 (batch, 3, side, side) to (batch, embed_dim)."""
    batch, patch, grid = len(images), tower.patch_size, tower.grid
    patches = images.reshape(batch, 3, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(batch, grid * grid, -1) @ tower.patch_kernel.reshape(tower.width, -1).T
    if tower.patch_bias is not None:
        patches = patches + tower.patch_bias
    class_token = np.broadcast_to(tower.class_embedding, (batch, 1, tower.width))
    x = np.concatenate([class_token, patches], axis=1) + tower.positions
    if tower.norm_pre is not None:
        x = norm(tower.norm_pre, x)
    for block in tower.blocks:
        y, attention = norm(block.norm_1, x), block.attention
        query, key, value = (
            linear(layer, y).reshape(batch, tower.tokens, tower.heads, -1).transpose(0, 2, 1, 3)
            for layer in (attention.query, attention.key, attention.value)
        )
        logits = query @ key.transpose(0, 1, 3, 2) / math.sqrt(tower.width / tower.heads)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + linear(attention.out, (weights @ value).transpose(0, 2, 1, 3).reshape(batch, tower.tokens, tower.width))
        hidden = linear(block.mlp.fc1, norm(block.norm_2, x))
        x = x + linear(block.mlp.fc2, activate(tower.activation, hidden))
    return norm(tower.norm_post, x[:, 0]) @ tower.projection


def norm(layer: LayerNorm, x: Array) -> Array:
    """Compute a LayerNorm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.epsilon) * layer.weight + layer.bias


def linear(layer: Linear, x: Array) -> Array:
    """Linear layer on the last axis."""
    return x @ layer.weight.T + layer.bias


def activate(name: str, x: Array) -> Array:
    """Compute GELU with erf, or QuickGELU."""
    if name == "quick_gelu":
        return x / (1 + np.exp(-1.702 * x))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"quick_gelu": True},
        {"vision_cfg": {"no_ln_pre": True}},
        {"vision_cfg": {"head_width": 16, "mlp_ratio": 2.5}},
        {"vision_cfg": {"patch_dropout": 0.5}},
        {"vision_cfg": {"norm_kwargs": {"eps": 1e-3}}},
        {"vision_cfg": {"pos_embed_type": "sin_cos_2d", "image_size": [24, 24]}},
        {"vision_cfg": {"block_type": "custom"}},
    ],
    ids=lambda change: str(change.get("vision_cfg", change)) or "plain",
)
def test_a_tower_computes_what_open_clip_computes(
    change: dict[str, Any], small_config: dict[str, Any], build_model: Callable[[dict[str, Any]], Any]
) -> None:
    """Tolerance: both sides differ by float32 rounding of a sum of at most 192 products, far below 1e-4."""
    vision = {**small_config["vision_cfg"], **change.get("vision_cfg", {})}
    model = build_model({**small_config, **change, "vision_cfg": vision})
    images = np.random.default_rng(0).normal(size=(4, 3, 24, 24))
    expected = model.encode_image(torch.from_numpy(images).float()).numpy()
    np.testing.assert_allclose(embed_with_numpy(describe(model), images), expected, atol=1e-4, rtol=1e-4)


def test_a_tower_knows_its_sizes(small_config: dict[str, Any], build_model: Callable[[dict[str, Any]], Any]) -> None:
    """All sizes are read off the arrays."""
    tower = describe(build_model(small_config))
    assert (tower.width, tower.heads, tower.depth, tower.mlp_width, tower.embed_dim) == (32, 4, 3, 128, 12)
    assert (tower.tokens, tower.patches, tower.grid, tower.patch_size, tower.image_size) == (10, 9, 3, 8, 24)


def test_equal_towers_have_equal_fingerprints_and_one_changed_weight_is_seen(
    small_config: dict[str, Any], build_model: Callable[[dict[str, Any]], Any]
) -> None:
    """Arrays, settings and names all count."""
    model = build_model(small_config)
    tower = describe(model)
    assert tower.fingerprint() == describe(model).fingerprint()
    class_embedding = tower.class_embedding.copy()
    class_embedding[3] = np.nextafter(class_embedding[3], np.float32(9))
    changed = [
        replace(tower, class_embedding=class_embedding),
        replace(tower, activation="quick_gelu"),
        replace(tower, model_id="other"),
        replace(tower, preprocessing=replace(PREPROCESSING, interpolation="bilinear")),
    ]
    assert len({tower.fingerprint(), *(other.fingerprint() for other in changed)}) == 5


def test_a_tower_does_not_follow_later_changes_of_the_torch_model(
    small_config: dict[str, Any], build_model: Callable[[dict[str, Any]], Any]
) -> None:
    """The description owns its arrays."""
    model = build_model(small_config)
    tower = describe(model)
    before = tower.fingerprint()
    for parameter in model.parameters():
        parameter.zero_()
    assert tower.fingerprint() == before


def test_arrays_of_wrong_shape_type_or_value_are_refused(
    small_config: dict[str, Any], build_model: Callable[[dict[str, Any]], Any]
) -> None:
    """The message names the array, what was met and what was wanted."""
    tower = describe(build_model(small_config))
    with pytest.raises(TowerError, match=r"Tower\.positions: met float32 \(9, 32\), wanted float32 \(10, 32\)"):
        replace(tower, positions=tower.positions[1:])
    with pytest.raises(TowerError, match=r"Tower\.projection: met float64"):
        replace(tower, projection=tower.projection.astype(np.float64))  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TowerError, match="NaN or infinity"):
        replace(tower, class_embedding=tower.class_embedding * np.float32(np.inf))
    with pytest.raises(TowerError, match=r"Attention\.heads: met 5"):
        replace(tower.blocks[0].attention, heads=5)
    with pytest.raises(TowerError, match="not a multiple of the patch size"):
        replace(tower, preprocessing=replace(PREPROCESSING, image_size=25))
