"""The command says in one line what is wrong, and what to do, before anything is started."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lraee.errors import MissingExtraError, SettingsError
from lraee_toolchain.ray import api
from lraee_toolchain.ray.__main__ import app, parse_blocks

from .conftest import Pictures


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit status, and what is said on stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classify", "no-such-bundle"), "error: no-such-bundle is not a folder"),
        (("classify", "reference", "--policy", "deadline=5"), "have no common start for a deadline"),
        (("embed", "reference", "--policy", "soon"), "'soon' is not a policy"),
        (("features", "reference", "--token-blocks", "6;8"), "--token-blocks is '6;8', wanted blocks counted from 1"),
        (
            ("features", "reference", "--token-blocks", "8,6"),
            "token_blocks is (8, 6), wanted different blocks in rising",
        ),
        (("embed", "reference", "--image-column", "jpg"), "encoded images, or pass --image-column"),
    ],
)
def test_an_error_is_one_line_with_what_to_do(
    arguments: tuple[str, ...], message: str, pictures: Pictures, tmp_path: Path
) -> None:
    """And exit status 1; no output folder is made."""
    status, said = run(*arguments[:2], pictures.parquet, *arguments[2:], "-o", tmp_path / "out")
    assert status == 1
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_of_others_is_refused_with_the_option_that_replaces_it(pictures: Pictures, tmp_path: Path) -> None:
    """The record of the other run is enough."""
    from lraee_toolchain.ray import Settings
    from lraee_toolchain.ray.output import opened_output
    from lraee_toolchain.ray.run import prepare

    job, record = prepare("embed", "reference", pictures.zip, tmp_path / "out", Settings(shard_size=4))
    with opened_output(job.out, record, overwrite=False):
        pass
    status, said = run("embed", "reference", pictures.zip, "-o", tmp_path / "out", "--shard-size", "5")
    assert status == 1
    assert "its shard_size is 4, wanted 5; give another output folder, or pass --overwrite" in said


def test_blocks_are_parsed_as_they_are_typed() -> None:
    """With blanks or without, and none at all."""
    assert parse_blocks("6, 8") == (6, 8)
    assert parse_blocks(" ") == ()
    with pytest.raises(SettingsError, match="wanted blocks counted from 1"):
        parse_blocks("6,,8")


@pytest.mark.parametrize(("missing", "extra"), [("pyarrow", "ray"), ("torch", "export")])
def test_without_the_extra_the_message_is_the_install_command(
    missing: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything else; features need the extra of exports too."""
    find = importlib.util.find_spec
    monkeypatch.setattr(api, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(MissingExtraError, match=rf"needs {missing}, .*; run: pip install 'lraee\[{extra}\]'"):
        api.features("reference", tmp_path, tmp_path / "out")
