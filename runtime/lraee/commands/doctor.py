"""What ``python -m lraee doctor`` tells: the facts that a report of a fault needs, and advice on threads.

Facts are gathered into one typed object, which is also the JSON; the words for people are made of it.
"""

from __future__ import annotations

import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnxruntime as ort
from rich.table import Table
from rich.text import Text

from lraee import __version__
from lraee.bundle.folder import Bundle, find_bundle
from lraee.commands.info import plain_table
from lraee.disk import free_bytes
from lraee.errors import BundleError, LraeeError
from lraee.install import install_command
from lraee.ort.cpu import available_cores, cpu_flags, int8_products_saturate
from lraee.ort.limits import ROOT, TaskLimit, cpu_quota, memory_bytes, memory_limit, task_limits
from lraee.ort.threads import ThreadChoice, choose_threads
from lraee.ort.version import UNNAMED, check_onnxruntime

OTHER_PACKAGES = (
    *("ftfy", "typer", "Pillow", "openvino", "torch", "torchvision", "open_clip_torch", "timm"),
    *("onnx", "onnxruntime-extensions", "safetensors", "matplotlib"),
)
"""Distributions whose version is told where they are installed: other dependencies, and those of the extras."""

TOLD_FEATURES = frozenset({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve"})
"""CPU features that decide how fast INT8 GEMMs are, as Linux calls them."""

LITTLE_ROOM = 200_000_000
"""Bytes below which the temporary folder is called nearly full: an export writes more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHealth:
    """Holds what was found out about a bundle."""

    name: str
    """As it was given."""
    folder: str | None = None
    """None where there is no such bundle."""
    format: int | None = None
    """None where the manifest cannot be read, as the fields after it."""
    manifest_sha256: str | None = None
    onnxruntime: str | None = None
    """The oldest ONNX Runtime that runs the bundle."""
    problem: str | None = None
    """The first fault that was found; None where every hash is right and the installed ONNX Runtime runs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Describes this installation, this machine and, where one was named, a bundle."""

    versions: dict[str, str]
    """Of lraee, Python and every package that matters and is installed."""
    system: str
    """Operating system with its release and C library."""
    machine: str
    """Architecture of the CPU."""
    cpu_features: tuple[str, ...]
    """Those of `TOLD_FEATURES` that this CPU has; empty where the system does not tell."""
    int8_products_saturate: bool
    """Whether sums of uint8 x int8 products overflow 16 bits unless ONNX Runtime is asked for its exact kernel."""
    cores: int
    """Cores that this process may run on."""
    cores_of_machine: int
    cpu_quota: float | None
    """Cores' worth of time that the control group allows; None without a quota."""
    task_limits: tuple[TaskLimit, ...]
    """Every limit on processes and threads that binds this process."""
    threads: ThreadChoice
    """What a model gets that is loaded without a number of threads: the bundle's, or one with large blocks."""
    memory_bytes: int | None
    """Memory of the machine; None where the system does not tell, as the fields after it."""
    available_bytes: int | None
    memory_limit_bytes: int | None
    """What the control group allows."""
    temporary_folder: str | None
    """None where there is none that can be written to."""
    temporary_free_bytes: int | None
    bundle: BundleHealth | None
    """None where no bundle was named."""


def diagnose(name: str | None = None, *, root: Path = ROOT) -> Diagnosis:
    """Examine this installation, this machine and a bundle; never raises for what is wrong with them.

    Args:
        name: of a bundle, as `lraee.load` takes it; None for none.
        root: folder that holds ``proc`` and ``sys``.
    """
    health, opened = (None, None) if name is None else _examine(name)
    total, available = memory_bytes(root)
    temporary = None
    with suppress(OSError):
        temporary = tempfile.gettempdir()
    sessions = 1 if opened is None else opened.manifest.session_count
    block_flops = None if opened is None else opened.manifest.block_flops
    return Diagnosis(
        versions=_versions(),
        system=platform.platform(),
        machine=platform.machine(),
        cpu_features=tuple(sorted(cpu_flags() & TOLD_FEATURES)),
        int8_products_saturate=int8_products_saturate(),
        cores=available_cores(),
        cores_of_machine=os.cpu_count() or 1,
        cpu_quota=cpu_quota(root),
        task_limits=task_limits(root),
        threads=choose_threads(block_flops, sessions=sessions, root=root),
        memory_bytes=total,
        available_bytes=available,
        memory_limit_bytes=memory_limit(root),
        temporary_folder=temporary,
        temporary_free_bytes=None if temporary is None else free_bytes(Path(temporary)),
        bundle=health,
    )


def _examine(name: str) -> tuple[BundleHealth, Bundle | None]:
    """Open a bundle, check all its hashes, and compare its needs with the installed ONNX Runtime."""
    try:
        folder = find_bundle(name)
    except BundleError as error:
        return BundleHealth(name=name, problem=str(error)), None
    try:
        opened = Bundle(folder)
    except LraeeError as error:
        return BundleHealth(name=name, folder=str(folder), problem=str(error)), None
    problem = None
    try:
        check_onnxruntime(opened.manifest.onnxruntime)
        opened.verify()
    except LraeeError as error:
        problem = str(error)
    health = BundleHealth(
        name=name,
        folder=str(opened.place),
        format=opened.manifest.format,
        manifest_sha256=opened.manifest_sha256,
        onnxruntime=opened.manifest.onnxruntime or UNNAMED,
        problem=problem,
    )
    return health, opened


def _versions() -> dict[str, str]:
    found = {"lraee": __version__, "Python": platform.python_version()}
    found |= {"numpy": np.__version__, "onnxruntime": ort.__version__}
    for name in OTHER_PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def advice(found: Diagnosis) -> list[str]:
    """Write sentences on what to do, the most urgent first; one is always on threads."""
    said = []
    if found.bundle is not None and found.bundle.problem is not None:
        said.append(found.bundle.problem)
    said.append(f"Leave threads out: a model then gets {_threads_words(found.threads)}.")
    if found.cpu_quota is not None and found.cpu_quota < found.cores:
        said.append(
            f"Do not ask for more threads than the quota of {found.cpu_quota:g} cores has time for: all of them would "
            "be stopped until its next period begins."
        )
    if found.int8_products_saturate:
        said.append("This CPU lacks VNNI, so INT8 runs in an exact but slower kernel; no setting is needed.")
    if "Pillow" not in found.versions:
        said.append(f"Files are not decoded without Pillow; for them run: {install_command('image')}")
    if found.temporary_folder is None:
        said.append("There is no temporary folder that can be written to; set TMPDIR to one.")
    elif found.temporary_free_bytes is not None and found.temporary_free_bytes < LITTLE_ROOM:
        said.append(f"The temporary folder {found.temporary_folder} is nearly full; set TMPDIR to another.")
    return said


def diagnosis_table(found: Diagnosis) -> Table:
    """Make a table of the facts, one for each line."""
    table = plain_table("lraee doctor", "")
    quota = "no quota" if found.cpu_quota is None else f"a quota of {found.cpu_quota:g}"
    limits = "; ".join(f"{limit.name} {limit.used} of {limit.most} used" for limit in found.task_limits)
    limited = "" if found.memory_limit_bytes is None else f", limited to {_size(found.memory_limit_bytes)}"
    rows = {
        "versions": ", ".join(f"{name} {number}" for name, number in found.versions.items()),
        "system": f"{found.system} ({found.machine})",
        "CPU features": ", ".join(found.cpu_features) or "unknown",
        "uint8 x int8": "saturates; the exact kernel is used" if found.int8_products_saturate else "exact",
        "cores": f"{found.cores} of {found.cores_of_machine}, {quota}",
        "processes": limits or "no limit",
        "threads": _threads_words(found.threads),
        "memory": f"{_size(found.memory_bytes)}, {_size(found.available_bytes)} available{limited}",
        "temporary folder": f"{found.temporary_folder or 'none'}, {_size(found.temporary_free_bytes)} free",
    }
    if (bundle := found.bundle) is not None:
        rows["bundle"] = bundle.folder or bundle.name
        if bundle.format is not None:
            rows["format"] = f"{bundle.format}, manifest SHA-256 {bundle.manifest_sha256}"
            rows["needs"] = f"ONNX Runtime {bundle.onnxruntime} or newer"
        rows["check"] = bundle.problem or "every hash is right"
    for key, value in rows.items():
        table.add_row(key, Text(value))
    return table


def _threads_words(choice: ThreadChoice) -> str:
    return f"{choice.threads} ({choice.reason})"


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.1f} GB"
