"""Puts parts, labels and manifest together as one bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.files import file_entry
from lraee.bundle.folder import Bundle, LabelFile
from lraee.bundle.manifest import (
    MANIFEST_NAME,
    FileEntry,
    LabelsInfo,
    Manifest,
    MergeSchedule,
    ModelInfo,
    PartEntry,
    QuantizationInfo,
    TextInfo,
    TowerInfo,
    oldest_format,
)
from lraee.bundle.manifest_file import write_manifest
from lraee.bundle.strict_json import read_json, write_json
from lraee.labels.label_set import LabelSet
from lraee_exporters.graphs.builder import OLDEST_ONNXRUNTIME
from lraee_exporters.tower import Tower
from lraee_toolchain.array_file import save_array
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.routing import SavedRouting
from lraee_toolchain.parts.build import load_parts
from lraee_toolchain.parts.schedules import load_schedules
from lraee_toolchain.parts.text import TEXT_NAME

DEFAULT_POINT = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BundleInputs:
    """Everything a bundle is made of."""

    tower: Tower
    fingerprint: str
    parts: tuple[Path, ...]
    """Folders of stages, each with a ``parts.json``."""
    text: Path | None
    """Folder of the text tower's stage, or None."""
    routing: SavedRouting
    label_set: LabelSet
    labels: NDArray[np.float32]
    """(labels, embed_dim) unit rows."""
    config: ExportConfig
    choices: Mapping[str, str]
    """Recipe of each part, for the strong quantizer."""
    calibration_views: int
    sources: Mapping[str, str]
    """Fingerprints for the provenance."""
    merged: Path | None = None
    """Folder with the graphs of merging schedules, or None; those of `routing` are packed."""

    @property
    def schedules(self) -> tuple[MergeSchedule, ...]:
        """The merging schedules of `routing`."""
        exits = self.routing.merged
        return tuple(
            MergeSchedule(name=one.name, merged=one.merged, blocks=one.blocks, tail=one.tail, exits=exits[one.name])
            for one in (() if self.merged is None else load_schedules(self.merged))
            if one.name in exits
        )


def pack(inputs: BundleInputs, folder: Path) -> None:
    """Write a bundle into an empty folder and check it as the runtime will.

    The bytes depend on the inputs alone, not on time or host, so two runs of one export are equal.
    """
    entries = []
    used = {name for one in inputs.schedules for name in (*one.blocks, one.tail)}
    for stage in filter(None, (*inputs.parts, inputs.merged, inputs.text)):
        for part in load_parts(stage):
            if stage == inputs.merged and part.name not in used:
                continue
            entries.append(part)
            shutil.copyfile(stage / part.graph, folder / part.graph)
            if part.data is not None:
                shutil.copyfile(stage / part.data, folder / part.data)
    text = None if inputs.text is None else read_json(TextInfo, inputs.text / TEXT_NAME)
    if inputs.text is not None and text is not None:
        for name in (text.merges, text.tokenizer):
            shutil.copyfile(inputs.text / name, folder / name)
    label_file = LabelFile(names=inputs.label_set.names, templates=inputs.label_set.templates)
    write_json(label_file, folder / "labels.json")
    save_array(folder / "labels.npy", inputs.labels)
    files = tuple(file_entry(path) for path in sorted(folder.iterdir()))
    manifest = _manifest(inputs, tuple(entries), text, files)
    (folder / MANIFEST_NAME).write_text(write_manifest(manifest), "utf-8")
    Bundle(folder).verify()


def _manifest(
    inputs: BundleInputs, parts: tuple[PartEntry, ...], text: TextInfo | None, files: tuple[FileEntry, ...]
) -> Manifest:
    tower, config, points = inputs.tower, inputs.config, inputs.routing.points
    quantization = QuantizationInfo(
        scheme="static-qdq-u8s8-unsaturated" if config.no_saturation else "static-qdq-u8s8",
        quantizer=config.quantizer,
        ranges=_ranges(config),
        images=inputs.calibration_views,
        choices=dict(sorted(inputs.choices.items())),
    )
    int8 = quantization if config.precision == "int8" else None
    return Manifest(
        format=oldest_format(inputs.routing.exits, inputs.schedules, int8),
        model=ModelInfo(
            id=tower.model_id, weights=tower.weights, architecture=tower.architecture, fingerprint=inputs.fingerprint
        ),
        tower=TowerInfo(
            blocks=tower.depth,
            width=tower.width,
            heads=tower.heads,
            mlp_width=tower.mlp_width,
            patch_size=tower.patch_size,
            tokens=tower.tokens,
            embed_dim=tower.embed_dim,
            activation=tower.activation,
            pooling=tower.pooling,
        ),
        preprocessing=tower.preprocessing,
        precision=config.precision,
        quantization=int8,
        logit_scale=tower.logit_scale,
        logit_bias=tower.logit_bias,
        parts=parts,
        exits=inputs.routing.exits,
        operating_points=points,
        default_point=DEFAULT_POINT if DEFAULT_POINT in {point.name for point in points} else None,
        labels=LabelsInfo(names="labels.json", embeddings="labels.npy", count=len(inputs.labels)),
        text=text,
        files=files,
        provenance={
            **dict(sorted(inputs.sources.items())),
            "seed": str(config.seed),
            **{name: version(name) for name in ("lraee", "onnx", "onnxruntime", "open_clip_torch", "torch")},
        },
        probabilities="softmax" if tower.logit_bias is None else "sigmoid",
        onnxruntime=OLDEST_ONNXRUNTIME,
        schedules=inputs.schedules,
    )


def _ranges(config: ExportConfig) -> str:
    if config.quantizer == "strong":
        return "chosen per part"
    return "minmax" if config.ranges == "minmax" else f"percentile-{config.percentile:g}"
