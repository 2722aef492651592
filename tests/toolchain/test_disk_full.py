"""A disk that fills up during an export is one line, costs no finished stage, and changes nothing at the target."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lraee.errors import ExportError
from lraee_exporters.graphs.fused_operators import optimized_operators
from lraee_toolchain.baseline_graphs.folder import BaselineMaker
from lraee_toolchain.bundle.targets import Targets
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.data.splits import save_pixels
from lraee_toolchain.export import export


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """Mount a disk of so many kilobytes; where nobody may, the test is skipped, others do with limits on files."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as folder:

        def mount(kilobytes: int) -> Path:
            if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={kilobytes}k".encode()) != 0:
                pytest.skip(f"no disk can be mounted here: {os.strerror(ctypes.get_errno())}")
            return Path(folder)

        yield mount
        libc.umount(os.fsencode(folder))


def test_an_export_goes_on_where_the_disk_was_full(
    exported: Any, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """The first try ends with one line and keeps what it finished; the next gives what an undisturbed export gives."""
    work = Path(shutil.copytree(exported.config.work, tmp_path / "work"))
    for folder in work.glob("[!.]*"):
        if folder.name.startswith(("bundle-", "report-")):
            shutil.rmtree(folder)
    finished = {path.name for path in work.glob("[!.]*")}
    config = replace(exported.config, out=tmp_path / "out" / "small.lraee", work=work)
    largest = 3_000_000  # the text tower's weights are larger
    with file_size_limit(largest), pytest.raises(ExportError) as caught:
        export(config)
    assert str(caught.value) == (
        f"the stage 'bundle' cannot be written to {work} (no file may be so large here (see ulimit -f, and the kind of "
        f"file system)); make room or give another --work; finished stages are kept ({len(finished)} here), and the "
        "same command goes on from them"
    )
    assert {path.name for path in work.glob("*")} == finished | {".lock"}
    assert list(config.out.parent.iterdir()) == []
    result = export(config)
    assert {path.name.partition("-")[0] for path in work.glob("[!.]*") if path.name not in finished} == {
        "bundle",
        "report",
    }
    names = [path.name for path in exported.result.bundle.iterdir()]
    assert sorted(names) == sorted(path.name for path in result.bundle.iterdir())
    assert all((result.bundle / n).read_bytes() == (exported.result.bundle / n).read_bytes() for n in names)


def write(folder: Path, size: int) -> None:
    """One file of so many bytes."""
    (folder / "x").write_bytes(b"x" * size)


def test_a_full_disk_ends_a_stage_with_an_error_and_not_with_a_signal(
    small_disk: Callable[[int], Path], few_pixels: Callable[[Path], None]
) -> None:
    """What is free, what is wanted; nothing of the stage stays to take the room."""
    root = small_disk(256) / "work"
    work = WorkFolder(root)
    work.stage("small", {}, lambda folder: write(folder, 50_000))
    with pytest.raises(ExportError, match=r"^the stage 'pixels' cannot be written to .* \(no room: ") as caught:
        work.stage("pixels", {}, few_pixels)
    said = "(no room: 0.2 MB free, 0.6 MB wanted); make room or give another --work; finished stages are kept (1 here)"
    assert said in str(caught.value)
    assert [path.name[:6] for path in root.iterdir()] == ["small-"]
    for fill in (lambda folder: write(folder, 300_000), lambda folder: np.save(folder / "x.npy", np.zeros(100_000))):
        with pytest.raises(ExportError, match=r"\(no room: "):
            work.stage("other", {}, fill)


def test_an_export_that_cannot_fit_ends_before_it_writes(
    small_disk: Callable[[int], Path], small_config: Callable[..., Any], tmp_path: Path
) -> None:
    """What is free, what is needed and of what, what to do; not a pixel is decoded."""
    work = small_disk(4096) / "work"
    with pytest.raises(ExportError) as caught:
        export(small_config(tmp_path / "x.lraee", work=work))
    said = str(caught.value)
    assert said.startswith(f"{work} has ")
    assert " MB free, this export needs " in said
    assert said.endswith("make room or give another --work")
    assert {path.name for path in work.iterdir()} <= {".lock"}


def test_a_full_temporary_folder_is_named(
    small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the room is missing is not where the stage is written; ONNX Runtime says no more than that it failed."""
    full = small_disk(8)
    monkeypatch.setattr(tempfile, "tempdir", str(full))
    bundle = Path(__file__).parents[1] / "runtime" / "golden" / "format_1.lraee"

    def count(folder: Path) -> None:
        (full / "fill").write_bytes(b"x" * 4096)
        optimized_operators(bundle / "block_01.onnx")

    with pytest.raises(ExportError, match=rf"the temporary folder {full} has no room \(TMPDIR chooses another\)"):
        WorkFolder(tmp_path / "work").stage("float", {}, count)


def test_a_full_disk_is_no_failure_of_a_baseline(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """What the tools of others cannot do is recorded with the bundle; this ends the export, and it goes on later."""
    maker = BaselineMaker(SimpleNamespace(work=WorkFolder(tmp_path / "work")))  # type: ignore[arg-type]  # all it needs
    with file_size_limit(1_000), pytest.raises(ExportError, match="the stage 'fp32' cannot be written"):
        maker._attempt("fp32", "fp32", {}, lambda folder: write(folder, 2_000))
    assert maker.failed == {}
    assert maker._attempt("fp32", "fp32", {}, lambda folder: write(folder, 500)) is not None


def test_targets_without_room_stay_as_they_were(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Also those that had room: either all are replaced, or none."""
    out = tmp_path / "out" / "x.lraee"
    finished = {suffix: tmp_path / "work" / f"stage{suffix}" for suffix in (".report", ".lraee")}
    for folder, text in ((finished[".report"], b"new"), (finished[".lraee"], b"n" * 10_000)):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(text)
    for target in (out, out.with_suffix(".report")):
        target.mkdir(parents=True)
        (target / "x").write_bytes(b"old")
    said = r"^x\.lraee cannot be written to .*; make room or choose another --out; "
    with file_size_limit(5_000), pytest.raises(ExportError, match=said):
        Targets(out).install(finished)
    assert sorted(path.name for path in out.parent.iterdir()) == ["x.lraee", "x.report"]
    assert {path.read_bytes() for path in out.parent.rglob("x")} == {b"old"}
    Targets(out).install(finished)
    for suffix, folder in finished.items():
        assert (out.with_suffix(suffix) / "x").read_bytes() == (folder / "x").read_bytes()


def test_a_work_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    """By somebody who needed room."""
    work = WorkFolder(tmp_path / "work")

    def remove(folder: Path) -> None:
        shutil.rmtree(tmp_path / "work")
        (folder / "x").write_text("x")

    with pytest.raises(ExportError, match=r"the stage 'x' cannot be written to .*work \(it was removed meanwhile\)"):
        work.stage("x", {}, remove)


@pytest.fixture
def few_pixels(few_images: Path) -> Callable[[Path], None]:
    """Writes 240 images of 28 x 28 pixels into a folder."""
    from lraee.bundle.preprocessing import Preprocessing
    from lraee_calibration_data import open_dataset

    wanted = Preprocessing(
        image_size=28, resize_mode="shortest", interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
    )
    return lambda folder: save_pixels(open_dataset(few_images), wanted, folder, views=1, seed=0)
