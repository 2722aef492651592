"""Finished folders appear at their targets together; a process that dies on the way loses nothing of the old ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lraee.errors import ExportError
from lraee_toolchain.bundle import targets as module
from lraee_toolchain.bundle.targets import KINDS, Targets, owner_of
from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.config.options import ExportConfig

RECORDS = {
    ".lraee": {"manifest.json": {"format": 1}},
    ".report": {"metrics.json": {"parity": [], "images": {}}},
    ".baselines": {"baselines.json": {"format": 1, "fingerprint": "f", "baselines": []}},
    ".adapted": {"adaptation.json": {"machine": "cpu", "epochs": []}},
    ".evaluation": {"evaluation.json": {"source": "photos", "images": {}}},
    ".single": {"single_file.json": {"bundle": "0", "point": "full"}},
}
OTHER_FILES = {".lraee": "stem.onnx", ".report": "report.md", ".baselines": "fp32.onnx"}
OTHER_FILES |= {".adapted": "open_clip_model.safetensors", ".evaluation": "images.zip", ".single": "x.onnx"}


class Killed(BaseException):
    """Stands for the death of the process."""


def folder(path: Path, text: str) -> Path:
    """A folder as an export writes it, recognizable by its text; its suffix says of which kind."""
    path.mkdir(parents=True)
    for name, record in RECORDS[path.suffix].items():
        (path / name).write_text(json.dumps({**record, "text": text}))
    (path / OTHER_FILES[path.suffix]).write_text(text)
    return path


def content(path: Path) -> str | None:
    """What a target holds: one text, or None when it is absent; anything mixed fails."""
    if not path.exists():
        return None
    (record,) = RECORDS[path.suffix]
    texts = {json.loads((path / record).read_text())["text"], (path / OTHER_FILES[path.suffix]).read_text()}
    assert {file.name for file in path.iterdir()} == {record, OTHER_FILES[path.suffix]}
    assert len(texts) == 1
    return texts.pop()


def contents(out: Path) -> dict[str, str | None]:
    """What bundle and companions hold, by suffix."""
    return {suffix: content(out.with_suffix(suffix)) for suffix in KINDS}


def finished(root: Path, *suffixes: str) -> dict[str, Path]:
    """Folders of finished stages."""
    return {suffix: folder(root / f"stage{suffix}", "new") for suffix in suffixes}


def config_of(out: Path, **options: Any) -> ExportConfig:
    """An export to `out`."""
    return ExportConfig(model="reference", out=out, **options)


def test_folders_are_installed_and_nothing_else_is_left(tmp_path: Path) -> None:
    """The finished stages stay where they were."""
    made, out = finished(tmp_path / "work", ".lraee", ".report"), tmp_path / "out" / "x.lraee"
    out.parent.mkdir()
    Targets(out).install(made)
    assert contents(out) == {**dict.fromkeys(KINDS), ".lraee": "new", ".report": "new"}
    assert {path.name for path in out.parent.iterdir()} == {"x.lraee", "x.report"}
    assert [content(path) for path in made.values()] == ["new", "new"]


def test_companions_of_the_old_bundle_are_replaced_or_removed(tmp_path: Path) -> None:
    """Those that the new export makes, and those that it does not; files that only an old folder had are gone."""
    out = tmp_path / "out" / "x.lraee"
    for suffix in KINDS:
        folder(out.with_suffix(suffix), "old")
    (out / "exit_03.onnx").write_text("of the old bundle")
    Targets(out).check(config_of(out, baselines=True, overwrite=True))
    Targets(out).install(finished(tmp_path / "work", ".lraee", ".report", ".baselines"))
    assert contents(out) == {**dict.fromkeys(KINDS), ".lraee": "new", ".report": "new", ".baselines": "new"}
    assert {path.name for path in out.parent.iterdir()} == {"x.lraee", "x.report", "x.baselines"}


@pytest.mark.parametrize("suffix", [".adapted", ".baselines", ".evaluation", ".single"])
def test_a_folder_of_the_users_that_merely_has_the_name_stays(suffix: str, tmp_path: Path) -> None:
    """An open_clip folder of their own, baselines made by hand: no record of an export lies there."""
    out = folder(tmp_path / "x.lraee", "old")
    mine = out.with_suffix(suffix)
    mine.mkdir()
    (mine / OTHER_FILES[suffix]).write_text("mine")
    assert owner_of(mine) == "others"
    Targets(out).check(config_of(out, overwrite=True))
    Targets(out).install(finished(tmp_path / "work", ".lraee", ".report"))
    assert content(out) == "new"
    assert [(path.name, path.read_text()) for path in mine.iterdir()] == [(OTHER_FILES[suffix], "mine")]


@pytest.mark.parametrize("suffix", KINDS)
def test_what_others_wrote_is_not_replaced(suffix: str, tmp_path: Path) -> None:
    """Not even with --overwrite, and whatever kind of thing it is; the line says what was met and what to do."""
    out = tmp_path / "x.lraee"
    target = out.with_suffix(suffix)
    config = config_of(out, baselines=True, adapt=Adaptation(), evaluate_share=0.2, single_file=True, overwrite=True)
    (record,) = RECORDS[suffix]

    def refused(words: str) -> None:
        with pytest.raises(ExportError) as caught:
            Targets(out).check(config)
        assert str(caught.value) == f"{target} {words}, so it is not replaced; move it, or choose another --out"

    target.mkdir()
    Targets(out).check(config)  # an empty folder is nobody's
    (target / OTHER_FILES[suffix]).write_text("mine")
    refused(f"has no {record} of an export")
    (target / "thesis.tex").write_text("mine")
    refused("holds thesis.tex, which no export writes there")
    (target / record).write_text(json.dumps(RECORDS[suffix][record]))
    refused("holds thesis.tex, which no export writes there")
    shutil.rmtree(target)
    target.symlink_to(folder(tmp_path / f"elsewhere{suffix}", "old"))
    refused("is a link")
    target.unlink()
    target.write_text("mine")
    refused("is a file")


def test_what_others_put_into_a_companion_is_not_removed_with_it(tmp_path: Path) -> None:
    """The export ends before any work; what file managers leave behind is no reason."""
    out = folder(tmp_path / "x.lraee", "old")
    adapted = folder(out.with_suffix(".adapted"), "old")
    (adapted / ".DS_Store").write_bytes(b"")
    assert owner_of(adapted) == "lraee"
    (adapted / "notes.md").write_text("mine")
    with pytest.raises(ExportError, match=r"x\.adapted holds notes\.md, which no export writes there"):
        Targets(out).check(config_of(out, overwrite=True))


def test_companions_without_their_bundle_are_removed_only_when_told(tmp_path: Path) -> None:
    """Else they would be taken for the new bundle's."""
    out = tmp_path / "x.lraee"
    folder(out.with_suffix(".baselines"), "old")
    with pytest.raises(ExportError, match=r"x\.baselines exists; choose another --out, or pass --overwrite to remove"):
        Targets(out).check(config_of(out))
    Targets(out).check(config_of(out, overwrite=True))


def test_an_export_that_died_while_installing_may_replace_its_own(tmp_path: Path) -> None:
    """The report lay there already and the bundle did not: the same command goes on. A report of others is refused."""
    targets = Targets(tmp_path / "clip.lraee")
    config = config_of(targets.out)
    folder(tmp_path / "clip.report", "new")
    with pytest.raises(ExportError, match=r"clip\.report exists"):
        targets.check(config)
    targets.installing.touch()
    targets.check(config)
    targets.recover()
    targets.check(config)
    folder(targets.out, "new")  # it had died after its last step
    with pytest.raises(ExportError, match=r"clip\.lraee exists"):
        targets.check(config)
    targets.recover()
    assert not targets.installing.exists()


class Mortal:
    """Counts steps that change the disk; from one of them on, none has any effect, as for a process that died."""

    def __init__(self, patch: pytest.MonkeyPatch, death: int) -> None:
        self.steps, self.death = 0, death
        for owner, names in ((shutil, ("copyfile", "rmtree")), (Path, ("rename", "touch", "unlink", "mkdir"))):
            for name in names:
                patch.setattr(owner, name, self._counted(getattr(owner, name)))
        patch.setattr(module, "sync_tree", self._counted(module.sync_tree))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self.steps += 1
            if self.steps > self.death:
                raise Killed
            return function(*arguments, **options)

        return step


@pytest.mark.parametrize("old", [True, False], ids=["over-an-old-one", "fresh"])
def test_dying_at_any_step_loses_nothing(old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle is old, new, or absent with the old one aside; the next export puts all back, or clears up, and ends.

    It replaces the report, brings baselines, and removes the tuned model and the images that were held back.
    """
    made = finished(tmp_path / "work", ".lraee", ".report", ".baselines")
    before: dict[str, str | None] = dict.fromkeys(KINDS, "old" if old else None) | {".baselines": None}
    after = {**dict.fromkeys(KINDS), ".lraee": "new", ".report": "new", ".baselines": "new"}
    death, met = 0, set()
    while True:
        out = tmp_path / f"out-{death}" / "x.lraee"
        out.parent.mkdir()
        for suffix, text in before.items():
            if text is not None:
                folder(out.with_suffix(suffix), text)
        with monkeypatch.context() as patch:
            mortal = Mortal(patch, death)
            try:
                Targets(out).install(made)
            except Killed:
                pass
            else:
                break
        found, aside = content(out), out.with_name(".x.lraee.replaced")
        assert found in {before[".lraee"], "new", None}
        if old and found is None:
            shutil.copytree(aside, aside.with_name("saved.lraee"))
            assert content(aside.with_name("saved.lraee")) == "old"
            shutil.rmtree(aside.with_name("saved.lraee"))
        Targets(out).recover()
        there = contents(out)
        if there[".lraee"] == "new":
            assert there == after
        elif old:
            assert {**there, ".baselines": None} == before
        met.add(there[".lraee"])
        Targets(out).check(config_of(out, baselines=True, overwrite=out.exists()))
        Targets(out).install(made)
        assert contents(out) == after
        assert {path.name for path in out.parent.iterdir()} == {"x.lraee", "x.report", "x.baselines"}
        death += 1
    assert mortal.steps > 20
    assert met == ({"old", "new"} if old else {None, "new"})


@pytest.mark.parametrize("failing", range(1, 7))
def test_an_error_while_moving_makes_all_as_it_was(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever rename it comes."""
    made = finished(tmp_path / "work", ".lraee", ".report", ".baselines")
    out = tmp_path / "out" / "x.lraee"
    for suffix in (".lraee", ".report", ".adapted"):
        folder(out.with_suffix(suffix), "old")
    before, rename, count = contents(out), Path.rename, 0

    def some(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == failing:
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", some)
        with pytest.raises(ExportError, match="Permission denied"):
            Targets(out).install(made)
    assert contents(out) == before
    assert {path.name for path in out.parent.iterdir()} == {"x.lraee", "x.report", "x.adapted"}
    Targets(out).install(made)
    assert contents(out)[".lraee"] == "new"
