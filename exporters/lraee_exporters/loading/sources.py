"""Finds out what a model's name means: its settings, its preprocessing, its activation and where its weights lie.

It is separate from building the model, so that a wrong name, an unsupported architecture or a missing file is said
before anything is allocated or downloaded.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

from lraee.errors import TowerError
from lraee_exporters.loading import hugging_face
from lraee_exporters.loading.checkpoints import CHECKPOINT_SUFFIXES, find_checkpoint
from lraee_exporters.loading.file_kinds import INDEX_SUFFIX, file_kind
from lraee_exporters.loading.hugging_face_images import processor_settings, read_json, read_preprocessor
from lraee_exporters.loading.supported import check_config
from lraee_exporters.one_line import one_line, some
from lraee_exporters.tower import Activation

REFERENCE_FOLDER = Path(__file__).parents[1] / "reference"
"""The small CLIP that is shipped with this package."""

REFERENCE_NAMES = ("reference", "reference-b32")
"""The shipped model, and the same widened to the shape of ViT-B/32."""

LOCAL_PREFIX = "local-dir:"
"""open_clip's prefix of a folder with an `open_clip_config.json`."""

HUB_PREFIX = "hf-hub:"
"""open_clip's prefix of a repository of the Hugging Face hub."""

PREPROCESS_KEYS = frozenset({"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"})
"""Settings of open_clip's `preprocess_cfg`."""

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Holds everything needed to build one model."""

    model_id: str
    """What the user asked for."""
    architecture: str
    """open_clip's name of the architecture, or the folder's name."""
    config: Mapping[str, Any]
    """open_clip's `model_cfg`: embed_dim, vision_cfg, text_cfg and the rest."""
    preprocess: Mapping[str, Any]
    """Settings of open_clip's preprocessing that differ from its defaults."""
    tokenizer_name: str
    """The name under which open_clip finds a tokenizer that is not CLIP's own."""
    weights: str
    """`reference`, `random`, a pretrained tag, or `file:NAME`."""
    checkpoint: Path | None
    """The weights' file, or None for random weights."""
    seed: int | None
    """Seed of random weights, else None."""
    activation: Activation
    """`gelu` or `quick_gelu`; `find_source` explains what decides it."""


def find_source(name: str, *, pretrained: str | None, activation: Activation | None) -> Source:
    """Resolve a model's name and weights; downloads the weights of a pretrained tag when they are not cached.

    The activation is, first match wins: what `activation` says (bare weights only); QuickGELU when the pretrained tag
    was trained with it (every `openai` tag, also under a name without `-quickgelu`, where open_clip 3 itself only
    warns) or when the file is one of OpenAI's TorchScript archives; the setting of a folder, of a name that ends in
    `-quickgelu`, or of a timm tower, which has its own. A bare state dict under a name such as `ViT-B-32` says nothing
    about its activation, and a wrong one would cost accuracy in silence: `activation` is then needed.

    Args:
        name: `reference`, `reference-b32`, an open_clip architecture, `local-dir:FOLDER`, or a folder with an
            `open_clip_config.json` or transformers' `config.json`.
        pretrained: Pretrained tag, checkpoint file, `random` or `random:SEED`; None for a folder's own weights.
        activation: Overrides the activation of a file, a folder or random weights.

    Raises:
        TowerError: Unknown or unsupported architecture, unknown tag, no weights, failed download, an override that
            contradicts weights whose activation is known, or no override where nothing says the activation.
    """
    if name in REFERENCE_NAMES:
        return _reference(name, pretrained, activation)
    folder = _folder_of(name)
    architecture = folder.resolve().name if folder else _architecture(name)
    config, preprocess = _read_folder(folder) if folder else (open_clip.get_model_config(architecture), {})
    check_config(name, config)
    tag = {} if folder else get_pretrained_cfg(architecture, pretrained or "")
    seed = _seed(pretrained)
    checkpoint = None if seed is not None else _checkpoint(name, architecture, folder, pretrained, tag)
    known: Activation | None = "quick_gelu" if tag.get("quick_gelu") else None
    if checkpoint is not None and file_kind(checkpoint) == "torchscript":
        known = "quick_gelu"
    if activation is not None and (tag or known) and activation != (known or _configured(config)):
        raise TowerError(
            f"{pretrained} of {name} was trained with {known or _configured(config)}, the override says {activation}; "
            "omit the override, it is for files that do not say."
        )
    if checkpoint is not None and not (folder or tag or known or activation) and not _says_activation(config):
        raise TowerError(
            f"{checkpoint.name} are bare weights, and neither they nor the name {name} say with which activation they "
            "were trained. Say --activation quick_gelu (OpenAI's weights and most that were trained from them, such as "
            "DFN and MetaCLIP) or --activation gelu (OpenCLIP's own, such as LAION and DataComp)."
        )
    return Source(
        model_id=architecture if folder else name,  # no path of this computer ends up in a bundle
        architecture=architecture,
        config=config,
        preprocess={**preprocess, **(tag or ({} if folder else _common_preprocessing(architecture)))},
        tokenizer_name=f"{LOCAL_PREFIX}{folder}" if folder else architecture,
        weights="random" if checkpoint is None else str(pretrained) if tag else f"file:{checkpoint.name}",
        checkpoint=checkpoint,
        seed=seed,
        activation=activation or known or _configured(config),
    )


def _reference(name: str, pretrained: str | None, activation: Activation | None) -> Source:
    """Describe the shipped model, which has its own weights and activation."""
    if pretrained is not None or activation is not None:
        raise TowerError(f"{name} has its own weights and activation; omit pretrained and activation.")
    config, preprocess = _read_folder(REFERENCE_FOLDER)
    return Source(
        model_id=name,
        architecture=name,
        config=config,
        preprocess=preprocess,
        tokenizer_name=f"{LOCAL_PREFIX}{REFERENCE_FOLDER}",
        weights="reference",
        checkpoint=find_checkpoint(REFERENCE_FOLDER),
        seed=None,
        activation="gelu",
    )


def _common_preprocessing(architecture: str) -> dict[str, Any]:
    """Find the preprocessing that all pretrained tags of an architecture share, for weights that come without a tag.

    SigLIP's towers are trained on squashed images and other means than CLIP's, under every tag.
    """
    tags = [get_pretrained_cfg(architecture, tag) for tag in list_pretrained_tags_by_model(architecture)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: tags[0][key] for key in keys if tags and all(tag.get(key) == tags[0].get(key, tag) for tag in tags)}


def _says_activation(config: Mapping[str, Any]) -> bool:
    """Tell whether the architecture leaves no choice: it names the activation, or comes from timm with its own."""
    return "quick_gelu" in config or bool(config["vision_cfg"].get("timm_model_name"))


def _configured(config: Mapping[str, Any]) -> Activation:
    """Read the activation that the architecture's settings name."""
    return "quick_gelu" if config.get("quick_gelu") else "gelu"


def _folder_of(name: str) -> Path | None:
    """Give the folder that a name means, or None for an architecture's name."""
    if name.startswith(LOCAL_PREFIX):
        return _path(name.removeprefix(LOCAL_PREFIX))
    if name.replace("/", "-") in open_clip.list_models():
        return None
    return _path(name) if os.path.isdir(_path(name)) else None


def _path(text: str) -> Path:
    """Give the path that a text means; a home folder that does not exist stays as it is typed."""
    return Path(os.path.expanduser(text))


def _architecture(name: str) -> str:
    """Give open_clip's spelling of an architecture's name, or refuse with the closest ones."""
    names: list[str] = open_clip.list_models()
    architecture = name.replace("/", "-")
    if architecture in names:
        return architecture
    spelled = {candidate.lower(): candidate for candidate in (*REFERENCE_NAMES, *names)}
    close = [spelled[match] for match in difflib.get_close_matches(architecture.lower(), spelled, n=3, cutoff=0.5)]
    hint = f"Close names: {', '.join(close)}. " if close else ""
    if os.path.isfile(_path(name)):
        hint = "It is a file: give the architecture's name as MODEL, and the file with --pretrained. "
    elif name.startswith(HUB_PREFIX) or (name.count("/") == 1 and not name.startswith((".", "/", "~"))):
        hint += "A repository of the Hugging Face hub is not fetched: download it, then give its folder. "
    raise TowerError(
        f"'{one_line(name, 80)}' is not an architecture of open_clip {open_clip.__version__} and not a folder. "
        f"{hint}Wanted: reference, reference-b32, a name of open_clip.list_models(), or a folder with "
        "open_clip_config.json or config.json."
    )


def _read_folder(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Read (model_cfg, preprocess_cfg) from `open_clip_config.json`, else from transformers' `config.json`."""
    path, foreign = folder / "open_clip_config.json", folder / hugging_face.CONFIG_NAME
    if not path.is_file():
        if not foreign.is_file():
            raise TowerError(
                f"{folder}: there is no open_clip_config.json and no config.json of transformers' CLIPModel, which "
                "name the architecture."
            )
        translated = hugging_face.read_config(foreign, read_json(foreign))
        settings = processor_settings(folder)
        if settings is None:
            return translated, {}
        return translated, read_preprocessor(*settings, image_size=translated["vision_cfg"]["image_size"])
    content = read_json(path)
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise TowerError(f"{path}: wanted the key model_cfg with embed_dim, vision_cfg and text_cfg.")
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(config[key], dict):
            raise TowerError(f"{path}: {key} is a {type(config[key]).__name__}, wanted an object with settings.")
    return config, _read_preprocess(path, content.get("preprocess_cfg"), config["vision_cfg"].get("image_size", 224))


def _read_preprocess(path: Path, settings: Any, image_size: Any) -> Mapping[str, Any]:
    """Check that a `preprocess_cfg` says nothing that open_clip would ignore."""
    if settings is not None and not isinstance(settings, dict):
        raise TowerError(f"{path}: preprocess_cfg is a {type(settings).__name__}, wanted an object with settings.")
    given = {key: value for key, value in (settings or {}).items() if value is not None}
    if unknown := sorted(set(given) - PREPROCESS_KEYS):
        raise TowerError(
            f"{path}: preprocess_cfg has {some(unknown)}, which open_clip does not know; wanted only "
            f"{', '.join(sorted(PREPROCESS_KEYS))}. Remove what is not needed."
        )
    size, side = given.pop("size", image_size), image_size if isinstance(image_size, list) else [image_size] * 2
    mode = given.pop("mode", "RGB")
    if size not in (side, side[:1], *side[:1]) or mode != "RGB":
        raise TowerError(
            f"{path}: preprocess_cfg has size {one_line(size, 40)} and mode {one_line(mode, 40)}, "
            f"wanted the tower's image_size {one_line(image_size, 40)} and RGB. Correct one of them."
        )
    return given


def _seed(pretrained: str | None) -> int | None:
    """Give the seed of `random[:SEED]`, or None when the weights are not random.

    >>> _seed("random"), _seed("random:7"), _seed("openai")
    (0, 7, None)
    """
    word, _, number = (pretrained or "").partition(":")
    if word != "random":
        return None
    if number and not (number.isdecimal() and len(number) < 12 and int(number) <= MAX_SEED):
        raise TowerError(
            f"pretrained='{one_line(pretrained, 60)}': wanted random or random:SEED with a whole number up to "
            f"{MAX_SEED}, as random:1."
        )
    return int(number or 0)


def _checkpoint(
    name: str, architecture: str, folder: Path | None, pretrained: str | None, tag: Mapping[str, Any]
) -> Path:
    """Find the weights' file: the folder's own, a file that was named, or the download of a tag."""
    tags = "none" if folder else some(list_pretrained_tags_by_model(architecture), 6) or "none"
    if pretrained is None:
        if folder:
            return find_checkpoint(folder)
        raise TowerError(
            f"{name} needs weights: a pretrained tag ({tags}), a checkpoint file, or random (random weights show size "
            "and speed, never accuracy)."
        )
    if tag:
        return _download(name, pretrained, tag)
    path = _path(pretrained)
    if os.path.isfile(path):
        return path
    shown = one_line(pretrained, 120)
    if os.path.isdir(path):
        raise TowerError(
            f"--pretrained is the folder {shown}; wanted a file in it, or give the folder as MODEL if it holds an "
            "open_clip_config.json or config.json."
        )
    if len(path.parts) > 1 or pretrained.endswith((*CHECKPOINT_SUFFIXES, INDEX_SUFFIX)):
        raise TowerError(
            f"--pretrained names the file {shown}, and there is no such file; check the path. A pretrained tag of "
            f"{one_line(name, 60)} has no folder and no suffix: {tags}."
        )
    raise TowerError(
        f"'{shown}' is not a file and not a pretrained tag of {one_line(name, 60)}. Tags: {tags}. Wanted: a tag, a "
        "checkpoint file, or random[:SEED]."
    )


def _download(name: str, pretrained: str, tag: Mapping[str, Any]) -> Path:
    """Give the cached or downloaded weights of a tag."""
    try:
        return Path(download_pretrained(tag))
    except (OSError, RuntimeError) as error:
        first_line = one_line(str(error).strip().partition("\n")[0], 160)
        raise TowerError(
            f"The weights '{pretrained}' of {name} are not cached and could not be downloaded: {first_line} Connect "
            "to the network, or give a downloaded file as pretrained, or ask for random weights with random."
        ) from error
