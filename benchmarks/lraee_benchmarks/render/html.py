"""Results as one page that needs no other file and no network: of one measurement, or of several side by side.

python -m lraee_benchmarks.render.html RESULT.json... -o page.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from lraee.commands.terminal import errors_as_one_line, run_command
from lraee.errors import DataError
from lraee_benchmarks.output_files import check_writable, write_file
from lraee_benchmarks.render.wording import (
    RATIO_TITLE,
    accuracy_text,
    bundle_line,
    cold_start_line,
    depth_lines,
    device_line,
    energy_lines,
    exits_text,
    floor_lines,
    interval_text,
    kinds_line,
    lateness_lines,
    method_line,
    part_lines,
    peer_line,
    preprocessing_line,
    ratio_text,
    signed_percent,
    stability_line,
)
from lraee_benchmarks.results.model import Report, Row, from_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--muted:#60646c;--grid:#e0e3e8;--paper:#fff;--bar:#2f6fb3;--early:#3a8f5c;
--other:#a4acb8;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#edeef0;--muted:#a0a6b0;--grid:#363a42;--paper:#16181c;--bar:#6ea8e5;
--early:#69c08d;--other:#70788a;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:80rem;padding:1.5rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
p,li{overflow-wrap:anywhere}.muted{color:var(--muted)}.bad{color:var(--bad);font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile{border:1px solid var(--grid);border-radius:.5rem;padding:.75rem}
.tile b{display:block;font-size:1.5rem;line-height:1.3}
.tile span{color:var(--muted);font-size:.9rem}
.scroll{overflow-x:auto;margin-top:.75rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}
th,td{padding:.3rem .5rem;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap}
td.long{white-space:normal;min-width:11rem}
th:first-child,td:first-child{text-align:left}td.text,th.text{text-align:left}
th{color:var(--muted);font-weight:600;white-space:normal;vertical-align:bottom}
.bars{display:grid;grid-template-columns:minmax(5rem,max-content) 1fr max-content;gap:.35rem .75rem;align-items:center}
.bars .track{position:relative;height:1.1rem}
.bars .bar{position:absolute;inset:.1rem auto .1rem 0;background:var(--other);border-radius:.2rem}
.bars .adaptive{background:var(--early)}.bars .full{background:var(--bar)}
.bars .reach{position:absolute;top:50%;height:1px;background:var(--ink)}
.bars .name,.bars .value{font-size:.92rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
code,pre{font:.9em ui-monospace,monospace}pre{overflow-x:auto;padding:.75rem;border:1px solid var(--grid);
border-radius:.5rem}
"""


def page_of(report: Report) -> str:
    """The page of one measurement."""
    full, best = report.row(report.reference), _fastest_adaptive(report)
    tiles = [(f"{full.latency.p50_ms:.2f} ms", f"p50 at full depth ({full.name})")] if full is not None else []
    if best is not None:
        tiles.append((f"{best.latency.p50_ms:.2f} ms", f"p50 of {best.name}"))
        saved = f"{signed_percent(best.latency_saved)} / {signed_percent(best.flops_saved)}"
        tiles.append((saved, f"time and FLOPs that {best.name} saves"))
    float_row = report.row("fp32")
    if full is not None and float_row is not None:
        tiles.append((f"{float_row.latency.mean_ms / full.latency.mean_ms:.2f} x", "speed of full depth over FP32"))
    body = [
        f"<h1>lraee-bench: {escape(report.bundle.name)}</h1>",
        f'<p class="muted">{escape(device_line(report.device))}<br>{escape(report.created)}</p>',
        _tiles(tiles),
        _paragraph(stability_line(report.stability), bad=not report.stability.stable),
        *(_paragraph(line) for line in _header(report)),
        f"<h2>Latency of {report.settings.images_per_sample} image(s): p50, and a line to p99</h2>",
        _bars(report.rows),
        _table(_LATENCY_HEAD, [_latency(row) for row in report.rows]),
        f'<p class="muted">{escape(RATIO_TITLE)}.</p>',
        f"<h2>Saved against {escape(report.reference)}, the fastest full depth</h2>",
        _table([*_SAVING_HEAD, *(_ACCURACY_HEAD if report.accuracy_source else [])], [_saving(r) for r in report.rows]),
    ]
    for title, lines in (
        ("By the block where an image leaves", depth_lines(report)),
        ("Deadlines", lateness_lines(report)),
        ("Energy", energy_lines(report)),
        ("How far from the floor", floor_lines(report.floor) if report.floor is not None else []),
        ("Parts", part_lines(report.parts) if report.parts else []),
        ("What ran the rows", [peer_line(peer) for peer in report.peers]),
        ("Notes", list(report.notes)),
    ):
        if lines:
            body += [f"<h2>{title}</h2>", _list(lines)]
    body += ["<h2>Repeat it</h2>", f"<pre>{escape(report.settings.command)}</pre>"]
    return _page(f"lraee-bench: {report.bundle.name} on {report.device.model}", body)


def page_of_many(reports: Sequence[Report]) -> str:
    """Measurements side by side, those of one bundle together."""
    body = ["<h1>lraee-bench: results by device</h1>", '<p class="muted">One line for each file, as it was sent.</p>']
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.bundle.model, report.bundle.precision), []).append(report)
    for (model, precision), group in sorted(groups.items()):
        first = group[0].bundle
        body += [
            f"<h2>{escape(model)}, {escape(precision)}, {first.full_flops / 1e9:.3g} GFLOPs at full depth</h2>",
            _device_bars(group),
            _table(_DEVICE_HEAD, [_device(report) for report in group], text=(0, 1, 2, 9)),
        ]
    body += [
        '<p class="muted">Saved: latency of the row against the fastest full depth on the same device, in brackets '
        "FLOPs. INT8 over FP32: how many times as fast full depth is. Bundles of random weights show speed alone.</p>"
    ]
    return _page("lraee-bench: results by device", body)


@app.command()
def main(
    results: Annotated[list[Path], typer.Argument(help="Files that lraee-bench --json wrote, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")],
) -> None:
    """Render one result, or several side by side, as a page."""
    with errors_as_one_line():
        files = _files(results)
        if output.resolve() in [path.resolve() for path in files]:
            raise DataError(f"{output} is one of the results; give --output another name, such as page.html")
        check_writable(output)
        reports = [read_result(path) for path in files]
        if not reports:
            raise DataError(f"{results[0]} holds no .json; give files that lraee-bench --json wrote")
        write_file(output, page_of(reports[0]) if len(reports) == 1 else page_of_many(reports))


def read_result(path: Path) -> Report:
    """Read a file that ``--json`` wrote.

    Raises:
        DataError: it cannot be read, or is of another schema.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _files(paths: Iterable[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]


def _header(report: Report) -> list[str]:
    lines = [bundle_line(report.bundle), method_line(report), kinds_line(report), preprocessing_line(report)]
    return lines if report.cold_start is None else [*lines, cold_start_line(report.cold_start)]


_LATENCY_HEAD = ("row", "p50 ms", "95 % interval", "p90", "p99", "mean", "min", "images/s", "chain / row")
_SAVING_HEAD = ("row", "MFLOPs", "FLOPs saved", "latency saved", "95 % interval", "leaves behind block")
_ACCURACY_HEAD = ("top-1", "points to full")
_DEVICE_HEAD = (
    "device", "features", "threads, batch", "full depth, p50 ms", "images/s", "early exit, p50 ms", "saved",
    "INT8 over FP32", "peak MB", "stable",
)  # fmt: skip


def _latency(row: Row) -> list[str]:
    latency = row.latency
    times = (latency.p90_ms, latency.p99_ms, latency.mean_ms, latency.min_ms)
    interval = interval_text(latency.p50_interval_ms, "{:.2f}")
    rest = [f"{row.images_per_second:.1f}", ratio_text(row.chain_ratio)]
    return [row.name, f"{latency.p50_ms:.2f}", interval, *(f"{time:.2f}" for time in times), *rest]


def _saving(row: Row) -> list[str]:
    cells = [
        row.name,
        f"{row.flops / 1e6:,.2f}",
        signed_percent(row.flops_saved),
        signed_percent(row.latency_saved),
        interval_text(row.latency_saved_interval, "{:.1%}"),
        exits_text(row),
    ]
    return [*cells, *accuracy_text(row.accuracy)] if row.accuracy is not None else cells


def _device(report: Report) -> list[str]:
    full, best, float_row = report.row(report.reference), _fastest_adaptive(report), report.row("fp32")
    assert full is not None
    settings, cold = report.settings, report.cold_start
    scenario = "" if settings.scenario == "single-stream" else f", {settings.scenario}"
    return [
        report.device.model,
        ", ".join(report.device.int8_features) or "none",
        f"{settings.threads}, {settings.batch}{scenario}",
        f"{full.latency.p50_ms:.2f}",
        f"{full.images_per_second:.1f}",
        "-" if best is None else f"{best.latency.p50_ms:.2f} ({best.name.partition('=')[2]})",
        "-" if best is None else f"{signed_percent(best.latency_saved)} ({signed_percent(best.flops_saved)})",
        "-" if float_row is None else f"{float_row.latency.mean_ms / full.latency.mean_ms:.2f}",
        "-" if cold is None else f"{cold.peak_rss_bytes / 1e6:.0f}",
        "yes" if report.stability.stable else "NO",
    ]


def _fastest_adaptive(report: Report) -> Row | None:
    """The first operating point, which is the default one, if it saves anything; else none."""
    return next((row for row in report.rows if row.kind == "adaptive" and row.flops_saved > 0), None)


def _bars(rows: Sequence[Row]) -> str:
    longest = max(row.latency.p99_ms for row in rows)
    cells = []
    for row in rows:
        kind = "adaptive" if row.kind == "adaptive" else "full" if row.kind == "full" else ""
        cells.append(_bar(row.name, row.latency.p50_ms, row.latency.p99_ms, longest, kind))
    return f'<div class="bars">{"".join(cells)}</div>'


def _device_bars(reports: Sequence[Report]) -> str:
    pairs = [(report, row) for report in reports if (row := report.row(report.reference)) is not None]
    if len(pairs) < 2:
        return ""
    longest = max(row.latency.p50_ms for _, row in pairs)
    cells = [
        _bar(
            f"{report.device.model}, {report.settings.threads} thread(s), batch {report.settings.batch}",
            row.latency.p50_ms, row.latency.p50_ms, longest, "full",
        )
        for report, row in pairs
    ]  # fmt: skip
    return f'<div class="bars">{"".join(cells)}</div>'


def _bar(name: str, value: float, reach: float, longest: float, kind: str) -> str:
    width, line = 100 * value / longest, 100 * (reach - value) / longest
    bar = f'<span class="bar {kind}" style="width:{width:.2f}%"></span>'
    to_p99 = f'<span class="reach" style="left:{width:.2f}%;width:{line:.2f}%"></span>'
    return (
        f'<span class="name">{escape(name)}</span><span class="track">{bar}{to_p99}</span>'
        f'<span class="value">{value:.2f} ms</span>'
    )


def _tiles(tiles: Sequence[tuple[str, str]]) -> str:
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _paragraph(text: str, *, bad: bool = False) -> str:
    opening = '<p class="bad">' if bad else "<p>"
    return f"{opening}{escape(text)}</p>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


_LONG_CELL = 32
"""Characters from which on a cell of a table is broken into lines."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    def cell(tag: str, place: int, words: str) -> str:
        kind = "text" if place in text else "number"
        if len(words) > _LONG_CELL:
            kind, words = f"{kind} long", words.replace(": ", ":\u00a0")  # may break, but not within a pair
        return f"<{tag} class='{kind}'>{escape(words)}</{tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell(tag, place, words) for place, words in enumerate(cells))}</tr>"

    return f'<div class="scroll"><table>{line("th", head)}{"".join(line("td", row) for row in rows)}</table></div>'


def _page(title: str, body: Iterable[str]) -> str:
    inner = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{inner}\n</body></html>\n"
    )


if __name__ == "__main__":
    run_command(app, "python -m lraee_benchmarks.render.html")
