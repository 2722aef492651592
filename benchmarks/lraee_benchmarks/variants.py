"""The rows of a report: ways of getting label probabilities from the same pixels.

A chain row runs the bundle's parts under a policy; a baseline row runs the whole tower as one session, with the same
session settings. Nothing but `Variant.run` is timed; what the answer means is read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.bundle import Bundle
from lraee.errors import BundleError, PolicyError
from lraee.images import Pixels
from lraee.manifest import Manifest
from lraee.model import Model
from lraee.onnx_wire import external_locations
from lraee.orchestrator import Answers
from lraee.policies import Adaptive, Confidence, Deadline, Entropy, ExitAt, Full, Patience, Policy
from lraee.policies.spec import parse_policy
from lraee.sessions import SessionSettings, make_session
from lraee_benchmarks.results import RowKind

Raw = TypeVar("Raw")

Baseline = Literal["graph", "fp32"]
"""``graph``: the bundle's blocks as one graph. ``fp32``: the float tower, from the folder beside the bundle."""

BASELINES: tuple[Baseline, ...] = get_args(Baseline)

KINDS: Mapping[type[Any], RowKind] = {
    Adaptive: "adaptive",
    Full: "full",
    ExitAt: "exit",
    Confidence: "confidence",
    Entropy: "entropy",
    Patience: "patience",
    Deadline: "deadline",
}
"""The kind of a chain row, by its policy: all that `parse_policy` can give."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one batch got."""

    probabilities: NDArray[np.float32]
    """(batch, labels) float32."""
    exit_block: NDArray[np.int32]
    """(batch,) int32, counted from 1."""
    early: NDArray[np.bool_]
    """(batch,) bool: left through an exit."""
    flops: NDArray[np.int64]
    """(batch,) int64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant(Generic[Raw]):
    """One way of running the tower."""

    name: str
    kind: RowKind
    run: Callable[[Pixels], Raw]
    """Pixels (batch, size, size, 3) uint8 to whatever the way gives; this is what is timed."""
    read: Callable[[Raw], Outcome]
    """Turns that into an outcome."""


def chain_variants(model: Model, specs: Sequence[str]) -> list[Variant[Answers]]:
    """Full depth and the policies asked for; without any, every named operating point and every exit.

    The points of the Pareto front (``saves-20``) run when asked for.

    Raises:
        PolicyError: a spec is no policy, or the bundle lacks what it asks for.
    """
    chosen = list(specs) or [*_points(model.manifest), *(f"exit={exit.block}" for exit in model.manifest.exits)]
    policies = {_full_name(spec, model.manifest): parse_policy(spec) for spec in [*chosen, "full"]}
    return [chain_variant(model, name, policy) for name, policy in policies.items()]


def chain_variant(model: Model, name: str, policy: Policy) -> Variant[Answers]:
    """The bundle's parts one by one under a policy.

    Raises:
        PolicyError: the bundle lacks what the policy asks for, or reports have no kind for it.
    """
    policy.bind(model.manifest)
    if type(policy) not in KINDS:
        raise PolicyError(f"{type(policy).__name__} is no kind of row; wanted one of {', '.join(KINDS.values())}")
    kind = KINDS[type(policy)]

    def read(answers: Answers) -> Outcome:
        return Outcome(answers.probabilities, answers.exit_block, answers.early, model.flops_of_run(answers))

    return Variant(name=name, kind=kind, run=lambda pixels: model.run_pixels(pixels, policy=policy), read=read)


def baseline_variant(bundle: Bundle, baseline: Baseline, settings: SessionSettings) -> Variant[list[Any]]:
    """The whole tower as one session.

    Raises:
        BundleError: the baseline is not there, is damaged, or ONNX Runtime cannot load it.
    """
    manifest = bundle.manifest
    path = bundle.checked_part(manifest.part("graph")) if baseline == "graph" else _checked_baseline(bundle, baseline)
    session: ort.InferenceSession = make_session(path, settings)
    labels = {
        "label_matrix": np.ascontiguousarray(bundle.label_embeddings.T),
        "logit_scale": np.array(manifest.logit_scale, np.float32),
    }

    def run(pixels: Pixels) -> list[Any]:
        outputs: list[Any] = session.run(["embedding", "probabilities"], {"pixels": pixels, **labels})
        return outputs

    def read(outputs: list[Any]) -> Outcome:
        probabilities: NDArray[np.float32] = outputs[1]
        count = len(probabilities)
        depth, flops = np.full(count, manifest.tower.blocks, np.int32), np.full(count, manifest.full_flops, np.int64)
        return Outcome(probabilities, depth, np.zeros(count, np.bool_), flops)

    return Variant(name=baseline, kind=baseline, run=run, read=read)


def available_baselines(bundle: Bundle) -> tuple[Baseline, ...]:
    """The baselines that are there for this bundle."""
    has_graph = any(part.name == "graph" for part in bundle.manifest.parts)
    there = {"graph": has_graph, "fp32": baseline_path(bundle, "fp32").is_file()}
    return tuple(name for name in BASELINES if there[name])


def baseline_path(bundle: Bundle, name: str) -> Path:
    """Where a baseline lies: ``clip.lraee`` has ``clip.baselines/fp32.onnx`` beside it."""
    folder = bundle.folder.resolve()
    return folder.parent / f"{folder.name.removesuffix('.lraee')}.baselines" / f"{name}.onnx"


def _checked_baseline(bundle: Bundle, name: str) -> Path:
    path = baseline_path(bundle, name)
    if not path.is_file():
        raise BundleError(
            f"there is no {name} baseline at {path}; write it with: "
            f"lraee-export {bundle.manifest.model.id} -o {bundle.folder.name} --baselines"
        )
    for location in sorted(external_locations(path.read_bytes(), path.name)):
        if location != Path(location).name or location in {"", ".", ".."} or "\\" in location:
            raise BundleError(f"{path.name}: external data is at {location!r}, wanted a file beside it")
    return path


def _points(manifest: Manifest) -> list[str]:
    points = manifest.operating_points
    return [f"adaptive={point.name}" for point in points if not point.name.startswith("saves-")]


def _full_name(spec: str, manifest: Manifest) -> str:
    """The spec with the default operating point spelled out, so that no row stands twice."""
    spec = spec.strip()
    return f"adaptive={manifest.default_point}" if spec == "adaptive" and manifest.default_point is not None else spec
