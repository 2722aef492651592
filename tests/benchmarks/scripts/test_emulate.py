"""Answers of emulated CPUs beside those of this machine, and what was recorded of them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lraee

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "emulate"
RECORD: dict[str, Any] = json.loads((FOLDER / "recorded.json").read_text("utf-8"))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules of ``benchmarks/emulate``, as its command sees them."""
    names = ("comparison", "emulated_system", "dot_products", "hidden_features", "run_images", "emulate")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


def outcome(label: str, exit_block: int, gates: dict[str, float], embedding: list[float]) -> dict[str, Any]:
    """Of one image under one policy."""
    return {"label": label, "exit_block": exit_block, "gates": gates, "embedding": embedding}


def images(**outcomes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Images by name, all of the same pixels."""
    return {name: {"image": name, "pixels": "p", "adaptive": found} for name, found in outcomes.items()}


def test_labels_exits_embeddings_and_gates_are_compared_image_by_image(scripts: dict[str, ModuleType]) -> None:
    """Over the images that both have; a gate only where both met the exit."""
    native = images(
        one=outcome("shoe", 4, {"4": 0.9}, [1.0, 0.0]),
        two=outcome("shirt", 6, {"4": 0.3, "6": 0.8}, [0.0, 2.0]),
        three=outcome("bag", 12, {}, [1.0, 1.0]),
    )
    emulated = images(
        two=outcome("coat", 4, {"4": 0.5}, [0.0, 1.0]),
        one=outcome("shoe", 4, {"4": 0.91}, [3.0, 4.0]),
    )
    emulated["one"]["pixels"] = "q"
    found = scripts["comparison"].compare(native, emulated, "adaptive")
    assert (found["images"], found["equal_pixels"], found["equal_labels"], found["equal_exits"]) == (2, 1, 1, 1)
    assert found["exit_blocks"] == {"4": 2}
    assert found["least_cosine"] == pytest.approx(0.6)
    assert found["mean_cosine"] == pytest.approx(0.8)
    assert found["gates"] == 2
    assert found["largest_gate_difference"] == pytest.approx(0.2)


def test_runs_without_a_common_image_are_refused(scripts: dict[str, ModuleType]) -> None:
    """Nothing would be compared, and all of it be equal."""
    with pytest.raises(ValueError, match="no image is in both"):
        scripts["comparison"].compare(images(), images(one=outcome("a", 1, {}, [1.0])), "adaptive")


def test_an_interrupted_run_goes_on_with_the_images_that_are_missing(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was cut off is run again, whole lines are kept; the real bundle, two images and then four."""
    path = tmp_path / "out.jsonl"

    def run(count: int) -> list[str]:
        monkeypatch.setattr("sys.argv", ["run_images.py", "reference", str(path), str(count)])
        scripts["run_images"].main()
        return path.read_text("utf-8").splitlines()

    first = run(2)
    path.write_text("\n".join(first)[:-5], "utf-8")
    circumstances, there = scripts["comparison"].read_outcomes(path)
    assert circumstances["lraee"] == lraee.__version__
    assert len(there) == 1
    whole = run(4)
    _, there = scripts["comparison"].read_outcomes(path)
    assert len(there) == 4
    assert whole[1] == first[1]
    assert len(whole) == 2 + 4  # two beginnings, four images
    same = scripts["comparison"].compare(there, there, "adaptive")
    assert same["equal_exits"] == 4
    assert same["least_cosine"] == pytest.approx(1.0)


def test_gates_on_the_way_are_noted_and_change_no_answer(scripts: dict[str, ModuleType]) -> None:
    """Full depth tells the gate of every exit; each policy answers as without a listener."""
    model = lraee.load("reference", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 3)).astype(np.uint8)
    for name, policy in scripts["run_images"].POLICIES.items():
        heard = scripts["run_images"].outcome(model, pixels, policy)
        alone = model.run_pixels(pixels, policy=policy)
        assert heard["exit_block"] == alone.exit_block[0]
        assert heard["embedding"] == alone.embedding[0].tolist()
        if name == "full":
            assert heard["gates"].keys() == {str(exit.block) for exit in model.manifest.exits}


def test_new_runs_take_the_place_of_the_old(scripts: dict[str, ModuleType]) -> None:
    """Of the same bundle, core and policy; the others stay."""
    run = {"bundle": "a", "core": "x", "policy": "full", "images": 1}
    other = {**run, "core": "y"}
    old = {"native": "n", "runs": [run, other], "arm_cores": {"b": {"images": 1, "equal": 1}}}
    record = scripts["comparison"].merged(old, {"qemu": "q", "runs": [{**run, "images": 2}]})
    assert record == {**old, "qemu": "q", "runs": [{**run, "images": 2}, other]}


def test_one_different_bit_is_a_difference(scripts: dict[str, ModuleType]) -> None:
    """Of the images that both have."""
    one = images(a=outcome("x", 1, {}, [1.0]), b=outcome("x", 1, {}, [1.0]), c=outcome("x", 1, {}, [1.0]))
    other = images(a=outcome("x", 1, {}, [1.0]), b=outcome("x", 1, {}, [float(np.nextafter(1.0, 2.0))]))
    assert scripts["comparison"].equal_to_the_last_bit(one, other) == {"images": 2, "equal": 1}


def test_both_arm_cores_gave_the_same_to_the_last_bit() -> None:
    """With dot products and without: products of integers are exact."""
    assert len(RECORD["arm_cores"]) == 3
    for found in RECORD["arm_cores"].values():
        assert found["equal"] == found["images"] >= 200


def test_a_missing_program_is_named_with_its_package(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made."""
    monkeypatch.setattr(scripts["emulated_system"].shutil, "which", lambda name, path: None)
    with pytest.raises(scripts["emulated_system"].EmulationError, match="apt-get install proot qemu-user-static"):
        scripts["emulated_system"].need("proot", "qemu-aarch64-static")


def test_each_core_gets_a_cpuinfo_of_its_own(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Without it ONNX Runtime would choose kernels by the machine around it."""
    system = scripts["emulated_system"]
    arm = system.ArmSystem(tmp_path)
    for name, has in ("cortex-a72", False), ("cortex-a76", True):
        command = arm.command(system.CORES[name], ["true"])
        (bind,) = [word for word in command if word.endswith(":/proc/cpuinfo")]
        assert ("asimddp" in Path(bind.partition(":")[0]).read_text("utf-8")) is has
        assert f"qemu-aarch64-static -cpu {name}" in command
    command = system.x86_command(system.CORES["haswell"], tmp_path, ["true"])
    text = (Path(command[command.index("-L") + 1]) / "proc" / "cpuinfo").read_text("utf-8")
    assert "avx2" in text
    assert "vnni" not in text


def test_an_unknown_core_is_refused(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With those that there are."""
    monkeypatch.setattr("sys.argv", ["emulate.py", "--cores", "cortex-a53"])
    with pytest.raises(SystemExit):
        scripts["emulate"].main()
    assert "'cortex-a53' is no core; wanted some of cortex-a72, cortex-a76, haswell" in capsys.readouterr().err


def test_comparing_what_was_not_run_is_refused(
    scripts: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """An empty table would look like agreement; the record stays as it is."""
    monkeypatch.setattr(scripts["emulate"], "need", lambda *programs: None)
    monkeypatch.setattr("sys.argv", ["emulate.py", "--root", str(tmp_path), "--compare-only", "--record"])
    before = (FOLDER / "recorded.json").read_bytes()
    assert scripts["emulate"].main() == 1
    assert "no image was run on both native and cortex-a72" in capsys.readouterr().err
    assert (FOLDER / "recorded.json").read_bytes() == before


@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76", "haswell", "haswell, by CPUID"])
@pytest.mark.parametrize("policy", ["adaptive", "full"])
def test_the_shipped_bundle_was_recorded_to_answer_alike_on_200_images(core: str, policy: str) -> None:
    """Labels, exits and pixels are equal, no embedding turned; a gate moves by a few hundredths at most."""
    (run,) = [run for run in RECORD["runs"] if (run["core"], run["policy"]) == (core, policy)
              and run["bundle"].startswith("reference,")]  # fmt: skip
    assert run["images"] >= 200
    assert run["equal_labels"] == run["equal_exits"] == run["equal_pixels"] == run["images"]
    assert run["least_cosine"] > 0.999
    assert run["largest_gate_difference"] < 0.05
    assert ("dotprod" in run["circumstances"]["int8_features"]) is (core == "cortex-a76")
    assert run["circumstances"]["exact_kernel"] is core.startswith("haswell")


@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76", "haswell, by CPUID"])
def test_labels_agree_at_the_size_of_vit_b_32(core: str) -> None:
    """A gate that lies at its threshold may let an image leave elsewhere; its label is the same."""
    runs = [run for run in RECORD["runs"] if run["core"] == core and run["bundle"].startswith("reference-b32,")]
    assert {run["policy"] for run in runs} == {"adaptive", "full"}
    for run in runs:
        assert run["images"] >= 200
        assert run["equal_labels"] == run["equal_pixels"] == run["images"]
        assert run["equal_exits"] >= 0.99 * run["images"]


@pytest.mark.parametrize(
    ("instruction", "is_one"),
    [
        (0x6F82E020, True),
        (0x4F82E020, True),
        (0x4FA2E820, True),
        (0x6E829420, True),
        (0x0E829420, True),
        (0x4E228420, False),
        (0x6F42A020, False),
        (0xD503201F, False),
    ],
    ids=["udot element", "sdot element", "sdot element 3", "udot", "sdot of 64 bits", "add", "umull", "nop"],
)
def test_dot_products_are_known_by_their_bits(scripts: dict[str, ModuleType], instruction: int, is_one: bool) -> None:
    """Encodings as an assembler gives them."""
    assert scripts["dot_products"].is_dot_product(instruction) is is_one


def test_code_that_is_translated_twice_counts_once(scripts: dict[str, ModuleType]) -> None:
    """Lines of qemu's log; what is no instruction is passed over."""
    one = "0x550081be40:  6f82e020  .byte    0x20, 0xe0, 0x82, 0x6f\n"
    other = "0x550081be44:  6f82e020  .byte    0x20, 0xe0, 0x82, 0x6f\n"
    nop = "0x550081be48:  d503201f  nop      \n"
    assert scripts["dot_products"].count_dot_products(["IN: \n", one, nop, other, one]) == 2


def test_only_the_core_with_dot_products_used_them() -> None:
    """So the two boards' kernels were two, and both gave the right answers."""
    counts = RECORD["dot_product_instructions"]
    assert counts["cortex-a72"] == 0
    assert counts["cortex-a76"] > 0


def test_both_sides_ran_the_same_versions() -> None:
    """A difference would else say nothing of the CPU."""
    for run in RECORD["runs"]:
        for package in ("onnxruntime", "numpy", "lraee"):
            assert run["circumstances"][package] == RECORD["native"][package]
