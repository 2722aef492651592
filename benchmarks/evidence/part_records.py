"""The record that a part of the evidence leaves, written whole, with the time that it took and the machine."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lraee_benchmarks.device.description import describe_device

FORMAT = 1
"""Of a part's record."""

Record = Mapping[str, Any]
"""What a part's JSON file holds."""

BEAT_SECONDS = 5.0
"""How often the clock of a part is written, so that a kill loses no more."""


class PhotosError(Exception):
    """Something is missing or does not fit; the message says what to do."""


def timed(command: Sequence[str], clock: Path) -> None:
    """Run a command and add its seconds to those in a file, also when this process is killed meanwhile.

    Raises:
        PhotosError: it failed.
    """
    before = float(clock.read_text()) if clock.is_file() else 0.0
    begun = time.monotonic()
    process = subprocess.Popen(command)
    try:
        while True:
            try:
                code = process.wait(timeout=BEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                write_whole(clock, f"{before + time.monotonic() - begun:.1f}\n")
    except BaseException:
        process.terminate()
        process.wait()
        raise
    write_whole(clock, f"{before + time.monotonic() - begun:.1f}\n")
    if code != 0:
        raise PhotosError(f"{Path(command[1]).name} {command[2]} ended with status {code}; its message stands above")


def ran_on() -> dict[str, Any]:
    """Describe the machine and the versions that a record was made with."""
    device = describe_device()
    features = ", ".join(device.int8_features) or "no instructions for INT8 products"
    return {
        "machine": f"{device.model}, {device.cores} cores, {features}",
        "versions": {"onnxruntime": device.onnxruntime, "lraee": device.lraee},
    }


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never half there."""
    half = path.with_name(f".{path.name}.half")
    half.write_text(text, "utf-8")
    os.replace(half, path)


def read_record(path: Path) -> Record:
    """Read a part's record.

    Raises:
        PhotosError: it is no record, or one of another format.
    """
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise PhotosError(f"{path} is not a record of format {FORMAT}; remove it to run its part again")
    return found


def kept_record(path: Path, wanted: Mapping[str, Any]) -> Record | None:
    """Read a record where there is one, made from the wanted inputs.

    Raises:
        PhotosError: it was made from others.
    """
    if not path.is_file():
        return None
    found = read_record(path)
    for key, value in wanted.items():
        if found[key] != value:
            raise PhotosError(
                f"{path} was made with other {key} ({found[key]}, wanted {value}); remove it to run this part"
            )
    return found


def read_json(path: Path) -> Record:
    """Read a file that holds a JSON object.

    Raises:
        PhotosError: it does not.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise PhotosError(f"{path} is not JSON ({error}); remove it to run its part again") from error
    if not isinstance(found, dict):
        raise PhotosError(f"{path} holds no JSON object; remove it to run its part again")
    return found
