"""Prepares ``python -m lraee serve``: says which packages it lacks, and reads the token from its file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lraee.errors import MissingExtraError, SettingsError
from lraee.install import install_command

PACKAGES = {
    "fastapi": "FastAPI",
    "uvicorn": "uvicorn",
    "httptools": "httptools",
    "prometheus_client": "prometheus-client",
    "PIL": "Pillow",
}
"""What the service imports beyond the base packages, and what people call it."""


def check_serve_is_installed() -> None:
    """Refuse to serve without the packages of the extra `serve`.

    Raises:
        MissingExtraError: some are missing; the message has the command that installs them.
    """
    if missing := [name for package, name in PACKAGES.items() if importlib.util.find_spec(package) is None]:
        raise MissingExtraError(
            f"serving needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; run: "
            f"{install_command('serve')}"
        )


def read_token(path: Path) -> str:
    """Read the token that clients must send; blanks and line ends around it do not count.

    Raises:
        SettingsError: the file cannot be read, or is no text.
    """
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"{path}: the token cannot be read: {why}; wanted a file with one line") from error
