"""The loss of a tower with exits: each answers for itself, all learn from labels and from the tower as given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lraee_toolchain.config.learning import Adaptation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """What a batch of answers is compared with."""

    labels: torch.Tensor
    """(labels, embed_dim) float32, unit rows."""
    logit_scale: float
    classes: torch.Tensor | None
    """(images,) int64, or None without labels."""
    teacher: torch.Tensor
    """(images, embed_dim) float32, unit rows: the tower as given, at its end."""


def loss_weights(exits: Sequence[int], options: Adaptation) -> list[float]:
    """Weigh each exit's loss, in the order of the blocks, and last that of the end.

    >>> loss_weights([8, 10], Adaptation(early_emphasis=3.0))
    [0.75, 0.25, 1.0]
    """
    shares = [options.early_emphasis ** (len(exits) - 1 - place) for place in range(len(exits))]
    return [options.exit_weight * share / sum(shares) for share in shares] + [options.end_weight]


def losses(embeddings: torch.Tensor, lesson: Lesson, options: Adaptation) -> torch.Tensor:
    """Compute the mean loss over a batch of each exit and the end.

    Sources: the divergence at a temperature, Hinton et al., arXiv 1503.02531; exits that learn from the end of
    their own tower, Zhang et al., *Be Your Own Teacher*, arXiv 1905.08094.

    Args:
        embeddings: (exits + 1, images, embed_dim) float32, unit rows.
        lesson: of the same images.
        options: weights of its terms.

    Returns:
        (exits + 1,) float32.
    """
    answers, count = embeddings.shape[:2]
    logits = lesson.logit_scale * embeddings @ lesson.labels.T
    teacher = lesson.teacher.expand(answers, -1, -1)
    if options.exit_teacher == "end":
        end = embeddings[-1:].detach().expand(answers - 1, -1, -1)
        teacher = torch.cat([end, teacher[-1:]])
    wanted = (lesson.logit_scale * teacher @ lesson.labels.T / options.temperature).log_softmax(dim=-1)
    given = (logits / options.temperature).log_softmax(dim=-1)
    divergence = (wanted.exp() * (wanted - given)).sum(-1).mean(1) * options.temperature**2
    turned = (1 - (embeddings * teacher).sum(-1)).mean(1)
    total = options.distillation * (divergence + turned)
    if lesson.classes is not None:
        each = F.cross_entropy(
            logits.flatten(0, 1),
            lesson.classes.repeat(answers),
            label_smoothing=options.label_smoothing,
            reduction="none",
        )
        total = total + each.view(answers, count).mean(1)
    return total
