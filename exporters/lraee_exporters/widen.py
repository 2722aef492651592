"""Rewrites a tower exactly: another shape or other ranges, the same FP32 function.

`widen` brings the small reference to the shape of ViT-B/32, so that real gates, exits and accuracy run on blocks of
full size. `inject_outliers` gives LayerNorm outputs a few very large channels, as large CLIPs have, so that INT8 error
can be turned up at will. `to_open_clip` puts a rewritten tower back into torch, where parity is checked.

Source of the idea: function-preserving widening, Chen, Goodfellow and Shlens, *Net2Net*, arXiv 1511.05641. The outlier
rewrite is the inverse of the scaling in Xiao et al., *SmoothQuant*, arXiv 2211.10438.
"""

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transformer import LayerNorm as TorchLayerNorm
from open_clip.transformer import QuickGELU, VisionTransformer
from torchvision import transforms  # type: ignore[import-untyped]  # torchvision ships no type information

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import TowerError
from lraee_exporters.tower import Attention, Block, FloatArray, LayerNorm, Linear, Mlp, Tower


def widen(
    tower: Tower,
    *,
    model_id: str | None = None,
    width_factor: int = 6,
    head_width: int = 64,
    image_factor: int = 8,
    embed_factor: int = 4,
) -> Tower:
    """Widen a tower without changing its function; the defaults turn `reference` into the shape of ViT-B/32.

    The residual stream becomes the old one tiled `c = width_factor` times: LayerNorm parameters are tiled (mean and
    variance do not change), a Linear has its input columns tiled and divided by c and its output rows tiled. Each
    channel of a head is repeated m = `head_width` / old head width times and each head copied c / m times; queries
    and keys are scaled by m ** -1/4, so that m equal terms over sqrt(m) times the old head size give the old
    attention logits. Patch weights are up-sampled by `image_factor` and divided by its square, which is exact for
    images up-sampled by nearest neighbour. The embedding is tiled `embed_factor` times, which leaves its cosine with
    text embeddings tiled alike.

    Args:
        tower: The tower to widen.
        model_id: Name of the result; by default that of `tower` with `-wide`.
        width_factor: New width over old width.
        head_width: New channels of a head; a multiple of the old.
        image_factor: New image and patch size over old.
        embed_factor: New embedding length over old.

    Raises:
        TowerError: The sizes do not divide as needed, or the tower is not a plain CLIP with a class token.
    """
    if tower.class_embedding is None or tower.projection is None or tower.projection_bias is not None:
        raise TowerError(f"{tower.model_id}: only a tower with a class token and a plain projection can be widened.")
    old_head_width = tower.width // tower.heads
    repeats, remainder = divmod(head_width, old_head_width)
    if min(width_factor, image_factor, embed_factor) < 1 or remainder or not repeats or width_factor % repeats:
        raise TowerError(
            f"Cannot widen {tower.width} channels with heads of {old_head_width} by {width_factor} to heads of "
            f"{head_width}: the head widths' ratio must be whole and divide the width factor, factors at least 1."
        )
    channels = _head_channels(tower.heads, old_head_width, repeats, copies=width_factor // repeats)
    side = tower.preprocessing.image_size * image_factor
    kernel = tower.patch_kernel.repeat(image_factor, axis=2).repeat(image_factor, axis=3) / image_factor**2
    return replace(
        tower,
        model_id=model_id or f"{tower.model_id}-wide",
        architecture=f"{tower.architecture}-widened" if model_id is None else model_id,
        patch_kernel=_tile(kernel, width_factor),
        patch_bias=None if tower.patch_bias is None else _tile(tower.patch_bias, width_factor),
        class_embedding=_tile(tower.class_embedding, width_factor),
        positions=_tile(tower.positions, width_factor, axis=1),
        norm_pre=None if tower.norm_pre is None else _widen_norm(tower.norm_pre, width_factor),
        blocks=tuple(_widen_block(block, width_factor, channels, repeats) for block in tower.blocks),
        norm_post=_widen_norm(tower.norm_post, width_factor),
        projection=_tile(_tile(tower.projection, width_factor) / width_factor, embed_factor, axis=1),
        preprocessing=replace(tower.preprocessing, image_size=side, interpolation="nearest", resize_mode="shortest"),
    )


def inject_outliers(tower: Tower, *, channels_per_norm: int = 3, factor: float = 128.0, seed: int = 0) -> Tower:
    """Scale a few LayerNorm channels up and the weights that read them down: same function, hard to quantize.

    Gain and bias of the chosen channels are multiplied by `factor`; the matching columns of query, key and value
    (norm_1) or of fc1 (norm_2) are divided by it. A power of two is exact in float32.

    Args:
        tower: The tower to change.
        channels_per_norm: Channels chosen at random in each of a block's two LayerNorms.
        factor: How much larger these channels become, above 0.
        seed: Seed of the choice.

    Raises:
        TowerError: `channels_per_norm` is not in 0..width or `factor` is not positive and finite.
    """
    if not 0 <= channels_per_norm <= tower.width or not (math.isfinite(factor) and factor > 0):
        raise TowerError(
            f"Outliers: met {channels_per_norm} channels and factor {factor}, wanted 0..{tower.width} channels and a "
            "positive factor."
        )
    generator = np.random.default_rng(seed)

    def scales() -> FloatArray:
        scale = np.ones(tower.width, np.float32)
        scale[generator.choice(tower.width, channels_per_norm, replace=False)] = factor
        return scale

    blocks = []
    for block in tower.blocks:
        first, second, attention = scales(), scales(), block.attention
        blocks.append(
            Block(
                norm_1=_scale_norm(block.norm_1, first),
                attention=replace(
                    attention,
                    query=_divide_columns(attention.query, first),
                    key=_divide_columns(attention.key, first),
                    value=_divide_columns(attention.value, first),
                ),
                norm_2=_scale_norm(block.norm_2, second),
                mlp=replace(block.mlp, fc1=_divide_columns(block.mlp.fc1, second)),
            )
        )
    return replace(tower, blocks=tuple(blocks))


def to_open_clip(tower: Tower, text_model: Any) -> Any:
    """Build the open_clip model whose image tower is `tower` and whose text tower is that of `text_model`.

    Args:
        tower: Any tower, for example from `widen` or `inject_outliers`.
        text_model: open_clip CLIP; copied. Its text projection is tiled when the tower's embedding is longer, as
            `widen` tiles the embedding.

    Returns:
        open_clip CLIP in float32, eval mode, without gradients.

    Raises:
        TowerError: The tower has what open_clip's plain ViT has not (a patch bias, a bias of the projection, an
            attention pool, GELU by tanh), or the embeddings do not fit.
    """
    projection = getattr(text_model, "text_projection", None)
    plain = tower.pooling == "cls" and tower.projection is not None and tower.activation != "gelu_tanh"
    if not plain or tower.patch_bias is not None or tower.projection_bias is not None:
        raise TowerError(
            f"{tower.model_id} cannot become one of open_clip's own ViTs, which have a class token, GELU or QuickGELU, "
            "and no bias in patches and projection; towers from timm can be exported as they are, not rewritten."
        )
    if not isinstance(projection, torch.Tensor):
        raise TowerError(
            f"{tower.model_id}: met a text tower without a plain projection, wanted that of open_clip's CLIP."
        )
    embed_factor, remainder = divmod(tower.embed_dim, projection.shape[1])
    if remainder or not embed_factor:
        raise TowerError(f"The embedding of {tower.embed_dim} is not a multiple of the text's {projection.shape[1]}.")
    model = copy.deepcopy(text_model)
    model.text_projection = torch.nn.Parameter(projection.detach().repeat(1, embed_factor))
    model.visual = VisionTransformer(
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        width=tower.width,
        layers=tower.depth,
        heads=tower.heads,
        mlp_ratio=tower.mlp_width / tower.width,
        no_ln_pre=tower.norm_pre is None,
        output_dim=tower.embed_dim,
        act_layer=QuickGELU if tower.activation == "quick_gelu" else torch.nn.GELU,
        norm_layer=functools.partial(TorchLayerNorm, eps=tower.norm_post.epsilon),
    )
    model.visual.load_state_dict({name: torch.from_numpy(array) for name, array in _state(tower).items()})
    return model.float().eval().requires_grad_(False)


def nearest_transform(preprocessing: Preprocessing) -> Callable[[Any], torch.Tensor]:
    """Build preprocessing by nearest neighbour, which open_clip does not offer: PIL image -> float32 (3, side, side).

    Raises:
        TowerError: The resize mode is not `shortest`.
    """
    side = preprocessing.image_size
    if preprocessing.resize_mode != "shortest":
        raise TowerError(f"Nearest neighbour with resize_mode '{preprocessing.resize_mode}'; wanted 'shortest'.")
    steps: Callable[[Any], torch.Tensor] = transforms.Compose(
        [
            transforms.Lambda(lambda image: image.convert("RGB")),
            transforms.Resize(side, interpolation=transforms.InterpolationMode.NEAREST),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(mean=preprocessing.mean, std=preprocessing.std),
        ]
    )
    return steps


def _tile(array: npt.NDArray[np.floating[Any]], times: int, axis: int = 0) -> FloatArray:
    """Repeat a whole array along an axis: [a, b] -> [a, b, a, b]."""
    return np.concatenate([array] * times, axis=axis).astype(np.float32)


def _head_channels(heads: int, head_width: int, repeats: int, copies: int) -> npt.NDArray[np.intp]:
    """Find the old channel of each new attention channel.

    >>> _head_channels(heads=2, head_width=2, repeats=2, copies=1).tolist()
    [0, 1, 0, 1, 2, 3, 2, 3]
    """
    one_copy = np.arange(heads * head_width).reshape(heads, 1, head_width).repeat(repeats, axis=1)
    return np.tile(one_copy.reshape(-1), copies)


def _widen_norm(norm: LayerNorm, factor: int) -> LayerNorm:
    return replace(norm, weight=_tile(norm.weight, factor), bias=_tile(norm.bias, factor))


def _widen_linear(linear: Linear, factor: int) -> Linear:
    columns = _tile(linear.weight, factor, axis=1) / factor
    return Linear(weight=_tile(columns, factor), bias=_tile(linear.bias, factor))


def _widen_block(block: Block, factor: int, channels: npt.NDArray[np.intp], repeats: int) -> Block:
    """Widen one block; `channels` maps each new attention channel to its old one."""

    def into_heads(linear: Linear, scale: float) -> Linear:
        columns = _tile(linear.weight, factor, axis=1) * (scale / factor)
        bias = linear.bias[channels] * scale
        return Linear(weight=columns[channels].astype(np.float32), bias=bias.astype(np.float32))

    attention, scale = block.attention, repeats**-0.25
    out = _tile(attention.out.weight[:, channels] / factor, factor)
    return Block(
        norm_1=_widen_norm(block.norm_1, factor),
        attention=Attention(
            query=into_heads(attention.query, scale),
            key=into_heads(attention.key, scale),
            value=into_heads(attention.value, 1.0),
            out=Linear(weight=out, bias=_tile(attention.out.bias, factor)),
            heads=attention.heads * factor // repeats,
        ),
        norm_2=_widen_norm(block.norm_2, factor),
        mlp=Mlp(fc1=_widen_linear(block.mlp.fc1, factor), fc2=_widen_linear(block.mlp.fc2, factor)),
    )


def _scale_norm(norm: LayerNorm, scale: FloatArray) -> LayerNorm:
    return replace(norm, weight=norm.weight * scale, bias=norm.bias * scale)


def _divide_columns(linear: Linear, scale: FloatArray) -> Linear:
    return replace(linear, weight=linear.weight / scale)


def _state(tower: Tower) -> dict[str, FloatArray]:
    """Name the tower's arrays as open_clip's VisionTransformer does."""
    assert tower.class_embedding is not None
    assert tower.projection is not None
    state = {
        "conv1.weight": tower.patch_kernel,
        "class_embedding": tower.class_embedding,
        "positional_embedding": tower.positions,
        "proj": tower.projection,
    }
    parts: dict[str, LayerNorm | Linear] = {"ln_post": tower.norm_post}
    if tower.norm_pre is not None:
        parts["ln_pre"] = tower.norm_pre
    for index, block in enumerate(tower.blocks):
        where, attention = f"transformer.resblocks.{index}", block.attention
        inputs = (attention.query, attention.key, attention.value)
        state[f"{where}.attn.in_proj_weight"] = np.concatenate([linear.weight for linear in inputs])
        state[f"{where}.attn.in_proj_bias"] = np.concatenate([linear.bias for linear in inputs])
        parts |= {f"{where}.ln_1": block.norm_1, f"{where}.ln_2": block.norm_2}
        parts |= {f"{where}.attn.out_proj": attention.out}
        parts |= {f"{where}.mlp.c_fc": block.mlp.fc1, f"{where}.mlp.c_proj": block.mlp.fc2}
    for name, part in parts.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = part.weight, part.bias
    return state
