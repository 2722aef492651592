"""Trace some images for chrome://tracing and ui.perfetto.dev: every part of every policy on a time line.

Source: Trace Event Format, complete events (``"ph": "X"``), times in microseconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import Pixels, open_picture, pillow_is_installed
from lraee.model import Model
from lraee.policies.spec import parse_policy

IMAGES = 20
"""For each policy."""


def trace_text(
    model: Model,
    policies: Sequence[str],
    batches: Sequence[Pixels],
    encoded: bytes,
    *,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> str:
    """Make the trace as JSON: one track for reading an image, one for each policy.

    Args:
        model: in this process.
        policies: as `parse_policy` reads them.
        batches: (batch, size, size, 3) uint8 each; the first `IMAGES` are run.
        encoded: an image file, read as often; not without Pillow.
        clock_ns: nanoseconds.
    """
    begin = clock_ns()
    events: list[dict[str, Any]] = []

    def note(track: int, name: str, begun: int, ended: int, **details: Any) -> None:
        events.append(
            {
                "name": name, "ph": "X", "pid": 1, "tid": track,
                "ts": (begun - begin) / 1e3, "dur": (ended - begun) / 1e3, "args": details,
            }
        )  # fmt: skip

    tracks = ["read an image", *policies]
    if pillow_is_installed():
        for _ in range(IMAGES):
            begun = clock_ns()
            image = open_picture(encoded)
            decoded = clock_ns()
            preprocess(image, model.manifest.preprocessing)
            note(0, "decode", begun, decoded)
            note(0, "resize", decoded, clock_ns())
    for track, name in enumerate(policies, start=1):
        policy = parse_policy(name)
        for number, batch in enumerate(batches[:IMAGES]):
            marks: list[tuple[str, int, int]] = []
            begun = last = clock_ns()
            answers = model.run_pixels(
                batch,
                policy=policy,
                on_part=lambda part, images, marks=marks: marks.append((part, images, clock_ns())),  # type: ignore[misc]
            )
            blocks = [int(block) for block in answers.exit_block]
            note(track, f"image {number}" if len(batch) == 1 else f"batch {number}", begun, clock_ns(), leaves=blocks)
            for part, images, ended in marks:
                note(track, part, last, ended, images=images)
                last = ended
    names = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": track, "args": {"name": name}}
        for track, name in enumerate(tracks)
    ]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": [*names, *events]}) + "\n"
