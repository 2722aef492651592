"""Parses policies as people type them: ``adaptive``, ``adaptive=balanced``, ``full``, ``exit=8``, ``deadline=40``.

One parser for all command lines, so that a spec means the same everywhere; a report names its rows by spec, and the
name of a row can be typed back.
"""

from __future__ import annotations

import re

from lraee.errors import PolicyError
from lraee.policies.adaptive import Adaptive
from lraee.policies.base import Policy
from lraee.policies.confidence import Confidence
from lraee.policies.deadline import Deadline
from lraee.policies.entropy import Entropy
from lraee.policies.exit_at import ExitAt
from lraee.policies.full import Full
from lraee.policies.given_shares import Replay
from lraee.policies.patience import Patience

POLICY_SPECS = (
    "adaptive[=POINT] | full[@SCHEDULE] | exit=BLOCK[@SCHEDULE] | deadline=MS | confidence=PROBABILITY | entropy=NATS "
    "| patience=AGREEMENTS | replay=BLOCK:SHARE,..."
)
"""What `parse_policy` understands, for help texts and messages."""

COUNT = re.compile(r"0*[1-9][0-9]{0,5}")
"""ASCII digits of a number from 1 on."""

DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
"""Plain ASCII digits: no sign, no exponent, no ``nan``."""

REPLAYED = re.compile(rf"({COUNT.pattern}):({DECIMAL.pattern})")
"""A block and its share."""


def parse_policy(spec: str) -> Policy:
    """Parse the policy that a spec names. Whether the bundle has the point or exit is found when it is bound.

    >>> parse_policy("adaptive=balanced")
    Adaptive(point='balanced', thresholds=None)
    >>> parse_policy("exit=8")
    ExitAt(block=8, schedule=None)
    >>> parse_policy("full@merge-30")
    Full(schedule='merge-30')
    >>> parse_policy("entropy=0.5")
    Entropy(threshold=0.5)
    >>> parse_policy("deadline=40")
    Deadline(ms=40.0, policy=None)
    >>> parse_policy("replay=8:.10,10:.25")
    Replay(shares=((8, 0.1), (10, 0.25)))

    Raises:
        PolicyError: the spec names no policy, or its value is missing, superfluous or of another form.
    """
    if not isinstance(spec, str):
        raise PolicyError(f"{spec!r} is not a text; wanted {POLICY_SPECS}")
    kind, equals, value = spec.strip().partition("=")
    if kind == "adaptive" and (value or not equals):
        return Adaptive(value or None)
    start, at, schedule = spec.strip().partition("@")
    if start == "full" and bool(at) == bool(schedule):
        return Full(schedule or None)
    if start.startswith("exit=") and COUNT.fullmatch(start[5:]) and bool(at) == bool(schedule):
        return ExitAt(int(start[5:]), schedule or None)
    if kind == "patience" and COUNT.fullmatch(value):
        return Patience(int(value))
    if kind in ("confidence", "entropy") and DECIMAL.fullmatch(value):
        return Confidence(float(value)) if kind == "confidence" else Entropy(float(value))
    if kind == "deadline" and DECIMAL.fullmatch(value):
        return Deadline(float(value))
    if kind == "replay" and (shares := [REPLAYED.fullmatch(item.strip()) for item in value.split(",")]) and all(shares):
        return Replay(tuple((int(found[1]), float(found[2])) for found in shares if found))
    raise PolicyError(f"{spec!r} is not a policy; wanted {POLICY_SPECS}, with blocks counted from 1")
