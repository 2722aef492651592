"""Describes the preprocessing of a tower, as the manifest holds it."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

ResizeMode = Literal["shortest", "squash", "longest"]

Interpolation = Literal["bicubic", "bilinear", "nearest"]
"""Pillow's filter of that name; `bicubic` and `bilinear` are antialiased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Describes how a tower wants its images.

    Raises:
        ValueError: A field is out of its range.
    """

    image_size: int
    """Height and width of the model's input, in pixels."""
    resize_mode: ResizeMode
    """`shortest`: short edge to `image_size`, centre crop. `squash`: both edges. `longest`: long edge, then padding."""
    interpolation: Interpolation
    """Pillow's filter of that name; `bicubic` and `bilinear` are antialiased."""
    mean: tuple[float, float, float]
    """RGB mean that the tower subtracts, on the scale 0..1."""
    std: tuple[float, float, float]
    """RGB standard deviation that the tower divides by, on the scale 0..1."""
    fill_color: int = 0
    """Grey level 0..255 of the padding of `longest`."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}; wanted at least 1 pixel")
        if self.resize_mode not in get_args(ResizeMode):
            raise ValueError(f"resize_mode is {self.resize_mode!r}; wanted one of {', '.join(get_args(ResizeMode))}")
        if self.interpolation not in get_args(Interpolation):
            wanted = ", ".join(get_args(Interpolation))
            raise ValueError(f"interpolation is {self.interpolation!r}; wanted one of {wanted}")
        if len(self.mean) != 3 or not np.isfinite(self.mean).all():
            raise ValueError(f"mean is {self.mean}; wanted three finite numbers")
        if len(self.std) != 3 or not np.isfinite(self.std).all() or min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; wanted three finite numbers above 0")
        if not 0 <= self.fill_color <= 255:
            raise ValueError(f"fill_color is {self.fill_color}; wanted a grey level of 0..255")
