"""What `make evidence-axes` recorded of early exits and merged tokens together, as a table and sentences."""

from __future__ import annotations

import numpy as np
from records import BENCHMARKS, Record, read, table

RECORD = BENCHMARKS / "evidence" / "both-axes.json"
"""What `make evidence-axes` wrote."""

AS_GIVEN = "as-given.lraee"
"""Bundle that the tower as given is compared by."""

NAMES = {"own full depth": "the bundles' own full depth, INT8", AS_GIVEN: "the tower as given, FP32"}


def both_axes_record() -> Record:
    """What was recorded."""
    return read(RECORD)


def both_axes() -> str:
    """Early exits and merged tokens on the shipped model as given, three seeds."""
    record = both_axes_record()
    saved, device = [100 * share for share in record["flops_saved"]], record["device"]
    rows = [
        [
            NAMES[row["to"]],
            f"{100 * row['accuracy']:.2f} %",
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * row["difference"][key] for key in ("mean", "low", "high"))),
        ]
        for row in record["rows"]
    ]
    shares = ", ".join(f"{share:.1f}" for share in saved)
    right = ", ".join(f"{100 * one:.2f}" for one in record["per_seed"])
    said = (
        "`make evidence-axes` exports the shipped model three times: trunk as given, strong INT8, `--merge-tokens auto "
        f"--min-flops-saving 0.65`. The runtime answers {record['images']:,} test images at `balanced`. On the mean "
        f"of the seeds {np.mean(saved):.1f} % of the FLOPs are saved ({shares}), and {100 * record['accuracy']:.2f} % "
        f"of the answers are right ({right})."
    )
    features = ", ".join(device["int8_features"]) or "no instructions for INT8 products"
    small = f"*{device['model']} ({features}), ONNX Runtime {device['onnxruntime']}, {record['created'][:10]}.*"
    return f"{said}\n\n{table(['compared with', 'its top-1', 'points'], rows)}\n\n{small}"
