"""Every option of an export, as one immutable value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from lraee.errors import ExportError
from lraee_exporters.graphs.exit import POOLED_INPUTS, HeadInput
from lraee_exporters.graphs.text import TextPrecision
from lraee_exporters.int8.linear import ALL_LEVELS, SMALL_WEIGHTS, Levels
from lraee_toolchain.config.learning import Adaptation, HeadTraining

RangeMethod: TypeAlias = Literal["minmax", "percentile"]

Precision: TypeAlias = Literal["FP32", "naive INT8", "strong INT8", "dynamic INT8"]
"""How the tower's parts are built; reports call them so."""


MergeWish: TypeAlias = float | tuple[int, ...]
"""A merging schedule: the share of the blocks' FLOPs that it saves, for which the best is searched, or how many pairs
of tokens become one in each block; a single number holds for all blocks."""

MOST_VIEWS = 64
"""Views of an image that FP32 may answer for before heads learn; each costs a run of the float tower."""

AUTO_MERGING: tuple[MergeWish, ...] = (0.15, 0.3, 0.45)
"""What ``--merge-tokens auto`` searches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """One export. Field names are those of ``lraee-export``'s options."""

    model: str
    """``reference``, ``reference-b32``, an open_clip name, ``local-dir:FOLDER`` or a folder."""
    out: Path
    """The bundle to write; a folder ending in ``.lraee``."""
    pretrained: str | None = None
    """Tag, checkpoint file, or ``random[:SEED]``."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """For bare weights that do not say which activation they were trained with."""
    labels: str | None = None
    """``reference``, ``imagenet`` or a file, which may map folders of images to labels; None takes the reference's for
    reference models, else ImageNet's."""
    label_embeddings: Path | None = None
    """``.npy`` file with the labels' embeddings, for an image tower whose text tower is not in the checkpoint."""
    logit_scale: float | None = None
    """Factor on the cosine of image and label, for a checkpoint that has none."""
    text: TextPrecision | Literal["none"] = "fp16"
    """How the bundle stores the text tower that embeds other labels on the device; ``none`` leaves it out. With fp16 it
    is half as large and almost exact: CLIP's weights were trained in half precision, and are often stored so."""
    calibration: Path | None = None
    """Folder or zip for activation ranges; None splits some off `train`."""
    train: Path | None = None
    """Folder or zip for heads, gates and thresholds; None takes shipped data."""
    evaluate: Path | None = None
    """Labelled folder or zip that only the report looks at."""
    evaluate_share: float | None = None
    """Share of the pictures of `train` (0 to 1) to hold back for the report, in place of `evaluate`; the same pictures
    whatever `seed` is."""
    supervision: Literal["auto", "labels", "label-free"] = "auto"
    """``auto`` uses labels when `train` has class folders, and refuses images that lie outside them."""
    exits: Literal["auto", "all", "none"] | tuple[int, ...] = "auto"
    """Blocks with an exit: ``auto`` keeps those that pay, ``none`` only quantizes and needs no training images."""
    reads: HeadInput | Literal["auto"] = "auto"
    """What heads read; ``patch_mean`` is the paper's SSA, ``auto`` decides for each exit on the gating split, and tries
    heads that read all tokens where the others are more than a point below full depth."""
    disk_limit: float = 20.0
    """GB (10^9 bytes) that all tokens may take in the work folder, for heads that read them; where they take more, the
    tower runs again in every epoch instead."""
    max_accuracy_drop: float = 0.2
    """Points of accuracy (0 to 100) that the default operating point may lose on the gating split, even when its
    difference to full depth is three standard errors worse than measured."""
    min_flops_saving: float | None = None
    """Share of FLOPs (0 to 1) that the default operating point must save; replaces `max_accuracy_drop`."""
    merge_tokens: tuple[MergeWish, ...] = ()
    """Merging schedules that the bundle offers beside no merging; the operating points are the best over all."""
    merge_for: Literal["flops", "latency"] = "flops"
    """What a share in `merge_tokens` is of: the blocks' FLOPs, or the time that they take on this machine, one image on
    one thread; the manifest then names the machine."""
    thresholds: Literal["per-exit", "per-class"] = "per-exit"
    """``per-class`` adds the operating point ``per-class``: class-based thresholds, chosen like the default point."""
    promise: float | None = None
    """Points of accuracy (0 to 100) that the operating point ``promised`` loses at most against full depth, with
    probability `promise_confidence` (risk control). Half of the gating split is kept back to prove it."""
    promise_confidence: float = 0.9
    """Above 0.5 and below 1."""
    precision: Literal["int8", "fp32"] = "int8"
    quantizer: Literal["naive", "strong"] = "naive"
    """``naive`` rounds to nearest within the ranges; ``strong`` searches the best static INT8 of each block."""
    no_saturation: bool = False
    """Round weights, or where that costs less the inputs of a block, to half as many levels: then products of uint8 and
    int8 cannot saturate in ONNX Runtime's fast kernel on x86 without VNNI instructions."""
    notice: str | None = None
    """Origin and licences of weights and data, kept in the bundle and shown by ``python -m lraee info``."""
    inject_outliers: float | None = None
    """Scale a few channels of every LayerNorm up by this factor and the weights after it down: the float function stays
    the same, but naive INT8 loses accuracy. It simulates quantization collapse; reports say so."""
    ranges: RangeMethod = "minmax"
    """How activation ranges are chosen."""
    percentile: float = 99.99
    """For ``ranges=percentile``."""
    single_file: bool = False
    """Also write ``<name>.single/<name>.onnx``: the bundle at its default operating point as one file."""
    baselines: bool = False
    """Also write ``<name>.baselines/`` next to the bundle, for lraee-bench."""
    precisions: bool = False
    """Also measure the tower at FP32, dynamic, naive and strong INT8 on `evaluate`, all at full depth."""
    ablations: bool = False
    """Also measure the comparison table on `evaluate`, with `seeds` seeds."""
    tables: Literal["all", "exported"] = "all"
    """Rows of the comparison table that exits are fitted for: ``exported`` takes the bundle's precision and supervision
    alone and measures the others at full depth, which takes a fifth of the time and a quarter of the disk where heads
    read all tokens."""
    seeds: int = 3
    """Seeds of the comparison table, each with its own splits, heads and gates."""
    heads: HeadTraining = field(default_factory=HeadTraining)
    adapt: Adaptation | None = None
    """Tune the image trunk on `train` before it is quantized, with merged tokens where `merge_tokens` says so; None
    exports it as it was loaded."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the trunk is tuned; ``auto`` takes a GPU that torch can use, else the CPU. All else runs on the CPU."""
    seed: int = 0
    workers: int | None = None
    """Threads that decode images, which changes no byte of the result; None takes one for each usable core where there
    are many images."""
    work: Path | None = None
    """Where stages are kept; None keeps them next to the bundle and removes them at the end."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What happens to image files that cannot be decoded; ``skip`` names them and counts them nowhere."""
    overwrite: bool = False
    """Replace an existing bundle and the folders beside it, at the very end; those that this export does not make are
    removed."""

    @property
    def tower_precision(self) -> Precision:
        """The precision of the bundle's tower."""
        if self.precision == "fp32":
            return "FP32"
        return "strong INT8" if self.quantizer == "strong" else "naive INT8"

    @property
    def levels(self) -> Levels:
        """How finely stem, tail and exits are rounded, and blocks of the naive quantizer."""
        return SMALL_WEIGHTS if self.no_saturation else ALL_LEVELS

    @property
    def evaluates(self) -> bool:
        """Whether there are images that only the report looks at."""
        return self.evaluate is not None or self.evaluate_share is not None

    def check(self) -> None:
        """Refuse contradictions before any work is done.

        Raises:
            ExportError: an option is out of range or contradicts another.
        """
        if self.out.suffix != ".lraee":
            raise ExportError(f"--out is {self.out}, wanted a folder name ending in .lraee; rename it")
        if self.label_embeddings is not None and self.text != "none":
            raise ExportError(
                f"--label-embeddings come from another text tower than --text {self.text} would store; add --text none"
            )
        if self.min_flops_saving is not None and not 0 <= self.min_flops_saving < 1:
            raise ExportError(f"--min-flops-saving is {self.min_flops_saving}, wanted a share from 0 to below 1")
        if not 0 <= self.disk_limit < math.inf:
            raise ExportError(f"--disk-limit is {self.disk_limit}, wanted GB from 0")
        if not 0 <= self.max_accuracy_drop <= 100:
            raise ExportError(f"--max-accuracy-drop is {self.max_accuracy_drop}, wanted points from 0 to 100")
        if self.promise is not None and not 0 < self.promise < 100:
            raise ExportError(f"--promise is {self.promise}, wanted points above 0 and below 100, such as 1")
        if not 0.5 < self.promise_confidence < 1:
            raise ExportError(f"--promise-confidence is {self.promise_confidence}, wanted above 0.5 and below 1")
        if not 0 <= self.seed < 2**32:
            raise ExportError(f"--seed is {self.seed}, wanted a whole number from 0 to {2**32 - 1}")
        if self.workers is not None and not 1 <= self.workers <= 256:
            raise ExportError(f"--workers is {self.workers}, wanted 1 to 256 threads")
        if self.seeds < 1:
            raise ExportError(f"--seeds is {self.seeds}, wanted at least 1")
        if self.notice is not None and not (self.notice.strip() and self.notice.isprintable()):
            raise ExportError(f"--notice is {self.notice!r}, wanted one line that names origin and licences")
        if self.inject_outliers is not None and not self.inject_outliers > 0:
            raise ExportError(f"--inject-outliers is {self.inject_outliers}, wanted a factor above 0, such as 64")
        if self.tables != "all" and not self.ablations:
            raise ExportError(f"--tables {self.tables} narrows the tables of --ablations; add --ablations, or drop it")
        if self.exits == "none":
            without = {
                "--merge-tokens": self.merge_tokens,
                "--ablations": self.ablations,
                "--promise": self.promise,
                "--thresholds per-class": self.thresholds == "per-class",
                "--min-flops-saving": self.min_flops_saving,
                "--adapt": self.adapt is not None,
            }
            if given := [option for option, value in without.items() if value]:
                raise ExportError(f"--exits none leaves {given[0]} nothing to do; drop one of the two")
        self._check_quantization()
        self._check_evaluation()
        self._check_merging()
        self._check_adaptation()
        self._check_heads()
        if isinstance(self.exits, tuple) and (not self.exits or min(self.exits) < 1):
            raise ExportError(f"--exits is {self.exits}, wanted block numbers from 1")

    def _check_heads(self) -> None:
        """Refuse options of what heads learn that have nothing to do."""
        heads = self.heads
        if heads.rank is not None and self.reads in POOLED_INPUTS:
            raise ExportError(
                f"--head-rank is for heads that read all tokens, --reads {self.reads} has none; drop one of the two"
            )
        if not 0 <= heads.label_share <= 1:
            raise ExportError(f"--label-share is {heads.label_share:g}, wanted a share from 0 to 1")
        if not 1 <= heads.teacher_views <= MOST_VIEWS:
            raise ExportError(f"--teacher-views is {heads.teacher_views}, wanted 1 to {MOST_VIEWS}")
        if not heads.teacher_flip and heads.teacher_views == 1:
            raise ExportError("--teacher-no-flip is about the views of --teacher-views; ask for several, or drop it")
        if heads.label_share < 1 and self.supervision == "label-free":
            raise ExportError(
                f"--label-share {heads.label_share:g} is about labels, --supervision label-free uses none; drop one of "
                "the two"
            )

    def _check_quantization(self) -> None:
        """Refuse options of INT8 that are out of range, or have nothing to do."""
        if not 50 < self.percentile <= 100:
            raise ExportError(f"--percentile is {self.percentile}, wanted above 50 and up to 100")
        if self.precision == "fp32" and self.quantizer != "naive":
            raise ExportError("--quantizer strong has nothing to do at --precision fp32; drop one of the two")
        if self.precision == "fp32" and self.no_saturation:
            raise ExportError(
                "--no-saturation is about products of INT8, --precision fp32 has none; drop one of the two"
            )

    def _check_evaluation(self) -> None:
        """Refuse measurements without images or without INT8, and two answers to which images are held out."""
        if self.evaluate is not None and self.evaluate_share is not None:
            raise ExportError("--evaluate and --evaluate-share both say what the report looks at; drop one of the two")
        if self.evaluate_share is not None and not 0 < self.evaluate_share < 1:
            raise ExportError(f"--evaluate-share is {self.evaluate_share:g}, wanted a share above 0 and below 1")
        for option, asked in {"--ablations": self.ablations, "--precisions": self.precisions}.items():
            if asked and self.precision == "fp32":
                raise ExportError(f"{option} compares INT8 with FP32; export with --precision int8")
            if asked and not self.evaluates:
                raise ExportError(
                    f"{option} measures accuracy; give labelled images with --evaluate, or hold some of --train back "
                    "with --evaluate-share"
                )

    def _check_merging(self) -> None:
        """Refuse schedules that are none, and heads that merging leaves nothing to read."""
        for wish in self.merge_tokens:
            if not 0 < wish < 1 if isinstance(wish, float) else not wish or min(wish) < 0 or not any(wish):
                said = wish if isinstance(wish, float) else ",".join(map(str, wish))
                raise ExportError(
                    f"--merge-tokens is {said}, wanted auto, a share of the FLOPs above 0 and below 1, or pairs in "
                    "each block, such as 4 or 0,2,4,4"
                )
        if self.merge_for != "flops" and not any(isinstance(wish, float) for wish in self.merge_tokens):
            raise ExportError(
                f"--merge-for {self.merge_for} says what a share is of; give one, such as --merge-tokens 0.3"
            )
        if self.merge_tokens and self.reads == "local":
            raise ExportError("--reads local needs the grid of patches, which --merge-tokens takes apart; drop one")

    def _check_adaptation(self) -> None:
        """Refuse tuning that cannot be done, or means nothing."""
        options = self.adapt
        if options is None:
            if self.device != "auto":
                raise ExportError(f"--device {self.device} is where --adapt tunes the trunk; add --adapt, or drop it")
            return
        if (self.pretrained or "").partition(":")[0] == "random":
            raise ExportError("--adapt tunes what was learned; random weights have nothing, leave it out")
        if self.model == "reference-b32":
            raise ExportError("--adapt does not tune reference-b32, which is reference widened; tune reference")
        if self.inject_outliers is not None:
            raise ExportError("--adapt would tune injected outliers away; drop --adapt or --inject-outliers")
        bounds: dict[str, tuple[float, float, float]] = {
            "--adapt-epochs": (options.epochs, 1, 1000),
            "--adapt-learning-rate": (options.learning_rate, 1e-8, 1.0),
            "--adapt-rank": (1 if options.rank is None else options.rank, 1, 1024),
            "--adapt-average": (options.average, 0.01, 1.0),
        }
        for option, (value, least, most) in bounds.items():
            if not least <= value <= most:
                raise ExportError(f"{option} is {value:g}, wanted {least:g} to {most:g}")
