"""Builds bundles small enough to keep, of random weights, for the generators of the golden bundles.

The weights depend on the order in which they are drawn, so a change here must keep the order.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from lraee import ExitAt, Full
    from lraee.bundle.manifest import ExitInfo, Manifest, OperatingPoint
    from lraee_exporters.graphs.exit import ExitWeights
    from lraee_exporters.int8.linear import QuantizedLinear
    from lraee_exporters.tower import Block, LayerNorm, Linear, Tower

WIDTH, MLP_WIDTH, EMBED_DIM, SIZE = 32, 32, 16, 16
LABELS = ("circle", "square", "triangle")
IMAGES = 8


def images() -> np.ndarray:
    """Gradients, edges and noise of different contrast: uint8 (8, 16, 16, 3)."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE]
    shapes = [x * 16, y * 16, (x + y) * 8, 255 * (x > 7), 255 * (y > 7), 255 * ((x + y) % 2), 0 * x, 255 - x * y]
    grey = np.stack(shapes)[..., None] * random.uniform(0.2, 1.0, (IMAGES, 1, 1, 3))
    return np.clip(grey + random.normal(0, 20, (IMAGES, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


class Draw:
    """Draws weights, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def array(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
        """Normal float32."""
        return self._random.normal(mean, scale, shape).astype(np.float32)

    def linear(self, size_in: int, size_out: int) -> Linear:
        """A layer that keeps the scale of what it reads."""
        from lraee_exporters.tower import Linear

        weight = self.array(size_out, size_in, scale=size_in**-0.5)
        return Linear(weight=weight, bias=self.array(size_out, scale=0.1))

    def norm(self, width: int = WIDTH) -> LayerNorm:
        """Near one and zero."""
        from lraee_exporters.tower import LayerNorm

        weight = self.array(width, scale=0.1, mean=1.0)
        return LayerNorm(weight=weight, bias=self.array(width, scale=0.1), epsilon=1e-5)

    def head(self, rows: int, *, saturation: bool = True) -> tuple[LayerNorm, QuantizedLinear, QuantizedLinear]:
        """Norm and INT8 layers of a head that reads so many vectors side by side."""
        from lraee_exporters.int8.linear import ALL_LEVELS, SMALL_WEIGHTS, ActivationRange, quantize_linear

        levels = ALL_LEVELS if saturation else SMALL_WEIGHTS
        unit = ActivationRange(minimum=-4.0, maximum=4.0, levels=levels)
        norm = self.norm(rows * WIDTH)
        fc1 = quantize_linear(self.linear(rows * WIDTH, WIDTH), unit)
        return norm, fc1, quantize_linear(self.linear(WIDTH, EMBED_DIM), unit)

    def labels(self) -> np.ndarray:
        """Unit text embeddings, (labels, embed_dim)."""
        labels = self.array(len(LABELS), EMBED_DIM)
        labels /= np.linalg.norm(labels, axis=1, keepdims=True)
        return labels

    def tower(
        self,
        name: str,
        *,
        blocks: int,
        patch: int,
        activation: Literal["gelu", "quick_gelu"],
        logit_bias: float | None,
    ) -> Tower:
        """A tower with a class token, for images of 16 x 16 pixels."""
        from lraee.bundle.preprocessing import Preprocessing
        from lraee_exporters.tower import Tower

        return Tower(
            model_id=name,
            weights="random:0",
            architecture="golden",
            activation=activation,
            patch_kernel=self.array(WIDTH, 3, patch, patch, scale=(3 * patch * patch) ** -0.5),
            patch_bias=None,
            class_embedding=self.array(WIDTH),
            positions=self.array((SIZE // patch) ** 2 + 1, WIDTH, scale=0.3),
            norm_pre=self.norm(),
            blocks=tuple(self._block() for _ in range(blocks)),
            norm_post=self.norm(),
            projection=self.array(WIDTH, EMBED_DIM, scale=WIDTH**-0.5),
            pooling="cls",
            preprocessing=Preprocessing(
                image_size=SIZE,
                resize_mode="shortest",
                interpolation="bicubic",
                mean=(0.5, 0.45, 0.4),
                std=(0.3, 0.28, 0.3),
            ),
            logit_scale=10.0,
            logit_bias=logit_bias,
        )

    def _block(self) -> Block:
        from lraee_exporters.tower import Attention, Block, Mlp

        query, key, value, out = (self.linear(WIDTH, WIDTH) for _ in range(4))
        attention = Attention(query=query, key=key, value=value, out=out, heads=2)
        mlp = Mlp(fc1=self.linear(WIDTH, MLP_WIDTH), fc2=self.linear(MLP_WIDTH, WIDTH))
        return Block(norm_1=self.norm(), attention=attention, norm_2=self.norm(), mlp=mlp)


def write_bundle(
    folder: Path,
    tower: Tower,
    labels: np.ndarray,
    exits: Mapping[int, ExitWeights],
    points: tuple[OperatingPoint, ...],
    schedules: Mapping[str, tuple[tuple[int, ...], Mapping[int, ExitWeights]]] | None = None,
    *,
    saturation: bool = True,
) -> None:
    """Quantize a tower and write it with its exits as a bundle.

    Args:
        folder: must not exist.
        tower: of float weights.
        labels: (labels, embed_dim) unit rows.
        exits: by the block before them.
        points: what their thresholds are.
        schedules: by name, the pairs of tokens merged in each block, and the exits fitted to them.
        saturation: whether products may saturate; that of `exits` must fit.
    """
    from lraee.labels.label_set import LabelSet
    from lraee_toolchain.bundle.pack import BundleInputs, pack
    from lraee_toolchain.config.options import ExportConfig
    from lraee_toolchain.early_exit.routing import SavedRouting
    from lraee_toolchain.parts.build import ExitsOfRoute, build_exits, build_float
    from lraee_toolchain.parts.runner import Chain
    from lraee_toolchain.parts.saved_weights import load_weights
    from lraee_toolchain.parts.scheduled import NamedSchedule
    from lraee_toolchain.parts.schedules import build_schedules, tokens_after
    from lraee_toolchain.quantization.calibration import calibrate
    from lraee_toolchain.quantization.quantizers import build_int8

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        schedules = schedules or {}
        stages = [work / stage for stage in ("float", "int8", "exits", "merged")]
        for stage in stages:
            stage.mkdir()
        build_float(tower, stages[0])
        chain = Chain(stages[0], tower.depth, np.ascontiguousarray(labels.T), tower.logit_scale)
        ranges = calibrate(chain, images(), work, method="minmax", percentile=100.0)
        build_int8(tower, ranges, stages[1], saturation=saturation)
        routes, named = [ExitsOfRoute(weights=dict(exits))], []
        for name, (merged, fitted) in schedules.items():
            tokens = tokens_after(tower.tokens, merged)
            routes.append(ExitsOfRoute(weights=dict(fitted), tokens=tokens, suffix=f"_{name}"))
            named.append(NamedSchedule(name=name, merged=merged))
        build_exits(routes, tower, stages[2])
        if named:
            build_schedules(tower, load_weights(stages[1]), stages[1], stages[3], named)
        folder.mkdir()
        inputs = BundleInputs(
            tower=tower,
            fingerprint=tower.fingerprint(),
            parts=tuple(stages[1:3]),
            merged=stages[3] if named else None,
            text=None,
            routing=SavedRouting(
                exits=exit_infos(exits),
                points=points,
                merged={name: exit_infos(fitted, suffix=f"_{name}") for name, (_, fitted) in schedules.items()},
            ),
            label_set=LabelSet(names=LABELS, templates=("a {}.", "the {}.")),
            labels=labels,
            config=ExportConfig(model=tower.model_id, out=folder, no_saturation=not saturation),
            choices={},
            calibration_views=IMAGES,
            sources={"weights_sha256": "none"},
        )
        pack(inputs, folder)
    _without_graph(folder)


def exit_infos(exits: Mapping[int, ExitWeights], *, suffix: str = "") -> tuple[ExitInfo, ...]:
    """Describe exits as the manifest does."""
    from lraee.bundle.manifest import ExitInfo, GateInfo

    return tuple(
        ExitInfo(
            block=block,
            part=f"exit_{block:02d}{suffix}",
            reads=weights.reads,
            supervision="label-free",
            temperature=weights.temperature,
            gate=GateInfo(weights=weights.gate_weights, bias=weights.gate_bias),
            information_to_noise=None,
            accuracy=None,
        )
        for block, weights in exits.items()
    )


def points_of(
    thresholds: Mapping[str, Mapping[int, float]], schedules: Mapping[str, str] | None = None
) -> tuple[OperatingPoint, ...]:
    """Describe operating points as the manifest does: thresholds by name and block, and the schedules of some."""
    from lraee.bundle.manifest import OperatingPoint, Threshold

    return tuple(
        OperatingPoint(
            name=name,
            thresholds=tuple(Threshold(block=block, value=value, per_class=None) for block, value in values.items()),
            flops_saved=0.2,
            accuracy=None,
            full_accuracy=None,
            schedule=(schedules or {}).get(name),
        )
        for name, values in thresholds.items()
    )


def _without_graph(folder: Path) -> None:
    """Remove graph.onnx, which would be the largest file."""
    from lraee.bundle.manifest import MANIFEST_NAME
    from lraee.bundle.manifest_file import read_manifest, write_manifest

    manifest = read_manifest(folder)
    manifest = dataclasses.replace(
        manifest,
        parts=tuple(part for part in manifest.parts if part.name != "graph"),
        files=tuple(entry for entry in manifest.files if entry.name != "graph.onnx"),
    )
    (folder / "graph.onnx").unlink()
    (folder / MANIFEST_NAME).write_text(write_manifest(manifest), "utf-8")


def depths(manifest: Manifest) -> dict[str, Full | ExitAt]:
    """Policies that answer at one depth, under each schedule, by the name of their answers."""
    import lraee

    found: dict[str, Full | ExitAt] = {}
    for schedule in (None, *(one.name for one in manifest.schedules)):
        end = "" if schedule is None else f"_{schedule}"
        found[f"full{end}"] = lraee.Full(schedule)
        exits = manifest.schedule(schedule).exits
        found |= {f"exit_{exit.block}{end}": lraee.ExitAt(exit.block, schedule) for exit in exits}
    return found


def answers(folder: Path) -> dict[str, np.ndarray]:
    """What the bundle answers for `images` at each depth and operating point, by file key."""
    import lraee

    model = lraee.load(folder, threads=1)
    pixels = images()
    found = {"pixels": pixels}
    for name, policy in depths(model.manifest).items():
        answer = model.run_pixels(pixels, policy=policy)
        found |= {f"{name}_embedding": answer.embedding, f"{name}_probabilities": answer.probabilities}
        if not name.startswith("full"):
            found[f"{name}_gate"] = answer.gate
    for point in model.manifest.operating_points:
        answer = model.run_pixels(pixels, policy=lraee.Adaptive(point.name))
        found |= {f"{point.name}_exit_block": answer.exit_block, f"{point.name}_label": answer.probabilities.argmax(1)}
    return found
