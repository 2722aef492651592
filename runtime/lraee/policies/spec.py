"""Policies as people type them on a command line: ``adaptive``, ``adaptive=balanced``, ``full``, ``exit=8``.

One parser for all command lines, so that a spec means the same everywhere; a report names its rows by spec, and the
name of a row can be typed back.
"""

from __future__ import annotations

from lraee.errors import PolicyError
from lraee.policies.adaptive import Adaptive
from lraee.policies.base import Policy
from lraee.policies.exit_at import ExitAt
from lraee.policies.full import Full

POLICY_SPECS = "adaptive[=POINT] | full | exit=BLOCK"
"""What `parse_policy` understands, for help texts and messages."""


def parse_policy(spec: str) -> Policy:
    """The policy that a spec names. Whether the bundle has the point or exit is found when it is bound.

    >>> parse_policy("adaptive=balanced")
    Adaptive(point='balanced', thresholds=None)
    >>> parse_policy("exit=8")
    ExitAt(block=8)

    Raises:
        PolicyError: the spec names no policy, or its value is missing, superfluous or no block number.
    """
    kind, equals, value = spec.strip().partition("=")
    if kind == "adaptive" and (value or not equals):
        return Adaptive(value or None)
    if kind == "full" and not equals:
        return Full()
    if kind == "exit" and value.isascii() and value.isdigit() and int(value) >= 1:
        return ExitAt(int(value))
    raise PolicyError(f"{spec!r} is no policy; wanted {POLICY_SPECS}, with blocks counted from 1")
