"""A report as a short Markdown page: where, what, two tables, how to repeat it, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence

from lraee_benchmarks.render.report_tables import latency_table, saving_table
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import details, head_lines, peer_line, stability_line
from lraee_benchmarks.results.model import Report


def render_markdown(report: Report) -> str:
    """Render the page, which ends with a newline."""
    blocks = [
        f"# lraee-bench: {report.bundle.name}",
        _list([*head_lines(report), stability_line(report.stability)]),
        *_table(latency_table(report)),
        *(_list(lines) for _, lines in details(report)),
        *_table(saving_table(report)),
        "What ran the rows:",
        _list([peer_line(peer) for peer in report.peers]),
        *([_list(report.notes)] if report.notes else []),
        "Repeat it with:",
        f"```bash\n{report.settings.command}\n```",
    ]
    return "\n\n".join(blocks) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(table: Table) -> list[str]:
    return [f"{table.title}:", table.to_markdown(), *([table.note] if table.note else [])]
