"""Describes a bundle: the typed form of ``manifest.json``, formats 1 to 4.

The runtime owns the format. Exporters count FLOPs while they build a part and write them here; the runtime adds up
the parts that ran. Blocks are counted from 1, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from lraee.bundle.preprocessing import Preprocessing
from lraee.bundle.strict_json import OPTIONAL
from lraee.errors import BundleError

FORMAT = 4
"""The newest bundle format that this code reads and writes; a bundle is written in the oldest that can describe it."""

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Names the CLIP and its weights."""

    id: str
    """What was asked for at export, such as ``ViT-B-32`` or ``reference``; of a folder its name."""
    weights: str
    """Where the weights came from: a tag, ``file:NAME``, ``reference``, or ``random`` (speed only, no accuracy)."""
    architecture: str
    """open_clip's name of the architecture."""
    fingerprint: str
    """SHA-256 over all arrays and settings of the float tower."""

    @property
    def is_random(self) -> bool:
        """Whether the weights are random, so that accuracy means nothing."""
        return self.weights.startswith("random")


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerInfo:
    """Describes the shape of the image tower."""

    blocks: int
    width: int
    heads: int
    mlp_width: int
    patch_size: int
    tokens: int
    """Patches and, with ``cls`` pooling, the class token in front."""
    embed_dim: int
    activation: Literal["gelu", "quick_gelu", "gelu_tanh"]
    pooling: Literal["cls", "patch_mean", "attention"]
    """What becomes the embedding: the class token, or what is made of all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationInfo:
    """Describes how the INT8 parts were made."""

    scheme: Literal["static-qdq-u8s8", "static-qdq-u8s8-unsaturated"]
    """Static uint8 activations per tensor, int8 weights per output channel. ``unsaturated``, from format 4 on: weights
    within 64, or activations below 128, so that no sum of two products leaves 16 bits. Then sessions with default
    options are exact on every CPU; others need `session.x64quantprecision` on x86 without VNNI instructions."""
    quantizer: Literal["naive", "strong"]
    ranges: str
    """How activation ranges were found, such as ``minmax`` or ``percentile-99.99``."""
    images: int
    """Calibration views."""
    choices: dict[str, str]
    """What was chosen for each part, by part name; empty when all are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """Names one file of the bundle, with its size and hash."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """Describes one ONNX graph that the runtime runs."""

    name: str
    """``stem``, ``block_01`` ..., ``exit_08`` ..., ``tail``, ``graph`` or ``text``; where tokens are merged also
    others, such as ``block_05_46_43``, which `MergeSchedule` lists."""
    graph: str
    """File name of the graph."""
    data: str | None
    """File name of its weights, which several graphs may share; None when they are in the files of other parts."""
    flops: int
    """Per image, multiply-add = 2, GEMMs only; of the part ``text`` for a text that fills the context."""
    flops_per_label: int
    """To be multiplied by the number of labels and added to `flops`."""
    operators: dict[str, int]
    """The operators that ONNX Runtime runs after fusion, each with its count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInfo:
    """Computes ``sigmoid(weights . (confidence, margin, spatial activation variance) + bias)``."""

    weights: tuple[float, float, float]
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitInfo:
    """Describes the exit after one block."""

    block: int
    part: str
    reads: Literal["patch_mean", "cls", "both", "attention", "local"]
    """Mean patch token, class token, both side by side, or, from format 2 on, learned queries' attention pooling of all
    tokens beside them, for ``local`` after a convolution of the patches. The graph holds all of it."""
    supervision: Literal["labels", "label-free"]
    temperature: float
    gate: GateInfo
    information_to_noise: float | None
    """INR of the block, method of arXiv 2605.26415; None when it was not measured."""
    accuracy: float | None
    """Of this exit alone on the gating split, 0 to 1; agreement with FP32 when label-free; None when random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSchedule:
    """Says how many tokens are merged in each block, and which graphs run then; from format 3 on.

    The graphs read the same weights as those that merge nothing. Behind the first block that merges, a part has the
    input `sizes` (batch, tokens, 1) float32 beside its tokens; a block that merges has the output `sizes_out` too.
    """

    name: str
    merged: tuple[int, ...]
    """Pairs of tokens that become one in each block."""
    blocks: tuple[str, ...]
    """The parts of all blocks, in order."""
    tail: str
    exits: tuple[ExitInfo, ...]
    """Exits that were fitted to these tokens."""


def oldest_format(
    exits: Iterable[ExitInfo],
    schedules: Iterable[MergeSchedule] = (),
    quantization: QuantizationInfo | None = None,
) -> int:
    """Find the oldest format that can describe a bundle with these exits, schedules and this quantization."""
    if quantization is not None and quantization.scheme == "static-qdq-u8s8-unsaturated":
        return 4
    if any(True for _ in schedules):
        return 3
    return 2 if any(exit.reads in ("attention", "local") for exit in exits) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """An image leaves at `block` when the gate's value is at least `value`."""

    block: int
    value: float
    per_class: tuple[float, ...] | None
    """One value for each label by index instead of `value`, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Names a choice of thresholds. Exits that it does not name are not visited."""

    name: str
    thresholds: tuple[Threshold, ...]
    flops_saved: float
    """Share of full-depth FLOPs saved on the gating split, 0 to 1."""
    accuracy: float | None
    """On the gating split, 0 to 1; agreement with FP32 when label-free; None when random."""
    full_accuracy: float | None
    """The same at full depth."""
    schedule: str | None = field(default=None, metadata={OPTIONAL: True})
    """Merging schedule under which its images run, from format 3 on; None merges nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsInfo:
    """Names the files of the labels that the bundle was exported with."""

    names: str
    """File with names and templates."""
    embeddings: str
    """File with the (labels, embed_dim) float32 unit text embeddings."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInfo:
    """Describes the text tower, for labels that were not exported; its graph is the part ``text``."""

    merges: str
    """File with the merges of CLIP's tokenizer: two tokens a line, in their order."""
    tokenizer: str
    """File with a graph of onnxruntime-extensions' operator, for other languages: less exact, see docs/tokenizer.md."""
    context_length: int
    """Most tokens of a text, start and end included."""
    precision: Literal["fp32", "fp16", "int8"]
    """How its weights are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Holds what ``manifest.json`` says."""

    format: int
    model: ModelInfo
    tower: TowerInfo
    preprocessing: Preprocessing
    precision: Literal["int8", "fp32"]
    quantization: QuantizationInfo | None
    logit_scale: float
    logit_bias: float | None
    parts: tuple[PartEntry, ...]
    exits: tuple[ExitInfo, ...]
    operating_points: tuple[OperatingPoint, ...]
    default_point: str | None
    labels: LabelsInfo
    text: TextInfo | None
    """None without a text tower: labels are then fixed."""
    files: tuple[FileEntry, ...]
    provenance: dict[str, str]
    probabilities: Literal["softmax", "sigmoid"] = field(default="softmax", metadata={OPTIONAL: True})
    """``softmax`` over the labels, or for towers trained with SigLIP's loss a ``sigmoid`` for each label on its own,
    with `logit_bias`: these need not add up to 1. Gates judge the softmax in both cases."""
    onnxruntime: str | None = field(default=None, metadata={OPTIONAL: True})
    """The oldest release of ONNX Runtime that runs every part, such as ``1.17``; None where the bundle does not name
    it: see `lraee.ort.version`."""
    schedules: tuple[MergeSchedule, ...] = field(default=(), metadata={OPTIONAL: True})
    """Merging schedules, from format 3 on."""

    def schedule(self, name: str | None) -> MergeSchedule:
        """Find a merging schedule; None gives the one that merges nothing, with the exits of the bundle itself.

        Raises:
            BundleError: there is none of this name.
        """
        if name is None:
            depth = self.tower.blocks
            blocks = tuple(block_names(depth))
            return MergeSchedule(name="none", merged=(0,) * depth, blocks=blocks, tail="tail", exits=self.exits)
        for schedule in self.schedules:
            if schedule.name == name:
                return schedule
        known = ", ".join(schedule.name for schedule in self.schedules) or "none"
        raise BundleError(f"{MANIFEST_NAME}: there is no merging schedule {name!r}; it has {known}")

    def part(self, name: str) -> PartEntry:
        """Find the part called `name`; raises BundleError where there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise BundleError(f"{MANIFEST_NAME}: parts lacks {name!r}; it has {', '.join(p.name for p in self.parts)}")

    def exit_after(self, block: int, schedule: str | None = None) -> ExitInfo | None:
        """Find the exit after `block` under a merging schedule; None where there is none."""
        return next((exit for exit in self.schedule(schedule).exits if exit.block == block), None)

    @property
    def saturates(self) -> bool:
        """Whether sums of two INT8 products may leave 16 bits, so that sessions need the exact kernel on some CPUs."""
        return self.quantization is not None and self.quantization.scheme == "static-qdq-u8s8"

    @property
    def full_flops(self) -> int:
        """FLOPs of one image at full depth: stem, all blocks, tail with the exported labels, and no exit."""
        names = ["stem", *block_names(self.tower.blocks), "tail"]
        return sum(self.flops_of(name, self.labels.count) for name in names)

    @property
    def block_flops(self) -> int:
        """FLOPs of the largest block for one image, by which the number of threads is chosen."""
        return max(part.flops for part in self.parts if part.name.startswith("block_"))

    @property
    def session_parts(self) -> list[str]:
        """The parts that an image may reach by the default operating point, or unmerged, in its order."""
        return self.parts_under(self.schedule_of(self.default_point))

    def schedule_of(self, point: str | None) -> str | None:
        """Name the merging schedule of an operating point; None where it merges nothing, or where there is none."""
        return next((one.schedule for one in self.operating_points if one.name == point), None)

    def parts_under(self, schedule: str | None) -> list[str]:
        """List the parts that an image may reach under a merging schedule, in its order."""
        chosen = self.schedule(schedule)
        exits = {exit.block: exit.part for exit in chosen.exits}
        names = ["stem"]
        for number, block in enumerate(chosen.blocks, start=1):
            names += [block] if number not in exits else [block, exits[number]]
        return [*names, chosen.tail]

    @property
    def session_count(self) -> int:
        """The number of sessions of a model that uses all parts, the one for texts included."""
        return len(self.session_parts) + (self.text is not None)

    def flops_of(self, part: str, label_count: int) -> int:
        """Count the FLOPs of one part for one image and `label_count` labels."""
        entry = self.part(part)
        return entry.flops + entry.flops_per_label * label_count

    def bytes_of(self, *parts: str) -> int:
        """Give the size of the graphs and weights of some parts; a file that several of them read counts once."""
        entries, sizes = [self.part(part) for part in parts], {file.name: file.size_bytes for file in self.files}
        names = {name for entry in entries for name in (entry.graph, entry.data) if name is not None}
        return sum(sizes[name] for name in names)


def block_names(count: int) -> list[str]:
    """Give the part names of the blocks, in order.

    >>> block_names(2)
    ['block_01', 'block_02']
    """
    return [f"block_{number:02d}" for number in range(1, count + 1)]
