"""The table of versions that ran, from the record of `make versions`."""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "versions"
sys.path.append(str(FOLDER))  # where the script that records has the table

from table import outcome_rows  # noqa: E402


def versions_table() -> str:
    """Show the lowest and the newest version of every dependency that ran, and remarks below."""
    return "\n".join(outcome_rows(json.loads((FOLDER / "recorded.json").read_text("utf-8"))))
