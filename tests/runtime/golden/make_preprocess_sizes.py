"""Writes preprocess_sizes.tsv: what open_clip's own transform makes of images of odd sizes.

    python tests/runtime/golden/make_preprocess_sizes.py

Each row has width, height, resize mode, interpolation, image size, and the first 12 digits of the SHA-256 of the
pixels. The tests need the table and `synthetic`, not torch. Run it again only if open_clip changes what it computes.
"""

import hashlib
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("preprocess_sizes.tsv")

SIZES = [
    *[(width, height) for width in (1, 2, 31, 32, 33, 47, 64, 65, 99) for height in (1, 3, 31, 32, 33, 50, 101)],
    *[(500, 375), (375, 500), (333, 500), (500, 333), (640, 427), (427, 640), (288, 463), (463, 288), (1999, 31)],
]
SETTINGS = [
    ("shortest", "bicubic", 32), ("shortest", "bilinear", 33), ("squash", "bicubic", 32), ("longest", "bicubic", 32)
]  # fmt: skip
FILL_COLOR = 7


def synthetic(width: int, height: int) -> np.ndarray:
    """A pattern with soft gradients and hard edges; uint8 (height, width, 3), the same on every machine."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(3 * x + 5 * y) % 256, (x * y) % 251, 255 * ((x // 5 + y // 7) % 2)], axis=2).astype(np.uint8)


def open_clip_pixels(width: int, height: int, mode: str, interpolation: str, size: int) -> np.ndarray:
    """What open_clip computes, before ToTensor: uint8 (size, size, 3)."""
    import open_clip
    from PIL import Image

    transform = open_clip.image_transform(
        size, False, (0.0,) * 3, (1.0,) * 3, resize_mode=mode, interpolation=interpolation, fill_color=FILL_COLOR
    )
    values = transform(Image.fromarray(synthetic(width, height))).numpy()
    return np.ascontiguousarray(np.round(values * 255).astype(np.uint8).transpose(1, 2, 0))


def digest(pixels: np.ndarray) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the pixels."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:12]


def main() -> None:
    """Write the table."""
    rows = []
    for mode, interpolation, size in SETTINGS:
        for width, height in SIZES:
            if mode == "longest" and max(width, height) / min(width, height) >= 2 * size:
                continue  # open_clip fails: it rounds the short edge to 0 pixels
            pixels = open_clip_pixels(width, height, mode, interpolation, size)
            rows.append(f"{width}\t{height}\t{mode}\t{interpolation}\t{size}\t{digest(pixels)}")
    TABLE.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
