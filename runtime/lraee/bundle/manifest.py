"""What a bundle says of itself: the typed form of ``manifest.json``, format 1.

The runtime owns the format. Exporters count FLOPs while they build a part and write them here; the runtime adds up
the parts that ran. Blocks are counted from 1, as in the paper.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Literal

from lraee.bundle.files import unreadable
from lraee.bundle.preprocessing import Preprocessing
from lraee.bundle.strict_json import OPTIONAL, decode, encode, parse
from lraee.errors import BundleError

FORMAT = 1
"""The newest bundle format that this code reads and writes."""

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Which CLIP this is."""

    id: str
    """What was asked for at export, such as ``ViT-B-32`` or ``reference``."""
    weights: str
    """Where the weights came from: a tag, ``file:NAME``, ``reference``, or ``random`` (speed only, no accuracy)."""
    architecture: str
    """open_clip's name of the architecture."""
    fingerprint: str
    """SHA-256 over all arrays and settings of the float tower."""

    @property
    def is_random(self) -> bool:
        """Whether accuracy means nothing for this bundle."""
        return self.weights.startswith("random")


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerInfo:
    """Shape of the image tower."""

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
    """How the INT8 parts came about."""

    scheme: Literal["static-qdq-u8s8"]
    """Static uint8 activations per tensor, int8 weights per output channel."""
    quantizer: Literal["naive", "strong"]
    ranges: str
    """How activation ranges were found, such as ``minmax`` or ``percentile-99.99``."""
    images: int
    """Calibration views."""
    choices: dict[str, str]
    """What was chosen for each part, by part name; empty when all are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of the bundle."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """One ONNX graph that the runtime runs."""

    name: str
    """``stem``, ``block_01`` ..., ``exit_08`` ..., ``tail``, ``graph`` or ``text``."""
    graph: str
    """File name of the graph."""
    data: str | None
    """File name of its weights; None when they are in the files of other parts."""
    flops: int
    """Per image, multiply-add = 2, matrix products only; of the part ``text`` for a text that fills the context."""
    flops_per_label: int
    """To be multiplied by the number of labels and added to `flops`."""
    operators: dict[str, int]
    """The operators that ONNX Runtime runs after fusion, each with its count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInfo:
    """``sigmoid(weights . (confidence, margin, spatial activation variance) + bias)``."""

    weights: tuple[float, float, float]
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitInfo:
    """An exit behind a block."""

    block: int
    part: str
    reads: Literal["patch_mean", "cls", "both"]
    supervision: Literal["labels", "label-free"]
    temperature: float
    gate: GateInfo
    information_to_noise: float | None
    """INR of the block, method of arXiv 2605.26415; None when it was not measured."""
    accuracy: float | None
    """Of this exit alone on the gating split, 0 to 1; agreement with FP32 when label-free; None when random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """An image leaves at `block` when the gate's value is at least `value`."""

    block: int
    value: float
    per_class: tuple[float, ...] | None
    """One value for each label by index instead of `value`, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A named choice of thresholds. Exits that it does not name are not visited."""

    name: str
    thresholds: tuple[Threshold, ...]
    flops_saved: float
    """Share of full-depth FLOPs saved on the gating split, 0 to 1."""
    accuracy: float | None
    """On the gating split, 0 to 1; agreement with FP32 when label-free; None when random."""
    full_accuracy: float | None
    """The same at full depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsInfo:
    """The labels that the bundle was exported with."""

    names: str
    """File with names and templates."""
    embeddings: str
    """File with the (labels, embed_dim) float32 unit text embeddings."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInfo:
    """The text tower, for labels that were not exported; its graph is the part ``text``."""

    merges: str
    """File with the merges of CLIP's tokenizer: two tokens a line, in their order."""
    tokenizer: str
    """The same as a graph of onnxruntime-extensions' operator, for runtimes in other languages; not as exact."""
    context_length: int
    """Most tokens of a text, start and end included."""
    precision: Literal["fp32", "fp16", "int8"]
    """How its weights are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``manifest.json``."""

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

    def part(self, name: str) -> PartEntry:
        """The part called `name`."""
        for part in self.parts:
            if part.name == name:
                return part
        raise BundleError(f"{MANIFEST_NAME}: parts lacks {name!r}; it has {', '.join(p.name for p in self.parts)}")

    def exit_behind(self, block: int) -> ExitInfo | None:
        """The exit behind `block`, or None."""
        return next((exit for exit in self.exits if exit.block == block), None)

    @property
    def full_flops(self) -> int:
        """FLOPs of one image at full depth: stem, all blocks, tail with the exported labels, and no exit."""
        names = ["stem", *block_names(self.tower.blocks), "tail"]
        return sum(self.flops_of(name, self.labels.count) for name in names)

    def flops_of(self, part: str, label_count: int) -> int:
        """FLOPs of one part for one image and so many labels."""
        entry = self.part(part)
        return entry.flops + entry.flops_per_label * label_count


def block_names(count: int) -> list[str]:
    """Part names of the blocks.

    >>> block_names(2)
    ['block_01', 'block_02']
    """
    return [f"block_{number:02d}" for number in range(1, count + 1)]


def parse_manifest(text: str) -> Manifest:
    """Read the text of a manifest.

    Raises:
        BundleError: it is no JSON, of a newer format, or a key is unknown, missing or contradicts another.
    """
    raw = parse(text, MANIFEST_NAME)
    version = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(f"{MANIFEST_NAME}: format is {version!r}, wanted a number from 1 to {FORMAT}")
    if not 1 <= version <= FORMAT:
        raise BundleError(
            f"{MANIFEST_NAME}: format is {version}, this version of lraee reads 1 to {FORMAT}; "
            "update lraee or export again"
        )
    manifest = decode(Manifest, raw, MANIFEST_NAME)
    _check_consistency(manifest)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of a bundle folder."""
    return decode_manifest(manifest_bytes(folder))


def manifest_bytes(folder: Path) -> bytes:
    """The content of ``manifest.json`` of a bundle folder.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BundleError(f"{folder} has no {MANIFEST_NAME}; wanted a bundle folder written by lraee-export") from error
    except OSError as error:
        raise unreadable(path, MANIFEST_NAME, error) from error


def decode_manifest(content: bytes) -> Manifest:
    """Read the content of ``manifest.json``; errors as `parse_manifest`, and for what is no UTF-8."""
    try:
        return parse_manifest(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{MANIFEST_NAME} is no UTF-8 text; the bundle is damaged, export it again") from error


def write_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``, checked by reading it back."""
    raw = encode(manifest)
    if manifest.probabilities == "softmax":
        del raw["probabilities"]  # versions that do not know the key then read the bundle too
    if manifest.onnxruntime is None:
        del raw["onnxruntime"]
    text = json.dumps(raw, indent=1, ensure_ascii=False) + "\n"
    if parse_manifest(text) != manifest:
        raise BundleError(f"{MANIFEST_NAME} does not survive writing and reading; a value has the wrong type")
    return text


def _check_consistency(manifest: Manifest) -> None:
    _check_ranges(manifest)
    _check_files(manifest)
    _check_exits(manifest)


def _check_ranges(manifest: Manifest) -> None:
    tower, count = manifest.tower, manifest.labels.count
    least = [(f"tower.{name}", getattr(tower, name), 1) for name in ("blocks", "width", "heads", "mlp_width")]
    least += [(f"tower.{name}", getattr(tower, name), 1) for name in ("patch_size", "tokens", "embed_dim")]
    least.append(("labels.count", count, 2))
    least += [("text.context_length", manifest.text.context_length, 2)] if manifest.text is not None else []
    for part in manifest.parts:
        least += [(f"parts.{part.name}.{name}", getattr(part, name), 0) for name in ("flops", "flops_per_label")]
    for key, value, wanted in least:
        if value < wanted:
            raise BundleError(f"{MANIFEST_NAME}: {key} is {value}, wanted at least {wanted}")
    if manifest.probabilities == "sigmoid" and manifest.logit_bias is None:
        raise BundleError(f"{MANIFEST_NAME}: probabilities are 'sigmoid', which needs a number as logit_bias")
    if manifest.onnxruntime is not None and re.fullmatch(r"\d{1,4}(\.\d{1,4}){1,2}", manifest.onnxruntime) is None:
        raise BundleError(f"{MANIFEST_NAME}: onnxruntime is {short(manifest.onnxruntime)}, wanted a version as '1.17'")
    above_zero = [("logit_scale", manifest.logit_scale)]
    above_zero += [(f"exits: temperature behind block {exit.block}", exit.temperature) for exit in manifest.exits]
    for key, number in above_zero:
        if number <= 0:
            raise BundleError(f"{MANIFEST_NAME}: {key} is {number}, wanted above 0")


def _check_files(manifest: Manifest) -> None:
    files = {entry.name for entry in manifest.files}
    if len(files) != len(manifest.files):
        raise BundleError(f"{MANIFEST_NAME}: files names one file twice")
    for name in files:
        if not _is_plain_name(name):
            raise BundleError(f"{MANIFEST_NAME}: files has {name!r}, wanted a plain name inside the bundle folder")
    wanted = [("labels.names", manifest.labels.names), ("labels.embeddings", manifest.labels.embeddings)]
    if manifest.text is not None:
        wanted += [("text.merges", manifest.text.merges), ("text.tokenizer", manifest.text.tokenizer)]
    for part in manifest.parts:
        wanted.append((f"parts.{part.name}.graph", part.graph))
        wanted += [(f"parts.{part.name}.data", part.data)] if part.data is not None else []
        if not part.graph.endswith(".onnx"):  # ONNX Runtime takes other endings for formats that nothing here checks
            raise BundleError(f"{MANIFEST_NAME}: parts.{part.name}.graph is {part.graph!r}, wanted a name in .onnx")
    for key, name in wanted:
        if name not in files:
            raise BundleError(f"{MANIFEST_NAME}: {key} is {name!r}, which is not among files")
    parts = [part.name for part in manifest.parts]
    if len(set(parts)) != len(parts):
        raise BundleError(f"{MANIFEST_NAME}: parts has one name twice")
    if manifest.tower.blocks > len(parts):
        raise BundleError(f"{MANIFEST_NAME}: tower.blocks is {manifest.tower.blocks}, but there are {len(parts)} parts")
    text = ["text"] if manifest.text is not None else []
    for name in ["stem", *block_names(manifest.tower.blocks), "tail", *text]:
        manifest.part(name)


def _is_plain_name(name: str) -> bool:
    """Whether `name` is that of a file in the bundle folder itself, and one that can be printed."""
    if not name.isprintable() or "\\" in name or len(name.encode()) > 255:
        return False
    return name == Path(name).name and name not in {"", ".", "..", MANIFEST_NAME}


def _check_exits(manifest: Manifest) -> None:
    blocks = [exit.block for exit in manifest.exits]
    if blocks != sorted(set(blocks)) or any(not 1 <= block <= manifest.tower.blocks for block in blocks):
        raise BundleError(f"{MANIFEST_NAME}: exits are behind blocks {blocks}, wanted rising numbers up to the depth")
    for exit in manifest.exits:
        if exit.part != f"exit_{exit.block:02d}":
            raise BundleError(
                f"{MANIFEST_NAME}: exits: part behind block {exit.block} is {exit.part!r}, wanted exit_NN"
            )
        manifest.part(exit.part)
    names = [point.name for point in manifest.operating_points]
    if len(set(names)) != len(names):
        raise BundleError(f"{MANIFEST_NAME}: operating_points has one name twice")
    if manifest.default_point is not None and manifest.default_point not in names:
        raise BundleError(f"{MANIFEST_NAME}: default_point is {manifest.default_point!r}, wanted one of {names}")
    for point in manifest.operating_points:
        where = f"{MANIFEST_NAME}: operating_points.{point.name}.thresholds"
        named = [threshold.block for threshold in point.thresholds]
        if len(set(named)) != len(named):
            raise BundleError(f"{where} names one block twice: {named}")
        for threshold in point.thresholds:
            if threshold.block not in blocks:
                raise BundleError(f"{where} names block {threshold.block}, which has no exit")
            if threshold.per_class is not None and len(threshold.per_class) != manifest.labels.count:
                raise BundleError(
                    f"{where}: per_class has {len(threshold.per_class)} values, wanted one for each of "
                    f"{manifest.labels.count} labels"
                )
