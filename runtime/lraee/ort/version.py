"""Checks that the installed ONNX Runtime is new enough for a bundle, and says what to install if it is not.

ONNX Runtime reads the operator sets that were known when it was released. A bundle names the oldest release that runs
it, so that an older one is told so before any part is opened. Bundles of lraee 0.1.0 name none; they need `UNNAMED`.
"""

from __future__ import annotations

import re

import onnxruntime as ort

from lraee.errors import BundleError, SettingsError

UNNAMED = "1.25"
"""What bundles need that do not name a release: the first with every operator of set 23, in which they were written."""

GLOBAL_POOL = "1.23"
"""The first release with a process-wide thread pool that Python can set up."""

_TOO_OLD = re.compile(
    r"Could not find an implementation for (?P<operator>\w+\(\d+\))"
    r"|Opset (?P<opset>\d+) is under development"
    r"|Unsupported model IR version: (?P<format>\d+)"
    r"|No Op registered for (?P<unknown>\w+)"
)
"""How ONNX Runtime 1.16 to 1.32 say that a graph has operators of a later release."""


def check_onnxruntime(wanted: str | None, installed: str = ort.__version__) -> None:
    """Refuse a bundle with parts that the installed ONNX Runtime does not run.

    Args:
        wanted: the oldest release that runs the bundle, as its manifest names it; None where it does not.
        installed: the version to compare with.

    Raises:
        BundleError: the installed one is older; with both versions and the command that installs a newer one.
    """
    if wanted is not None and _numbers(installed) < _numbers(wanted):
        raise BundleError(
            f"the bundle needs ONNX Runtime {wanted} or newer, {installed} is installed; {_advice(wanted)}"
        )


def check_global_pool(installed: str = ort.__version__) -> None:
    """Refuse the process-wide thread pool where the installed ONNX Runtime offers none to Python.

    Raises:
        SettingsError: with both versions and the two ways out.
    """
    if _numbers(installed) < _numbers(GLOBAL_POOL):
        raise SettingsError(
            f"thread_pool is 'global', which needs ONNX Runtime {GLOBAL_POOL} or newer, {installed} is installed; "
            f"{_advice(GLOBAL_POOL)}, or take the thread pool 'session'"
        )


def load_failure(name: str, reason: str, installed: str = ort.__version__) -> str:
    """Write one line on a graph that ONNX Runtime could not load.

    Args:
        name: of the file.
        reason: ONNX Runtime's message.
        installed: its version.

    Returns:
        What the release lacks and which one has it, where the message says that the graph is too new for it.
    """
    found = _TOO_OLD.search(reason)
    if found is None or _numbers(installed) >= _numbers(UNNAMED):
        return f"{name}: ONNX Runtime {installed} cannot load it: {reason}"
    lacks = {
        "operator": "{}",
        "opset": "operator set {}",
        "format": "version {} of the ONNX format",
        "unknown": "the operator {}",
    }
    kind = str(found.lastgroup)
    return (
        f"{name}: ONNX Runtime {installed} lacks {lacks[kind].format(found[kind])}; bundles that name no version "
        f"need {UNNAMED} or newer: {_advice(UNNAMED)}"
    )


def _advice(version: str) -> str:
    return f"pip install 'onnxruntime>={version}'"


def _numbers(version: str) -> tuple[int, ...]:
    """Parse the numbers of a release, such as (1, 25, 1); whatever follows them, as in ``1.26.0.dev20260101``, is left
    out.

    >>> _numbers("1.9") < _numbers("1.25.1")
    True
    """
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
