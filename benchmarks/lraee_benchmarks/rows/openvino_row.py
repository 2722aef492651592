"""The bundle's ``graph.onnx``, the same INT8 weights and ranges, compiled by OpenVINO at its best.

The hint is latency, with as many threads as every other row, one stream and fixed shapes, which OpenVINO runs fastest.
Which of its other settings are best depends on the CPU: a short trial takes them one after the other and keeps what is
faster, even where it changes the precision of what stays float.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.errors import BundleError
from lraee.images.read import Pixels
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.rows.onnxruntime_row import label_feed

Setting = dict[str, Any]

TRIALS: tuple[Setting, ...] = (
    {"INFERENCE_PRECISION_HINT": "f32"},
    {"INFERENCE_PRECISION_HINT": "bf16"},
    {"ENABLE_HYPER_THREADING": True},
    {"ENABLE_CPU_PINNING": False},
    {"SCHEDULING_CORE_TYPE": "PCORE_ONLY"},
    {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"},
    {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"},
)
"""Each is tried on top of what was kept so far."""

TRIAL_RUNS = 21
"""Of each of the two that are compared, in turn."""

TRIAL_WARMUP = 3

TRIAL_GAIN = 0.01
"""A setting is kept when median and lower quartile are lower by this share; less is noise of so few runs."""

_REPORTED = (
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_PRECISION_HINT",
    "ENABLE_HYPER_THREADING",
    "ENABLE_CPU_PINNING",
    "SCHEDULING_CORE_TYPE",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
)


@dataclass(slots=True)
class OpenVinoTower:
    """The tower under one setting, compiled for each batch size when it is first met."""

    path: Path
    bundle: Bundle
    setting: Setting
    compiled: dict[int, Any] = field(default_factory=dict)
    requests: dict[int, Any] = field(default_factory=dict)
    feed: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def prepare(self, batch: int) -> Any:
        """Compile the model for one batch size.

        Raises:
            BundleError: OpenVINO cannot read or compile the graph.
        """
        if batch not in self.compiled:
            import openvino

            size = self.bundle.manifest.preprocessing.image_size
            labels, embed_dim = self.bundle.label_embeddings.shape
            core = openvino.Core()
            try:
                model = core.read_model(str(self.path))
                model.reshape({"pixels": [batch, size, size, 3], "label_matrix": [embed_dim, labels]})
                self.compiled[batch] = core.compile_model(model, "CPU", self.setting)
            except RuntimeError as error:
                message = " ".join(str(error).split())
                raise BundleError(f"{self.path.name}: OpenVINO {openvino.__version__}: {message}") from error
            self.requests[batch] = self.compiled[batch].create_infer_request()
            self.feed = self.feed or label_feed(self.bundle)
        return self.compiled[batch]

    def properties(self, batch: int) -> dict[str, str]:
        """Say what OpenVINO made of the setting."""
        compiled = self.prepare(batch)
        supported = set(compiled.get_property("SUPPORTED_PROPERTIES"))
        return {name: _words(compiled.get_property(name)) for name in _REPORTED if name in supported}

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """(batch, size, size, 3) uint8 to (batch, labels) float32."""
        self.prepare(len(pixels))
        request = self.requests[len(pixels)]
        outputs = request.infer({"pixels": pixels, **self.feed}, share_inputs=True, share_outputs=True)
        probabilities: NDArray[np.float32] = outputs["probabilities"].copy()  # the next run writes there
        return probabilities


def open_openvino(path: Path, bundle: Bundle, threads: int, batch: int) -> tuple[OpenVinoTower, Peer]:
    """Compile, find the best setting, and say what it was.

    Args:
        path: the bundle's ``graph.onnx``, checked.
        bundle: gives shapes and labels.
        threads: of every run.
        batch: the size that is tried.

    Raises:
        BundleError: OpenVINO cannot read or compile the graph.
    """
    size = bundle.manifest.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    best = OpenVinoTower(
        path, bundle, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    )
    best.prepare(batch)
    kept: Setting = {}
    refused: list[str] = []
    for trial in TRIALS:
        other = OpenVinoTower(path, bundle, {**best.setting, **trial})
        try:
            other.prepare(batch)
        except BundleError:
            refused += [f"{name}={value}" for name, value in trial.items()]
            continue
        if other.properties(batch) == best.properties(batch):  # what OpenVINO does anyway
            continue
        if is_faster(lambda other=other: other(pixels), lambda best=best: best(pixels)):  # type: ignore[misc]
            best = other
            kept |= trial
    options = best.properties(batch)
    options["kept by a trial"] = ", ".join(f"{name}={value}" for name, value in kept.items()) or "the defaults"
    if refused:
        options["refused by this CPU"] = ", ".join(refused)
    peer = Peer(
        name="openvino",
        engine="OpenVINO",
        version=version("openvino"),
        precision=f"{bundle.manifest.precision}, the rest {options.get('INFERENCE_PRECISION_HINT', 'float32')}",
        threads=int(best.compiled[batch].get_property("INFERENCE_NUM_THREADS")),
        takes="uint8 pixels",
        options=options,
    )
    return best, peer


def is_faster(
    first: Callable[[], object], second: Callable[[], object], *, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> bool:
    """Try whether the first takes less time than the second by `TRIAL_GAIN`; both run in turn.

    It has its own loop, since rows are made below `lraee_benchmarks.running`.
    """
    times: tuple[list[int], list[int]] = ([], [])
    for number in range(TRIAL_WARMUP + TRIAL_RUNS):
        for run, kept in zip((first, second), times, strict=True):
            before = clock_ns()
            run()
            if number >= TRIAL_WARMUP:
                kept.append(clock_ns() - before)
    one, other = (np.quantile(kept, [0.25, 0.5]) for kept in times)
    return bool((one < (1 - TRIAL_GAIN) * other).all())


def _words(value: object) -> str:
    """Shorten the names of OpenVINO's types and enumerations."""
    return str(value).removeprefix("<Type: '").removesuffix("'>").rpartition(".")[2]
