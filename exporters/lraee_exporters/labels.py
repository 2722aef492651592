"""Embeds label sets with the text tower of a loaded model.

Labels are embedded once, on the machine that exports, so that a device needs no text tower for them: a bundle carries
one row for each label. Prompts are averaged as in *Learning Transferable Visual Models From
Natural Language Supervision* (Radford et al., arXiv 2103.00020, section 3.1.4) and in open_clip's
`build_zero_shot_classifier`.
"""

from typing import Any

import numpy as np
import torch

from lraee.errors import TowerError
from lraee.labels.label_file import read_label_file
from lraee.labels.label_set import LabelSet, check_told_apart
from lraee_exporters.loading.open_clip_models import LoadedModel
from lraee_exporters.loading.sources import REFERENCE_FOLDER
from lraee_exporters.tower import FloatArray

PROMPTS_PER_BATCH = 256
"""Prompts that run together; this bounds memory for many labels."""


def embed_labels(model: LoadedModel, labels: LabelSet) -> FloatArray:
    """Embed each label as the normalised mean of its prompts' normalised embeddings.

    Args:
        model: A loaded model; its text tower is used.
        labels: Names and templates.

    Returns:
        float32 (labels, embed_dim), rows of unit length.

    Raises:
        TowerError: The model was loaded without a text tower.
    """
    if not model.has_text:
        raise TowerError(f"{model.tower.model_id} has no text tower; load the whole CLIP, or give label embeddings.")
    prompts, rows = list(labels.prompts()), []
    with torch.inference_mode():
        for start in range(0, len(prompts), PROMPTS_PER_BATCH):
            tokens = model.tokenizer(prompts[start : start + PROMPTS_PER_BATCH])
            rows.append(encode_prompts(model.torch_model, tokens))
        by_name = torch.cat(rows).reshape(len(labels.names), len(labels.templates), -1)
        embeddings = torch.nn.functional.normalize(by_name.mean(dim=1), dim=-1)
    return embeddings.float().numpy().astype(np.float32)


def check_labels(model: LoadedModel, labels: LabelSet) -> None:
    """Refuse two labels with the same tokens under every template, by the model's own tokenizer.

    Raises:
        LabelsError: there are two; equal names, as in ImageNet's set, pass.
    """
    check_told_apart(labels, lambda text: tuple(model.tokenizer([text])[0].tolist()))


def encode_prompts(torch_model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Compute `encode_text(tokens, normalize=True)` without the padding after the longest prompt.

    CLIP's text tower is causal and reads the embedding at the end-of-text token, so later positions change nothing:
    1,000 ImageNet prompts take 16 of 77 positions and a fifth of the time. Towers that are not causal, or that pool in
    another way, are run as they are.

    Args:
        torch_model: open_clip's model.
        tokens: int64 (prompts, context_length), the end-of-text token being the largest of each row.

    Returns:
        float (prompts, embed_dim), rows of unit length.
    """
    length = int(tokens.argmax(dim=-1).max()) + 1
    causal = getattr(torch_model, "attn_mask", None)
    if causal is None or getattr(torch_model, "text_pool_type", None) != "argmax" or length >= tokens.shape[1]:
        full: torch.Tensor = torch_model.encode_text(tokens, normalize=True)
        return full
    positions = torch_model.positional_embedding
    try:
        torch_model.positional_embedding = torch.nn.Parameter(positions[:length], requires_grad=False)
        torch_model.attn_mask = causal[:length, :length]
        short: torch.Tensor = torch_model.encode_text(tokens[:, :length], normalize=True)
    finally:
        torch_model.positional_embedding, torch_model.attn_mask = positions, causal
    return short


def reference_labels() -> LabelSet:
    """Return the ten classes of the reference model and the five prompts it is measured with."""
    return read_label_file(REFERENCE_FOLDER / "labels.json")
