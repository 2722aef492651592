"""Translates transformers' `CLIPImageProcessor` settings into open_clip's, and refuses what a bundle cannot do.

A bundle resizes to the size that it crops, takes 8-bit RGB, and divides by 255 before it subtracts the mean. So a size
other than the crop is refused. Another `rescale_factor` f is exact all the same: `(v * f - mean) / std` is
`(v / 255 - mean / (255 * f)) / (std / (255 * f))` for a pixel v, so it becomes another mean and standard deviation. No
rescaling is f = 1, and no normalizing is mean 0 and standard deviation 1.

Two differences stay. transformers rounds the crop's offset down, where open_clip, OpenAI and bundles round it to even:
where the long edge is resized to 3, 7, 11 ... pixels more than the crop, it sees one pixel more on the left or at
the top. And pixels are those of Pillow, as transformers 4 and the Pillow backend of 5 have them; torchvision, the other
backend of 5, differs from Pillow by 1 level in most pixels that differ, and picks other neighbours at `nearest`.

Source: transformers 5.24, models/clip/image_processing_clip.py, image_processing_utils.py (sizes) and
image_processing_base.py (which file is read); 4.49 gives the same pixels under all settings that are read here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lraee.errors import TowerError
from lraee_exporters.one_line import one_line

PREPROCESSOR_NAME = "preprocessor_config.json"

PROCESSOR_NAME = "processor_config.json"
"""Where transformers 5 writes the same settings, under `image_processor`."""

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

DEFAULTS: Mapping[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "do_convert_rgb": True,
    "use_square_size": False,
    "default_to_square": False,
    "do_pad": False,
    "pad_size": None,
}
"""Settings that decide pixels, and what `CLIPImageProcessor` takes where a file does not say. `do_convert_rgb` is not
read further: without it transformers takes RGB images alone, and of those nothing changes."""

NO_PIXELS = frozenset(
    {"image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "data_format"}
    | {"input_data_format", "return_tensors", "device", "disable_grouping", "image_seq_length", "size_divisor"}
    | {"_name_or_path", "transformers_version"}
)
"""Settings that do not change what a CLIP sees; `CLIPImageProcessor` does not look at `size_divisor`."""

TYPES = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
"""Classes with the defaults above."""

NOT_NULL = ("do_resize", "resample", "do_center_crop", "do_rescale", "do_normalize")
"""Settings in which versions of transformers read null differently."""

RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as `resample` has them."""


def processor_settings(folder: Path) -> tuple[Path, Any] | None:
    """Find the image processor's settings in a folder, in the order of transformers: nested ones first.

    Raises:
        TowerError: A file is not JSON.
    """
    nested, plain = folder / PROCESSOR_NAME, folder / PREPROCESSOR_NAME
    if nested.is_file():
        content = read_json(nested)
        if isinstance(content, dict) and "image_processor" in content:
            return nested, content["image_processor"]
    return (plain, read_json(plain)) if plain.is_file() else None


def read_json(path: Path) -> Any:
    """Read and parse a JSON file.

    Raises:
        TowerError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TowerError(
            f"{path} cannot be read ({error.strerror}); check that it is a file and may be read."
        ) from error
    except (ValueError, RecursionError) as error:
        raise TowerError(f"{path} is not JSON: {one_line(error, 120)}. Download or write it again.") from error


def read_preprocessor(path: Path, content: Any, *, image_size: int) -> dict[str, Any]:
    """Translate the settings of a `CLIPImageProcessor` into open_clip's `preprocess_cfg`.

    Args:
        path: the file, for the message.
        content: its settings.
        image_size: the tower's, in pixels.

    Raises:
        TowerError: They ask for something that a bundle does not do; the message names every such setting.
    """
    if not isinstance(content, dict):
        raise TowerError(f"{path}: met a {type(content).__name__}, wanted an object with image processor settings.")
    given = {str(key): value for key, value in content.items() if value is not None}
    settings = {**DEFAULTS, **given}
    reasons = [*_foreign(content, given), *_pixel_reasons(settings, given, image_size)]
    if reasons:
        raise TowerError(
            f"{path}: met {one_line('; '.join(reasons), 260)}. Wanted: CLIPImageProcessor that resizes to the "
            f"{image_size} px it crops. Correct the file, or write an open_clip_config.json."
        )
    factor = 255 * (float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0)
    mean, std = (_three(settings[key]) or [] for key in ("image_mean", "image_std"))
    if not settings["do_normalize"]:
        mean, std = [0.0] * 3, [1.0] * 3
    return {
        "interpolation": RESAMPLING[settings["resample"]],
        "resize_mode": "squash" if _is_square(settings) else "shortest",
        "mean": [value / factor for value in mean],
        "std": [value / factor for value in std],
    }


def _foreign(content: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List settings of other processors, and nulls that versions of transformers read differently."""
    reasons = [
        f"{key} {_shown(given[key])}"
        for key in ("image_processor_type", "feature_extractor_type")
        if key in given and given[key] not in TYPES
    ]
    reasons += [f"{key} null" for key in NOT_NULL if key in content and content[key] is None]
    known = {*DEFAULTS, *NO_PIXELS}
    return reasons + [
        f"{key} {_shown(value)}" for key, value in given.items() if key not in known and value is not False
    ]


def _pixel_reasons(settings: Mapping[str, Any], given: Mapping[str, Any], image_size: int) -> list[str]:
    """List the settings that a bundle cannot follow."""
    flags = [key for key, value in DEFAULTS.items() if isinstance(value, bool)]
    reasons = [f"{key} {_shown(settings[key])}" for key in flags if not isinstance(settings[key], bool)]
    if settings["do_resize"] is False:
        reasons.append("do_resize false")
    if type(settings["resample"]) is not int or settings["resample"] not in RESAMPLING:
        reasons.append(f"resample {_shown(settings['resample'])} (wanted 0 nearest, 2 bilinear or 3 bicubic)")
    reasons += _size_reasons(settings, given, image_size)
    factor = settings["rescale_factor"]
    if settings["do_rescale"] and not (_is_number(factor) and 1e-6 < factor < 1e3):  # what float32 weights bear
        reasons.append(f"rescale_factor {_shown(factor)}")
    if settings["do_normalize"]:
        for key in ("image_mean", "image_std"):
            three = _three(settings[key])
            if three is None or (key == "image_std" and min(three) <= 0):
                reasons.append(f"{key} {_shown(settings[key])}")
    return reasons


def _size_reasons(settings: Mapping[str, Any], given: Mapping[str, Any], image_size: int) -> list[str]:
    """List why the resulting image is not the one that a bundle makes."""
    size, crops = settings["size"], settings["do_center_crop"]
    reasons = []
    if _square(size) != image_size and _shortest(size) != image_size:
        reasons.append(f"size {_shown(size)}{'' if 'size' in given else ' (the default)'}")
    elif not crops and not _is_square(settings):
        reasons.append(f"size {_shown(size)} without do_center_crop, which leaves images that are not square")
    if crops and (_side(settings["crop_size"]) or _square(settings["crop_size"])) != image_size:
        reasons.append(f"crop_size {_shown(settings['crop_size'])}{'' if 'crop_size' in given else ' (the default)'}")
    if settings["use_square_size"] and image_size != 224:  # transformers 4 squashes to the size, 5 always to 224
        reasons.append("use_square_size, which versions of transformers read differently")
    if settings["default_to_square"] and _side(size):
        reasons.append("default_to_square with a size of one number, which versions of transformers read differently")
    if settings["do_pad"] and settings["pad_size"] is not None and _square(settings["pad_size"]) != image_size:
        reasons.append(f"do_pad to {_shown(settings['pad_size'])}")
    return reasons


def _is_square(settings: Mapping[str, Any]) -> bool:
    """Tell whether both edges are resized to the size, whatever the image's shape."""
    return bool(settings["use_square_size"]) or _square(settings["size"]) is not None


def _side(size: Any) -> int | None:
    """Read a size of one number, else None."""
    return size if type(size) is int and size > 0 else None


def _shortest(size: Any) -> int | None:
    """Read the pixels of the shorter edge, where a size names it and nothing else."""
    edges = _edges(size)
    return _side(edges["shortest_edge"]) if set(edges) == {"shortest_edge"} else _side(size)


def _square(size: Any) -> int | None:
    """Read the pixels of both edges, where a size names both and they are equal."""
    edges = _edges(size)
    if set(edges) == {"height", "width"}:
        size = [edges["height"], edges["width"]]
    return _side(size[0]) if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else None


def _edges(size: Any) -> dict[str, Any]:
    """Read what a size of several numbers names, without nulls; empty for other sizes."""
    return {key: value for key, value in size.items() if value is not None} if isinstance(size, dict) else {}


def _three(value: Any) -> list[float] | None:
    """Read one number for each channel, or None; transformers also takes one for all."""
    numbers = value if isinstance(value, list) else [value] * 3
    return [float(number) for number in numbers] if len(numbers) == 3 and all(map(_is_number, numbers)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9  # and not NaN


def _shown(value: Any) -> str:
    """Format a setting's value as the file has it."""
    return one_line(json.dumps(value), 60)
