"""Gives the page at ``/`` to try a service in a browser: one file, whose policy lets it load nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path


def page() -> tuple[bytes, dict[str, str]]:
    """Read the page, and make the headers that allow its own script and style alone."""
    text = (Path(__file__).parent / "page.html").read_text("utf-8")
    script, style = (_hash(text, element) for element in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


def _hash(text: str, element: str) -> str:
    """Hash what stands in the only element of a kind, as a policy names it.

    Source: Content Security Policy Level 3, section 2.3.1.
    """
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
