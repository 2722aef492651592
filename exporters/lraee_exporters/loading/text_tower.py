"""Describes a text tower as plain float32 arrays, free of any framework, and reads it from an open_clip model.

The function is CLIP's: tokens and positions, blocks in which no token looks ahead, the end-of-text token's row, a
LayerNorm and a projection. Other text towers of open_clip are refused: bidirectional ones, those with another
pooling, and those with another tokenizer than CLIP's.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transformer import QuickGELU, TextTransformer

from lraee.errors import TowerError
from lraee_exporters.loading.open_clip_models import LoadedModel, block_of
from lraee_exporters.loading.supported import block_reasons
from lraee_exporters.loading.torch_arrays import array_of, layer_norm_of
from lraee_exporters.tower import Activation, Block, FloatArray, LayerNorm, Linear

VOCABULARY = 49_408
"""Token ids of CLIP's tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextTower:
    """Holds CLIP's text tower: token ids to an embedding that is not yet of unit length."""

    token_embedding: FloatArray
    """(vocabulary, width)."""
    positions: FloatArray
    """(context_length, width)."""
    blocks: tuple[Block, ...]
    norm_final: LayerNorm
    projection: Linear
    """(embed_dim, width); without a bias in most models, which is zeros here."""
    activation: Activation

    @property
    def width(self) -> int:
        """The channels of a token."""
        return int(self.positions.shape[1])

    @property
    def context_length(self) -> int:
        """Most tokens of a text, start and end included."""
        return int(self.positions.shape[0])

    @property
    def embed_dim(self) -> int:
        """The length of the embedding."""
        return int(self.projection.weight.shape[0])


def text_tower_of(model: LoadedModel) -> TextTower:
    """Describe the text tower of an open_clip model; `CLIP` keeps its layers itself, `CustomTextCLIP` in `text`.

    Args:
        model: a loaded model.

    Raises:
        TowerError: naming every reason why it is not CLIP's text tower.
    """
    torch_model = model.torch_model
    text: Any = getattr(torch_model, "text", torch_model)
    reasons = _reasons(text, model.config["text_cfg"]) if model.has_text else ["its weights are not in the checkpoint"]
    if reasons:
        raise TowerError(
            f"the text tower of {model.tower.model_id} cannot be exported: {'; '.join(reasons)}. Wanted: CLIP's own "
            "text transformer and tokenizer. Export with --text none; the labels of the bundle are then fixed."
        )
    projection = text.text_projection
    if isinstance(projection, torch.nn.Linear):
        weight = array_of(projection.weight)
        bias = np.zeros(len(weight), np.float32) if projection.bias is None else array_of(projection.bias)
    else:
        weight = np.ascontiguousarray(array_of(projection).T)
        bias = np.zeros(len(weight), np.float32)
    resblocks = text.transformer.resblocks
    return TextTower(
        token_embedding=array_of(text.token_embedding.weight),
        positions=array_of(text.positional_embedding),
        blocks=tuple(block_of(block) for block in resblocks),
        norm_final=layer_norm_of(text.ln_final),
        projection=Linear(weight=weight, bias=bias),
        activation="quick_gelu" if isinstance(resblocks[0].mlp.gelu, QuickGELU) else "gelu",
    )


def clip_merges() -> list[str]:
    """Read the merges of CLIP's tokenizer, two tokens with a blank between them, from the file that open_clip ships."""
    lines = gzip.decompress(Path(open_clip.tokenizer.default_bpe()).read_bytes()).decode().split("\n")
    return lines[1 : VOCABULARY - 2 * 256 - 2 + 1]  # after a line with the version; the file has more than CLIP uses


def _reasons(text: Any, config: Mapping[str, Any]) -> list[str]:
    """List why this is not the text tower described above; empty when it is."""
    if config.get("hf_model_name"):
        return [f"it is {config['hf_model_name']} of Hugging Face"]
    reasons = [f"its tokenizer is {config['hf_tokenizer_name']}"] if config.get("hf_tokenizer_name") else []
    if config.get("tokenizer_kwargs"):
        reasons.append("its tokenizer has its own settings (tokenizer_kwargs)")
    if not isinstance(text, (TextTransformer, open_clip.CLIP)):
        return [*reasons, f"it is a {type(text).__name__}, not open_clip's TextTransformer"]
    if getattr(text, "cls_emb", None) is not None:
        reasons.append("it has a class token")
    if text.attn_mask is None:
        reasons.append("its tokens look ahead (no_causal_mask)")
    pooling = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    if pooling != "argmax":
        reasons.append(f"it is pooled by '{pooling}', not at the end-of-text token ('argmax')")
    if text.text_projection is None:
        reasons.append("it has no projection")
    if text.vocab_size != VOCABULARY:
        reasons.append(f"its vocabulary has {text.vocab_size} tokens, CLIP's {VOCABULARY}")
    return reasons + block_reasons(text.transformer.resblocks)
