"""Views: the plain one is what the tower takes, random ones are drawn from their generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lraee_toolchain.adaptation.views import Views

CPU = torch.device("cpu")


def views(lessons: Any, **changes: Any) -> Views:
    """Of the reference's preprocessing."""
    preprocessing = lessons.model.tower.preprocessing
    return Views(mean=preprocessing.mean, std=preprocessing.std, device=CPU, **changes)


def test_the_plain_view_is_what_open_clip_makes_of_the_image(lessons: Any) -> None:
    """For an image of the tower's size, where nothing is resized."""
    from PIL import Image

    pixels = lessons.learn.pixels[:4]
    wanted = torch.stack([lessons.model.transform(Image.fromarray(image)) for image in pixels])
    assert torch.allclose(views(lessons).plain(pixels), wanted, atol=1e-6)


def test_random_views_differ_and_repeat_with_their_seed(lessons: Any) -> None:
    """The global generator has no part in them."""
    pixels = lessons.learn.pixels[:8]
    one, two, other = (views(lessons).random(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == views(lessons).plain(pixels).shape
    assert not any(torch.equal(a, b) for a, b in zip(one, views(lessons).plain(pixels), strict=True))


def test_images_are_mirrored_half_of_the_time_or_never(lessons: Any) -> None:
    """A picture that is bright on the left is bright on the left or right of its views."""
    size = lessons.model.tower.image_size
    pixels = np.zeros((200, size, size, 3), np.uint8)
    pixels[:, :, : size // 3] = 255
    for flip, low, high in ((True, 60, 140), (False, 0, 0)):
        made = views(lessons, flip=flip).random(pixels, torch.Generator().manual_seed(0)).mean((1, 2))
        mirrored = int((made[:, : size // 2].mean(1) < made[:, size // 2 :].mean(1)).sum())
        assert low <= mirrored <= high
