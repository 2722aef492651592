"""Loads a CLIP model of open_clip and describes its image tower; `text_tower` describes the other one.

The torch model is kept with the description, since it embeds the labels and every exported graph is compared with it.
The model is built from open_clip's settings rather than by `open_clip.create_model`, which would start random weights,
another activation than the weights were trained with, or a resized position grid with no more than a log line.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import QuickGELU

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import TowerError
from lraee_exporters.loading.checkpoints import LoadedWeights, checkpoint_sha256, load_checkpoint
from lraee_exporters.loading.sources import Source, find_source
from lraee_exporters.loading.supported import check_visual
from lraee_exporters.loading.timm_towers import parts_of_timm
from lraee_exporters.loading.torch_arrays import array_of, layer_norm_of, linear_of, split_linear
from lraee_exporters.one_line import one_line
from lraee_exporters.tower import Activation, Attention, Block, Linear, Mlp, Tower
from lraee_exporters.widen import nearest_transform, to_open_clip, widen

BUILDING_ERRORS = (
    OSError,
    RuntimeError,
    ImportError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    LookupError,
    ArithmeticError,
)
"""What open_clip, timm and torch were seen to raise for settings that no model has."""

MAX_LOGIT_SCALE = 1000.0
"""Ten times the most that CLIP's training allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """Holds a CLIP model as torch runs it, and its image tower as this project exports it."""

    tower: Tower
    """The image tower in numpy."""
    torch_model: Any
    """open_clip's model: float32, on the CPU, in eval mode, no gradients."""
    tokenizer: Callable[..., torch.Tensor]
    """list of texts -> int64 (texts, context_length)."""
    transform: Callable[[Any], torch.Tensor]
    """open_clip's preprocessing: PIL image -> float32 (3, image_size, image_size)."""
    config: Mapping[str, Any]
    """open_clip's `model_cfg` of the weights (for reference-b32 that of the model before widening)."""
    source_sha256: str | None
    """SHA-256 (hex) of the checkpoint file, or of all its shards and their index; None for random weights."""
    has_text: bool = True
    """Whether the text tower has weights; without them only `visual` of the torch model means anything."""


def load_model(
    name: str,
    *,
    pretrained: str | None = None,
    activation: Activation | None = None,
    text: bool = True,
    logit_scale: float | None = None,
) -> LoadedModel:
    """Load a CLIP model by name.

    Args:
        name: `reference`, `reference-b32`, an open_clip architecture such as `ViT-B-32`, `local-dir:FOLDER`, or a
            folder that holds an `open_clip_config.json` or transformers' `config.json`.
        pretrained: Pretrained tag of open_clip, checkpoint file (safetensors, state dict, OpenAI archive, index of
            shards), `random` or `random:SEED`. None is right for the reference models and for a folder with its own
            weights.
        activation: `gelu` or `quick_gelu` for weights that do not say; by default the architecture's setting, as
            `find_source` explains.
        text: Whether the text tower is needed. Without it, a checkpoint with the image tower alone is loaded too.
        logit_scale: Factor on the cosine for a checkpoint that has none, as an image tower alone; above 0, 100 for
            most CLIPs.

    Raises:
        TowerError: The name is unknown, the architecture is not a plain ViT, or the weights are missing, damaged,
            or belong to another architecture; or the logit scale is missing, or given although the checkpoint has one.
    """
    source = find_source(name, pretrained=pretrained, activation=activation)
    torch_model = _build(source)
    loaded = LoadedWeights(text=True, logit_scale=True)
    if source.checkpoint is not None:
        loaded = load_checkpoint(torch_model, source.checkpoint, text=text)
    _set_logit_scale(torch_model, source, loaded, logit_scale)
    preprocessing = _preprocessing(source, torch_model.visual.image_size)
    tower = tower_of(
        torch_model,
        model_id=source.model_id,
        weights=source.weights,
        architecture=source.architecture,
        preprocessing=preprocessing,
    )
    if name == "reference-b32":
        tower = widen(tower, model_id=name)
        torch_model = to_open_clip(tower, torch_model)
    return LoadedModel(
        tower=tower,
        torch_model=torch_model,
        tokenizer=_tokenizer(source),
        transform=_transform(tower.preprocessing),
        config=source.config,
        source_sha256=None if source.checkpoint is None else checkpoint_sha256(source.checkpoint),
        has_text=loaded.text,
    )


def _set_logit_scale(torch_model: Any, source: Source, loaded: LoadedWeights, logit_scale: float | None) -> None:
    """Give a model the logit scale that its checkpoint lacks."""
    file = "random weights" if source.checkpoint is None else one_line(source.checkpoint.name, 80)
    if loaded.logit_scale:
        if logit_scale is not None:
            raise TowerError(f"{file} has its own logit scale; omit --logit-scale.")
        return
    if getattr(torch_model, "logit_bias", None) is not None:
        raise TowerError(
            f"{file} holds an image tower of SigLIP without logit_scale and logit_bias; wanted a checkpoint with both, "
            "such as the whole model's."
        )
    if logit_scale is None:
        raise TowerError(
            f"{file} has no logit_scale, the factor on the cosine of image and label. Give it with --logit-scale: 100 "
            "for most CLIPs, or exp(model.logit_scale) of the model that the image tower was taken from."
        )
    if not 0 < logit_scale <= MAX_LOGIT_SCALE:
        raise TowerError(f"--logit-scale is {logit_scale:g}, wanted a number above 0 and up to {MAX_LOGIT_SCALE:g}.")
    torch_model.logit_scale.fill_(math.log(logit_scale))


def tower_of(
    torch_model: Any, *, model_id: str, weights: str, architecture: str, preprocessing: Preprocessing
) -> Tower:
    """Describe the image tower of an open_clip model.

    Args:
        torch_model: Model with `visual`, `logit_scale` and perhaps `logit_bias`; any float dtype.
        model_id: See `Tower`, as the next two.
        weights: Where the weights came from.
        architecture: Name of the architecture.
        preprocessing: How images are made ready for it.

    Raises:
        TowerError: The image tower is not a plain ViT.
    """
    visual = torch_model.visual
    check_visual(model_id, visual)
    logit_bias = getattr(torch_model, "logit_bias", None)
    parts = parts_of_timm(visual) if isinstance(visual, TimmModel) else _parts(visual)
    return Tower(
        model_id=model_id,
        weights=weights,
        architecture=architecture,
        preprocessing=preprocessing,
        logit_scale=float(torch_model.logit_scale.detach().double().exp()),
        logit_bias=None if logit_bias is None else float(logit_bias.detach()),
        **parts,
    )


def _parts(visual: Any) -> dict[str, Any]:
    """Describe open_clip's own VisionTransformer: the fields of `Tower` that its weights decide."""
    resblocks = visual.transformer.resblocks
    return {
        "activation": "quick_gelu" if isinstance(resblocks[0].mlp.gelu, QuickGELU) else "gelu",
        "patch_kernel": array_of(visual.conv1.weight),
        "patch_bias": None if visual.conv1.bias is None else array_of(visual.conv1.bias),
        "class_embedding": array_of(visual.class_embedding),
        "positions": array_of(visual.positional_embedding),
        "norm_pre": None if isinstance(visual.ln_pre, torch.nn.Identity) else layer_norm_of(visual.ln_pre),
        "blocks": tuple(block_of(block) for block in resblocks),
        "norm_post": layer_norm_of(visual.ln_post),
        "projection": array_of(visual.proj),
        "pooling": "cls",
    }


def block_of(block: Any) -> Block:
    """Describe one residual block; torch keeps query, key and value in one matrix, here they are three."""
    joined = Linear(weight=array_of(block.attn.in_proj_weight), bias=array_of(block.attn.in_proj_bias))
    query, key, value = split_linear(joined, 3)
    return Block(
        norm_1=layer_norm_of(block.ln_1),
        attention=Attention(
            query=query, key=key, value=value, out=linear_of(block.attn.out_proj), heads=int(block.attn.num_heads)
        ),
        norm_2=layer_norm_of(block.ln_2),
        mlp=Mlp(fc1=linear_of(block.mlp.c_fc), fc2=linear_of(block.mlp.c_proj)),
    )


def _build(source: Source) -> Any:
    """Build the torch model with random weights; seeded when random weights were asked for."""
    config = copy.deepcopy(dict(source.config))
    config["quick_gelu"] = source.activation == "quick_gelu"
    hugging_face_text = bool(config["text_cfg"].get("hf_model_name"))
    if hugging_face_text:
        config["text_cfg"]["hf_model_pretrained"] = False  # its weights come with the checkpoint
    custom_text = config.pop("custom_text", False) or hugging_face_text
    model_class = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed or 0)
        try:
            model = model_class(**config)
        except BUILDING_ERRORS as error:
            detail = one_line(str(error).strip().partition("\n")[0], 160) or type(error).__name__
            raise TowerError(
                f"open_clip {open_clip.__version__} cannot build {source.model_id}: {detail}. Check its settings."
            ) from error
    return model.float().eval().requires_grad_(False)


def _preprocessing(source: Source, size: int | tuple[int, int]) -> Preprocessing:
    """Translate open_clip's settings: its defaults, then the source's, at the size that the tower was built for.

    `random` interpolation means bicubic outside training.
    """
    settings = merge_preprocess_dict(PreprocessCfg(), dict(source.preprocess))
    interpolation, fill_color = settings["interpolation"], settings["fill_color"]
    try:
        if type(fill_color) is not int:
            raise TypeError(f"fill_color is {fill_color!r}; wanted a grey level of 0..255")
        return Preprocessing(
            image_size=size if isinstance(size, int) else size[0],
            resize_mode=settings["resize_mode"],
            interpolation="bicubic" if interpolation == "random" else interpolation,
            mean=_three(settings["mean"]),
            std=_three(settings["std"]),
            fill_color=fill_color,
        )
    except (ValueError, TypeError, OverflowError) as error:
        detail = one_line(error, 200)
        raise TowerError(f"{source.model_id}: its preprocess_cfg cannot be followed: {detail}.") from error


def _transform(preprocessing: Preprocessing) -> Callable[[Any], torch.Tensor]:
    """Build open_clip's evaluation transform; nearest neighbour, which open_clip lacks, comes from torchvision."""
    if preprocessing.interpolation == "nearest":
        return nearest_transform(preprocessing)
    settings = PreprocessCfg(
        size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        resize_mode=preprocessing.resize_mode,
        fill_color=preprocessing.fill_color,
    )
    transform: Callable[[Any], torch.Tensor] = image_transform_v2(settings, is_train=False)
    return transform


def _three(value: Any) -> tuple[float, float, float]:
    """Read one number for each channel; open_clip also takes one for all."""
    red, green, blue = value if isinstance(value, list | tuple) else (value, value, value)
    return float(red), float(green), float(blue)


def _tokenizer(source: Source) -> Callable[..., torch.Tensor]:
    """Build the text tower's tokenizer; CLIP's own needs no files except those of open_clip."""
    text = source.config["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        tokenizer: Callable[..., torch.Tensor] = open_clip.SimpleTokenizer(
            context_length=text.get("context_length", 77), **text.get("tokenizer_kwargs", {})
        )
        return tokenizer
    if source.seed is not None:
        return _any_tokens(int(text.get("vocab_size", 30522)), int(text.get("context_length", 77)))
    try:
        tokenizer = open_clip.get_tokenizer(source.tokenizer_name)
    except (OSError, RuntimeError, ImportError) as error:
        detail = one_line(str(error).strip().partition("\n")[0], 160)
        raise TowerError(
            f"The tokenizer {text['hf_tokenizer_name']} of {source.model_id} cannot be loaded: {detail}. open_clip "
            "takes it from transformers (pip install transformers sentencepiece) and from the network or its cache."
        ) from error
    return tokenizer


def _any_tokens(vocabulary: int, context_length: int) -> Callable[..., torch.Tensor]:
    """Tokenize for a text tower of random weights: CLIP's tokens, kept within the vocabulary."""
    clip = open_clip.SimpleTokenizer(context_length=context_length)

    def tokenize(texts: list[str]) -> torch.Tensor:
        tokens: torch.Tensor = clip(texts)
        return tokens % vocabulary

    return tokenize
