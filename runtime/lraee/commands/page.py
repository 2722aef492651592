"""Makes the page of ``python -m lraee classify --html``: each image with its answer and the block where it left."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lraee.commands.output_files import check_writable, write_file
from lraee.commands.truth import Truth
from lraee.errors import DataError
from lraee.images.read import ImageSource, open_image
from lraee.model import Model
from lraee.prediction import Prediction

LARGEST = 320
"""Pixels of a picture's longer side on the page, at most."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --paper: #fff; --muted: #61615c; --line: #d9d9d2; --bar: #3b6ea8;
  --right: #1b7a3d; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #ecece6; --paper: #161615; --muted: #a3a39c; --line: #3a3a37;
  --bar: #7fb0e6; --right: #6fce8f; --wrong: #ff8a80; } }
body { margin: 0 auto; max-width: 70rem; padding: 1.2rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1.2rem; margin: 1.4rem 0;
  padding: 0; }
li { list-style: none; min-width: 0; overflow-wrap: anywhere; }
img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #000; border-radius: 6px;
  border-bottom: 5px solid var(--line); }
.right img { border-color: var(--right); }
.wrong img { border-color: var(--wrong); }
b { display: block; margin-top: .4rem; }
.right b { color: var(--right); }
.wrong b { color: var(--wrong); }
meter { display: block; width: 100%; height: .6rem; margin: .2rem 0; accent-color: var(--bar); }
small, .note { color: var(--muted); }
small { display: block; font-size: .82rem; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One image on the page."""

    name: str
    jpeg: bytes
    answer: Prediction
    truth: Truth | None

    @property
    def right(self) -> bool | None:
        """Whether the answer is the right label; None where nobody said which is."""
        return None if self.truth is None or self.truth.label is None else self.truth.label == self.answer.label


def check_page(path: Path, images: Sequence[str], truth: Path | None) -> None:
    """Find out, before anything runs, whether the page can be written without harm.

    Raises:
        DataError: it would replace one of the images or the table, or cannot be written.
    """
    for source in (*images, *([] if truth is None else [str(truth)])):
        if os.path.realpath(source) == os.path.realpath(path):
            raise DataError(f"the page {path} would replace {source}, which is read; give the page another name")
    check_writable(path)


class AnswerPage:
    """Gathers images with their answers, and writes them as one file without links to others."""

    def __init__(self, model: Model, truth: dict[str, Truth]) -> None:
        """Begin an empty page.

        Args:
            model: that answers.
            truth: of `lraee.commands.truth.read_truth`; may be empty.
        """
        self._model, self._truth = model, truth
        self._shown: list[_Shown] = []

    def add(self, name: str, answer: Prediction, source: ImageSource | None) -> None:
        """Add an image.

        Args:
            name: as it was given, for people.
            answer: the model's.
            source: of the image, which is read once more; None where the page will not be written.

        Raises:
            ImageError: the image cannot be read any more.
        """
        file = io.BytesIO()
        if source is not None:
            picture = open_image(source, name=name, reading=self._model.reading)
            picture.thumbnail((LARGEST, LARGEST))
            picture.save(file, "JPEG", quality=85)
        truth = self._truth.get(os.path.realpath(name))
        self._shown.append(_Shown(name=name, jpeg=file.getvalue(), answer=answer, truth=truth))

    @property
    def summary(self) -> str:
        """Say in a sentence or two how many answers are right, how many images left early, and what they cost."""
        count = len(self._shown)
        if not count:
            return "No image could be read."
        cost = sum(shown.answer.flops for shown in self._shown) / count / self._model.manifest.full_flops
        early = sum(shown.answer.early for shown in self._shown)
        judged = [shown.right for shown in self._shown if shown.right is not None]
        verdict = (
            f" {sum(judged)} of {len(judged)} answers are right, {len(judged) - sum(judged)} wrong." if judged else ""
        )
        images = "1 image" if count == 1 else f"{count} images"
        return f"{images}, of which {early} left early; on average {cost:.1%} of the FLOPs of full depth.{verdict}"

    def write(self, path: Path) -> None:
        """Write the page; a page that was there stays whole until the new one is.

        Raises:
            DataError: it cannot be written.
        """
        write_file(path, self._html())

    def _html(self) -> str:
        bundle = html.escape(self._model.bundle.folder.name)
        items = "\n".join(self._item(shown) for shown in self._shown)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{bundle}: answers</title>\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
            f"<body><h1>What {bundle} says</h1>\n<p>{html.escape(self.summary)}</p>\n"
            '<p class="note">Bars show how deep each image went. A green or red edge marks a right or wrong answer '
            f"where the right one is known.</p>\n<ul>\n{items}\n</ul></body></html>\n"
        )

    def _item(self, shown: _Shown) -> str:
        answer, depth = shown.answer, self._model.manifest.tower.blocks
        kind = {True: "right", False: "wrong", None: ""}[shown.right]
        where = f"left after block {answer.exit_block} of {depth}" if answer.early else f"ran all {depth} blocks"
        cost = f"{answer.flops / self._model.manifest.full_flops:.0%} of the FLOPs"
        lines = [f"{where}, {cost}"]
        if shown.right is False and shown.truth is not None:
            lines.insert(0, f"wrong: it is {shown.truth.label}")
        lines.append(Path(shown.name).name)
        if shown.truth is not None and shown.truth.credit:
            lines.append(shown.truth.credit)
        data = base64.b64encode(shown.jpeg).decode("ascii")
        small = "".join(f"<small>{html.escape(line)}</small>" for line in lines)
        return (
            f'<li class="{kind}"><img alt="{html.escape(Path(shown.name).name)}" src="data:image/jpeg;base64,{data}">'
            f"<b>{html.escape(answer.label)} {answer.score:.0%}</b>"
            f'<meter min="0" max="{depth}" value="{answer.exit_block}"></meter>{small}</li>'
        )
