"""Options of what learns in an export: exit heads, and the image trunk where it is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTraining:
    """How exit heads are trained."""

    epochs: int = 30
    """Passes over the heads' split. The paper takes 3 over 128,117 images; a pool of a few thousand needs more."""
    learning_rate: float = 1e-3
    """Peak of a one-cycle cosine schedule (AdamW)."""
    batch_size: int = 128
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    dropout: float = 0.1
    """On the head's input and hidden layer."""
    distillation: float = 1.0
    """Weight of ``1 - cosine`` to the FP32 embedding, added to the cross-entropy."""
    label_share: float = 1.0
    """Share of labels in that cross-entropy (0 to 1), the rest being FP32's label distribution. Without labels heads
    learn from the distribution alone, whatever it is."""
    teacher_views: int = 1
    """Views of an image over which FP32's answers are averaged before heads and trunk learn from them; without labels
    gates and thresholds are fitted to these answers too."""
    teacher_flip: bool = True
    """Mirror every second of those views; wrong for text."""
    rank: int | None = None
    """Rank of the first layer of heads that read all tokens, which makes them smaller and faster; None leaves it."""

    def rank_below(self, width: int) -> int | None:
        """Give `rank` where it makes a layer of this width smaller, else None."""
        return None if self.rank is None or self.rank >= width else self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """How the image trunk is tuned with its exits before it is quantized."""

    epochs: int = 5
    """Passes over the heads' split in which trunk and exit heads learn together."""
    head_epochs: int = 1
    """Passes before those in which only the exit heads learn, so that untrained heads do not disturb the trunk."""
    exits: Literal["all", "none"] | tuple[int, ...] = "all"
    """Blocks with an exit while the trunk learns: ``all`` from half of the depth on; ``none`` is the control arm, the
    same photos and epochs spent on full depth alone."""
    learning_rate: float = 5e-5
    """Peak for the last block and all after it (AdamW, warm-up, then cosine); lower where there are few steps."""
    layer_decay: float = 0.8
    """Factor on the learning rate of each block against the block after it."""
    frozen: float = 0.25
    """Share of the blocks, from the first, that do not learn; the stem never does. They cost no backward pass."""
    head_learning_rate: float = 1e-3
    """Peak for the exit heads."""
    weight_decay: float = 0.05
    """On matrices."""
    batch_size: int = 64
    end_weight: float = 1.0
    """Weight of the loss at full depth."""
    exit_weight: float = 3.0
    """Sum of the weights of the exits' losses."""
    early_emphasis: float = 1.0
    """Weight of an exit's loss against that of the exit after it; above 1 favours early exits."""
    distillation: float = 1.0
    """Weight of distillation from the tower as given (Kullback-Leibler divergence of the label distributions and
    ``1 - cosine`` of the embeddings), added to the cross-entropy; without labels it is all there is."""
    temperature: float = 1.0
    """Of the distributions in that divergence."""
    exit_teacher: Literal["given", "end"] = "end"
    """What exits are distilled from: the tower as given, on the image as it is, or the end of the tower that learns, on
    the same view."""
    label_smoothing: float = 0.0
    """Of the cross-entropy; it would blur the confidence that gates go by, and the teacher's answers are soft."""
    teacher: Literal["plain", "augmented"] = "plain"
    """Which view the tower as given answers for: ``plain`` is computed once and kept, ``augmented`` in every step."""
    augment: bool = True
    """Random crops, flips, brightness and contrast."""
    flip: bool = True
    """Mirror half of the augmented views; wrong for text and other images whose meaning mirroring changes."""
    rank: int | None = None
    """Rank of low-rank updates of the blocks' matrices (LoRA), merged at the end; None tunes all weights."""
    average: float = 1.0
    """Share of the tuned weights in the tower that the export goes on with, the rest being those as given (WiSE-FT,
    arXiv 2109.01903); 1 takes the tuned tower as it is."""
    average_head_epochs: int = 2
    """Passes in which the exit heads learn on the average, which is another tower than the one they learned with."""
    most_drop: float = 0.5
    """Points that full depth may lose on the gating split; where it loses more, the tower as given is kept."""
