"""How the documents install lraee, before and after it is published, and the command that writes it into them.

    python tests/install_commands.py

After a change of `PUBLISHED`, or of the version, run it: it fills what stands between ``<!-- install:NAME -->`` and
``<!-- /install -->`` in every document. `tests/test_install.py` fails until that was done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import lraee

PUBLISHED = False
"""Whether ``pip install lraee`` finds the package on PyPI."""

ROOT = Path(__file__).resolve().parents[1]

WHEEL = f"lraee-{lraee.__version__}-py3-none-any.whl"


def _first(guide: str) -> tuple[str, str]:
    """What a document says where it installs lraee, with the address of the guide for a board from there."""
    before = (
        "lraee is not on PyPI yet. In a checkout of this project, run one of these:\n\n"
        "```bash\n"
        "pip install .              # load, classify arrays, measure\n"
        "pip install '.[image]'     # and decode image files (Pillow)\n"
        "pip install '.[serve]'     # and answer over HTTP (FastAPI)\n"
        "pip install '.[export]'    # and export models (torch, open_clip, onnx)\n"
        "```\n\n"
        "A board needs no checkout: build a wheel on a PC and copy it, as in step 2 of\n"
        f"[the guide for a Raspberry Pi]({guide})."
    )
    after = (
        "```bash\n"
        "pip install lraee              # load, classify arrays, measure\n"
        "pip install 'lraee[image]'     # and decode image files (Pillow)\n"
        "pip install 'lraee[serve]'     # and answer over HTTP (FastAPI)\n"
        "pip install 'lraee[export]'    # and export models (torch, open_clip, onnx)\n"
        "```"
    )
    return before, after


TEXTS: dict[str, tuple[str, str]] = {
    "readme": _first("docs/raspberry-pi.md"),
    "site": _first("raspberry-pi.md"),
    "board": (
        "lraee is not on PyPI yet. Make its wheel **on the PC**, in a checkout of this project, and copy it\n"
        "(`raspberrypi.local` is the board's name unless you chose another):\n\n"
        "```bash\n"
        "python3 -m venv ~/lraee-pc\n"
        ". ~/lraee-pc/bin/activate\n"
        "pip wheel --no-deps --wheel-dir dist .\n"
        "scp dist/lraee-*.whl pi@raspberrypi.local:\n"
        "```\n\n"
        "and **on the board**:\n\n"
        "```bash\n"
        f"pip install ~/{WHEEL}'[image]'\n"
        "python -m lraee verify reference\n"
        "```",
        "Then:\n\n```bash\npip install 'lraee[image]'\npython -m lraee verify reference\n```",
    ),
    "pc": (
        "Make the bundle **on the PC**, in the checkout and the environment of step 2; pip fetches torch:\n\n"
        "```bash\n"
        "pip install '.[export]'\n"
        "```",
        "Make the bundle **on the PC**; pip fetches torch:\n\n"
        "```bash\n"
        "python3 -m venv ~/lraee-pc\n"
        ". ~/lraee-pc/bin/activate\n"
        "pip install 'lraee[export]'\n"
        "```",
    ),
}
"""What stands in the documents, by the name in its mark: before lraee is published, and after."""

_MARKED = re.compile(r"(<!-- install:(\w+) -->\n\n).*?(<!-- /install -->)", re.DOTALL)


def documents() -> list[Path]:
    """Every Markdown file of the project, without those of npm packages that were installed in it."""
    folders = ("benchmarks", "calibration_data", "docs", "exporters", "runtime", "tests", "toolchain")
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path for path in found if "node_modules" not in path.parts)


def marked(text: str) -> Iterator[str]:
    """The names of the marked places of a document."""
    return (found[2] for found in _MARKED.finditer(text))


def written(text: str, *, published: bool = PUBLISHED) -> str:
    """A document with its marked places filled.

    Args:
        text: the document.
        published: as `PUBLISHED`.
    """
    return _MARKED.sub(lambda found: f"{found[1]}{TEXTS[found[2]][published]}\n\n{found[3]}", text)


def main() -> None:
    """Write what is not up to date, and name it."""
    for path in documents():
        text = path.read_text("utf-8")
        if (new := written(text)) != text:
            path.write_text(new, "utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
