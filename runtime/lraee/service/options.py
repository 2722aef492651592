"""Reads what a request asks for: a policy or a deadline, labels of its own, and how many of them to list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from lraee.errors import LabelsError, PolicyError
from lraee.labels.label_set import LabelSet, normal_form
from lraee.labels.matrix import label_set_of
from lraee.model import Model
from lraee.policies import Deadline, Policy
from lraee.policies.adaptive import Adaptive
from lraee.policies.base import bind
from lraee.policies.spec import parse_policy
from lraee.service.problems import Problem

MOST_TOP = 1000
"""Labels that are listed for an image at most."""

SHORTEST_DEADLINE_MS, LONGEST_DEADLINE_MS = 0.001, 600_000.0

LONGEST_LABEL = 200
"""Characters."""


SCHEMAS: dict[str, dict[str, Any]] = {
    "policy": {
        "type": "string",
        "maxLength": 1000,
        "description": "The name of an operating point, or a policy as python -m lraee classify --policy takes it.",
    },
    "deadline_ms": {
        "type": "number",
        "minimum": SHORTEST_DEADLINE_MS,
        "maximum": LONGEST_DEADLINE_MS,
        "description": "Give the best answer within this time, in milliseconds.",
    },
    "top": {"type": "integer", "minimum": 1, "maximum": MOST_TOP, "default": 5, "description": "Labels to list."},
    "labels": {
        "type": "string",
        "description": "Labels of your own, with commas between them, or a JSON list; needs a text tower.",
    },
}
"""Parameters of a request, in its address or in its form, as `openapi.json` describes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Holds the parameters of a request as they were given."""

    policy: str | None = None
    deadline_ms: float | None = None
    top: int = 5
    labels: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Holds what a request asks for."""

    policy: Policy
    top: int
    labels: tuple[str, ...] | None
    """Labels of the request; None for those of the bundle."""


def with_fields(asked: Asked, fields: Iterable[tuple[str, str]], given: Iterable[str] = ()) -> Asked:
    """Add parameters, of the address or of a form.

    Args:
        asked: those that were there before.
        fields: name and value of each that is added.
        given: names of those before.

    Raises:
        Problem: 422, one is unknown, is given twice, or its value is no number where one is wanted.
    """
    seen = set(given)
    for name, value in fields:
        if name not in SCHEMAS:
            raise Problem(422, f"there is no parameter {name[:80]!r}; wanted {', '.join(SCHEMAS)}")
        if name in seen:
            raise Problem(422, f"{name} is given more than once")
        seen.add(name)
        changed: dict[str, Any] = {name: _FIELDS[name](value)}
        asked = replace(asked, **changed)
    return asked


def options_of(asked: Asked, model: Model, default: Policy, most_labels: int) -> Options:
    """Parse the parameters of a request.

    Args:
        asked: the parameters.
        model: that answers.
        default: the policy of a request that names none; the bundle has what it asks for.
        most_labels: labels of one request at most.

    Raises:
        PolicyError: there is no such policy, or the bundle lacks what it asks for.
        LabelsError: they cannot be labels.
        Problem: 422, both a policy with a deadline and a deadline are given.
    """
    if asked == Asked():
        return Options(policy=default, top=asked.top, labels=None)
    policy = default if asked.policy is None else _policy(asked.policy, model)
    if asked.deadline_ms is not None:
        if isinstance(policy, Deadline):
            raise Problem(422, "deadline_ms is given, and the policy has a deadline too; give one of them")
        policy = Deadline(asked.deadline_ms, None if asked.policy is None else policy)
    bind(policy, model.manifest)
    labels = None
    if asked.labels is not None:
        labels = _labels(asked.labels, most_labels)
        if model.manifest.text is None:
            model.embed_text(())  # raises, and says what to do
        if labels == model.labels:
            labels = None
    return Options(policy=policy, top=asked.top, labels=labels)


def _policy(text: str, model: Model) -> Policy:
    """Parse a policy, or take the name of an operating point."""
    if text in (point.name for point in model.manifest.operating_points):
        return Adaptive(text)
    try:
        return parse_policy(text)
    except PolicyError as error:
        known = ", ".join(point.name for point in model.manifest.operating_points)
        raise PolicyError(f"{error}; or the name of an operating point: {known or 'there are none'}") from error


def _labels(text: str, most: int) -> tuple[str, ...]:
    """Parse labels with commas between them, or a JSON list of texts; never the name of a file."""
    names: object = text.split(",")
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LabelsError(f"labels begin like a JSON list and are none: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LabelsError('labels are JSON, wanted a list of texts such as ["a cat", "a dog"]')
    if len(names) > most:
        raise LabelsError(f"met {len(names):,} labels, wanted at most {most:,}")
    found = tuple(normal_form(name.strip()) for name in names)
    if longest := [name for name in found if len(name) > LONGEST_LABEL]:
        raise LabelsError(f"the label {longest[0][:40]!r}… has {len(longest[0]):,} characters; wanted {LONGEST_LABEL}")
    checked: LabelSet = label_set_of(found, ("{}",))
    return checked.names


def _deadline(text: str) -> float:
    is_number = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", text)
    if not is_number or not SHORTEST_DEADLINE_MS <= float(text) <= LONGEST_DEADLINE_MS:
        raise Problem(422, f"deadline_ms is {text[:80]!r}, wanted milliseconds, such as 40")
    return float(text)


def _top(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_TOP:
        raise Problem(422, f"top is {text[:80]!r}, wanted a whole number from 1 to {MOST_TOP}")
    return int(text)


def _spec(text: str) -> str:
    if len(text) > SCHEMAS["policy"]["maxLength"]:
        raise Problem(422, f"the policy has {len(text):,} characters, wanted at most {SCHEMAS['policy']['maxLength']}")
    return text


_FIELDS: dict[str, Callable[[str], object]] = {"policy": _spec, "deadline_ms": _deadline, "top": _top, "labels": str}
"""What reads the value of each parameter."""
