"""How the report calls what the metrics identify."""

from __future__ import annotations

from lraee_benchmarks.render.method_names import METHODS
from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.config.options import Precision
from lraee_toolchain.evaluation.metrics import PolicyRow, Way

_WAYS: dict[Way, str] = {
    "full": "{}, full depth",
    "ssa_last": "{}, SSA head at the last block, full depth",
    "routed": "LRA-EE on {}",
    "routed_label_free": "LRA-EE on {}, label-free",
    "routed_merged": "LRA-EE and merged tokens on {}",
    "routed_merged_label_free": "LRA-EE and merged tokens on {}, label-free",
    "routed_ssa": "LRA-EE on {}, SSA heads only",
}

FACTORIAL: dict[Way, str] = {
    "full": "(i) [CLS], full depth",
    "ssa_last_hard": "(ii) SSA at the last block, hard labels, full depth",
    "ssa_last": "(iii) SSA at the last block, distilled, full depth",
    "routed_ssa_hard": "(iv) LRA-EE with SSA heads, hard labels, adaptive",
    "routed_ssa": "(v) LRA-EE with SSA heads, distilled, adaptive",
}
"""Rows of T3."""

HEADS: dict[HeadInput, str] = {
    "patch_mean": "mean patch token (SSA)",
    "cls": "class token",
    "both": "both side by side",
    "attention": "attention pooling",
    "local": "local mixing, attention pooling",
}
"""Heads by what they read."""


def way_name(way: Way, precision: Precision) -> str:
    """Name a row of T1.

    >>> way_name("routed", "strong INT8")
    'LRA-EE on strong INT8'
    """
    return _WAYS[way].format(precision)


def method_name(method: str) -> str:
    """Name a row of T2; a method that has no name here goes by its identifier."""
    return METHODS.get(method, method)


def policy_name(row: PolicyRow) -> str:
    """Name a policy as the runtime's commands take it."""
    return "full depth" if row.kind == "full" else row.spec
