"""What mkdocs does for the site beyond its settings: links to files of the repository work.

A document links to other files by their place in the repository, so that the links work wherever the repository is
read. On the site, each file that a page links to outside ``docs`` is copied below ``repository``, Markdown becomes a
page, and the links are turned there. A link to a file that does not exist stays as it is, and ``--strict`` refuses it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")
"""The start of a link or picture and its address, without the part after ``#``."""


def on_files(files: Files, config: Any) -> Files:
    """Add every file of the repository that a page links to, and what those link to."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for _, address in LINK.findall(page.read_text("utf-8")):
            target = (page.parent / address).resolve()
            if target in seen or not target.is_file() or target.is_relative_to(DOCS) or ROOT not in target.parents:
                continue
            seen.add(target)
            copy = File.generated(config, str(place(target)), abs_src_path=str(target))
            copy.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(copy)
            if target.suffix == ".md":
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to where their targets are on the site."""
    source = Path(page.file.abs_src_path)

    def turned(found: re.Match[str]) -> str:
        target = (source.parent / found[2]).resolve()
        if not target.is_file():
            return found[0]
        return found[1] + Path(os.path.relpath(place(target), Path(page.file.src_uri).parent)).as_posix()

    return LINK.sub(turned, markdown)


def place(path: Path) -> Path:
    """Where a file of the repository is on the site."""
    return path.relative_to(DOCS) if path.is_relative_to(DOCS) else "repository" / path.relative_to(ROOT)
