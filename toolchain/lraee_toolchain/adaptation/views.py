"""Turn preprocessed pixels into what the tower takes, as they are or as random views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

LEAST_AREA = 0.5
"""Smallest share of a picture's area that a random crop keeps."""

LARGEST_ASPECT = 1.18
"""Width over height of a random crop, at most; at least its inverse."""

BRIGHTNESS = 0.2
"""Largest relative change of brightness, and of contrast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Makes views of pixel batches."""

    mean: tuple[float, float, float]
    """Of each channel, on the scale from 0 to 1."""
    std: tuple[float, float, float]
    device: torch.device
    flip: bool = True
    """Whether random views are mirrored half of the time."""

    def plain(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Normalize pixels (images, size, size, 3) to (images, 3, size, size) float32."""
        return self._normalized(self._images(pixels))

    def random(self, pixels: NDArray[np.uint8], generator: torch.Generator) -> torch.Tensor:
        """Crop, mirror, brighten and normalize each image at random; the generator is one of the CPU."""
        images = self._images(pixels)
        count, _, height, width = images.shape

        def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
            return torch.empty(count, *shape).uniform_(low, high, generator=generator)

        side = uniform(LEAST_AREA, 1).sqrt()
        aspect = uniform(1 / LARGEST_ASPECT, LARGEST_ASPECT).sqrt()
        across, down = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
        mirrored = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if self.flip else torch.ones(count)
        crop = torch.zeros(count, 2, 3)
        crop[:, 0, 0], crop[:, 1, 1] = across * mirrored, down
        crop[:, 0, 2], crop[:, 1, 2] = uniform(-1, 1) * (1 - across), uniform(-1, 1) * (1 - down)
        grid = F.affine_grid(crop, [count, 3, height, width], align_corners=False).to(self.device)
        images = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        images = images.clamp(0, 1)
        bright, contrast = (uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, 1, 1, 1).to(self.device) for _ in range(2))
        middle = images.mean((1, 2, 3), keepdim=True)
        return self._normalized(((images - middle) * contrast + middle) * bright)

    def _images(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2).float() / 255

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(value, device=self.device).view(1, 3, 1, 1) for value in (self.mean, self.std))
        return (images - mean) / std
