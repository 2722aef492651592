"""`python -m lraee`: answers on stdout, one line for an error on stderr; and policies as they are typed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.cli import app
from lraee.commands import answers as answer_output
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
    with pytest.raises(PolicyError, match=r"wanted adaptive\[=POINT\] \| full\[@SCHEDULE\] \| exit=BLOCK"):
        parse_policy(spec)


@given(st.text(max_size=12))
def test_any_text_is_a_policy_or_a_policy_error(spec: str) -> None:
    """No other error is raised."""
    with contextlib.suppress(PolicyError):
        parse_policy(spec)


def test_classify_prints_label_exit_and_cost(image: Path) -> None:
    """The file's brackets are not markup."""
    result = CliRunner().invoke(app, ["classify", "reference", str(image), str(image)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    head, first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert head == ["image", "label", "probability", "left after block", "FLOPs of full depth"]
    assert first == second
    assert first[:2] == [str(image), "trousers"]
    assert first[-1].endswith("%")


def test_classify_lists_as_many_labels_as_asked_for(image: Path) -> None:
    """Labels come best first, and an image still has one line where the output is not a terminal."""
    arguments = ["classify", "reference", str(image), "--top", "3", "--policy", "full"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    head, line = (line.split("\t") for line in result.stdout.splitlines())
    prediction = lraee.load("reference").classify(image, policy=lraee.Full(), top=3)
    assert head[5:] == ["label 2", "probability 2", "label 3", "probability 3"]
    first, *others = ([label, f"{score:.3f}"] for label, score in prediction.top)
    assert line == [str(image), *first, "12 of 12", "100.0%", *others[0], *others[1]]


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
        assert f"\t{wanted.label}\t" in result.stdout
        assert f"{wanted.score:.3f}" in result.stdout
    assert classify().stdout != classify("--exif-orientation").stdout
    refused = classify("--max-pixels", "1000")
    assert refused.exit_code == 1
    assert "wanted at most 1,000" in refused.stderr


def test_a_terminal_gets_a_table_that_fits_it(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns keep their widths from one image to the next, although each is printed as soon as it is answered."""
    model, printed = lraee.load("reference"), io.StringIO()
    monkeypatch.setattr(printed, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", printed)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    names = ["short.png", f"{'n' * 100}.png"]
    show_answer = answer_output.printer(model, names, top=2, as_json=False)
    for name in names:
        show_answer(name, model.classify(image, top=2))
    lines = printed.getvalue().splitlines()
    assert lines[0].split()[:2] == ["image", "label"]
    assert max(map(len, lines)) <= 90
    assert [line.index("trousers") for line in lines if "trousers" in line] == [lines[0].index("label")] * 2
    assert lines[3].startswith("nnnnnnnn")
    assert len(lines) > 5  # two labels for each image, and the long name on several lines


def test_good_answers_are_printed_and_bad_images_named(image: Path, tmp_path: Path) -> None:
    """A damaged file, one that is missing, a folder: each is one line on stderr, and the status is 1."""
    damaged, missing = tmp_path / "damaged.jpg", tmp_path / "missing.png"
    damaged.write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    names = [str(path) for path in (image, damaged, missing, tmp_path, image)]
    result = CliRunner().invoke(app, ["classify", "reference", *names])
    assert result.exit_code == 1
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["image", str(image), str(image)]
    errors = result.stderr.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)
    assert all(name in line for name, line in zip(names[1:], errors, strict=False))
    assert f"name the image files in it, such as {tmp_path}/*.jpg" in errors[2]


def test_an_answer_is_printed_before_the_next_image_is_read(image: Path) -> None:
    """A list of a million images tells from the first on."""
    command = [sys.executable, "-m", "lraee", "classify", "reference", str(image), "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        impatience = threading.Timer(60, process.kill)  # or this would wait for an answer that waits for stdin
        impatience.start()
        try:
            assert process.stdout.readline().startswith("image\t")
            assert process.stdout.readline().startswith(f"{image}\ttrousers\t")
            process.stdin.close()  # for which it waits
            assert process.wait() == 1
        finally:
            impatience.cancel()
            process.kill()


def test_an_image_may_come_from_stdin(image: Path) -> None:
    """As `-`; a file of that name is `./-`."""
    result = CliRunner().invoke(app, ["classify", "reference", "-"], input=image.read_bytes())
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split("\t")[:2] == ["-", "trousers"]
    result = CliRunner().invoke(app, ["classify", "reference", "-"], input=b"")
    assert result.exit_code == 1
    assert result.stderr == "error: -: there is no image on stdin; send the content of one file to it\n"


def test_json_has_a_line_for_each_image_that_was_read(image: Path, tmp_path: Path) -> None:
    """With exact numbers, and names that no terminal shows as they are."""
    named = tmp_path / "a\x1b[31m\n\udcff.png"
    shutil.copyfile(image, named)
    arguments = ["classify", "reference", str(named), str(tmp_path / "missing.png"), str(image), "--top", "2", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    first, second = map(json.loads, result.stdout.splitlines())
    model = lraee.load("reference")
    wanted = model.classify(image, top=2)
    assert first | {"image": str(image)} == second
    assert first == {
        "image": str(named),
        "label": wanted.label,
        "score": wanted.score,
        "top": [{"label": label, "score": score} for label, score in wanted.top],
        "exit_block": wanted.exit_block,
        "blocks": 12,
        "early": wanted.early,
        "gate": wanted.gate,
        "flops": wanted.flops,
        "full_flops": model.manifest.full_flops,
    }
    page = (Path(__file__).parents[2] / "docs" / "use.md").read_text("utf-8")
    assert all(f"`{field}`" in page for field in first)


def test_info_in_json_is_the_manifest_and_what_follows_from_it() -> None:
    """It is one object on one line."""
    result = CliRunner().invoke(app, ["info", "reference", "--json"])
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    opened = Bundle(find_bundle("reference"))
    manifest = json.loads((opened.folder / "manifest.json").read_text("utf-8"))
    assert {key: told[key] for key in manifest} == manifest
    assert told["bundle"] == str(opened.folder)
    assert told["label_names"] == list(opened.labels.names)
    assert told["full_flops"] == opened.manifest.full_flops
    assert told["manifest_sha256"] == hashlib.sha256((opened.folder / "manifest.json").read_bytes()).hexdigest()
    page = (Path(__file__).parents[2] / "docs" / "use.md").read_text("utf-8")
    assert all(f"`{field}`" in page for field in set(told) - set(manifest) - {"probabilities"})


def test_names_and_labels_cannot_act_on_a_terminal(image: Path, tmp_path: Path) -> None:
    """Neither in a table, nor in a note or an error; names of bundles and of models come from others too."""
    evil = "\x1b[2Jevil\x9b"
    named = tmp_path / f"{evil}.png"
    shutil.copyfile(image, named)
    bundle = Path(shutil.copytree(find_bundle("reference"), tmp_path / f"{evil}.lraee"))
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["model"] |= {"id": evil, "weights": evil}
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    labels = tmp_path / "labels.txt"
    labels.write_text(f"{evil}\n{evil}2\n", "utf-8")
    commands = [
        ["classify", str(bundle), str(named), f"{named}.missing", "--labels", str(labels)],
        ["info", str(bundle)],
        ["verify", str(bundle)],
        ["info", f"{bundle}.missing"],
    ]
    for command in commands:
        result = CliRunner().invoke(app, command, env={"FORCE_COLOR": None})
        printed = result.stdout + result.stderr
        assert "\\x1b[2Jevil\\x9b" in printed
        assert not any(ord(one) < 32 and one not in "\t\n" for one in printed)
        assert "\x9b" not in printed


def test_which_bundle_a_name_means_is_said(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, where a folder here has the name of the shipped bundle; stdout stays what it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference").mkdir()
    result = CliRunner().invoke(app, ["verify", "reference"])
    assert result.stdout.startswith("reference.lraee: ")
    assert result.stderr.startswith("note: reference is taken to be the shipped bundle; the folder ")
    shutil.copytree(Path(__file__).parent / "golden" / "format_1.lraee", tmp_path / "reference", dirs_exist_ok=True)
    result = CliRunner().invoke(app, ["verify", "reference"])
    assert result.stdout.startswith("reference: 12 files")
    assert result.stderr.startswith(f"note: reference is taken to be the folder {tmp_path / 'reference'}, not the ")
    assert len(result.stderr.splitlines()) == 1


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
    assert "threads here  1 (the largest block has 21 MFLOPs an image" in result.stdout


def test_verify_counts_the_files() -> None:
    """One line when all is well."""
    result = CliRunner().invoke(app, ["verify", "reference"])
    assert result.exit_code == 0, result.output
    files = lraee.load("reference").manifest.files
    assert f"reference.lraee: {len(files)} files" in " ".join(result.stdout.split())


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    """One wrong bit is enough."""
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
        (["info", "nowhere"], "error: nowhere is not a folder"),
        (["verify", "nowhere"], "error: nowhere is not a folder"),
        (["classify", "reference", "nowhere.jpg"], "nowhere.jpg"),
        (["classify", "reference", "nowhere.jpg", "--policy", "exit=99"], "error: there is no exit after block 99"),
        (["classify", "reference", "nowhere.jpg", "--policy", "fast"], "error: 'fast' is not a policy"),
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
    """Shells expect this status."""
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_the_module_is_a_program() -> None:
    """`python -m lraee` lists the commands."""
    command = [sys.executable, "-m", "lraee", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("classify", "info", "verify"))
