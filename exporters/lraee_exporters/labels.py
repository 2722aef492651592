"""Label sets and their text embeddings.

Embedding a label once, on the machine that exports, is what makes a device need no text tower: a bundle carries one
row per label. Prompts are averaged as in *Learning Transferable Visual Models From Natural Language Supervision*
(Radford et al., arXiv 2103.00020, section 3.1.4) and in open_clip's `build_zero_shot_classifier`.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lraee.errors import LabelsError
from lraee_exporters.open_clip_models import LoadedModel
from lraee_exporters.sources import REFERENCE_FOLDER
from lraee_exporters.tower import FloatArray

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Prompts of a label file that names none; the prompt that CLIP's authors recommend."""

PROMPTS_PER_BATCH = 256
"""Prompts that pass the text tower together; bounds memory for many labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """The labels an image is classified into, and the prompts that describe them."""

    names: tuple[str, ...]
    """One name a class, in the order of the class indices. Of equal names only the first can be predicted."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """Prompts in which `{}` stands for the name."""

    def __post_init__(self) -> None:
        """Refuse empty or blank names and templates without a place for the name."""
        if not self.names:
            raise LabelsError("There are no labels; wanted at least one name.")
        if any(not name.strip() for name in self.names):
            blank = [name.strip() for name in self.names].index("") + 1
            raise LabelsError(f"Label {blank} of {len(self.names)} is blank; remove it or name it.")
        unusable = [template for template in self.templates if template.count("{}") != 1]
        if unusable or not self.templates:
            met = f"'{unusable[0]}'" if unusable else "no template"
            raise LabelsError(f"Templates: met {met}, wanted at least one text with exactly one {{}} for the name.")

    def prompts(self) -> tuple[str, ...]:
        """Return every prompt, the templates of the first name first.

        >>> LabelSet(names=("cat", "dog"), templates=("a {}.", "{}")).prompts()
        ('a cat.', 'cat', 'a dog.', 'dog')
        """
        return tuple(template.replace("{}", name) for name in self.names for template in self.templates)


def embed_labels(model: LoadedModel, labels: LabelSet) -> FloatArray:
    """Embed each label: the normalised mean of its prompts' normalised embeddings.

    Args:
        model: A loaded model; its text tower is used.
        labels: Names and templates.

    Returns:
        float32 (labels, embed_dim), rows of unit length.
    """
    prompts, rows = list(labels.prompts()), []
    with torch.inference_mode():
        for start in range(0, len(prompts), PROMPTS_PER_BATCH):
            tokens = model.tokenizer(prompts[start : start + PROMPTS_PER_BATCH])
            rows.append(encode_prompts(model.torch_model, tokens))
        by_name = torch.cat(rows).reshape(len(labels.names), len(labels.templates), -1)
        embeddings = torch.nn.functional.normalize(by_name.mean(dim=1), dim=-1)
    return embeddings.float().numpy().astype(np.float32)


def encode_prompts(torch_model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """`encode_text(tokens, normalize=True)`, without computing the padding behind the longest prompt.

    CLIP's text tower is causal and reads the embedding at the end-of-text token, so what lies behind it changes
    nothing: 1,000 ImageNet prompts take 16 of 77 positions and a fifth of the time. Towers that are not causal, or
    that pool otherwise, are run as they are.

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


def read_label_file(path: Path) -> LabelSet:
    """Read labels from a file.

    Args:
        path: `.json`: a list of names, or `{"names": [...], "templates": [...]}` (templates may be left away); any
            other suffix: UTF-8 text with one name a line, where blank lines are skipped.

    Raises:
        LabelsError: The file is missing, malformed, empty, or repeats a name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"{path}: the label file cannot be read ({error}); wanted UTF-8 text or JSON.") from error
    fields = _json_fields(path, text) if path.suffix == ".json" else {"names": _lines(text)}
    labels = LabelSet(**{key: tuple(value) for key, value in fields.items()})
    repeated = sorted(name for name, count in Counter(labels.names).items() if count > 1)
    if repeated:
        raise LabelsError(f"{path}: labels occur more than once: {', '.join(repeated[:5])}. Each name is one class.")
    return labels


def _lines(text: str) -> list[str]:
    """Names of a text file, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json_fields(path: Path, text: str) -> dict[str, list[str]]:
    """Names, and templates if there are any, of a JSON file."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise LabelsError(f"{path} is no JSON: {error}.") from error
    fields: dict[str, Any] = content if isinstance(content, dict) else {"names": content}
    if "names" not in fields or not set(fields) <= {"names", "templates"}:
        raise LabelsError(f"{path}: met the keys {', '.join(sorted(fields))}; wanted names and perhaps templates.")
    for key, value in fields.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise LabelsError(f"{path}: wanted {key} as a list of texts.")
    return fields


def reference_labels() -> LabelSet:
    """Return the ten classes of the reference model and the five prompts it is measured with."""
    return read_label_file(REFERENCE_FOLDER / "labels.json")
