"""The precisions that a tower is exported and measured in."""

from __future__ import annotations

from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["FP32", "dynamic INT8", "naive INT8", "strong INT8"]

INT8: tuple[Precision, ...] = ("dynamic INT8", "naive INT8", "strong INT8")
"""In the order in which reports show them, after FP32."""
