"""Embeds texts with the text tower of a bundle, and labels as the means over their prompts.

It is separate from the image tower's loop, since it runs only when labels change. Prompts are averaged as in *Learning
Transferable Visual Models From Natural Language Supervision* (Radford et al., arXiv 2103.00020, section 3.1.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lraee.arrays import FloatArray
from lraee.bundle.folder import Bundle
from lraee.engine.part_sessions import Sessions
from lraee.errors import LabelsError
from lraee.labels.label_set import LabelSet, check_told_apart
from lraee.labels.tokenizer import Tokenizer, padded

TEXTS_PER_RUN = 32
"""Texts that run together; this bounds memory, however many labels there are."""

LABELS_REMEMBERED = 10_000
"""Label embeddings kept; when there are more, all are forgotten."""


class TextTower:
    """Embeds texts with the part ``text``; may be used from several threads."""

    def __init__(self, bundle: Bundle, sessions: Sessions) -> None:
        """Read the tokenizer; the session is made when a text first needs it.

        Raises:
            LabelsError: the bundle has no text tower.
            BundleError: the tokenizer's file is damaged.
        """
        text = bundle.manifest.text
        if text is None:
            raise LabelsError(
                "this bundle has no text tower, so its labels are fixed; export it with lraee-export --text fp16, or "
                "give embeddings of your own to set_label_embeddings"
            )
        self._sessions = sessions
        self._context_length = text.context_length
        self._embed_dim = bundle.manifest.tower.embed_dim
        self._tokenizer = Tokenizer(bundle.merges(text.merges))
        self._remembered: dict[tuple[str, tuple[str, ...]], FloatArray] = {}

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (texts, embed_dim) float32 of unit length.

        Texts of like length run together: the tower computes as many tokens as the longest one has.
        """
        if not isinstance(texts, Iterable) or isinstance(texts, bytes):
            raise LabelsError(f"texts is a {type(texts).__name__}, wanted a list of str")
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not all(isinstance(text, str) for text in texts):
            other = next(text for text in texts if not isinstance(text, str))
            raise LabelsError(f"{other!r} is not a text but a {type(other).__name__}; wanted a list of str")
        rows = [self._tokenizer.row(text, self._context_length) for text in texts]
        order = np.argsort([len(row) for row in rows], kind="stable")
        embeddings = np.empty((len(texts), self._embed_dim), np.float32)
        for start in range(0, len(order), TEXTS_PER_RUN):
            chosen = order[start : start + TEXTS_PER_RUN]
            tokens = padded([rows[text] for text in chosen])
            embeddings[chosen] = self._sessions["text"].run(["embedding"], {"tokens": tokens})[0]
            self._sessions.rest("text")
        return embeddings

    def embed_labels(self, labels: LabelSet) -> FloatArray:
        """Average the embeddings of each label's prompts and normalize the mean, (labels, embed_dim) float32.

        Labels that have been embedded before with the same templates are remembered.

        Raises:
            LabelsError: two labels have the same tokens in every prompt.
        """
        check_told_apart(labels, lambda text: tuple(self._tokenizer.row(text, self._context_length)))
        remembered = self._remembered
        known = {n: remembered[n, labels.templates] for n in labels.names if (n, labels.templates) in remembered}
        new = tuple(name for name in labels.names if name not in known)
        if new:
            prompts = LabelSet(names=new, templates=labels.templates).prompts()
            rows = self.embed(prompts).reshape(len(new), len(labels.templates), -1).mean(axis=1)
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            known |= dict(zip(new, rows, strict=True))
            if len(remembered) + len(new) > LABELS_REMEMBERED:
                self._remembered = {}
            self._remembered |= {(name, labels.templates): known[name] for name in new}
        return np.stack([known[name] for name in labels.names])
