"""Writes format_1.lraee, a bundle of format 1 small enough to keep, and format_1.expected.npz, what it answers.

    python tests/runtime/golden/make_format_1.py

Later code must go on loading the bundle as it is, so a change of the format is no reason to run this: such a change
adds a format_2 with its own generator. Run it again only when the same format is meant to give other numbers. The kept
bundle has operators of set 23, which need ONNX Runtime 1.25; written today it has those of set 20.

The tower is random and tiny: 2 blocks of width 32 with 2 heads, 16 x 16 pixels in patches of 8, an embedding of 16,
3 labels, an exit behind block 1. It takes what the reference bundle does not have: QuickGELU, a logit bias and
thresholds by class.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent
BUNDLE = GOLDEN / "format_1.lraee"
EXPECTED = GOLDEN / "format_1.expected.npz"

WIDTH, MLP_WIDTH, EMBED_DIM, PATCH, SIZE = 32, 32, 16, 8, 16
LABELS = ("circle", "square", "triangle")
IMAGES = 8


def images() -> np.ndarray:
    """Gradients, edges and noise of different contrast: uint8 (8, 16, 16, 3)."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE]
    shapes = [x * 16, y * 16, (x + y) * 8, 255 * (x > 7), 255 * (y > 7), 255 * ((x + y) % 2), 0 * x, 255 - x * y]
    grey = np.stack(shapes)[..., None] * random.uniform(0.2, 1.0, (IMAGES, 1, 1, 3))
    return np.clip(grey + random.normal(0, 20, (IMAGES, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def build(folder: Path) -> None:
    """Write the bundle into `folder`, which must not exist."""
    from lraee.bundle.manifest import ExitInfo, GateInfo, OperatingPoint, Threshold
    from lraee.bundle.preprocessing import Preprocessing
    from lraee.labels.label_set import LabelSet
    from lraee_exporters.graphs.exit import ExitWeights
    from lraee_exporters.int8.linear import ActivationRange, quantize_linear
    from lraee_exporters.tower import Attention, Block, LayerNorm, Linear, Mlp, Tower
    from lraee_toolchain.bundle import BundleInputs, pack
    from lraee_toolchain.config import ExportConfig
    from lraee_toolchain.early_exit.fitting import SavedRouting
    from lraee_toolchain.parts.build import build_exits, build_float
    from lraee_toolchain.parts.runner import Chain
    from lraee_toolchain.quantization.calibration import calibrate
    from lraee_toolchain.quantization.quantizers import build_int8

    random = np.random.default_rng(0)

    def array(*shape: int, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
        return random.normal(mean, scale, shape).astype(np.float32)

    def linear(size_in: int, size_out: int) -> Linear:
        return Linear(weight=array(size_out, size_in, scale=size_in**-0.5), bias=array(size_out, scale=0.1))

    def norm(width: int = WIDTH) -> LayerNorm:
        return LayerNorm(weight=array(width, scale=0.1, mean=1.0), bias=array(width, scale=0.1), epsilon=1e-5)

    def block() -> Block:
        query, key, value, out = (linear(WIDTH, WIDTH) for _ in range(4))
        attention = Attention(query=query, key=key, value=value, out=out, heads=2)
        mlp = Mlp(fc1=linear(WIDTH, MLP_WIDTH), fc2=linear(MLP_WIDTH, WIDTH))
        return Block(norm_1=norm(), attention=attention, norm_2=norm(), mlp=mlp)

    tower = Tower(
        model_id="golden-format-1",
        weights="random:0",
        architecture="golden",
        activation="quick_gelu",
        patch_kernel=array(WIDTH, 3, PATCH, PATCH, scale=(3 * PATCH * PATCH) ** -0.5),
        patch_bias=None,
        class_embedding=array(WIDTH),
        positions=array((SIZE // PATCH) ** 2 + 1, WIDTH, scale=0.3),
        norm_pre=norm(),
        blocks=(block(), block()),
        norm_post=norm(),
        projection=array(WIDTH, EMBED_DIM, scale=WIDTH**-0.5),
        pooling="cls",
        preprocessing=Preprocessing(
            image_size=SIZE,
            resize_mode="shortest",
            interpolation="bicubic",
            mean=(0.5, 0.45, 0.4),
            std=(0.3, 0.28, 0.3),
        ),
        logit_scale=10.0,
        logit_bias=-2.0,
    )
    labels = array(len(LABELS), EMBED_DIM)
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    unit = ActivationRange(minimum=-4.0, maximum=4.0)
    weights = ExitWeights(
        reads="both",
        norm=norm(2 * WIDTH),
        fc1=quantize_linear(linear(2 * WIDTH, WIDTH), unit),
        fc2=quantize_linear(linear(WIDTH, EMBED_DIM), unit),
        logit_bias=tower.logit_bias,
        temperature=1.25,
        gate_weights=(6.0, 1.0, -0.01),
        gate_bias=-3.0,
    )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        stages = [work / stage for stage in ("float", "int8", "exits")]
        for stage in stages:
            stage.mkdir()
        build_float(tower, stages[0])
        chain = Chain(stages[0], tower.depth, np.ascontiguousarray(labels.T), tower.logit_scale)
        ranges = calibrate(chain, images(), work, method="minmax", percentile=100.0)
        build_int8(tower, ranges, stages[1])
        build_exits({1: weights}, tower, stages[2])
        saved = ExitInfo(
            block=1,
            part="exit_01",
            reads="both",
            supervision="label-free",
            temperature=weights.temperature,
            gate=GateInfo(weights=weights.gate_weights, bias=weights.gate_bias),
            information_to_noise=None,
            accuracy=None,
        )
        threshold = Threshold(block=1, value=0.54, per_class=None)
        by_class = Threshold(block=1, value=1.0, per_class=(0.7, 1.0, 0.6))
        points = tuple(
            OperatingPoint(name=name, thresholds=(one,), flops_saved=0.2, accuracy=None, full_accuracy=None)
            for name, one in (("balanced", threshold), ("by_class", by_class))
        )
        folder.mkdir()
        inputs = BundleInputs(
            tower=tower,
            fingerprint=tower.fingerprint(),
            parts=tuple(stages[1:]),
            text=None,
            routing=SavedRouting(exits=(saved,), points=points),
            label_set=LabelSet(names=LABELS, templates=("a {}.", "the {}.")),
            labels=labels,
            config=ExportConfig(model="golden-format-1", out=BUNDLE),
            choices={},
            calibration_views=IMAGES,
            sources={"weights_sha256": "none"},
        )
        pack(inputs, folder)
    _finish(folder)


def _finish(folder: Path) -> None:
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


def answers(folder: Path) -> dict[str, np.ndarray]:
    """What the bundle answers for `images` at each depth and operating point, by file key."""
    import lraee

    model = lraee.load(folder, threads=1)
    pixels = images()
    found = {"pixels": pixels}
    for name, policy in (("full", lraee.Full()), ("exit", lraee.ExitAt(1))):
        answer = model.run_pixels(pixels, policy=policy)
        found |= {f"{name}_embedding": answer.embedding, f"{name}_probabilities": answer.probabilities}
    found["gate"] = answer.gate
    for point in ("balanced", "by_class"):
        found[f"{point}_exit_block"] = model.run_pixels(pixels, policy=lraee.Adaptive(point)).exit_block
    return found


def main() -> None:
    """Write both files."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    build(BUNDLE)
    np.savez(EXPECTED, **answers(BUNDLE))


if __name__ == "__main__":
    main()
