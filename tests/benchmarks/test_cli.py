"""`lraee-bench`: wrong usage, errors as one line, and the whole way on the shipped bundle."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from lraee.bundle.folder import find_bundle
from lraee.bundle.manifest import MANIFEST_NAME
from lraee_benchmarks.benchmark import run_benchmark
from lraee_benchmarks.cli import app, parse_baselines
from lraee_benchmarks.config import BenchmarkConfig, command_line
from lraee_benchmarks.results.model import Report, from_json
from lraee_calibration_data import Dataset, fashion_mnist_test, open_dataset

FEW = ["--threads", "1", "--launches", "1", "--repeats", "6", "--warmup", "1", "--image-count", "6"]
"""A measurement that takes a moment and says little."""


def invoke(*arguments: str) -> Result:
    """Run the command here."""
    return CliRunner().invoke(app, arguments)


def labelled(root: Path, each: int) -> str:
    """A folder with the first test images of each class."""
    dataset: Dataset = open_dataset(fashion_mnist_test())
    taken: dict[str, int] = {}
    for index, sample in enumerate(dataset.samples):
        label = str(sample.label)
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= each:
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / Path(sample.key).name).write_bytes(dataset.read_bytes(index))
    return str(root)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A small measurement of everything."""
    source = labelled(tmp_path_factory.mktemp("labelled"), each=2)
    config = BenchmarkConfig(
        bundle="reference",
        threads=1,
        repeats=12,
        warmup_rounds=1,
        image_count=10,
        cold_starts=1,
        accuracy=source,
    )
    return run_benchmark(config)


def test_every_row_is_measured_in_every_round(report: Report) -> None:
    """With all its samples kept."""
    assert {row.kind for row in report.rows} >= {"adaptive", "full", "exit", "graph"}
    assert {len(row.samples_ms) for row in report.rows} == {12} == {report.settings.rounds}
    assert report.settings.images == 10
    for row in report.rows:
        assert 0 < row.latency.min_ms <= row.latency.p50_ms <= row.latency.p90_ms <= row.latency.p99_ms
        assert sum(share.share for share in row.exit_shares) == pytest.approx(1.0)


def test_savings_are_against_the_faster_full_depth(report: Report) -> None:
    """Which saves nothing itself."""
    reference = report.row(report.reference)
    assert reference is not None
    assert reference.kind in {"full", "graph"}
    assert (reference.latency_saved, reference.flops_saved) == (0.0, 0.0)
    assert all(row.latency_saved <= 0 for row in report.rows if row.kind in {"full", "graph"})


def test_earlier_exits_save_more_flops(report: Report) -> None:
    """The block of an exit orders its cost."""
    exits = sorted((row for row in report.rows if row.kind == "exit"), key=lambda row: row.exit_shares[0].block)
    assert [row.flops for row in exits] == sorted(row.flops for row in exits)
    assert all(row.flops_saved > 0 for row in exits[:-1])


def test_accuracy_is_on_the_labelled_images(report: Report) -> None:
    """Two of each of ten classes; full depth does not differ from itself."""
    assert all(row.accuracy is not None and row.accuracy.images == 20 for row in report.rows)
    full = report.row("full")
    assert full is not None
    assert full.accuracy is not None
    assert full.accuracy.difference == 0
    assert full.accuracy.top1 > 0.5


def test_a_fresh_process_is_measured(report: Report) -> None:
    """Its stages add up to less than the time from its start to the answer."""
    cold = report.cold_start
    assert cold is not None
    assert 0 < cold.import_ms + cold.load_ms + cold.first_image_ms < cold.to_first_answer_ms < 60_000
    assert cold.rss_bytes <= cold.peak_rss_bytes < 1 << 30


def test_the_command_writes_all_three_files(tmp_path: Path) -> None:
    """And prints both tables, with no line wrapped where the output is no terminal."""
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "csv", "markdown")}
    outputs = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    result = invoke("reference", *FEW, "--policy", "adaptive", "--cold-starts", "0", *outputs)
    assert result.exit_code == 0, result.output
    written = from_json(files["json"].read_text(encoding="utf-8"))
    assert {f"* {note}" for note in written.notes} <= set(result.stdout.splitlines())
    assert max(map(len, written.notes)) > 100
    assert "Latency of 1 image(s) in ms" in result.stdout
    assert "Saved compared with" in result.stdout
    assert written.cold_start is None
    assert len(list(csv.DictReader(files["csv"].read_text(encoding="utf-8").splitlines()))) == len(written.rows)
    assert written.settings.command in files["markdown"].read_text(encoding="utf-8")


def test_labelled_images_are_skipped_counted_and_mapped_as_told(tmp_path: Path) -> None:
    """From the command to the notes and the numbers of the report."""
    source = Path(labelled(tmp_path / "labelled", each=2))
    (source / "trousers").rename(source / "legs")
    (source / "bag" / "bad.png").write_bytes(b"no")
    (source / "notes.txt").write_bytes(b"")
    names = tmp_path / "labels.csv"
    names.write_text("folder,label\nlegs,trousers\n", "utf-8")
    options = ["--accuracy", str(source), "--cold-starts", "0", "--policy", "full", "--baselines", "none", *FEW]
    refused = invoke("reference", *options)
    assert refused.exit_code == 1
    assert "images of 'legs', which is none of the 10 labels" in refused.stderr
    options += ["--labels", str(names)]
    (line,) = invoke("reference", *options).stderr.splitlines()
    assert "bad.png is not an image" in line
    assert line.endswith("; remove the file, or pass --unreadable skip")
    done = invoke("reference", *options, "--unreadable", "skip", "--json", str(tmp_path / "x.json"))
    assert done.exit_code == 0, done.output
    report = from_json((tmp_path / "x.json").read_text("utf-8"))
    assert {row.accuracy.images for row in report.rows if row.accuracy is not None} == {20}
    notes = " ".join(report.notes)
    assert "since they are not images: 1 .txt." in notes
    assert "1 image cannot be read and is left out" in notes
    assert "--unreadable skip" in report.settings.command
    alone = invoke("reference", "--labels", str(names), *FEW)
    assert "--labels maps folders of labelled images to labels; give the images with --accuracy" in alone.stderr


def test_one_pool_for_the_process(tmp_path: Path) -> None:
    """In a process of its own, since the pool can be set up only once."""
    path = tmp_path / "report.json"
    command = [sys.executable, "-c", "from lraee_benchmarks.cli import main; main()"]
    command += [str(find_bundle("reference")), *FEW]
    command += ["--policy", "full", "--cold-starts", "1", "--thread-pool", "global", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert from_json(path.read_text(encoding="utf-8")).settings.thread_pool == "global"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "error: nowhere is not a folder; wanted a bundle"),
        (["reference", "--policy", "sometimes"], "error: 'sometimes' is not a policy; wanted adaptive"),
        (["reference", "--policy", "exit=99"], "error: there is no exit after block 99"),
        (["reference", "--policy", "adaptive=nope"], "error: there is no operating point 'nope'"),
        (["reference", "--images", "nowhere"], "error: nowhere does not exist; give a folder or a zip of images"),
        (["reference", "--accuracy", "photos"], "has no labels; put the images into one folder per class"),
        (["reference", "--batch", "3000"], "a batch has 3000; give more images or a smaller batch"),
    ],
)
def test_an_error_is_one_line_on_stderr(arguments: list[str], said: str) -> None:
    """With exit status 1, no traceback, and nothing measured."""
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_which_bundle_and_which_images_a_name_means_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, where a folder here has the name of what is shipped; what follows is what was taken."""
    monkeypatch.chdir(tmp_path)
    for name in ("reference", "photos"):
        (tmp_path / name).mkdir()
    done = invoke("reference", "--images", "photos", "--policy", "full", *FEW)
    bundle, images, error = done.stderr.splitlines()
    assert bundle.startswith("note: reference is taken to be the shipped bundle; the folder ")
    assert images == f"note: photos is taken to be {tmp_path / 'photos'}, not the shipped images of that name"
    assert error.startswith("error: photos holds no image ")
    (tmp_path / "reference").rmdir()
    shutil.copytree(find_bundle("reference"), tmp_path / "reference")
    done = invoke("reference", "--images", "nowhere")
    note, error = done.stderr.splitlines()
    assert note.startswith(
        f"note: reference is taken to be the folder {tmp_path / 'reference'}, not the shipped bundle"
    )
    assert error.startswith("error: nowhere does not exist")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--baselines", "static"], "there is no static baseline at "),
        (["--baselines", "torch"], "there is no fp32 baseline at "),
        (["--floor"], "there is no graph of the floor at "),
    ],
)
def test_what_is_not_beside_a_bundle_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    """With the export that writes it, before any image is read."""
    bundle = shutil.copytree(find_bundle("reference"), tmp_path / "alone.lraee")
    result = invoke(str(bundle), *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.strip().endswith("write it with: lraee-export reference -o alone.lraee --baselines")
    assert len(result.stderr.strip().splitlines()) == 1


def test_accuracy_of_random_weights_is_refused(tmp_path: Path) -> None:
    """Even where every label is known."""
    bundle = Path(shutil.copytree(find_bundle("reference"), tmp_path / "random.lraee"))
    manifest = bundle / MANIFEST_NAME
    text, count = re.subn(r'"weights": "[^"]+"', '"weights": "random"', manifest.read_text(encoding="utf-8"), count=1)
    assert count == 1
    manifest.write_text(text, encoding="utf-8")
    result = invoke(str(bundle), "--accuracy", "fashion-mnist")
    assert result.exit_code == 1
    assert "accuracy means nothing" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["reference", "--threads", "0"],
        ["reference", "--baselines", "int4"],
        ["reference", "--thread-pool", "swimming"],
        ["reference", "--json", "no/such/folder/report.json"],
    ],
)
def test_wrong_usage_has_exit_status_2(arguments: list[str]) -> None:
    """A result that could not be written counts as wrong usage, found before measuring."""
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_baselines_are_a_list_or_none_or_whatever_is_there() -> None:
    """Their order is always the same."""
    assert parse_baselines(None) is None
    assert parse_baselines("none") == ()
    assert parse_baselines("fp32, graph") == ("graph", "fp32")
    assert parse_baselines("torch,openvino,dynamic,static") == ("static", "dynamic", "openvino", "torch")
    with pytest.raises(typer.BadParameter, match="'int4' is not a baseline"):
        parse_baselines("int4")


def test_the_command_line_of_a_report_is_read_back_as_the_same_options() -> None:
    """Every option that was given is in it, the pool always, and no other; it is quoted for a shell."""
    assert command_line(BenchmarkConfig(bundle="reference")) == "lraee-bench reference --launches 1"
    config = BenchmarkConfig(
        bundle="my clip.lraee", policies=("full", "exit=8"), baselines=(), warmup_rounds=0, thread_pool="global"
    )
    assert command_line(config) == (
        "lraee-bench 'my clip.lraee' --thread-pool global --warmup 0 --launches 1 --policy full --policy exit=8 "
        "--baselines none"
    )
    config = BenchmarkConfig(bundle="reference", baselines=("openvino",), floor=True, isolate=False)
    assert command_line(config) == ("lraee-bench reference --launches 1 --baselines openvino --floor --no-isolate")
