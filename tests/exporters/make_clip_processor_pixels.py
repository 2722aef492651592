"""Write clip_processor_pixels.json: what transformers' CLIPImageProcessor makes of pictures under each settings.

    pip install transformers==5.24.0 && python tests/exporters/make_clip_processor_pixels.py

Pillow resizes there (`CLIPImageProcessorPil`), since bundles are compared with Pillow everywhere.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 4
"""Pixels of the tower's input."""

PICTURES = [(10, 4), (7, 15), (4, 4), (3, 2)]
"""Width and height; transformers rounds the crop's offset of each as open_clip does."""

SHORTEST, BOTH = {"shortest_edge": SIZE}, {"height": SIZE, "width": SIZE}

SETTINGS: dict[str, dict[str, Any]] = {
    "as it writes them": {"size": SHORTEST, "crop_size": BOTH, "image_processor_type": "CLIPImageProcessorFast"},
    "one number each": {"size": SIZE, "crop_size": SIZE, "feature_extractor_type": "CLIPFeatureExtractor"},
    "nulls": {"size": {**SHORTEST, "longest_edge": None}, "crop_size": SIZE, "do_pad": None},
    "a list": {"size": [SIZE, SIZE], "crop_size": SIZE},
    "both edges and a crop": {"size": BOTH, "crop_size": BOTH},
    "both edges and no crop": {"size": BOTH, "do_center_crop": False},
    "bilinear": {"size": SHORTEST, "crop_size": SIZE, "resample": 2},
    "nearest": {"size": SHORTEST, "crop_size": SIZE, "resample": 0},
    "one mean for all": {"size": SHORTEST, "crop_size": SIZE, "image_mean": 0.5, "image_std": 0.25},
    "another factor": {"size": SHORTEST, "crop_size": SIZE, "rescale_factor": 1 / 127.5},
    "a power of two": {"size": SHORTEST, "crop_size": SIZE, "rescale_factor": 1 / 256},
    "no rescaling": {"size": SHORTEST, "crop_size": SIZE, "do_rescale": False, "image_mean": [120, 110, 100.5]},
    "no normalizing": {"size": SHORTEST, "crop_size": SIZE, "do_normalize": False},
    "neither": {"size": SHORTEST, "crop_size": SIZE, "do_normalize": False, "do_rescale": False},
    "padding to the crop": {"size": SHORTEST, "crop_size": SIZE, "do_pad": True, "pad_size": BOTH},
    "no conversion of RGB": {"size": SHORTEST, "crop_size": SIZE, "do_convert_rgb": False},
}


def picture(width: int, height: int) -> np.ndarray:
    """Make a picture, uint8 (height, width, 3), without edges: gradients of another slope in each channel."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return ((255 * (x / width * (1 + channel) + y / height * (3 - channel)) / 4) % 256).astype(np.uint8)


def main() -> None:
    """Write the file of pixels."""
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pictures = [picture(width, height) for width, height in PICTURES]
    cases = []
    for name, settings in SETTINGS.items():
        processor = CLIPImageProcessorPil(**settings)
        found = [processor(Image.fromarray(given), return_tensors="np")["pixel_values"][0] for given in pictures]
        values = [[float(f"{value:.6g}") for value in pixels.ravel().tolist()] for pixels in found]
        cases.append({"name": name, "settings": settings, "values": values})
    lines = ",\n".join(json.dumps(case) for case in cases)
    given = json.dumps([array.tolist() for array in pictures])
    path = Path(__file__).with_name("clip_processor_pixels.json")
    path.write_text(f'{{"size": {SIZE}, "pictures": {given},\n"cases": [\n{lines}\n]}}\n', encoding="ascii")


if __name__ == "__main__":
    main()
