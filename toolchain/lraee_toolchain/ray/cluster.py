"""Starts a Ray cluster on this machine for the length of a run, or connects to one that is there.

A cluster of our own has no dashboard, reports nothing to anybody, listens with a secret of its own, and keeps its files
in one folder that is removed at the end, or by the next run into the same output if this one was killed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lraee.errors import ExportError

OBJECT_STORE_BYTES = 80 * 2**20
"""Little more than Ray's least: only numbers of shards and reports pass through it."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""What Ray reads nowhere else. The log level is that of its own processes, which otherwise write to this terminal."""

SOCKET_BYTES = 103
"""Most bytes of a socket's path: 103 on macOS, 107 on Linux."""

SOCKET = "/session_2026-11-30_22-04-58_433650_4194304/sockets/plasma_store"
"""What Ray adds to the path of its folder, at its longest."""

SHORT_ROOT = "/tmp"

_TOKEN = secrets.token_hex(32)
"""Secret of the clusters that this process starts. Ray reads it once; without one it would make a file in the home."""


@contextmanager
def cluster(out: Path, *, cores: int, address: str | None) -> Iterator[None]:
    """Run a cluster of `cores` for the output `out`, or use the one at `address`.

    A program that has called ``ray.init`` itself keeps its cluster, which is then used.

    Raises:
        ExportError: it cannot be started or reached.
    """
    with _environment(_variables() if address is None else {}):
        import ray

        if ray.is_initialized():
            _quiet(ray)
            yield
            return
        folder = _folder(out)
        shutil.rmtree(folder, ignore_errors=True)
        own: dict[str, Any] = {
            "address": "local",
            "num_cpus": cores,
            "num_gpus": 0,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": str(folder),
        }
        try:
            with _descriptor_hushed():
                ray.init(
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **(own if address is None else {"address": address}),
                )
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
            what = "Ray cannot start here" if address is None else f"there is no Ray cluster at {address}"
            why = " ".join(str(error).split())
            raise ExportError(f"{what}: {why}; see its documentation on installing and starting clusters") from error
        try:
            _quiet(ray)
            yield
        finally:
            ray.shutdown()
            if address is None:
                shutil.rmtree(folder, ignore_errors=True)


def _variables() -> dict[str, str]:
    """Give the variables of a cluster that is started; a secret that the caller has set is kept."""
    has_secret = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return ENVIRONMENT if has_secret else {**ENVIRONMENT, "RAY_AUTH_TOKEN": _TOKEN}


def _folder(out: Path) -> Path:
    """Name the folder of the cluster of an output: where temporary files go, or in ``/tmp`` where that path is long.

    Raises:
        ExportError: neither will do.
    """
    digest = hashlib.sha256(str(out).encode(errors="surrogateescape")).hexdigest()[:10]
    name, usual = f"lraee-{os.getuid()}-{digest}", tempfile.gettempdir()
    most = SOCKET_BYTES - len(SOCKET) - len(name) - 1
    for root in (usual, SHORT_ROOT):
        if len(os.fsencode(root)) <= most and os.access(root, os.W_OK):
            return Path(root) / name
    raise ExportError(
        f"Ray needs a folder for its sockets whose path has at most {most} bytes, and the folder of temporary files is "
        f"{usual}; set TMPDIR to a shorter one"
    )


def _quiet(ray: Any) -> None:
    """Turn off the progress bars and the log of Ray Data on this terminal; errors are raised anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fields that Ray Data sets itself
        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray prints the death of a worker to stdout, whatever its settings, where a program may print JSON.
    ray._private.worker._worker_logs_enabled = False


@contextmanager
def _descriptor_hushed() -> Iterator[None]:
    """Drop what Ray's compiled part writes to stderr while it starts: how it was configured."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, which Ray's processes inherit, and set them back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
