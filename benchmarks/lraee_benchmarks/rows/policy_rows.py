"""The rows of a report: ways of getting label probabilities from the same pixels.

A chain row runs the bundle's parts under a policy; the rows it is compared with are made in `baselines`. Nothing but
`Variant.run` is timed; what the answer means is read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.engine.orchestrator import Answers
from lraee.errors import PolicyError
from lraee.images.read import Pixels
from lraee.model import Model
from lraee.policies import (
    Adaptive,
    AnytimeRoute,
    Confidence,
    Deadline,
    Entropy,
    ExitAt,
    Full,
    Patience,
    Policy,
    Replay,
)
from lraee.policies.spec import parse_policy
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.results.model import RowKind
from lraee_benchmarks.rows.onnxruntime_row import session_words

Raw = TypeVar("Raw")

KINDS: Mapping[type[Any], RowKind] = {
    Adaptive: "adaptive",
    Full: "full",
    ExitAt: "exit",
    Confidence: "confidence",
    Entropy: "entropy",
    Patience: "patience",
    Replay: "replay",
    Deadline: "deadline",
}
"""The kind of a chain row, by its policy: all that `parse_policy` can give."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The answers that one batch got, and their cost."""

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
    peer: Peer | None = None
    """What runs it."""


def full_depth(manifest: Manifest, probabilities: NDArray[np.float32], *, all_tokens: bool = False) -> Outcome:
    """Make the outcome of a row that runs the whole tower, from its (batch, labels) probabilities.

    With `all_tokens` the row's last block computes every token, like the others; the bundle's may leave some out.
    """
    count, blocks = len(probabilities), manifest.tower.blocks
    total = manifest.full_flops
    if all_tokens and blocks > 1:
        total += manifest.part("block_01").flops - manifest.part(f"block_{blocks:02d}").flops
    depth, flops = np.full(count, blocks, np.int32), np.full(count, total, np.int64)
    return Outcome(probabilities, depth, np.zeros(count, np.bool_), flops)


def chain_policies(manifest: Manifest, specs: Sequence[str]) -> dict[str, Policy]:
    """Choose full depth and the policies asked for; without any, named operating points, schedules and exits.

    The points of the Pareto front (``saves-20``) run when asked for, and exits with merged tokens too.

    Returns:
        Policies by the name of their row, which `parse_policy` reads again.

    Raises:
        PolicyError: a spec is not a policy, the bundle lacks what it asks for, or reports have no kind for it.
    """
    merged = [f"full@{schedule.name}" for schedule in manifest.schedules]
    chosen = list(specs) or [*_points(manifest), *merged, *(f"exit={exit.block}" for exit in manifest.exits)]
    policies = {_full_name(spec, manifest): parse_policy(spec) for spec in [*chosen, "full"]}
    for policy in policies.values():
        policy.bind(manifest)
        _kind(policy)
    return policies


def chain_variant(model: Model, name: str, policy: Policy, *, stream: int | None = None) -> Variant[Answers]:
    """Run the bundle's parts one by one under a policy.

    Args:
        model: in this process.
        name: the row's.
        policy: who leaves where.
        stream: images that run together, of all those that a call gives; None runs them all as one batch.

    Raises:
        PolicyError: the bundle lacks what the policy asks for, reports have no kind for it, or a stream is to meet a
            deadline.
    """
    if isinstance(policy.bind(model.manifest), AnytimeRoute) and stream is not None:
        raise PolicyError(f"{name} has a deadline, and the images of the offline scenario are all there at once")
    kind = _kind(policy)
    settings = model.session_settings
    peer = Peer(
        name="chain",
        engine="ONNX Runtime",
        version=ort.__version__,
        precision=model.manifest.precision,
        threads=settings.thread_count,
        takes="uint8 pixels",
        options={"sessions": "one for each part", **session_words(settings)},
    )

    def read(answers: Answers) -> Outcome:
        return Outcome(answers.probabilities, answers.exit_block, answers.early, model.flops_of_run(answers))

    places: dict[int, int] = {}

    def run(pixels: Pixels) -> Answers:
        chosen = policy
        if isinstance(policy, Replay):  # a batch that comes again leaves where it left before
            chosen = policy.starting_at(places.setdefault(id(pixels), len(places)))
        if stream is None:
            return model.run_pixels(pixels, policy=chosen)
        return model.stream_pixels(pixels, policy=chosen, batch_size=stream)

    return Variant(name=name, kind=kind, run=run, read=read, peer=peer)


def in_batches(variant: Variant[Raw], batch: int) -> Variant[list[Raw]]:
    """Make a variant that takes the images of a call `batch` at a time."""

    def run(pixels: Pixels) -> list[Raw]:
        return [variant.run(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]

    def read(answers: list[Raw]) -> Outcome:
        found = [variant.read(answer) for answer in answers]
        return Outcome(
            np.concatenate([one.probabilities for one in found]),
            np.concatenate([one.exit_block for one in found]),
            np.concatenate([one.early for one in found]),
            np.concatenate([one.flops for one in found]),
        )

    return Variant(name=variant.name, kind=variant.kind, run=run, read=read, peer=variant.peer)


def _kind(policy: Policy) -> RowKind:
    if type(policy) not in KINDS:
        raise PolicyError(f"{type(policy).__name__} is not a kind of row; wanted one of {', '.join(KINDS.values())}")
    return "merged" if isinstance(policy, Full) and policy.schedule is not None else KINDS[type(policy)]


def _points(manifest: Manifest) -> list[str]:
    points = manifest.operating_points
    return [f"adaptive={point.name}" for point in points if not point.name.startswith("saves-")]


def _full_name(spec: str, manifest: Manifest) -> str:
    """The spec with the default operating point spelled out, so that no row stands twice."""
    spec = spec.strip()
    return f"adaptive={manifest.default_point}" if spec == "adaptive" and manifest.default_point is not None else spec
