"""A bundle is found by path or name, and refused, by file, where one is damaged, missing or may not be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lraee
from lraee.bundle.folder import Bundle, find_bundle, taken_instead
from lraee.bundle.manifest import FORMAT
from lraee.errors import BundleError

FILES = sorted(path.name for path in (Path(__file__).parents[1] / "golden" / "format_1.lraee").iterdir())
LISTED = [name for name in FILES if name != "manifest.json"]


def test_a_file_that_belongs_to_no_part_is_verified_too(forged):
    """Such as those of a tokenizer."""
    (forged.folder / "notes.txt").write_bytes(b"abc")
    entry = {"name": "notes.txt", "size_bytes": 3, "sha256": "0" * 64}
    forged.manifest |= {"files": [*forged.manifest["files"], entry]}
    lraee.load(forged.folder).warm()
    with pytest.raises(BundleError, match=r"^notes\.txt has SHA-256"):
        lraee.load(forged.folder, verify="all")


@pytest.mark.parametrize(
    "check",
    [lambda folder: lraee.load(folder).warm(), lambda folder: lraee.load(folder, verify="all")],
    ids=["use", "verify"],
)
@pytest.mark.parametrize("name", LISTED)
def test_one_damaged_bit_is_refused(forged, name, check):
    """In a file of any kind, by its name: before it is used, and when everything is verified."""
    forged.damage(name)
    with pytest.raises(BundleError, match=rf"^{name} has SHA-256 .*the bundle is damaged"):
        check(forged.folder)


def test_a_file_that_is_taken_away_after_loading_is_missed_when_it_is_needed(forged):
    """Parts are read when they are first reached."""
    bundle = Bundle(forged.folder)
    (forged.folder / "tail.onnx").unlink()
    with pytest.raises(BundleError, match=r"^tail\.onnx cannot be read \(No such file"):
        bundle.checked("tail.onnx")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_at_load(forged, name):
    """The message names the file."""
    (forged.folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        lraee.load(forged.folder)


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("change", [b"", b"\0"], ids=["shorter", "longer"])
def test_a_file_of_the_wrong_size_is_refused_at_load(forged, name, change):
    """Both sizes are in the message."""
    path = forged.folder / name
    content = path.read_bytes()
    path.write_bytes(content + change if change else content[:-1])
    size = len(content) + 1 if change else len(content) - 1
    with pytest.raises(BundleError, match=rf"^{name} has {size} bytes, the manifest says {len(content)}"):
        lraee.load(forged.folder)


def test_a_folder_in_the_place_of_a_file_is_refused(forged):
    """It is not what the manifest promised."""
    (forged.folder / "stem.data").unlink()
    (forged.folder / "stem.data").mkdir()
    with pytest.raises(BundleError, match=r"^stem\.data is missing"):
        lraee.load(forged.folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"PK\x03\x04", b"\xef\xbb\xbf{}"])
def test_a_manifest_that_cannot_be_read_is_refused(forged, content):
    """Empty, empty object, no UTF-8, no JSON, byte order mark."""
    (forged.folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"^manifest\.json"):
        lraee.load(forged.folder)


def test_a_newer_format_is_refused_before_anything_else(forged):
    """Its other keys may mean anything."""
    forged.manifest = {"format": FORMAT + 1, "whatever": "else"}
    with pytest.raises(BundleError, match=rf"^manifest\.json: format is {FORMAT + 1}, .*update lraee"):
        lraee.load(forged.folder)


@pytest.mark.parametrize("name", ["no-such-bundle", "../lraee", "x" * 5000, "a\0b", "nobody/reference"])
def test_what_is_no_bundle_is_refused_with_the_shipped_names(name):
    """Also names that no file can have."""
    with pytest.raises(BundleError, match=r"is not a folder; wanted .* lraee-export, its zip file, or .*reference"):
        lraee.load(name)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    """Anybody can mistype a path, so the message helps."""
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        lraee.load(tmp_path)


def test_a_bundle_is_found_by_path_or_by_shipped_name(golden):
    """The bundle `reference` lies inside the package."""
    assert find_bundle(golden) == golden
    assert find_bundle(str(golden)) == golden
    assert find_bundle("reference").name == "reference.lraee"
    assert taken_instead("reference") is None
    assert taken_instead(golden) is None


def test_a_folder_called_like_a_shipped_bundle_is_taken_if_it_is_a_bundle(golden, tmp_path, monkeypatch):
    """And programs can say so; a folder without a manifest hides nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference").mkdir()
    assert find_bundle("reference").name == "reference.lraee"
    assert "the shipped bundle; the folder" in (taken_instead("reference") or "")
    shutil.copytree(golden, tmp_path / "reference", dirs_exist_ok=True)
    assert find_bundle("reference") == Path("reference")
    assert f"the folder {tmp_path / 'reference'}, not the shipped bundle" in (taken_instead("reference") or "")
    assert find_bundle("./reference") == Path("reference")
    assert taken_instead("./reference") is None
    assert taken_instead(Path("reference")) is None


MAY_NOT = """
import os, pathlib, sys
import lraee
if os.getuid() == 0:
    os.setuid(65534)
for name in sys.argv[1:]:
    try:
        lraee.load(name).warm()
    except lraee.LraeeError as error:
        print(error)
"""


def test_a_file_that_may_not_be_read_is_not_called_damaged(golden, shared_root):
    """A graph, the manifest, the folder: each says who may not, and the command that helps."""
    folders = [Path(shutil.copytree(golden, shared_root / f"{number}.lraee")) for number in range(4)]
    (folders[0] / "block_01.onnx").chmod(0)
    (folders[1] / "manifest.json").chmod(0)
    (folders[2] / "labels.json").chmod(0)
    folders[3].chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", MAY_NOT, *map(str, folders)], capture_output=True, text=True, check=True
    )
    folders[3].chmod(0o700)
    names = ["block_01.onnx", "manifest.json", "labels.json", "manifest.json"]
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stdout
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"{name} cannot be read (Permission denied); this user may not read it; ")
        assert "chmod -R a+rX" in line
        assert "damaged" not in line


def test_a_model_outlives_a_change_of_the_working_folder(golden, tmp_path, monkeypatch):
    """Parts are opened when they are first reached, wherever the program is by then."""
    monkeypatch.chdir(golden.parent)
    model = lraee.load(golden.name)
    monkeypatch.chdir(tmp_path)
    model.warm()
