"""The work folder: a stage is made once, whole or not at all, and found by everything it depends on."""

from pathlib import Path

import pytest

from lraee.errors import ExportError
from lraee_toolchain.cache import WorkFolder, key_of


def write(text: str):
    """A stage that writes one file."""

    def make(folder: Path) -> None:
        (folder / "result.txt").write_text(text)

    return make


def refuse(folder: Path) -> None:
    """A stage that must not run."""
    raise AssertionError(f"{folder} is made again")


def test_a_finished_stage_is_found_and_not_made_again(tmp_path: Path) -> None:
    """Also by another object, as after a restart."""
    seen: list[tuple[str, bool]] = []
    first = WorkFolder(tmp_path / "work", lambda name, found: seen.append((name, found)))
    folder = first.stage("ranges", {"method": "minmax", "n": 1}, write("a"))
    again = WorkFolder(tmp_path / "work", lambda name, found: seen.append((name, found)))
    assert again.stage("ranges", {"n": 1, "method": "minmax"}, refuse) == folder
    assert (folder / "result.txt").read_text() == "a"
    assert seen == [("ranges", False), ("ranges", True)]


@pytest.mark.parametrize("inputs", [{"n": 2}, {"n": "1"}, {"n": 1.5}, {"n": 1, "m": None}, {"n": [1]}, {}])
def test_any_other_input_is_another_stage(tmp_path: Path, inputs: dict[str, object]) -> None:
    """A value, its type, a key more or less."""
    work = WorkFolder(tmp_path)
    folder = work.stage("x", {"n": 1}, write("a"))
    assert work.stage("x", inputs, write("b")) != folder
    assert work.stage("y", {"n": 1}, write("c")) != folder


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt()])
def test_a_stage_that_raises_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    """Not even its half-written files; the next attempt makes it whole."""

    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise error

    work = WorkFolder(tmp_path)
    with pytest.raises(type(error)):
        work.stage("x", {}, fail)
    assert list(tmp_path.iterdir()) == []
    assert [path.name for path in work.stage("x", {}, write("a")).iterdir()] == ["result.txt"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """A folder that was being written says nothing about its stage; finished stages stay."""
    folder = WorkFolder(tmp_path).stage("x", {}, write("a"))
    for stale in (tmp_path / ".writing-y-123", tmp_path / f".writing-{folder.name}"):
        stale.mkdir()
        (stale / "half.bin").write_bytes(b"half")
    with WorkFolder(tmp_path):
        assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / ".lock"])


def test_two_exports_never_share_a_work_folder_at_once(tmp_path: Path) -> None:
    """The second is refused while the first runs, and welcome after it."""
    with WorkFolder(tmp_path), pytest.raises(ExportError, match="in use by another export"), WorkFolder(tmp_path):
        pass
    with WorkFolder(tmp_path):
        pass


def test_a_stage_is_nowhere_to_be_seen_until_it_is_finished(tmp_path: Path) -> None:
    """While it is made, its name does not exist."""
    work = WorkFolder(tmp_path)

    def look(folder: Path) -> None:
        names = [path.name for path in tmp_path.iterdir()]
        assert names == [folder.name]
        assert folder.name.startswith(".writing-x-")

    assert work.stage("x", {}, look).name.startswith("x-")


def test_keys_do_not_depend_on_the_order_of_the_inputs() -> None:
    """And are short, since they are part of a file name."""
    assert key_of({"a": 1, "b": [2, {"c": 3}]}) == key_of({"b": [2, {"c": 3}], "a": 1})
    assert key_of({"a": Path("x")}) == key_of({"a": "x"})
    assert len(key_of({})) == 16


def test_a_work_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """Not even the superuser can make one inside a file."""
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "work"):
        with pytest.raises(ExportError, match=r"cannot be used .*; give another --work or --out"):
            WorkFolder(root)


def test_a_work_folder_that_cannot_be_locked_is_said(tmp_path: Path) -> None:
    """Something else is where its lock belongs."""
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ExportError, match=r"cannot be used \(Is a directory\)"), WorkFolder(tmp_path):
        pass
