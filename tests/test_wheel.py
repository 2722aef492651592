"""The wheel as a person with a board gets it: what is inside, and what works with the base dependencies alone.

Builds the wheel and installs it, without extras, into an environment that holds nothing else; pip may fetch the base
dependencies. Everything then runs in that environment, from an empty folder, so that the checkout cannot help.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from markdown_files import fences

from lraee.install import Extra, install_command
from lraee_calibration_data import fashion_mnist_test, open_dataset, photo_table

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = ("lraee", "lraee_exporters", "lraee_toolchain", "lraee_calibration_data", "lraee_benchmarks")

LARGEST_BYTES = 48_000_000
"""Of the wheel: photos, Fashion-MNIST and the models are 50 MB, and hardly compress."""

FEW_ROUNDS = ("--launches", "1", "--repeats", "2", "--warmup", "0", "--cold-starts", "1", "--image-count", "4")


def run(*command: str | Path, cwd: Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program with an environment that says nothing of this one; `ok` wants exit status 0."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd.parent), "COLUMNS": "200", "ORT_DISABLE_TELEMETRY": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if ok:
        assert done.returncode == 0, f"{' '.join(words)} ended with status {done.returncode}:\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Board:
    """An environment with the wheel and its base dependencies."""

    programs: Path
    """Folder of its programs."""
    folder: Path
    """An empty folder to work in."""

    def run(self, program: str, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its programs."""
        return run(self.programs / program, *arguments, cwd=self.folder, ok=ok)

    def python(self, code: str) -> str:
        """What a piece of Python prints there."""
        return self.run("python", "-I", "-c", code).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, int]:
    """Name and size in bytes of everything in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {member.filename: member.file_size for member in archive.infolist()}


@pytest.fixture(scope="module")
def board(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """`pip install lraee` and nothing else; removed afterwards, for it is large."""
    home = tmp_path_factory.mktemp("board")
    venv.create(home / "venv", with_pip=True)
    # Not `run`: where pip looks for packages is the machine's business, and part of its environment.
    pip = [str(home / "venv/bin/pip"), "--disable-pip-version-check", "install", "--quiet", str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip cannot install the wheel:\n{done.stderr}"
    folder = home / "work"
    folder.mkdir()
    yield Board(home / "venv/bin", folder)
    shutil.rmtree(home)


@pytest.mark.parametrize(
    "name",
    [
        "lraee/bundles/reference.lraee/manifest.json",
        "lraee/bundles/reference.lraee/block_12.data",
        "lraee/bundles/reference.lraee/text.data",
        "lraee/bundles/reference.lraee/merges.txt",
        "lraee/bundles/LICENSE.txt",
        "lraee/bundles/reference.baselines/fp32.onnx",
        "lraee/images/resize/bicubic.onnx",
        "lraee_calibration_data/fashion_mnist/pool.zip",
        "lraee_calibration_data/fashion_mnist/test.zip",
        "lraee_calibration_data/fashion_mnist/LICENSE.txt",
        "lraee_calibration_data/imagenet_1k/classes.tsv",
        "lraee_calibration_data/photos/LICENSES.md",
        "lraee_exporters/reference/LICENSE.txt",
        "lraee_exporters/reference/MODEL_CARD.md",
        "lraee_exporters/reference/open_clip_model.safetensors",
        *(f"{package}/py.typed" for package in PACKAGES),
    ],
)
def test_the_wheel_has(name: str, files: dict[str, int]) -> None:
    """Data, models, licences and the type markers; `py.typed` is empty by its specification."""
    assert name in files
    assert files[name] > 0 or name.endswith("py.typed")


def test_the_wheel_has_every_file_of_the_packages(files: dict[str, int]) -> None:
    """All that lies in the five package folders, and so all photos and every part of the bundle."""
    folders = ("runtime", "exporters", "toolchain", "calibration_data", "benchmarks")
    wanted = {
        path.as_posix()
        for folder, package in zip(folders, PACKAGES, strict=True)
        for found in (ROOT / folder / package).rglob("*")
        if found.is_file()
        for path in [found.relative_to(ROOT / folder)]
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }
    assert sum(name.startswith("lraee_calibration_data/photos/") for name in wanted) > 100
    assert wanted == {name for name in files if ".dist-info/" not in name}


def test_the_wheel_has_the_licences_where_installers_look(files: dict[str, int]) -> None:
    """Its own and those of photos, data sets, the reference model and CLIP's tokenizer, in dist-info (PEP 639)."""
    licences = {name.partition(".dist-info/licenses/")[2] for name in files if ".dist-info/licenses/" in name}
    assert licences == {
        "LICENSE",
        "calibration_data/lraee_calibration_data/fashion_mnist/LICENSE.txt",
        "calibration_data/lraee_calibration_data/imagenet_1k/LICENSE.txt",
        "calibration_data/lraee_calibration_data/photos/LICENSES.md",
        "exporters/lraee_exporters/reference/LICENSE.txt",
        "runtime/lraee/bundles/LICENSE-photo-clip.txt",
        "runtime/lraee/bundles/LICENSE.txt",
    }


def test_the_wheel_has_nothing_else_at_the_top(files: dict[str, int]) -> None:
    """No tests, no tools, no work folders."""
    top = {name.partition("/")[0] for name in files}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_is_small_enough_for_a_board(wheel: Path) -> None:
    """Whoever adds data must look at what a board downloads."""
    assert wheel.stat().st_size < LARGEST_BYTES


def test_a_board_has_none_of_the_extras(board: Board) -> None:
    """Else the tests below would show nothing."""
    extras = ("torch", "torchvision", "open_clip", "onnx", "safetensors", "matplotlib", "PIL", "openvino", "fastapi")
    assert board.python(f"from importlib.util import find_spec; print([m for m in {extras} if find_spec(m)])") == "[]\n"


EVERY_MODULE = """
import importlib, pkgutil
for name in ("lraee", "lraee_calibration_data", "lraee_benchmarks"):
    package = importlib.import_module(name)
    assert "site-packages" in package.__file__, package.__file__
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__") and not module.name.startswith("lraee.service."):
            importlib.import_module(module.name)
            print(module.name)
"""


def test_every_module_of_the_base_packages_can_be_imported(board: Board) -> None:
    """From the wheel, without torch and without Pillow; those of a service need the extra `serve`."""
    names = set(board.python(EVERY_MODULE).split())
    assert {"lraee.model", "lraee.policies.adaptive", "lraee_calibration_data.dataset"} <= names
    assert {"lraee_benchmarks.cli", "lraee_benchmarks.device.fresh_process"} <= names


def test_the_shipped_bundle_is_whole(board: Board) -> None:
    """Nothing was lost or changed on the way into the wheel."""
    assert "every hash is right" in board.run("python", "-m", "lraee", "verify", "reference").stdout


def test_an_array_is_classified_without_pillow(board: Board) -> None:
    """A camera gives arrays of the right size; nobody needs an image library."""
    code = "import lraee, numpy; model = lraee.load('reference'); "
    code += "print(model.run_pixels(numpy.zeros((2, 28, 28, 3), numpy.uint8)).probabilities.shape)"
    assert board.python(code) == "(2, 10)\n"


def test_a_frame_of_another_size_is_classified_without_pillow(board: Board) -> None:
    """ONNX Runtime resizes it, with the graph that lies in the wheel."""
    code = "import lraee, numpy; model = lraee.load('reference'); frame = bytes(640 * 480 * 3 // 2); "
    code += "print(model.classify(lraee.frames.from_nv12(frame, 640, 480)).label in model.labels)"
    assert board.python(code) == "True\n"


TYPED = """
import sys
import lraee, numpy
model = lraee.load("reference")
model.set_labels(["footwear", "a garment", "bag"])
print(model.classify(numpy.zeros((28, 28, 3), numpy.uint8)).label in model.labels)
print(sorted({"torch", "PIL", "onnx"} & set(sys.modules)))
"""


def test_labels_are_typed_and_embedded_on_the_board(board: Board) -> None:
    """The bundle brings its text tower and tokenizer; nothing but the base dependencies is loaded."""
    assert board.python(TYPED) == "True\n[]\n"


def test_lraee_export_says_in_one_line_what_to_install(board: Board) -> None:
    """The command is there without its extra; it ends with status 1 and writes nothing."""
    done = board.run("lraee-export", "reference", "-o", "x.lraee", ok=False)
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.endswith("pip install 'lraee[export]'")
    assert not list(board.folder.iterdir())


def test_lraee_bench_runs_with_the_base_dependencies(board: Board) -> None:
    """`pip install lraee` and `lraee-bench reference` is all that a person with a board needs."""
    printed = board.run("lraee-bench", "reference", *FEW_ROUNDS).stdout
    assert all(f"\n{row} " in printed for row in ("adaptive=balanced", "full", "graph", "fp32"))


def test_what_needs_pillow_says_so_in_one_line(board: Board) -> None:
    """Files of images cannot be decoded; the message has the command that mends it."""
    done = board.run("lraee-bench", "reference", "--images", "photos", *FEW_ROUNDS, ok=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'lraee[image]'")


def test_serve_says_in_one_line_what_to_install(board: Board) -> None:
    """Before a bundle is opened or a port is taken."""
    done = board.run("python", "-m", "lraee", "serve", "reference", ok=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "serving needs FastAPI, uvicorn, httptools, prometheus-client, Pillow, which are not installed" in line
    assert line.endswith("pip install 'lraee[serve]'")


OFFLINE = ("--disable-pip-version-check", "--no-index", "--dry-run")


def test_the_documents_install_what_is_there(wheel: Path) -> None:
    """Every first install command of the guides, run by pip without a network, finds lraee; until it is published."""
    texts = [path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    found = {
        word.partition("[")[0].replace("~/", f"{wheel.parent}/").replace("'", "")
        for text in texts
        for command in re.findall(r"^pip install (.+)$", text, re.MULTILINE)
        for word in [command.partition("#")[0].strip()]
        if "'lraee[" not in word  # adds to what was installed; the next test
    }
    assert len(found) == 2, f"a checkout and a wheel were expected, met {found}"
    for target in sorted(found):
        pip = [sys.executable, "-m", "pip", "install", *OFFLINE, "--ignore-installed", "--no-deps"]
        done = subprocess.run(
            [*pip, "--no-build-isolation", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Would install lraee-" in done.stdout


@pytest.mark.parametrize("extra", get_args(Extra))
def test_a_message_names_a_command_that_finds_lraee(board: Board, extra: Extra) -> None:
    """pip takes the extra from the installed package: no index is asked for lraee, only for what the extra needs."""
    _, _, *words = shlex.split(install_command(extra))
    done = board.run("python", "-m", "pip", "install", *OFFLINE, *words, ok=False)
    assert "distribution found for lraee" not in done.stderr
    assert re.search(rf"extra == ['\"]{extra}['\"]", done.stdout + done.stderr)


@pytest.fixture
def serving_board(board: Board, tmp_path: Path) -> Board:
    """The same with the extra `serve`, fetched as its command does, and the images that the page names."""
    venv.create(tmp_path / "venv", symlinks=True)
    (own,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (base,) = (board.programs.parent / "lib").glob("python*/site-packages")
    (own / "base.pth").write_text(str(base))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pip = [str(board.programs / "pip"), "--disable-pip-version-check", "install", "--quiet", "--target", str(own)]
    wanted = project["optional-dependencies"]["serve"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip cannot install the extra: {done.stderr}"
    folder = tmp_path / "work"
    folder.mkdir()
    dataset = open_dataset(fashion_mnist_test())
    for name in ("trousers", "bag"):
        index = next(at for at, sample in enumerate(dataset.samples) if sample.label == name)
        (folder / f"{name}.png").write_bytes(dataset.read_bytes(index))
    return Board(tmp_path / "venv/bin", folder)


@pytest.mark.skipif(shutil.which("curl", path="/usr/bin:/bin") is None, reason="needs curl")
def test_the_service_answers_as_its_page_says(serving_board: Board) -> None:
    """Every command of docs/serve.md in order, from the wheel with the extra; its Python too."""
    page = fences(ROOT / "docs/serve.md")
    start, *asking = [fence.text for fence in page if fence.language == "bash" and "0.0.0.0" not in fence.text]
    (other,) = [fence.text for fence in page if "0.0.0.0" in fence.text]
    pip, serve, *_ = start.splitlines()
    assert pip == install_command("serve")
    environment = {
        "PATH": f"{serving_board.programs}:/usr/bin:/bin",
        "HOME": str(serving_board.folder),
        "ORT_DISABLE_TELEMETRY": "1",
    }

    def shell(text: str) -> str:
        words = ["sh", "-ec", text]
        done = subprocess.run(
            words, cwd=serving_board.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    token, public = other.splitlines()
    shell(token)
    command = [serving_board.programs / word if word == "python" else word for word in shlex.split(serve)]
    process = subprocess.Popen(
        command, cwd=serving_board.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "http://127.0.0.1:8000/\n"
        shell("until curl --silent --fail http://127.0.0.1:8000/readyz; do sleep 0.1; done")
        printed = "".join(shell(text.replace("curl ", "curl --silent --fail-with-body ")) for text in asking)
        (program,) = [fence.text for fence in page if fence.language == "python"]
        (serving_board.folder / "ask.py").write_text(program)
        assert shell("python ask.py") == "trousers\n"
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()
    assert '"label":"trousers"' in printed
    assert '"label":"a garment"' in printed
    assert "lraee_images_total" in printed
    assert shlex.split(public)[:5] == ["python", "-m", "lraee", "serve", "reference"]


@pytest.fixture
def photo_board(board: Board, tmp_path: Path) -> Board:
    """The same with Pillow, and a folder with the programs to start from, photos, clothes and a clip."""
    venv.create(tmp_path / "venv", symlinks=True)
    (own,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (base,) = (board.programs.parent / "lib").glob("python*/site-packages")
    (own / "base.pth").write_text(str(base))
    pip = [str(board.programs / "pip"), "--disable-pip-version-check", "install", "--quiet", "--target", str(own)]
    done = subprocess.run([*pip, "Pillow"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip cannot install Pillow:\n{done.stderr}"
    folder, shipped = tmp_path / "work", photo_table().parent
    shutil.copytree(ROOT / "docs/programs", folder)
    for name in ("photos", "clothes"):
        (folder / name).mkdir()
    for name, source in {"cat": "skimage-chelsea", "coffee": "skimage-coffee", "bird": "cq100-king-penguin"}.items():
        shutil.copy(shipped / f"{source}.jpg", folder / f"photos/{name}.jpg")
    (folder / "clip.mjpeg").write_bytes((folder / "photos/bird.jpg").read_bytes() * 3)
    dataset = open_dataset(fashion_mnist_test())
    for index in range(5):
        (folder / f"clothes/{index}.png").write_bytes(dataset.read_bytes(index))
    return Board(tmp_path / "venv/bin", folder)


def test_the_programs_to_start_from_run_as_their_page_says(photo_board: Board) -> None:
    """Every command without a mark, in order, from the wheel with Pillow; each prints something."""
    page = [fence for fence in fences(ROOT / "docs/programs.md") if fence.language == "bash" and fence.needs is None]
    lines = [shlex.split(line) for fence in page for line in fence.text.splitlines()]
    elsewhere = {"serve.py"}  # docs/browser.md shows it, and tests/runtime/js run it
    assert {words[1] for words in lines} == {path.name for path in (ROOT / "docs/programs").glob("*.py")} - elsewhere
    for program, *words in lines:
        done = photo_board.run(program, *words)
        assert done.stdout or words == ["search_photos.py", "photos"]
        assert "Traceback" not in done.stderr
    assert (photo_board.folder / "sorted/king penguin/bird.jpg").is_file()
    assert (photo_board.folder / "photos.photo-clip.npz").is_file()
