"""How ``python -m lraee classify`` prints answers: each as soon as it is there, in one of three forms.

- JSON, one object a line, for programs;
- lines with tabs between the cells, where the output is not a terminal: one for each image, however many labels are
listed;
- a table on a terminal, whose column widths are fixed before the first answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lraee.commands.info import plain_table
from lraee.commands.terminal import print_line, printable, show, tab_separated
from lraee.model import Model
from lraee.prediction import Prediction

Printer = Callable[[str, Prediction], None]
"""Called with the name of each image and its answer."""

COLUMNS = ("image", "label", ">probability", ">left after block", ">FLOPs of full depth")
"""As in `lraee.commands.info.plain_table`."""

_WIDEST_LABEL = 40
"""Columns of a terminal that labels get at most; longer ones are folded."""


_NARROWEST_NAME = 12
"""Columns of a terminal that names get at least, although it then breaks lines itself."""


def json_object(name: str, answer: Prediction, model: Model) -> dict[str, object]:
    """Describe the answer for one image; the documentation explains the fields."""
    return {
        "image": name,
        "label": answer.label,
        "score": answer.score,
        "top": [{"label": label, "score": score} for label, score in answer.top],
        "exit_block": answer.exit_block,
        "blocks": model.manifest.tower.blocks,
        "early": answer.early,
        "gate": answer.gate,
        "flops": answer.flops,
        "full_flops": model.manifest.full_flops,
    }


def printer(model: Model, names: Sequence[str], *, top: int, as_json: bool) -> Printer:
    """Choose the form in which answers are printed.

    Args:
        model: that answers.
        names: of all images to come.
        top: labels listed for each image.
        as_json: JSON, whatever the output is.
    """
    if as_json:
        return lambda name, answer: print_line(json.dumps(json_object(name, answer, model)))
    return _Table(model, names) if sys.stdout.isatty() else _Lines(model, top)


def _facts(answer: Prediction, model: Model) -> tuple[str, str, str, str]:
    """Format label, probability, block and share of FLOPs."""
    depth = f"{answer.exit_block} of {model.manifest.tower.blocks}"
    return answer.label, f"{answer.score:.3f}", depth, f"{answer.flops / model.manifest.full_flops:.1%}"


class _Lines:
    """Prints a line of heads before the first answer; further labels and probabilities follow the other cells."""

    def __init__(self, model: Model, top: int) -> None:
        self._model = model
        more = [
            f"{word} {rank}" for rank in range(2, min(top, len(model.labels)) + 1) for word in ("label", "probability")
        ]
        self._heads = [*(column.removeprefix(">") for column in COLUMNS), *more]

    def __call__(self, name: str, answer: Prediction) -> None:
        if self._heads:
            print_line(tab_separated(self._heads))
            self._heads = []
        more = [cell for label, score in answer.top[1:] for cell in (label, f"{score:.3f}")]
        print_line(tab_separated([name, *_facts(answer, self._model), *more]))


class _Table:
    """Prints a row for each label that is listed, the first with the name of the image."""

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        self._model = model
        heads = [len(column.removeprefix(">")) for column in COLUMNS]
        label = min(max(cell_len(printable(label)) for label in model.labels), _WIDEST_LABEL)
        self._widths = [max(cell_len(printable(name)) for name in names), label, *heads[2:]]
        self._widths = list(map(max, self._widths, heads))
        rest = Console().width - sum(self._widths[1:]) - 2 * len(heads)
        self._widths[0] = max(min(self._widths[0], rest), _NARROWEST_NAME)
        self._has_heads = False

    def __call__(self, name: str, answer: Prediction) -> None:
        table = plain_table(*COLUMNS)
        table.show_header, self._has_heads = not self._has_heads, True
        for column, width in zip(table.columns, self._widths, strict=True):
            column.width = width
        _, _, depth, cost = _facts(answer, self._model)
        for rank, (label, score) in enumerate(answer.top):
            cells = (name, label, f"{score:.3f}", depth, cost) if rank == 0 else ("", label, f"{score:.3f}", "", "")
            table.add_row(*map(Text, map(printable, cells)))
        show(table)
