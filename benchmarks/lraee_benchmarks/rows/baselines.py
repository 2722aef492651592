"""What a user would run instead of the chain: each does the same job, from uint8 pixels to label probabilities.

Baselines whose graph takes normalised floats convert the pixels and compare with the labels within their time.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.bundle.linked_graph import LinkedGraph
from lraee.errors import BundleError, MissingExtraError
from lraee.images.read import Pixels
from lraee.install import install_command
from lraee.ort.sessions import RUNTIME_ERRORS, SessionSettings, make_session, threads_of
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.rows.baseline_files import baseline_path, checked_baseline, export_command
from lraee_benchmarks.rows.onnxruntime_row import (
    Probabilities,
    check_threads_alike,
    float_graph,
    pixel_graph,
    session_words,
)
from lraee_benchmarks.rows.openvino_row import open_openvino
from lraee_benchmarks.rows.policy_rows import Variant, full_depth
from lraee_benchmarks.rows.torch_row import open_torch

Baseline = Literal["graph", "fp32", "static", "dynamic", "openvino", "torch", "torch-compiled"]
"""- ``graph``: the bundle's blocks as one graph.
- ``fp32``: the float tower as one graph, built like the bundle.
- ``static``, ``dynamic``: the tower by torch's exporter and ONNX Runtime's quantization, both as they are by default.
- ``openvino``: the bundle's graph compiled by OpenVINO.
- ``torch``, ``torch-compiled``: open_clip's float tower, eager and by ``torch.compile``.

All but the first lie, or have their weights, in the bundle's ``.baselines`` folder; the last three need packages of
their own.
"""

BASELINES: tuple[Baseline, ...] = get_args(Baseline)

WITH_OWN_THREADS: tuple[Baseline, ...] = ("static", "dynamic", "openvino", "torch", "torch-compiled")
"""Baselines that bring threads besides those of ONNX Runtime: numpy's for the labels, OpenVINO's, torch's."""

OF_THE_BUNDLE: tuple[Baseline, ...] = ("graph", "openvino")
"""Baselines that run the bundle's own graph, whose last block computes only the token that the tail reads."""

_PRECISIONS: Mapping[Baseline, str] = {
    "fp32": "float32",
    "static": "int8, one scale a tensor",
    "dynamic": "int8, scales of activations at run time",
}

_SHARED_CONSTANT = "Attempt to replace the existing tensor"
"""ONNX Runtime's words where it makes a shared int8 constant unsigned once for each use, for its exact kernels."""

_NEEDS: Mapping[Baseline, tuple[tuple[str, ...], str]] = {
    "openvino": (("openvino",), install_command("openvino")),
    "torch": (("torch", "open_clip", "onnx"), install_command("export")),
    "torch-compiled": (("torch", "open_clip", "onnx"), install_command("export")),
}
"""Packages that the base installation lacks, and the command that installs them."""


def available_baselines(bundle: Bundle) -> tuple[Baseline, ...]:
    """Name the baselines that this bundle has; those that need more packages run only when asked for."""
    there = {name: name not in _NEEDS and baseline_path(bundle, name).is_file() for name in BASELINES}
    there["graph"] = any(part.name == "graph" for part in bundle.manifest.parts)
    return tuple(name for name in BASELINES if there[name])


def check_peer(bundle: Bundle, name: Baseline) -> None:
    """Refuse a peer that cannot run here, without opening it.

    Raises:
        BundleError: its file is not there, or is damaged.
        MissingExtraError: a package is not installed.
    """
    packages, command = _NEEDS.get(name, ((), ""))
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingExtraError(f"the {name} row needs {', '.join(missing)}, not installed here: {command}")
    tower = bundle.manifest.tower
    if name in ("torch", "torch-compiled") and (tower.pooling != "cls" or tower.activation == "gelu_tanh"):
        raise BundleError(
            f"the {name} row rebuilds open_clip's own ViT; this tower has {tower.pooling} pooling and "
            f"{tower.activation}, as timm's have; leave out the {name} baseline"
        )
    if name == "openvino":
        _plain_graph(bundle)
    elif name == "graph":
        bundle.checked_part(bundle.manifest.part("graph"))
    else:
        checked_baseline(bundle, "fp32" if name in ("torch", "torch-compiled") else name)


def _plain_graph(bundle: Bundle) -> Path:
    """The bundle's graph for an engine that opens files itself.

    Raises:
        BundleError: it is damaged, or weights are reached through links, which OpenVINO 2026.4 refuses to follow.
    """
    graph = bundle.checked_part(bundle.manifest.part("graph"))
    if isinstance(graph, LinkedGraph):
        raise BundleError(
            f"the openvino row reads no weights through links, and the files of {bundle.folder} are links; "
            f"copy what they lead to: cp -rL {shlex.quote(str(bundle.folder))} COPY.lraee"
        )
    return graph


def open_running_peer(
    bundle: Bundle, name: Baseline, settings: SessionSettings, pixels: Pixels
) -> Variant[NDArray[np.float32]]:
    """Open a peer and run it once, so that an engine that fails here does so before anything is timed.

    Args:
        bundle: whose tower it is.
        name: which peer.
        settings: threads, and ONNX Runtime's pool.
        pixels: (batch, size, size, 3) uint8, images of one run.

    Raises:
        BundleError: a file is not there or is damaged, or the engine cannot load it or run it.
        MissingExtraError: a package is not installed.
    """
    try:
        variant = open_peer(bundle, name, settings, batch=len(pixels))
    except BundleError as error:
        if _SHARED_CONSTANT not in str(error):
            raise
        raise BundleError(
            f"{name}.onnx shares a constant between nodes; ONNX Runtime {ort.__version__} cannot load such a graph for "
            "this CPU, where exact GEMMs need session.x64quantprecision; write the baselines again, "
            f"with lraee-export --overwrite: {export_command(bundle)}"
        ) from error
    try:
        variant.run(pixels)
    except (*RUNTIME_ERRORS, MemoryError) as error:
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise BundleError(f"its first run failed: {first[0]}") from error
    return variant


def open_peer(
    bundle: Bundle, name: Baseline, settings: SessionSettings, *, batch: int = 1
) -> Variant[NDArray[np.float32]]:
    """Open a peer.

    Args:
        bundle: whose tower it is.
        name: which peer.
        settings: threads, and ONNX Runtime's pool.
        batch: images that will run together; others run as well, perhaps not as fast.

    Raises:
        BundleError: a file is not there or is damaged, or the engine cannot load it.
        MissingExtraError: a package is not installed.
        SettingsError: a limit of the system leaves no room for its threads.
    """
    check_peer(bundle, name)
    manifest = bundle.manifest
    run: Probabilities
    if name == "openvino":
        run, peer = open_openvino(_plain_graph(bundle), bundle, settings.thread_count, batch)
    elif name in ("torch", "torch-compiled"):
        float_tower, compiled = checked_baseline(bundle, "fp32"), name == "torch-compiled"
        run, peer = open_torch(float_tower, bundle, settings.thread_count, batch=batch, compiled=compiled)
    else:
        of_the_bundle = name == "graph"
        settings = replace(settings, saturates=manifest.saturates or not of_the_bundle)
        graph = bundle.checked_part(manifest.part("graph")) if of_the_bundle else checked_baseline(bundle, name)
        session = make_session(graph, settings)
        check_threads_alike(name, threads_of(session, settings), settings.thread_count)
        run = (pixel_graph if name in ("graph", "fp32") else float_graph)(session, bundle)
        peer = Peer(
            name=name,
            engine="ONNX Runtime",
            version=ort.__version__,
            precision=_PRECISIONS.get(name, manifest.precision),
            threads=settings.thread_count,
            takes="float32, normalised by numpy" if name in ("static", "dynamic") else "uint8 pixels",
            options={"sessions": "one", **session_words(settings)},
        )
    all_tokens = name not in OF_THE_BUNDLE
    return Variant(
        name=name,
        kind=name,
        run=run,
        read=lambda answer: full_depth(manifest, answer, all_tokens=all_tokens),
        peer=peer,
    )
