"""A finished folder appears at its target at once; a process that dies on the way never leaves half of it there."""

import shutil
from pathlib import Path

import pytest

from lraee_toolchain import bundle
from lraee_toolchain.bundle import put_in_place, stage_copies


class Killed(BaseException):
    """Stands for the death of the process."""


def install(finished: Path, target: Path) -> None:
    """Copy a finished folder to its target, as an export does with several."""
    stage_copies([(finished, target)])
    put_in_place(target)


def folder(path: Path, text: str) -> Path:
    """A folder with two files."""
    path.mkdir()
    (path / "a.txt").write_text(text)
    (path / "b.txt").write_text(text)
    return path


def content(path: Path) -> str | None:
    """What a target holds: one text, or None when it is absent; anything mixed fails."""
    if not path.exists():
        return None
    texts = [(path / name).read_text() for name in ("a.txt", "b.txt")]
    assert texts[0] == texts[1]
    return texts[0]


def test_a_folder_is_installed_and_nothing_else_is_left(tmp_path: Path) -> None:
    """The finished stage stays where it was."""
    new = folder(tmp_path / "new", "new")
    install(new, tmp_path / "x.lraee")
    assert content(tmp_path / "x.lraee") == content(new) == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "x.lraee"}


def test_an_old_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Files that only the old one had are gone."""
    old = folder(tmp_path / "x.lraee", "old")
    (old / "exit_03.onnx").write_text("of the old bundle")
    install(folder(tmp_path / "new", "new"), old)
    assert sorted(path.name for path in old.iterdir()) == ["a.txt", "b.txt"]
    assert content(old) == "new"


@pytest.mark.parametrize("old", [True, False], ids=["over-an-old-one", "fresh"])
@pytest.mark.parametrize("death", range(14))
def test_dying_at_any_step_leaves_the_old_the_new_or_nothing(
    death: int, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each step; the next call finishes the work and clears what was left."""
    target = tmp_path / "x.lraee"
    new = folder(tmp_path / "new", "new")
    if old:
        folder(target, "old")
    count = 0

    def counted(function):
        def step(*arguments, **options):
            nonlocal count
            count += 1
            if count == death // 2 + 1 and death % 2 == 0:
                raise Killed
            result = function(*arguments, **options)
            if count == death // 2 + 1 and death % 2 == 1:
                raise Killed
            return result

        return step

    with monkeypatch.context() as patch:
        for name in ("copytree", "rmtree"):
            patch.setattr(shutil, name, counted(getattr(shutil, name)))
        patch.setattr(bundle, "sync_tree", counted(bundle.sync_tree))
        patch.setattr(Path, "rename", counted(Path.rename))
        try:
            install(new, target)
        except Killed:
            assert content(target) in ({"old", "new", None} if old else {"new", None})
            survivors = [content(path) for path in tmp_path.glob(".x.lraee.replaced") if len(list(path.iterdir())) == 2]
            if old and content(target) is None:
                assert survivors == ["old"]
    install(new, target)
    assert content(target) == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "x.lraee"}
