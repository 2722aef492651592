"""What `lraee-export` prints: whole lines where the output is no terminal, and which of two things a name means."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lraee_toolchain import cli
from lraee_toolchain.console import names_taken, summary
from lraee_toolchain.export import ExportResult

REPORT = f"""# reference: export report

## Exits

| exit after block | accuracy |
| --- | ---: |
| {"4 [bold]" * 30} | 87.3 % |

## Parity

Not shown.
"""


@pytest.fixture
def result(tmp_path: Path) -> ExportResult:
    """An export with a long name that rich would take for markup."""
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.md").write_text(REPORT, "utf-8")
    bundle = tmp_path / "[bold]" / ("a b" * 60 + ".lraee")
    return ExportResult(bundle=bundle, report=report, baselines=None)


def test_the_summary_is_not_wrapped_where_the_output_is_no_terminal(
    result: ExportResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables are those of the report, paths are whole, and the command can be pasted."""
    summary(result)
    lines = capsys.readouterr().out.splitlines()
    assert f"| {'4 [bold]' * 30} | 87.3 % |" in lines
    assert f"bundle     {result.bundle}" in lines
    assert f"report     {result.report / 'report.html'}" in lines
    assert f"measure it with: lraee-bench '{result.bundle}'" in lines
    assert "Not shown." not in lines


def test_a_path_cannot_act_on_a_terminal(result: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed with escapes."""
    summary(replace(result, bundle=Path("evil\x1b[2J.lraee")))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "bundle     evil\\x1b[2J.lraee" in printed


def test_names_that_are_files_here_too_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names go first; the path to the other is in the note."""
    monkeypatch.chdir(tmp_path)
    assert names_taken("reference", "imagenet") == []
    for name in ("reference", "ViT-B-32"):
        (tmp_path / name).mkdir()
    (tmp_path / "imagenet").write_text("cat\ndog\n")
    first, second = names_taken("reference", "imagenet")
    assert first == "reference is taken to be the shipped model; for the folder of that name, give ./reference"
    assert second.endswith("the shipped label set; for the file of that name, give ./imagenet")
    assert names_taken("ViT-B-32", None)[0].startswith("ViT-B-32 is taken to be the architecture of open_clip; ")
    assert names_taken("./reference", "./imagenet") == []


def test_the_command_says_which_model_a_name_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, before it begins; an error after it is one more line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference").mkdir()
    monkeypatch.setattr(sys, "argv", ["lraee-export", "reference", "-o", "x.zip"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("note: reference is taken to be the shipped model; ")
    assert error.startswith("lraee-export: --out is x.zip")
