"""Defines the protocol between the orchestrator and a policy, which decides which images leave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from reprlib import repr as short
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.errors import PolicyError
from lraee.policies.part_costs import PartCosts


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Holds what an exit computed for the images that reached it."""

    embedding: NDArray[np.float32]
    """(batch, embed_dim) float32, unit rows."""
    probabilities: NDArray[np.float32]
    """(batch, labels) float32."""
    features: NDArray[np.float32]
    """(batch, 3) float32: confidence, top-2 margin, spatial activation variance."""
    gate: NDArray[np.float32]
    """(batch,) float32, 0 to 1."""
    rows: NDArray[np.intp]
    """(batch,) positions of these images in the whole batch, for policies with memory."""


class Route(Protocol):
    """Applies a policy to one batch."""

    def visits(self, block: int) -> bool:
        """Tell whether to evaluate the exit after `block`; a visit costs the exit's FLOPs."""
        ...

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Choose the images that leave after `block`, (batch,) bool."""
        ...


def schedule_of(route: Route) -> str | None:
    """Name the merging schedule that a route asks for by its attribute `schedule`; None where it has none."""
    asked: str | None = getattr(route, "schedule", None)
    return asked


def check_schedule(schedule: str | None, manifest: Manifest) -> None:
    """Refuse a merging schedule that a bundle does not have.

    Raises:
        PolicyError: there is none of this name.
    """
    there = [one.name for one in manifest.schedules]
    if schedule is not None and schedule not in there:
        known = ", ".join(there) or "none"
        raise PolicyError(f"there is no merging schedule {schedule!r}; this bundle has {known}")


@runtime_checkable
class AnytimeRoute(Route, Protocol):
    """May also end the run between two exits: images still in the batch get the answer of the last exit visited."""

    def lends(self, costs: PartCosts) -> None:
        """Receive the costs of parts that the model keeps for longer than one batch."""
        ...

    def ran(self, part: str, images: int) -> None:
        """Is called after each part with its name and the number of images it ran for."""
        ...

    def stops(self, block: int) -> bool:
        """Tell whether to end the run after `block`; only once an exit has been visited."""
        ...


def is_anytime(route: Route) -> TypeGuard[AnytimeRoute]:
    """Tell whether the route may end a run between two exits.

    Looked up once for each class: ``isinstance`` with a protocol costs as much as running several small parts.
    """
    return _kind_is_anytime(type(route))


@cache
def _kind_is_anytime(kind: type[Route]) -> bool:
    return issubclass(kind, AnytimeRoute)


class Policy(Protocol):
    """Can be bound to a bundle, which gives a route."""

    def bind(self, manifest: Manifest) -> Route:
        """Prepare a route for one batch.

        Raises:
            PolicyError: the bundle lacks what the policy asks for.
        """
        ...


def bind(policy: Policy, manifest: Manifest) -> Route:
    """Check a policy that was passed in, and bind it.

    Raises:
        PolicyError: it is not a policy, or the bundle lacks what it asks for.
    """
    if isinstance(policy, str):
        raise PolicyError(f"the policy is the text {policy!r}; make it one with lraee.policies.spec.parse_policy")
    if isinstance(policy, type) or not callable(getattr(policy, "bind", None)):
        raise PolicyError(f"the policy is {short(policy)}, wanted an object such as lraee.Full() or lraee.Adaptive()")
    return policy.bind(manifest)
