"""Find out what a model's name means: its settings, its preprocessing, its activation and where its weights lie.

Kept apart from building the model, so that a wrong name, an unsupported architecture or a missing file is said before
anything is allocated or downloaded.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

from lraee.errors import TowerError
from lraee_exporters import hugging_face
from lraee_exporters.checkpoints import find_checkpoint
from lraee_exporters.supported import check_config
from lraee_exporters.torchscript import is_torchscript
from lraee_exporters.tower import Activation

REFERENCE_FOLDER = Path(__file__).parent / "reference"
"""The small CLIP that is shipped with this package."""

REFERENCE_NAMES = ("reference", "reference-b32")
"""The shipped model, and the same widened to the shape of ViT-B/32."""

LOCAL_PREFIX = "local-dir:"
"""open_clip's prefix of a folder with an `open_clip_config.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Everything needed to build one model."""

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
    """`gelu` or `quick_gelu`; see `find_source` for who decides."""


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
        if pretrained is not None or activation is not None:
            raise TowerError(f"{name} has its own weights and activation; leave pretrained and activation away.")
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
    folder = _folder_of(name)
    architecture = folder.resolve().name if folder else _architecture(name)
    config, preprocess = _read_folder(folder) if folder else (open_clip.get_model_config(architecture), {})
    check_config(name, config)
    tag = {} if folder else get_pretrained_cfg(architecture, pretrained or "")
    seed = _seed(pretrained)
    checkpoint = None if seed is not None else _checkpoint(name, architecture, folder, pretrained, tag)
    known: Activation | None = "quick_gelu" if tag.get("quick_gelu") else None
    if checkpoint is not None and is_torchscript(checkpoint):
        known = "quick_gelu"
    if activation is not None and (tag or known) and activation != (known or _configured(config)):
        raise TowerError(
            f"{pretrained} of {name} was trained with {known or _configured(config)}, the override says {activation}; "
            "leave the override away, it is for files that do not say."
        )
    if checkpoint is not None and not (folder or tag or known or activation) and not _says_activation(config):
        raise TowerError(
            f"{checkpoint.name} are bare weights, and neither they nor the name {name} say with which activation they "
            "were trained. Say --activation quick_gelu (OpenAI's weights and most that were trained from them, such as "
            "DFN and MetaCLIP) or --activation gelu (OpenCLIP's own, such as LAION and DataComp)."
        )
    return Source(
        model_id=name,
        architecture=architecture,
        config=config,
        preprocess={**preprocess, **(tag or ({} if folder else _common_preprocessing(architecture)))},
        tokenizer_name=f"{LOCAL_PREFIX}{folder}" if folder else architecture,
        weights="random" if checkpoint is None else str(pretrained) if tag else f"file:{checkpoint.name}",
        checkpoint=checkpoint,
        seed=seed,
        activation=activation or known or _configured(config),
    )


def _common_preprocessing(architecture: str) -> dict[str, Any]:
    """Preprocessing that all pretrained tags of an architecture share, for weights that come without a tag.

    SigLIP's towers are trained on squashed images and other means than CLIP's, under every tag.
    """
    tags = [get_pretrained_cfg(architecture, tag) for tag in list_pretrained_tags_by_model(architecture)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: tags[0][key] for key in keys if tags and all(tag.get(key) == tags[0].get(key, tag) for tag in tags)}


def _says_activation(config: Mapping[str, Any]) -> bool:
    """Whether the architecture leaves no choice: it names the activation, or comes from timm with its own."""
    return "quick_gelu" in config or bool(config["vision_cfg"].get("timm_model_name"))


def _configured(config: Mapping[str, Any]) -> Activation:
    """Activation that the architecture's settings name."""
    return "quick_gelu" if config.get("quick_gelu") else "gelu"


def _folder_of(name: str) -> Path | None:
    """Give the folder that a name means, or None for an architecture's name."""
    if name.startswith(LOCAL_PREFIX):
        return Path(name.removeprefix(LOCAL_PREFIX)).expanduser()
    if name.replace("/", "-") in open_clip.list_models():
        return None
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def _architecture(name: str) -> str:
    """Give open_clip's spelling of an architecture's name, or refuse with the closest ones."""
    names: list[str] = open_clip.list_models()
    architecture = name.replace("/", "-")
    if architecture in names:
        return architecture
    spelled = {candidate.lower(): candidate for candidate in (*REFERENCE_NAMES, *names)}
    close = [spelled[match] for match in difflib.get_close_matches(architecture.lower(), spelled, n=3, cutoff=0.5)]
    raise TowerError(
        f"'{name}' is no architecture of open_clip {open_clip.__version__} and no folder. "
        + (f"Close names: {', '.join(close)}. " if close else "")
        + "Wanted: reference, reference-b32, a name of open_clip.list_models(), or a folder with open_clip_config.json "
        "or config.json."
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
        preprocessor = folder / hugging_face.PREPROCESSOR_NAME
        translated = hugging_face.read_config(foreign, _read_json(foreign))
        if not preprocessor.is_file():
            return translated, {}
        return translated, hugging_face.read_preprocessor(preprocessor, _read_json(preprocessor))
    content = _read_json(path)
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise TowerError(f"{path}: wanted the key model_cfg with embed_dim, vision_cfg and text_cfg.")
    return config, content.get("preprocess_cfg", {})


def _read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TowerError(f"{path} is no JSON: {error}.") from error


def _seed(pretrained: str | None) -> int | None:
    """Give the seed of `random[:SEED]`, or None when the weights are not random.

    >>> _seed("random"), _seed("random:7"), _seed("openai")
    (0, 7, None)
    """
    word, _, number = (pretrained or "").partition(":")
    if word != "random":
        return None
    if number and not number.isdecimal():
        raise TowerError(f"pretrained={pretrained!r}: wanted random or random:SEED with a whole number, as random:1.")
    return int(number or 0)


def _checkpoint(
    name: str, architecture: str, folder: Path | None, pretrained: str | None, tag: Mapping[str, Any]
) -> Path:
    """Find the weights' file: the folder's own, a file that was named, or the download of a tag."""
    if pretrained is None:
        if folder:
            return find_checkpoint(folder)
        tags = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise TowerError(
            f"{name} needs weights: a pretrained tag ({tags}), a checkpoint file, or random (random weights show size "
            "and speed, never accuracy)."
        )
    if tag:
        return _download(name, pretrained, tag)
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    tags = "none" if folder else ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
    raise TowerError(
        f"'{pretrained}' is no file and no pretrained tag of {name}. Tags: {tags}. Wanted: a tag, a checkpoint file, "
        "or random[:SEED]."
    )


def _download(name: str, pretrained: str, tag: Mapping[str, Any]) -> Path:
    """Give the cached or downloaded weights of a tag."""
    try:
        return Path(download_pretrained(tag))
    except (OSError, RuntimeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise TowerError(
            f"The weights '{pretrained}' of {name} are not cached and could not be downloaded: {first_line} Connect "
            "to the network, or give a downloaded file as pretrained, or ask for random weights with random."
        ) from error
