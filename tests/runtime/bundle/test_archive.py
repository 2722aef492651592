"""A bundle in one zip file answers as the folder does, and an archive from elsewhere is not believed."""

from __future__ import annotations

import gc
import json
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import lraee
from lraee.bundle import archive
from lraee.bundle.archive import write_archive
from lraee.bundle.folder import Bundle, find_bundle
from lraee.cli import app
from lraee.errors import BundleError

GOLDEN = Path(__file__).parents[1] / "golden"
Entry = tuple[zipfile.ZipInfo, bytes]


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    """A golden bundle as an archive."""
    bundle = Bundle(GOLDEN / "format_3.lraee")
    write_archive(bundle.folder, bundle.manifest, tmp_path / "small.zip")
    return tmp_path / "small.zip"


def rewritten(path: Path, change: Callable[[list[Entry]], Any]) -> Path:
    """The archive with its entries changed."""
    with zipfile.ZipFile(path) as source:
        entries = [(info, source.read(info)) for info in source.infolist()]
    change(entries)
    other = path.with_name("other.zip")
    with warnings.catch_warnings(), zipfile.ZipFile(other, "w") as target:
        warnings.simplefilter("ignore")  # of one name twice, which is meant
        for info, content in entries:
            target.writestr(info, content)
    return other


def test_it_answers_as_the_folder_and_leaves_nothing_behind(zipped: Path) -> None:
    """Also copied into another process; the temporary folder goes with the last bundle that reads from it."""
    with np.load(GOLDEN / "format_3.expected.npz") as stored:
        expected = dict(stored)
    model = lraee.load(zipped, threads=1, verify="all")
    assert model.bundle.place == zipped
    for point in ("balanced", "accurate"):
        answers = model.run_pixels(expected["pixels"], policy=lraee.Adaptive(point))
        np.testing.assert_array_equal(answers.exit_block, expected[f"{point}_exit_block"])
        np.testing.assert_array_equal(answers.probabilities.argmax(axis=1), expected[f"{point}_label"])
    copied = pickle.loads(pickle.dumps(model))
    assert copied.bundle.place == zipped
    assert copied.bundle.folder != model.bundle.folder
    opened = Bundle(zipped)
    folder = opened.folder
    assert (folder / "manifest.json").is_file()
    del opened
    assert not folder.exists()
    assert "small.zip" in repr(model)


def test_a_child_that_was_forked_leaves_the_folder_to_its_parent(zipped: Path) -> None:
    """It drops its copy of the bundle and ends as programs do."""
    opened = Bundle(zipped)
    child = os.fork()
    if child == 0:
        del opened
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert (opened.folder / "manifest.json").is_file()


def test_the_bytes_depend_on_the_bundle_alone(zipped: Path, tmp_path: Path) -> None:
    """And a bundle that came from an archive is zipped to the same one."""
    again = Bundle(zipped)
    write_archive(again.folder, again.manifest, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == zipped.read_bytes()


def test_an_archive_that_others_made_is_read(zipped: Path) -> None:
    """With one folder around all files, compressed, and with notes beside them, which are not unpacked."""

    def change(entries: list[Entry]) -> None:
        for info, _ in entries:
            info.filename = f"small.lraee/{info.filename}"
            info.compress_type = zipfile.ZIP_DEFLATED
        entries.append((zipfile.ZipInfo("small.lraee/NOTES.txt"), b"mine"))
        entries.insert(0, (zipfile.ZipInfo("small.lraee/"), b""))

    opened = Bundle(rewritten(zipped, change))
    opened.verify()
    assert not (opened.folder / "NOTES.txt").exists()


def named(name: str) -> Callable[[list[Entry]], None]:
    """Adds an entry of this name."""
    return lambda entries: entries.append((zipfile.ZipInfo(name), b"x"))


def linked(entries: list[Entry]) -> None:
    """Makes the last entry a symbolic link."""
    entries[-1][0].external_attr = (stat.S_IFLNK | 0o777) << 16


def grown(entries: list[Entry]) -> None:
    """Makes a file larger than the manifest says."""
    entries[3] = (entries[3][0], entries[3][1] + b"\0" * 100)


def damaged(entries: list[Entry]) -> None:
    """Changes one byte of weights, with a right checksum in the archive."""
    at = next(place for place, (info, _) in enumerate(entries) if info.filename == "block_02.data")
    content = bytearray(entries[at][1])
    content[100] ^= 1
    entries[at] = (entries[at][0], bytes(content))


def too_large(entries: list[Entry]) -> None:
    """The manifest promises files of terabytes."""
    manifest = json.loads(entries[0][1])
    for file in manifest["files"]:
        file["size_bytes"] = 2**42
    entries[0] = (entries[0][0], json.dumps(manifest).encode())


CHANGES: dict[str, tuple[Callable[[list[Entry]], Any], str]] = {
    "a path out of it": (named("../evil.txt"), "is not a plain file beside manifest.json"),
    "an absolute path": (named("/etc/evil"), "is not a plain file beside manifest.json"),
    "a Windows path": (named("..\\evil"), "is not a plain file beside manifest.json"),
    "a folder inside": (named("weights/evil.onnx"), "is not a plain file beside manifest.json"),
    "a link": (linked, "is not a plain file beside manifest.json"),
    "one name twice": (named("stem.onnx"), "has 'stem.onnx' twice"),
    "a file of another size": (grown, "the manifest says"),
    "a file that is missing": (lambda entries: entries.pop(2), "is missing from other.zip"),
    "no manifest": (lambda entries: entries.pop(0), "has no manifest.json"),
    "a manifest that is none": (lambda entries: entries.__setitem__(0, (entries[0][0], b"[]")), "format is None"),
    "a promise of terabytes": (too_large, "wanted at most"),
    "thousands of files": (lambda entries: [named(f"n{i}")(entries) for i in range(2000)], "more than any bundle"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_archive_that_is_none_of_ours_is_refused(
    change: str, zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and nothing is left in the temporary folder, nor written beside it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    what, message = CHANGES[change]
    with pytest.raises(BundleError, match=message):
        Bundle(rewritten(zipped, what))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"small.zip", "other.zip", "temporary"}


def test_weights_are_known_by_their_hashes(zipped: Path) -> None:
    """A checksum that is right in the archive proves nothing."""
    with pytest.raises(BundleError, match=r"block_02\.data has SHA-256"):
        Bundle(rewritten(zipped, damaged)).verify()


def test_every_cut_and_many_changed_bytes_are_refused_or_harmless(zipped: Path, tmp_path: Path) -> None:
    """500 archives that were cut or hit: an error of the library, or the very same bundle."""
    random, whole, wanted = np.random.default_rng(0), zipped.read_bytes(), Bundle(zipped).manifest_sha256
    refused, broken = 0, tmp_path / "broken.zip"
    for trial in range(500):
        content = bytearray(whole)
        if trial % 5 == 0:
            content = content[: int(random.integers(len(content)))]
        else:
            from_end = trial % 2 == 0  # the directory lies there
            for _ in range(int(random.integers(1, 4))):
                at = int(random.integers(min(4000, len(content)) if from_end else len(content)))
                content[-1 - at if from_end else at] = int(random.integers(256))
        broken.write_bytes(content)
        try:
            opened = Bundle(broken)
            opened.verify()
        except BundleError:
            refused += 1
            continue
        assert opened.manifest_sha256 == wanted
    assert refused > 400


def test_limits_hold_while_an_archive_is_read(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that is larger than any, and a disk that has no room."""
    monkeypatch.setattr(archive, "LARGEST_MANIFEST", 100)
    with pytest.raises(BundleError, match="more than any has"):
        Bundle(zipped)
    monkeypatch.undo()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with pytest.raises(BundleError, match=r"cannot be unpacked into .*No space left on device.*TMPDIR"):
        Bundle(zipped)


def test_the_command_writes_what_the_other_commands_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: a second time it refuses; a file of another ending is no archive."""
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    done = run(app, ["zip", "reference"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("reference.zip: ")
    again = run(app, ["zip", "reference"])
    assert (again.exit_code, "exists; give another --output, or --overwrite" in again.output) == (1, True)
    assert run(app, ["zip", "reference.zip", "-o", "copy.zip", "--overwrite"]).exit_code == 0
    assert Path("copy.zip").read_bytes() == Path("reference.zip").read_bytes()
    assert "ends in .zip" in run(app, ["zip", "reference", "-o", "x.tar"]).output
    assert "reference.zip" in run(app, ["verify", "reference.zip"]).output
    assert run(app, ["info", "reference.zip"]).exit_code == 0
    assert find_bundle("reference") != Path("reference.zip")
    with pytest.raises(BundleError, match="its zip file"):
        find_bundle("none.zip")
