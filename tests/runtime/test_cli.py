"""`python -m lraee`: answers on stdout, one line for an error on stderr; and policies as they are typed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

import lraee
from lraee.bundle import find_bundle
from lraee.cli import app
from lraee.errors import PolicyError
from lraee.policies import Adaptive, ExitAt, Full, Policy
from lraee.policies.spec import parse_policy
from lraee_calibration_data import fashion_mnist_test, open_dataset


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trouser of the shipped test images."""
    dataset = open_dataset(fashion_mnist_test())
    index = next(i for i, sample in enumerate(dataset.samples) if sample.label == "trousers")
    path = tmp_path_factory.mktemp("images") / "trousers [1].png"
    path.write_bytes(dataset.read_bytes(index))
    return path


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("adaptive", Adaptive()),
        ("adaptive=balanced", Adaptive("balanced")),
        (" full ", Full()),
        ("exit=8", ExitAt(8)),
    ],
)
def test_a_spec_is_a_policy(spec: str, policy: Policy) -> None:
    """White space around it does not matter."""
    assert parse_policy(spec) == policy


@pytest.mark.parametrize("spec", ["", "fast", "adaptive=", "full=1", "exit", "exit=", "exit=0", "exit=-1", "exit=²"])
def test_a_spec_that_is_no_policy_is_refused(spec: str) -> None:
    """The message repeats it and says what is understood."""
    with pytest.raises(PolicyError, match=r"is no policy; wanted adaptive\[=POINT\] \| full \| exit=BLOCK"):
        parse_policy(spec)


@given(st.text(max_size=12))
def test_any_text_is_a_policy_or_a_policy_error(spec: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(PolicyError):
        parse_policy(spec)


def test_classify_prints_label_exit_and_cost(image: Path) -> None:
    """The file's brackets are no markup."""
    result = CliRunner().invoke(app, ["classify", "reference", str(image), str(image)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    head, first, second = (line.split() for line in result.stdout.splitlines())
    assert head[:3] == ["image", "label", "probability"]
    assert first == second
    assert "trousers [1].png" in result.stdout
    assert "trousers" in first
    assert first[-1].endswith("%")


def test_classify_lists_as_many_labels_as_asked_for(image: Path) -> None:
    """Best first."""
    arguments = ["classify", "reference", str(image), "--top", "3", "--policy", "full"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    model = lraee.load("reference")
    prediction = model.classify(image, policy=lraee.Full(), top=3)
    assert len(lines) == 4
    for line, (label, score) in zip(lines[1:], prediction.top, strict=True):
        assert label in line
        assert f"{score:.3f}" in line
    assert f"{model.manifest.tower.blocks} of {model.manifest.tower.blocks}" in lines[1]
    assert lines[1].endswith("100.0%")


def test_classify_reads_images_as_it_is_told(image: Path, tmp_path: Path) -> None:
    """Turned as EXIF says, limited in pixels, reduced where a JPEG is large enough."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upside_down = tmp_path / "upside_down.jpg"
    large = Image.open(image).convert("RGB").resize((280, 280)).rotate(180)
    large.save(upside_down, quality=95, exif=exif)

    def classify(*options: str) -> Result:
        return CliRunner().invoke(app, ["classify", "reference", str(upside_down), *options], env={"COLUMNS": "200"})

    for options in (["--exif-orientation"], ["--exif-orientation", "--reduce-jpeg"]):
        reading = lraee.Reading(exif_orientation=True, reduce_jpeg="--reduce-jpeg" in options)
        wanted = lraee.load("reference", reading=reading).classify(upside_down)
        result = classify(*options)
        assert result.exit_code == 0, result.output
        assert f"{wanted.label} " in result.stdout
        assert f"{wanted.score:.3f}" in result.stdout
    assert classify().stdout != classify("--exif-orientation").stdout
    refused = classify("--max-pixels", "1000")
    assert refused.exit_code == 1
    assert "wanted at most 1,000" in refused.stderr


def test_info_shows_every_part_exit_and_point() -> None:
    """Blocks that differ in nothing but their number may share a line."""
    result = CliRunner().invoke(app, ["info", "reference"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    manifest = lraee.load("reference").manifest
    for part in manifest.parts:
        assert part.name in result.stdout or part.name.startswith("block_")
    for point in manifest.operating_points:
        assert point.name in result.stdout
    assert manifest.model.weights in result.stdout
    assert manifest.precision in result.stdout


def test_verify_counts_the_files() -> None:
    """One line when all is well."""
    result = CliRunner().invoke(app, ["verify", "reference"])
    assert result.exit_code == 0, result.output
    files = lraee.load("reference").manifest.files
    assert f"reference.lraee: {len(files)} files" in " ".join(result.stdout.split())


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    """One bit is enough."""
    bundle = Path(shutil.copytree(find_bundle("reference"), tmp_path / "copy.lraee"))
    path = bundle / lraee.load("reference").manifest.part("tail").graph
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["verify", str(bundle)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {path.name} has SHA-256")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "nowhere"], "error: nowhere is no folder"),
        (["verify", "nowhere"], "error: nowhere is no folder"),
        (["classify", "reference", "nowhere.jpg"], "nowhere.jpg"),
        (["classify", "reference", "nowhere.jpg", "--policy", "exit=99"], "error: there is no exit behind block 99"),
        (["classify", "reference", "nowhere.jpg", "--policy", "fast"], "error: 'fast' is no policy"),
    ],
)
def test_an_error_is_one_line_on_stderr(arguments: list[str], said: str) -> None:
    """With exit status 1 and nothing on stdout."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["classify", "reference"], ["dance"], ["info"]])
def test_wrong_usage_has_exit_status_2(arguments: list[str]) -> None:
    """As shells expect."""
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_the_module_is_a_program() -> None:
    """`python -m lraee` lists the commands."""
    command = [sys.executable, "-m", "lraee", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("classify", "info", "verify"))
