"""A fake tower, a report made by hand, a tiny ImageNet, and what several tests of the benchmarks share."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from lraee.bundle.folder import Bundle, find_bundle
from lraee.engine.orchestrator import Answers, run
from lraee.images.read import Pixels
from lraee.policies import ExitAt, Full
from lraee.policies.base import Route, Verdict
from lraee_benchmarks.analysis.notes import make_notes
from lraee_benchmarks.results.conditions import (
    BundleSummary,
    ColdStart,
    Device,
    Peer,
    Preprocessing,
    Settings,
    Stability,
)
from lraee_benchmarks.results.model import (
    SCHEMA,
    Accuracy,
    ExitShare,
    Floor,
    Interval,
    Latency,
    Ratio,
    Report,
    Row,
    RowKind,
)
from lraee_benchmarks.rows.policy_rows import Outcome, Variant
from lraee_exporters.graphs.bare_gemms import build_floor, save_floor
from lraee_toolchain.baseline_graphs.library_defaults import Quantizer
from lraee_toolchain.export import ExportResult

LABELS = 3


class FakeTower:
    """Two blocks with an exit behind the first; the label is the first pixel of the image."""

    depth = 2

    def __init__(self) -> None:
        self.calls: list[str] = []

    def stem(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls.append("stem")
        return pixels[:, 0, 0, :1].astype(np.float32)

    def block(self, number: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls.append(f"block {number}")
        return tokens

    def has_exit(self, number: int) -> bool:
        return number == 1

    def exit(self, number: int, tokens: NDArray[np.float32], rows: NDArray[np.intp]) -> Verdict:
        embedding, probabilities = self.tail(tokens)
        count = len(tokens)
        return Verdict(embedding, probabilities, np.zeros((count, 3), np.float32), np.ones(count, np.float32), rows)

    def tail(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return tokens, np.eye(LABELS, dtype=np.float32)[tokens[:, 0].astype(int)]


def fake_variant(name: str, kind: RowKind, route: Route, flops: int) -> Variant[Answers]:
    """A variant of the fake tower whose every image costs `flops`."""
    tower = FakeTower()

    def read(answers: Answers) -> Outcome:
        cost = np.full(len(answers.early), flops, np.int64)
        return Outcome(answers.probabilities, answers.exit_block, answers.early, cost)

    return Variant(name=name, kind=kind, run=lambda pixels: run(tower, pixels, route), read=read)


@pytest.fixture
def fake_variants() -> list[Variant[Any]]:
    """The fake tower at full depth (100 FLOPs) and through its exit (60)."""
    return [
        fake_variant("full", "full", Full(), 100),
        fake_variant("exit=1", "exit", ExitAt(1), 60),
    ]


@pytest.fixture
def images() -> list[Pixels]:
    """Four batches of one image; the first pixel is 0, 1, 2, 0."""
    return [np.full((1, 2, 2, 3), value, np.uint8) for value in (0, 1, 2, 0)]


def make_row(name: str, kind: RowKind, mean_ms: float, saved: float, latency_saved: float, margin: float) -> Row:
    """A row whose interval of the latency saved is `margin` wide to either side."""
    return Row(
        name=name,
        kind=kind,
        latency=Latency(
            p50_ms=mean_ms,
            p50_interval_ms=Interval(low=mean_ms - 0.1, high=mean_ms + 0.1),
            p90_ms=mean_ms + 0.2,
            p99_ms=mean_ms + 0.4,
            mean_ms=mean_ms,
            min_ms=mean_ms - 0.3,
        ),
        images_per_second=1000 / mean_ms,
        flops=1e8 * (1 - saved),
        flops_saved=saved,
        latency_saved=latency_saved,
        latency_saved_interval=Interval(low=latency_saved - margin, high=latency_saved + margin),
        latency_per_flops=latency_saved / saved if saved > 0 else None,
        chain_ratio=Ratio(value=10.0 / mean_ms, interval=Interval(low=9.9 / mean_ms, high=10.1 / mean_ms)),
        exit_shares=(
            ExitShare(block=8, early=True, share=0.25, p50_ms=0.7 * mean_ms),
            ExitShare(block=12, early=False, share=0.75, p50_ms=1.1 * mean_ms),
        ),
        share_weighted_ms=mean_ms,
        lateness=None,
        energy=None,
        accuracy=None,
        samples_ms=(mean_ms, mean_ms),
    )


@pytest.fixture
def accuracy() -> Accuracy:
    """90.5 %, half a point under full depth."""
    return Accuracy(
        images=2000,
        top1=0.905,
        interval=Interval(low=0.892, high=0.918),
        difference=-0.005,
        difference_interval=Interval(low=-0.01, high=0.001),
    )


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Builds a report of three rows on an idle board, with notes; takes other rows or fields."""

    def build(**changes: Any) -> Report:
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "created": "2025-01-02T03:04:05+00:00",
            "device": Device(
                model="Raspberry Pi 5 Model B Rev 1.0",
                machine="aarch64",
                system="Linux 6.6.31",
                cores=4,
                memory_bytes=8_000_000_000,
                int8_features=("dotprod",),
                governor="performance",
                load_average=0.1,
                celsius_before=45.0,
                celsius_after=55.0,
                python="3.11.9",
                numpy="2.0.0",
                onnxruntime="1.23.0",
                lraee="0.1.0",
            ),
            "bundle": BundleSummary(
                name="clip.lraee",
                model="ViT-B-32",
                weights="laion2b_s34b_b79k",
                fingerprint="0123abcd",
                precision="int8",
                quantizer="strong",
                blocks=12,
                labels=1000,
                size_bytes=92_000_000,
                full_flops=100_000_000,
            ),
            "settings": Settings(
                command="lraee-bench clip.lraee",
                threads=4,
                thread_pool="session",
                isolated=False,
                launches=1,
                scenario="single-stream",
                batch=1,
                images_per_sample=1,
                warmup_rounds=5,
                rounds=2,
                images=256,
                image_source="photos",
                seed=0,
            ),
            "preprocessing": Preprocessing(
                images=256, decode_p50_ms=2.0, resize_p50_ms=1.0, p50_ms=3.0, p90_ms=4.0, mean_ms=3.2
            ),
            "stability": Stability(
                stable=True,
                reasons=(),
                seconds=20.0,
                others_share=0.002,
                steal_share=0.0,
                drift=1.01,
                lowest_mhz=2400.0,
                highest_mhz=2400.0,
                throttled=(),
            ),
            "cold_start": ColdStart(
                processes=5,
                import_ms=200.0,
                load_ms=50.0,
                first_image_ms=150.0,
                to_first_answer_ms=450.0,
                rss_bytes=150_000_000,
                peak_rss_bytes=180_000_000,
                private_bytes=90_000_000,
            ),
            "reference": "graph",
            "accuracy_source": None,
            "rows": (
                make_row("adaptive=balanced", "adaptive", 9.0, 0.134, 0.08, 0.02),
                make_row("full", "full", 10.0, 0.0, -0.02, 0.01),
                make_row("graph", "graph", 9.8, 0.0, 0.0, 0.0),
            ),
            "peers": (
                Peer(
                    name="chain",
                    engine="ONNX Runtime",
                    version="1.23.0",
                    precision="int8",
                    threads=4,
                    takes="uint8 pixels",
                    options={"sessions": "one for each part", "thread pool": "session"},
                ),
            ),
            "parts": (),
            "floor": None,
            "notes": (),
            **changes,
        }
        report = Report(**fields)
        return Report(**{**fields, "notes": make_notes(report)})

    return build


@pytest.fixture
def floor() -> Floor:
    """Products in 8 ms, reading in 5."""
    return Floor(
        products=74,
        weight_bytes=85_000_000,
        gemm=make_row("gemm", "full", 8.0, 0.0, 0.0, 0.0).latency,
        chain_to_gemm=Ratio(value=1.25, interval=Interval(low=1.24, high=1.27)),
        read=make_row("read", "full", 5.0, 0.0, 0.0, 0.0).latency,
        read_bytes_per_second=17e9,
        chain_to_read=Ratio(value=2.0, interval=Interval(low=1.9, high=2.1)),
        gemm_samples_ms=(8.0, 8.0),
        read_samples_ms=(5.0, 5.0),
    )


@pytest.fixture(scope="session")
def with_baselines(exported_with_baselines: ExportResult, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the shipped bundle with everything beside it that `lraee-export --baselines` writes; those that other
    people's tools make are of the same tower, from a smaller export.
    """
    folder = tmp_path_factory.mktemp("peers")
    shipped = find_bundle("reference")
    bundle = Bundle(Path(shutil.copytree(shipped, folder / "reference.lraee")))
    beside = Path(shutil.copytree(shipped.with_name("reference.baselines"), folder / "reference.baselines"))
    save_floor(build_floor(onnx.load(shipped / "graph.onnx")), beside)
    assert exported_with_baselines.baselines is not None
    for quantizer in get_args(Quantizer):
        for path in exported_with_baselines.baselines.glob(f"{quantizer}.*"):
            shutil.copyfile(path, beside / path.name)
    return bundle


IMAGENET_CLASSES = ("n01440764", "n02504458", "n07753592")
"""Tench, African bush elephant, banana."""


def jpeg(seed: int, hue: int) -> bytes:
    """A small picture of its own; classes differ in their brightest colour."""
    pixels = np.random.default_rng(seed).integers(0, 120, (24, 32, 3), dtype=np.uint8)
    pixels[4:20, 8:24, hue] += 120
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


class FakeImageNet:
    """The official files with three classes in them."""

    def __init__(self, root: Path, *, train: int = 10, val: int = 4) -> None:
        self.root = root
        self.train: dict[str, dict[str, bytes]] = {
            synset: {f"{synset}_{i}.JPEG": jpeg(1000 * hue + i, hue) for i in range(train)}
            for hue, synset in enumerate(IMAGENET_CLASSES)
        }
        self.truth = {f"ILSVRC2012_val_{i + 1:08d}": IMAGENET_CLASSES[i % 3] for i in range(3 * val)}
        self.val = {f"{name}.JPEG": jpeg(9000 + i, i % 3) for i, name in enumerate(self.truth)}

    def archives(self) -> tuple[Path, Path, Path]:
        """``ILSVRC2012_img_train.tar`` (an archive for each class), ``ILSVRC2012_img_val.tar``, the truth as CSV."""
        train, val, truth = (self.root / name for name in ("train.tar", "val.tar", "LOC_val_solution.csv"))
        with tarfile.open(train, "w") as outer:
            for synset, files in self.train.items():
                inner = io.BytesIO()
                with tarfile.open(fileobj=inner, mode="w") as archive:
                    add_files(archive, files)
                add_files(outer, {f"{synset}.tar": inner.getvalue()})
        with tarfile.open(val, "w") as archive:
            add_files(archive, self.val)
        rows = [f"{name},{synset} 85 1 499 272 {synset} 131 0 499 254 " for name, synset in self.truth.items()]
        truth.write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")  # it is in no order
        return train, val, truth

    def folders(self) -> tuple[Path, Path, Path]:
        """The same unpacked: train in class folders, val flat, and the truth as one WordNet id a line."""
        for synset, files in self.train.items():
            write_files(self.root / "train" / synset, files)
        write_files(self.root / "val", self.val)
        truth = self.root / "synsets.txt"
        truth.write_text("\n".join(self.truth.values()) + "\n")
        return self.root / "train", self.root / "val", truth


def add_files(archive: tarfile.TarFile, files: dict[str, bytes]) -> None:
    """Add members."""
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def make_imagenet(tmp_path: Path) -> Callable[..., FakeImageNet]:
    """Makes the official files in a folder of the test's."""

    def make(name: str = "fake", **sizes: int) -> FakeImageNet:
        root = tmp_path / name
        root.mkdir()
        return FakeImageNet(root, **sizes)

    return make
