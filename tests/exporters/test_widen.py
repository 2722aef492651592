"""Widening and outliers change a tower's shape and ranges, never its function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import TowerError
from lraee_exporters.labels import embed_labels, reference_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model, tower_of
from lraee_exporters.widen import inject_outliers, nearest_transform, to_open_clip, widen

Build = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def reference() -> LoadedModel:
    """Load the shipped model."""
    return load_model("reference")


@pytest.fixture(scope="module")
def widened() -> LoadedModel:
    """The shipped model at the size of ViT-B/32."""
    return load_model("reference-b32")


def clothing_like_images(count: int) -> list[Image.Image]:
    """Grey 28 x 28 images with smooth bright shapes on black, in the manner of Fashion-MNIST."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:28, 0:28]
    images = []
    for _ in range(count):
        (height, width), tilt = generator.uniform(4, 13, 2), generator.uniform(-0.5, 0.5)
        inside = ((rows - 14) / height) ** 4 + ((columns - 14 - tilt * (rows - 14)) / width) ** 4 < 1
        texture = generator.uniform(60, 255) + generator.normal(0, 20, (28, 28))
        images.append(Image.fromarray((inside * texture).clip(0, 255).astype(np.uint8)))
    return images


def logits(model: LoadedModel, images: list[Image.Image]) -> np.ndarray[Any, Any]:
    """Scaled cosines with the ten classes, float32 (images, 10)."""
    pixels = torch.stack([model.transform(image.convert("RGB")) for image in images])
    rows = model.torch_model.encode_image(pixels, normalize=True).numpy()
    return np.asarray(rows @ embed_labels(model, reference_labels()).T * model.tower.logit_scale)


def small_tower(model: Any) -> Any:
    """Describe a small model's tower."""
    preprocessing = Preprocessing(
        image_size=24, resize_mode="shortest", interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    return tower_of(model, model_id="small", weights="random", architecture="small", preprocessing=preprocessing)


def test_reference_b32_has_the_shape_of_vit_b_32(widened: LoadedModel) -> None:
    """So that its blocks cost what those of ViT-B/32 cost."""
    tower = widened.tower
    assert (tower.width, tower.heads, tower.mlp_width, tower.depth, tower.embed_dim) == (768, 12, 3072, 12, 512)
    assert (tower.image_size, tower.patch_size, tower.tokens) == (224, 32, 50)
    assert (tower.model_id, tower.weights, tower.preprocessing.interpolation) == (
        "reference-b32",
        "reference",
        "nearest",
    )


def test_reference_b32_gives_the_logits_of_the_reference(reference: LoadedModel, widened: LoadedModel) -> None:
    """Tolerance 1e-4 on logits of about 10: the rewrite is exact, float32 sums of 768 terms round differently."""
    images = clothing_like_images(8)
    expected = logits(reference, images)
    assert expected.std() > 0.5  # the images do tell the classes apart
    np.testing.assert_allclose(logits(widened, images), expected, atol=1e-4)


@pytest.mark.parametrize(("width_factor", "head_width", "image_factor"), [(1, 8, 1), (2, 8, 3), (2, 16, 1), (6, 24, 2)])
def test_any_whole_factor_keeps_the_function(
    width_factor: int, head_width: int, image_factor: int, small_config: dict[str, Any], build_model: Build
) -> None:
    """Copies of heads, wider heads, and both; the embedding is tiled, its cosines stay."""
    model = build_model({**small_config, "quick_gelu": True})
    tower = widen(
        small_tower(model),
        width_factor=width_factor,
        head_width=head_width,
        image_factor=image_factor,
        embed_factor=2,
    )
    images = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    enlarged = images.repeat_interleave(image_factor, 2).repeat_interleave(image_factor, 3)
    wide = to_open_clip(tower, model)
    expected = model.encode_image(images)
    torch.testing.assert_close(wide.encode_image(enlarged), expected.repeat(1, 2), atol=1e-4, rtol=1e-4)
    tokens = torch.randint(0, 49408, (2, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide.encode_text(tokens), model.encode_text(tokens).repeat(1, 2))
    assert tower.activation == "quick_gelu"


def test_widening_to_sizes_that_do_not_divide_is_refused(small_config: dict[str, Any], build_model: Build) -> None:
    """Heads of 8 cannot become heads of 12, nor twice as wide in a tower three times as wide."""
    tower = small_tower(build_model(small_config))
    for width_factor, head_width in ((6, 12), (3, 16), (0, 8)):
        with pytest.raises(TowerError, match="Cannot widen"):
            widen(tower, width_factor=width_factor, head_width=head_width)


@pytest.mark.parametrize("factor", [128.0, 3.7])
def test_outliers_enlarge_activations_and_keep_the_function(
    factor: float, small_config: dict[str, Any], build_model: Build
) -> None:
    """Every LayerNorm of a block gets its channels; a power of two changes no product's rounding."""
    model = build_model(small_config)
    tower = small_tower(model)
    changed = inject_outliers(tower, channels_per_norm=3, factor=factor, seed=1)
    for before, after in zip(tower.blocks, changed.blocks, strict=True):
        for ratio in (after.norm_1.weight / before.norm_1.weight, after.norm_2.bias / before.norm_2.bias):
            np.testing.assert_allclose(np.sort(ratio)[-4:], [1, factor, factor, factor], rtol=1e-6)
    images = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        to_open_clip(changed, model).encode_image(images), model.encode_image(images), atol=1e-4, rtol=1e-4
    )
    assert changed.fingerprint() != tower.fingerprint()
    assert changed.fingerprint() == inject_outliers(tower, factor=factor, seed=1).fingerprint()


def test_outliers_out_of_range_are_refused(small_config: dict[str, Any], build_model: Build) -> None:
    """More channels than there are, or a factor that is not a scale."""
    tower = small_tower(build_model(small_config))
    for channels, factor in ((33, 2.0), (-1, 2.0), (1, 0.0), (1, float("inf"))):
        with pytest.raises(TowerError, match="Outliers: met"):
            inject_outliers(tower, channels_per_norm=channels, factor=factor)


def test_a_tower_goes_to_open_clip_and_back_unchanged(small_config: dict[str, Any], build_model: Build) -> None:
    """Also without the LayerNorm before block 1 and with another epsilon."""
    small_config["vision_cfg"].update(no_ln_pre=True, norm_kwargs={"eps": 1e-3}, mlp_ratio=2.5)
    model = build_model(small_config)
    tower = small_tower(model)
    assert small_tower(to_open_clip(tower, model)).fingerprint() == tower.fingerprint()


def test_towers_that_open_clip_cannot_hold_are_refused(small_config: dict[str, Any], build_model: Build) -> None:
    """A patch bias, an embedding that the text tower does not have, a resize without a nearest neighbour."""
    model = build_model(small_config)
    tower = small_tower(model)
    with pytest.raises(TowerError, match="no bias in patches and projection"):
        to_open_clip(replace(tower, patch_bias=tower.class_embedding), model)
    with pytest.raises(TowerError, match="is not a multiple"):
        to_open_clip(replace(tower, projection=tower.projection[:, :7]), model)
    with pytest.raises(TowerError, match="wanted 'shortest'"):
        nearest_transform(replace(tower.preprocessing, resize_mode="longest"))
