"""`python -m lraee doctor` tells what a report of a fault needs, from made-up machines and damaged bundles too."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

import lraee
from lraee.bundle.folder import find_bundle
from lraee.bundle.manifest_file import read_manifest, write_manifest
from lraee.cli import app
from lraee.commands import doctor
from lraee.commands.doctor import advice, diagnose
from lraee.ort import threads
from lraee.ort.cpu import int8_products_saturate
from lraee.ort.threads import PAYING_FLOPS, choose_threads

MOUNT = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def container(root: Path, files: dict[str, str]) -> Path:
    """Write the files of a control group of version 2 that holds this process."""
    there = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": MOUNT}
    for name, text in (there | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be damaged."""
    return Path(shutil.copytree(find_bundle("reference"), tmp_path / "copy.lraee"))


def test_versions_and_machine_are_told(tmp_path: Path) -> None:
    """Installed packages only, and the CPU as the sessions see it."""
    found = diagnose(root=tmp_path)
    wanted = {"lraee": lraee.__version__, "Python": platform.python_version()}
    assert wanted | {"numpy": np.__version__, "onnxruntime": ort.__version__} == dict(list(found.versions.items())[:4])
    assert found.machine == platform.machine()
    assert found.int8_products_saturate is int8_products_saturate()
    assert (found.cpu_quota, found.task_limits, found.memory_bytes, found.bundle) == (None, (), None, None)


def test_the_limits_of_a_container_are_told_and_bound_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``docker --cpus 1.5 --pids-limit 64 --memory 512m`` on eight cores."""
    for module in (threads, doctor):
        monkeypatch.setattr(module, "available_cores", lambda: 8)
    files = {"cpu.max": "150000 100000", "pids.max": "64", "pids.current": "5", "memory.max": str(512 << 20)}
    found = diagnose(root=container(tmp_path, files))
    assert (found.cpu_quota, found.memory_limit_bytes) == (1.5, 512 << 20)
    assert [(limit.most, limit.used) for limit in found.task_limits] == [(64, 5)]
    assert found.threads.threads == 1
    assert found.threads.reason == "the quota of 1.5 cores has time for no more"
    assert any("quota of 1.5 cores" in sentence for sentence in advice(found))


def test_the_reason_of_the_threads_is_what_decides_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cores, small blocks, or a limit that the threads of all sessions do not fit in."""
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    free = choose_threads(PAYING_FLOPS, sessions=19, root=tmp_path / "free")
    assert (free.threads, free.reason) == (8, "one for each of 8 cores")
    small = choose_threads(21_000_000, sessions=19, root=tmp_path / "free")
    assert small.threads == 1
    assert small.reason == "the largest block has 21 MFLOPs an image, and more threads pay from 200 on"
    narrow = choose_threads(
        None, sessions=19, root=container(tmp_path / "narrow", {"pids.max": "64", "pids.current": "5"})
    )
    assert narrow.threads == 3
    assert narrow.reason.endswith("allows 64 tasks, of which 5 are used; 19 sessions at 8 threads do not fit")


def test_a_sound_bundle_has_no_problem() -> None:
    """Its format, its hash and the ONNX Runtime that it needs are told."""
    health = diagnose("reference").bundle
    assert health is not None
    assert (health.format, health.onnxruntime, health.problem) == (1, "1.17", None)


def test_what_is_wrong_with_a_bundle_is_told_and_nothing_raised(copy: Path) -> None:
    """A damaged file, a release of ONNX Runtime still to come, a broken manifest, and a folder that is not there."""
    part = copy / "tail.onnx"
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    damaged = diagnose(str(copy)).bundle
    assert damaged is not None
    assert damaged.format == 1
    assert str(damaged.problem).startswith("tail.onnx has SHA-256")
    manifest = replace(read_manifest(copy), onnxruntime="999.0")
    (copy / "manifest.json").write_text(write_manifest(manifest), "utf-8")
    newer = diagnose(str(copy)).bundle
    assert newer is not None
    assert str(newer.problem).startswith("the bundle needs ONNX Runtime 999.0 or newer")
    (copy / "manifest.json").write_text("{", "utf-8")
    unreadable = diagnose(str(copy)).bundle
    assert unreadable is not None
    assert (unreadable.format, unreadable.folder) == (None, str(copy))
    assert str(unreadable.problem).startswith("manifest.json is not JSON")
    missing = diagnose("nowhere").bundle
    assert missing is not None
    assert str(missing.problem).startswith("nowhere is not a folder")


def test_the_command_prints_the_facts_and_the_advice() -> None:
    """A table and sentences for people, one object for programs; without a bundle too."""
    for arguments in (["doctor"], ["doctor", "reference"]):
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert f"lraee {lraee.__version__}" in result.stdout
        assert "Leave threads out: a model then gets " in result.stdout
    assert "every hash is right" in result.stdout
    result = CliRunner().invoke(app, ["doctor", "reference", "--json"])
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert told["bundle"]["problem"] is None
    assert told["threads"]["threads"] == lraee.load("reference").threads
    assert told["advice"]


def test_the_command_fails_where_the_bundle_cannot_be_used(copy: Path) -> None:
    """So that a script notices; the facts are printed all the same."""
    (copy / "tail.onnx").unlink()
    result = CliRunner().invoke(app, ["doctor", str(copy)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "tail.onnx" in result.stdout
    assert "CPU features" in result.stdout
