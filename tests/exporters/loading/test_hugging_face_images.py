"""Settings of transformers' image processor give its own pixels, or are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import TowerError
from lraee.images.preprocess import normalize, pixels
from lraee_exporters.loading.hugging_face_images import read_preprocessor
from lraee_exporters.loading.open_clip_models import load_model

Settings = dict[str, Any]
Refusal = Callable[..., str]

GOLDEN = json.loads((Path(__file__).parents[1] / "clip_processor_pixels.json").read_text("ascii"))
"""Pictures, and what transformers 5.24 makes of each under each settings; written by make_clip_processor_pixels.py."""

PLAIN: Settings = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
"""Settings of a tower for 24 pixels."""


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=[case["name"] for case in GOLDEN["cases"]])
def test_settings_that_are_read_give_the_pixels_of_transformers(case: dict[str, Any]) -> None:
    """Tolerance: six digits, as the file has them."""
    size = GOLDEN["size"]
    read = read_preprocessor(Path("preprocessor_config.json"), case["settings"], image_size=size)
    preprocessing = Preprocessing(image_size=size, **read)
    for given, values in zip(GOLDEN["pictures"], case["values"], strict=True):
        ours = normalize(pixels(np.array(given, np.uint8), preprocessing), preprocessing)[0]
        np.testing.assert_allclose(ours.ravel(), values, rtol=2e-5, atol=2e-5)


def test_the_usual_settings_keep_the_means_to_the_last_digit() -> None:
    """A factor of 1/255 changes nothing, so that the stem's weights are those of open_clip's own settings."""
    settings = {**PLAIN, "rescale_factor": 0.00392156862745098}
    read = read_preprocessor(Path("preprocessor_config.json"), settings, image_size=24)
    assert read["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert read["std"] == [0.26862954, 0.26130258, 0.27577711]


REFUSED: dict[str, tuple[Settings, str]] = {
    "a larger edge": ({"size": {"shortest_edge": 32}}, 'met size {"shortest_edge": 32}. Wanted'),
    "a smaller edge": ({"size": 16}, "met size 16. Wanted"),
    "another height": ({"size": {"height": 24, "width": 32}}, 'met size {"height": 24, "width": 32}'),
    "both edges larger": ({"size": {"height": 32, "width": 32}}, 'met size {"height": 32, "width": 32}'),
    "longest edge": ({"size": {"shortest_edge": 24, "longest_edge": 64}}, '"longest_edge": 64}'),
    "longest edge alone": ({"size": {"longest_edge": 24}}, 'met size {"longest_edge": 24}'),
    "maximal sides": ({"size": {"max_height": 24, "max_width": 24}}, '"max_width": 24}'),
    "size by default": ({"size": None}, 'met size {"shortest_edge": 224} (the default)'),
    "another crop": ({"crop_size": {"height": 22, "width": 22}}, 'met crop_size {"height": 22, "width": 22}'),
    "crop by default": ({"crop_size": None}, 'met crop_size {"height": 224, "width": 224} (the default)'),
    "crop not square": ({"crop_size": [24, 20]}, "met crop_size [24, 20]"),
    "no crop": ({"do_center_crop": False}, "without do_center_crop, which leaves images that are not square"),
    "square by a flag": ({"use_square_size": True}, "met use_square_size, which versions of transformers read"),
    "one number to square": (
        {"size": 24, "default_to_square": True},
        "met default_to_square with a size of one",
    ),
    "no resizing": ({"do_resize": False}, "met do_resize false"),
    "Lanczos": ({"resample": 1}, "met resample 1 (wanted 0 nearest, 2 bilinear or 3 bicubic)"),
    "no filter": ({"resample": None}, "met resample null"),
    "filter by name": ({"resample": "bicubic"}, 'met resample "bicubic"'),
    "null for a flag": ({"do_rescale": None}, "met do_rescale null"),
    "number for a flag": ({"do_normalize": 1}, "met do_normalize 1"),
    "padding": ({"do_pad": True, "pad_size": {"height": 32, "width": 32}}, "met do_pad to"),
    "factor 0": ({"rescale_factor": 0}, "met rescale_factor 0"),
    "factor below 0": ({"rescale_factor": -1}, "met rescale_factor -1"),
    "factor NaN": ({"rescale_factor": float("nan")}, "met rescale_factor NaN"),
    "two means": ({"image_mean": [0.5, 0.5]}, "met image_mean [0.5, 0.5]"),
    "mean NaN": ({"image_mean": [0.5, float("nan"), 0.5]}, "met image_mean [0.5, NaN, 0.5]"),
    "mean as text": ({"image_mean": ["0.5"] * 3}, "met image_mean"),
    "deviation 0": ({"image_std": [0.5, 0, 0.5]}, "met image_std [0.5, 0, 0.5]"),
    "deviation infinite": ({"image_std": float("inf")}, "met image_std Infinity"),
    "another processor": (
        {"image_processor_type": "SiglipImageProcessor"},
        'met image_processor_type "SiglipImage',
    ),
    "own code": ({"auto_map": {"AutoImageProcessor": "own.Own"}}, "met auto_map"),
    "flipped channels": ({"do_flip_channel_order": True}, "met do_flip_channel_order true"),
    "two at once": ({"do_resize": False, "crop_pct": 0.9}, "met crop_pct 0.9; do_resize false"),
}
"""Changes of `PLAIN` that a bundle cannot follow, and what is said."""


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_a_bundle_cannot_follow_are_refused_by_name(case: str) -> None:
    """Read as another setting, they would cost accuracy in silence."""
    change, what = REFUSED[case]
    with pytest.raises(TowerError) as refusal:
        read_preprocessor(Path("preprocessor_config.json"), {**PLAIN, **change}, image_size=24)
    assert what in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) <= 400


@pytest.mark.parametrize("edge", [224, 336])
def test_the_flag_for_squares_is_read_where_all_versions_agree(edge: int) -> None:
    """transformers 4 squashes to the size, transformers 5 to 224 whatever the size is."""
    content = {"size": {"shortest_edge": edge}, "crop_size": edge, "use_square_size": True}
    if edge == 224:
        assert read_preprocessor(Path("p.json"), content, image_size=edge)["resize_mode"] == "squash"
        return
    with pytest.raises(TowerError, match="use_square_size, which versions of transformers read differently"):
        read_preprocessor(Path("p.json"), content, image_size=edge)


@pytest.fixture
def folder(
    tmp_path: Path,
    small_config: dict[str, Any],
    build_model: Callable[..., Any],
    to_hugging_face: Callable[..., Any],
) -> Path:
    """A folder of transformers' CLIPModel for 24 pixels, without settings of an image processor."""
    config, state = to_hugging_face(small_config, build_model({**small_config, "quick_gelu": True}))
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_settings_are_read_from_the_file_that_transformers_reads(folder: Path, refusal_of: Refusal) -> None:
    """Those nested in processor_config.json come first; one without them leaves the older file in force."""
    nested, plain = folder / "processor_config.json", folder / "preprocessor_config.json"
    plain.write_text(json.dumps({**PLAIN, "image_mean": [0.1, 0.2, 0.3]}), encoding="utf-8")
    nested.write_text(json.dumps({"processor_class": "CLIPProcessor"}), encoding="utf-8")
    assert load_model(str(folder)).tower.preprocessing.mean == (0.1, 0.2, 0.3)
    content = {"image_processor": {**PLAIN, "image_mean": 0.4}, "processor_class": "CLIPProcessor"}
    nested.write_text(json.dumps(content), encoding="utf-8")
    assert load_model(str(folder)).tower.preprocessing.mean == (0.4, 0.4, 0.4)
    plain.unlink()
    assert load_model(str(folder)).tower.preprocessing.mean == (0.4, 0.4, 0.4)
    nested.write_text(json.dumps({"image_processor": {**PLAIN, "size": 32}}), encoding="utf-8")
    assert "processor_config.json: met size 32. Wanted" in refusal_of(folder)
    for content, what in (("{", "is not JSON"), ("[" * 9999, "is not JSON"), ('{"image_processor": []}', "met a list")):
        nested.write_text(str(content), encoding="utf-8")
        assert what in refusal_of(folder)


OPEN_CLIP_REFUSED: dict[str, tuple[Any, str]] = {
    "another size": ({"size": 32}, "preprocess_cfg has size 32 and mode RGB, wanted the tower's image_size 24 and RGB"),
    "two sizes": ({"size": [24, 32]}, "preprocess_cfg has size [24, 32]"),
    "grey": ({"mode": "L"}, "preprocess_cfg has size 24 and mode L"),
    "unknown": ({"crop_pct": 0.9, "mean": [0.5] * 3}, "preprocess_cfg has crop_pct, which open_clip does not know"),
    "a list": ([], "preprocess_cfg is a list, wanted an object"),
    "deviation 0": ({"std": [0.5, 0.5, 0]}, "its preprocess_cfg cannot be followed: std is"),
    "mean NaN": ({"mean": [float("nan")] * 3}, "its preprocess_cfg cannot be followed: mean is"),
    "two means": ({"mean": [0.5, 0.5]}, "its preprocess_cfg cannot be followed"),
    "fraction of grey": ({"fill_color": 3.5}, "its preprocess_cfg cannot be followed: fill_color is 3.5"),
    "unknown mode": ({"resize_mode": "crop"}, "its preprocess_cfg cannot be followed: resize_mode is 'crop'"),
}
"""Values of `preprocess_cfg`, and what is said."""


@pytest.mark.parametrize("case", OPEN_CLIP_REFUSED)
def test_a_preprocess_cfg_that_open_clip_would_pass_over_is_refused_by_name(
    case: str, small_config: dict[str, Any], write_model_folder: Callable[..., Path], refusal_of: Refusal
) -> None:
    """Unknown keys and other sizes have no effect in open_clip, which says nothing of them."""
    settings, what = OPEN_CLIP_REFUSED[case]
    folder = write_model_folder(small_config)
    content = {"model_cfg": small_config, "preprocess_cfg": settings}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    assert what in refusal_of(folder, "--pretrained", "random")


@pytest.mark.parametrize("settings", [None, {}, {"size": 24}, {"size": [24, 24], "mode": "RGB", "fill_color": None}])
def test_a_preprocess_cfg_that_says_what_the_tower_says_is_read(
    settings: Any, small_config: dict[str, Any], write_model_folder: Callable[..., Path]
) -> None:
    """As open_clip writes it, or not at all."""
    folder = write_model_folder(small_config)
    content = {"model_cfg": small_config, "preprocess_cfg": settings}
    (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_model(str(folder), pretrained="random").tower.preprocessing.image_size == 24
