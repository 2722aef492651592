"""Exports whose heads read all tokens, from options to a bundle that runs."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lraee
from lraee.bundle.folder import Bundle
from lraee_toolchain import cli
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.export import export
from lraee_toolchain.stages.inputs import Silent


class Told(Silent):
    """Keeps what an export said."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, bool]] = []
        self.notices: list[str] = []

    def stage(self, name: str, found: bool) -> None:
        """Keep a stage and whether it was found."""
        self.stages.append((name, found))

    def notice(self, text: str) -> None:
        """Keep a notice."""
        self.notices.append(text)


@pytest.fixture(scope="module")
def attention(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> ExportConfig:
    """An export with attention heads after blocks 4 and 8, over the stages of `exported`."""
    out = tmp_path_factory.mktemp("attention") / "attention.lraee"
    config = replace(exported.config, out=out, reads="attention")
    export(config)
    return config


def test_a_bundle_of_attention_heads_is_of_format_2_and_runs(attention: ExportConfig) -> None:
    """At every exit; its exits say what they read, and cost more than those of the mean."""
    bundle = Bundle(attention.out)
    assert bundle.manifest.format == 2
    assert [exit.reads for exit in bundle.manifest.exits] == ["attention"] * len(bundle.manifest.exits)
    assert bundle.manifest.exits
    model = lraee.load(attention.out, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), np.uint8)
    for exit in bundle.manifest.exits:
        answers = model.run_pixels(images, policy=lraee.ExitAt(exit.block))
        np.testing.assert_allclose(np.linalg.norm(answers.embedding, axis=1), 1, atol=1e-5)
        part = bundle.manifest.part(exit.part)
        assert part.flops == 2 * (10 * 128 * 128 + 128 * 128) + 4 * 50 * 128 + 4 * 50 * 128 * 10 + 24


def test_other_bundles_stay_in_format_1(exported: Any) -> None:
    """So that versions that do not know these heads read them."""
    assert Bundle(exported.result.bundle).manifest.format == 1


def test_an_export_resumes_from_tokens_on_disk(attention: ExportConfig, tmp_path: Path) -> None:
    """Nothing is made again but the report, which knows the bundle's name."""
    told = Told()
    export(replace(attention, out=tmp_path / "again.lraee"), told)
    assert {name for name, found in told.stages if not found} <= {"load", "report"}
    for path in attention.out.iterdir():
        assert path.read_bytes() == (tmp_path / "again.lraee" / path.name).read_bytes()


def test_without_room_on_disk_the_running_tower_teaches_the_same_heads(attention: ExportConfig, tmp_path: Path) -> None:
    """Every exit to the byte; what is needed is said, and no tokens are written."""
    told = Told()
    work = tmp_path / "work"
    export(replace(attention, out=tmp_path / "running.lraee", work=work, disk_limit=0.0), told)
    assert not list(work.rglob("tokens_*.npy"))
    slow = [notice for notice in told.notices if "the tower runs again in every epoch" in notice]
    assert len(slow) == 2
    assert slow[0].startswith(
        "all tokens of 384 images after 2 blocks take 10 MB, --disk-limit 0 leaves 0 MB: give 0.1"
    )
    for exit in Bundle(attention.out).manifest.exits:
        for suffix in (".onnx", ".data"):
            name = f"{exit.part}{suffix}"
            assert (attention.out / name).read_bytes() == (tmp_path / "running.lraee" / name).read_bytes()


def test_tokens_are_written_after_candidate_blocks_alone(attention: ExportConfig) -> None:
    """And only by exports whose heads read them."""
    assert attention.work is not None
    folders = [folder for folder in attention.work.glob("features-*") if list(folder.glob("tokens_*"))]
    assert len(folders) == 2
    for folder in folders:
        assert sorted(path.name for path in folder.glob("tokens_*")) == ["tokens_04.npy", "tokens_08.npy"]
    assert len(list(attention.work.glob("features-*"))) > len(folders)


def test_the_command_takes_local_heads_and_a_limit_of_disk(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit is a number from 0."""
    config, out = exported.config, tmp_path / "local.lraee"
    options = ["--train", config.train, "--work", config.work, "--exits", "4,8", "--reads", "local", "--epochs", "2"]
    options += ["--max-accuracy-drop", "20", "--disk-limit", "1"]
    monkeypatch.setattr(sys, "argv", ["lraee-export", "reference", "-o", str(out), *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    manifest = Bundle(out).manifest
    assert {exit.reads for exit in manifest.exits} == {"local"}
    assert "Conv" in manifest.part(manifest.exits[0].part).operators
    monkeypatch.setattr(sys, "argv", ["lraee-export", "reference", "-o", str(out) + "2.lraee", "--disk-limit", "-1"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--disk-limit is -1.0, wanted GB from 0" in capsys.readouterr().err


def test_heads_that_read_tokens_work_with_fp32_labels_free_and_a_promise(
    small_config: Callable[..., ExportConfig], exported: Any, tmp_path: Path
) -> None:
    """Options that take other splits or other targets."""
    config = small_config(
        tmp_path / "x.lraee",
        work=exported.config.work,
        reads="attention",
        precision="fp32",
        supervision="label-free",
        promise=20.0,
        thresholds="per-class",
    )
    result = export(config)
    manifest = Bundle(result.bundle).manifest
    assert "promised" in {point.name for point in manifest.operating_points}
    assert all(exit.supervision == "label-free" and exit.reads == "attention" for exit in manifest.exits)
