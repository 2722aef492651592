"""Names merging schedules, and the parts that run where tokens are merged."""

from __future__ import annotations

from dataclasses import dataclass

Schedule = tuple[int, ...]
"""Pairs of tokens that become one in each block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSchedule:
    """A schedule of an export."""

    name: str
    """Such as ``merged-24``, after the percent of full depth's FLOPs that it saves."""
    merged: Schedule
    kept: bool = False
    """Whether the bundle has it also where no operating point takes it: it was given in numbers, or weights are random,
    so that no point can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledParts:
    """Names the parts that run under a schedule."""

    name: str
    """Of the schedule."""
    merged: Schedule
    blocks: tuple[str, ...]
    tail: str
