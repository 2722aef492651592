"""What an export measured: the types between evaluation and report, which are also the content of ``metrics.json``.

Rows carry identifiers; `lraee_toolchain.report.names` says how the report calls them. Accuracies, shares and savings
are fractions of 1, and differences of accuracies are paired image by image. `lraee.bundle.strict_json` encodes and
decodes all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from lraee.bundle.strict_json import OPTIONAL
from lraee_benchmarks.analysis.intervals import Estimate
from lraee_exporters.graphs.exit import HeadInput
from lraee_exporters.parity import StageParity
from lraee_toolchain.config.options import Precision
from lraee_toolchain.evaluation.risk_metrics import RiskChecks
from lraee_toolchain.evaluation.saturation import Saturation
from lraee_toolchain.quantization.noise import NoiseProfile

Way: TypeAlias = Literal[
    "full",
    "ssa_last",
    "ssa_last_hard",
    "routed",
    "routed_label_free",
    "routed_merged",
    "routed_merged_label_free",
    "routed_ssa",
    "routed_ssa_hard",
]
"""How a tower is run in the paper's tables: at full depth with its own head; at full depth with an SSA head at the last
block, distilled or trained on hard labels; or routed through early exits as exported, without labels, with merged
tokens too, or with SSA heads alone, distilled or trained on hard labels."""

PolicyKind: TypeAlias = Literal["full", "merged", "adaptive", "exit"]
"""Full depth, full depth with merged tokens, an operating point, or one exit that all images take."""

FLOAT, GIVEN_FLOAT, GIVEN_INT8 = "float", "given float", "given int8"
"""Keys of `Evaluation.right` that are no policies: the bundle's tower in FP32, and the tower as given."""

LRA_EE = "lra_ee"
"""The `MethodRow` that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitShare:
    """How many images left at one place."""

    block: int | None
    """Block after which they took the exit; None for those that ran to the end."""
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadrants:
    """The paper's four quadrants: how answers with exits agree with those at full depth, in images."""

    both_right: float
    rescue: float
    """Right with exits, wrong at full depth."""
    loss: float
    """Wrong with exits, right at full depth."""
    both_wrong: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """What one policy of the bundle did."""

    kind: PolicyKind
    point: str | None
    """Operating point of an adaptive policy, or schedule of merged tokens."""
    block: int | None
    """Block after which all images exit, where there is one."""
    accuracy: Estimate
    difference_to_full: Estimate
    difference_to_float: Estimate
    difference_to_given: Estimate | None = field(default=None, metadata={OPTIONAL: True})
    """To FP32 at full depth of the tower as given; None where its trunk was not tuned."""
    flops: float
    """Mean of an image."""
    flops_saved: float
    exit_shares: tuple[ExitShare, ...]
    """By depth; places where no image left are missing."""
    quadrants: Quadrants

    @property
    def spec(self) -> str:
        """The policy as the runtime's commands take it, such as ``exit=8``."""
        if self.kind == "merged":
            return f"full@{self.point}"
        value = self.point if self.block is None else self.block
        return self.kind if value is None else f"{self.kind}={value}"

    def share(self, block: int | None) -> float:
        """Share of the images that left after `block`, or with None ran to the end."""
        return sum(place.share for place in self.exit_shares if place.block == block)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenTower:
    """Full depth of the tower as given, before its trunk was tuned, on the same images."""

    accuracy: Estimate
    """FP32."""
    float_difference: Estimate
    """Of the tuned tower, FP32 at full depth."""
    quantized: Estimate | None = field(default=None, metadata={OPTIONAL: True})
    """Accuracy at the bundle's INT8; None where only FP32 was measured."""
    quantized_difference: Estimate | None = field(default=None, metadata={OPTIONAL: True})
    """Of that, to FP32 as given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Every policy of the finished bundle, on images that no other step has seen."""

    images: int
    full_flops: int
    float_accuracy: Estimate
    given: GivenTower | None = field(default=None, metadata={OPTIONAL: True})
    """None where the trunk was not tuned."""
    rows: tuple[PolicyRow, ...]
    """Full depth, operating points in the bundle's order, exits by depth."""
    right: dict[str, str] | None = field(default=None, metadata={OPTIONAL: True})
    """Which images are answered right, in the order of the evaluation split, as `analysis.right_answers` writes them:
    by `PolicyRow.spec`, and of other towers at full depth by `FLOAT`, `GIVEN_FLOAT` and `GIVEN_INT8`."""

    @property
    def full(self) -> PolicyRow:
        """Full depth."""
        return next(row for row in self.rows if row.kind == "full")

    @property
    def merged(self) -> list[PolicyRow]:
        """Full depth under each merging schedule."""
        return [row for row in self.rows if row.kind == "merged"]

    @property
    def points(self) -> list[PolicyRow]:
        """Operating points."""
        return [row for row in self.rows if row.kind == "adaptive"]

    @property
    def cuts(self) -> list[PolicyRow]:
        """Policies under which all images take one exit, as if the tower were cut there."""
        return [row for row in self.rows if row.kind == "exit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionRow:
    """Full depth at one precision."""

    precision: Precision
    accuracy: Estimate
    difference_to_float: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Precisions:
    """What quantization alone costs."""

    images: int
    rows: tuple[PrecisionRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayRow:
    """A row of the paper's T1 or T3: mean of the seeds, with what each seed gave."""

    way: Way
    precision: Precision
    accuracy: Estimate
    per_seed: tuple[float, ...]
    """Accuracy of each seed; one value where nothing is trained."""
    flops_saved: float
    flops_saved_std: float
    """Standard deviation over the seeds."""
    difference_to_float: Estimate
    difference_to_int8: Estimate
    """To full depth at the precision that is exported."""
    difference_to_ssa_last: Estimate
    difference_to_given: Estimate | None = field(default=None, metadata={OPTIONAL: True})
    """To FP32 at full depth of the tower as given; None where its trunk was not tuned."""
    exit_shares: tuple[tuple[ExitShare, ...], ...]
    """Of each seed; empty at full depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """Accuracy and FLOPs saved at some thresholds."""

    accuracy: float
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMatch:
    """What a method does where it saves at least as much as LRA-EE on the gating split."""

    accuracy: Estimate
    flops_saved: float
    """On the evaluation split."""
    flops_saved_std: float
    difference_to_lra_ee: Estimate
    difference_to_int8: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """A row of the paper's T2: one method of saving FLOPs, mean of the seeds."""

    method: str
    """`LRA_EE`, or as in `competitors.methods.standard_entries` and `evaluation.method_table`."""
    front: tuple[FrontPoint, ...]
    """By rising saving."""
    at_match: AtMatch | None
    """None where the method cannot save that much on the gating split of some seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitAlone:
    """How right one exit is that answers for all images of the evaluation split."""

    block: int
    reads: HeadInput
    per_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodTable:
    """T2: every method at the FLOPs that LRA-EE saves."""

    matched: float
    """What LRA-EE saves on the evaluation split."""
    rows: tuple[MethodRow, ...]
    alone: tuple[ExitAlone, ...] = field(default=(), metadata={OPTIONAL: True})
    """Every candidate exit with heads that the methods used, by what they read, then by depth."""

    @property
    def lra_ee(self) -> MethodRow:
        """The row that the others are compared with."""
        return next(row for row in self.rows if row.method == LRA_EE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectivity:
    """How right the answers of one seed are where images left early and where they stayed; None without such images."""

    left_early: float
    accuracy: float
    left_accuracy: float | None
    stayed_accuracy: float | None
    full_accuracy_of_left: float | None
    """Of full depth on the images that left early."""
    full_accuracy_of_stayed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablations:
    """The paper's tables for this model and these images."""

    images: int
    seeds: int
    precision: Precision
    """The exported one, on which all but T1 is measured."""
    main: tuple[WayRow, ...]
    """T1."""
    methods: MethodTable
    """T2."""
    factorial: tuple[WayRow, ...]
    """T3."""
    quadrants: Quadrants
    """T4, mean of the seeds."""
    selectivity: tuple[Selectivity, ...]
    """Of each seed."""
    fronts: tuple[tuple[FrontPoint, ...], ...]
    """Thresholds of each seed that no others beat on the gating split."""
    exits_kept: tuple[tuple[int, ...], ...]
    """Blocks of each seed."""
    heads: dict[HeadInput, tuple[float, ...]]
    """Accuracy of a head after each block, by what it reads; first seed."""
    risk: RiskChecks
    pruned: dict[Precision, tuple[int, ...]]
    """Candidate exits that the noise of a precision forbids."""
    frontier: dict[str, tuple[WayRow, ...]] = field(default_factory=dict, metadata={OPTIONAL: True})
    """By the percent of FLOPs that must be saved on the gating split, the ways that do so with every seed."""
    routed_right: tuple[str, ...] = field(default=(), metadata={OPTIONAL: True})
    """Of each seed, which images LRA-EE answers right at the exported precision, as `Evaluation.right` says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """Time of one row of T1."""

    way: Way
    precision: Precision
    mean_ms: float
    saved: float
    """Share of full depth at the exported precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Rows of T1 timed against each other, batch 1, interleaved."""

    threads: int
    images: int
    rows: tuple[LatencyRow, ...]

    def row(self, way: Way, precision: Precision) -> LatencyRow | None:
        """The row of a way to run, if it was timed."""
        return next((row for row in self.rows if (row.way, row.precision) == (way, precision)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """All of it; what was not measured is None or empty."""

    parity: tuple[StageParity, ...]
    supervision: str
    """Whether heads learned from ``labels`` or ``label-free``."""
    noise: dict[Precision, NoiseProfile]
    images: dict[str, int]
    """Images that were read, by split."""
    skipped: dict[str, dict[str, str]]
    """Why images could not be read, by path, by split."""
    passed_over: dict[str, dict[str, int]]
    """Files that are not images, by the end of their names, by option."""
    notices: tuple[str, ...]
    """What the user was told of the images."""
    evaluation: Evaluation | None
    precisions: Precisions | None
    ablations: Ablations | None
    latency: Latency | None
    saturation: Saturation | None = field(default=None, metadata={OPTIONAL: True})
    """What it costs that no product saturates; None where that was not asked for, or not measured."""
    adaptation: str | None = field(default=None, metadata={OPTIONAL: True})
    """What tuning the trunk came to; None where nobody asked for it."""
