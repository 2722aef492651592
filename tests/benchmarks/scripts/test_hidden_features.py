"""A command that runs as on AVX2 alone: lraee and ONNX Runtime believe the same of the CPU."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lraee.ort.cpu import is_x86

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "emulate"
ROOT = FOLDER.parents[1]

PLAYED = pytest.mark.skipif(
    not (sys.platform == "linux" and is_x86() and shutil.which("cc")), reason="needs Linux on x86 and a C compiler"
)


@pytest.fixture
def hidden_features(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("hidden_features")
    del sys.modules["hidden_features"]


def write_product(path: Path) -> None:
    """A product of uint8 levels (n, 256) with int8 weights of 127, as int32 (n, 16)."""
    weights = numpy_helper.from_array(np.full((256, 16), 127, np.int8), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 256])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 16])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


BELIEFS = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
from lraee.ort.cpu import cpu_flags, int8_products_saturate
from lraee.ort.sessions import SessionSettings, make_session
feed = {"x": np.full((1, 256), 255, np.uint8)}
bare = ort.InferenceSession(sys.argv[1]).run(["y"], feed)[0]
exact = make_session(Path(sys.argv[1]), SessionSettings(threads=1)).run(["y"], feed)[0]
wanted = 255 * 127 * 256
print("avx2" in cpu_flags(), int8_products_saturate(), (bare == wanted).all(), (exact == wanted).all())
"""
"""What lraee says of the CPU, and whether the products of a default session and of lraee's are right."""


def test_lraee_and_onnx_runtime_believe_the_same_of_the_cpu(tmp_path: Path, hidden_features: ModuleType) -> None:
    """Nothing newer than AVX2: a default session saturates, lraee knows it, and its own session is exact."""
    if reason := hidden_features.obstacle_here():
        pytest.skip(reason)
    write_product(tmp_path / "product.onnx")
    command = [sys.executable, "-c", BELIEFS, str(tmp_path / "product.onnx")]
    done = subprocess.run(
        hidden_features.hidden_command(tmp_path / "hidden", command), capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["True", "True", "False", "True"], "")


def test_lraee_and_onnx_runtime_believe_the_same_with_nothing_hidden(tmp_path: Path) -> None:
    """A default session saturates exactly where lraee says so."""
    write_product(tmp_path / "product.onnx")
    command = [sys.executable, "-c", BELIEFS, str(tmp_path / "product.onnx")]
    _, saturates, bare_is_right, exact_is_right = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    assert (saturates == "True") is (bare_is_right == "False")
    assert exact_is_right == "True"


TRAPPED = """
import ctypes, faulthandler, mmap
from lraee.ort.cpu import cpu_flags
faulthandler.enable()
# push rbx; mov eax, 7; xor ecx, ecx; hlt; mov eax, ecx; pop rbx; ret
machine = bytes.fromhex("53b80700000031c9f489c85bc3")
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(machine)
ask = ctypes.CFUNCTYPE(ctypes.c_uint32)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print(ask(), *cpu_flags(), flush=True)
ctypes.string_at(0)
"""
"""Asks CPUID leaf 7 for its ecx, of which AVX512-VNNI is a bit, by an instruction that faults on every CPU."""


@PLAYED
def test_the_trap_is_answered_also_where_the_program_handles_faults(tmp_path: Path) -> None:
    """As pytest does; /proc/cpuinfo is the given one, and a true fault reaches the program's own handler, once."""
    library, cpuinfo = tmp_path / "played.so", tmp_path / "cpuinfo"
    build = ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", "-DTRAP_ON_HLT", "-o", str(library)]
    subprocess.run([*build, str(FOLDER / "hide_features.c"), "-ldl"], check=True)
    cpuinfo.write_text("flags : one\n")
    command = ["env", f"LD_PRELOAD={library}", f"LRAEE_CPUINFO={cpuinfo}", sys.executable, "-c", TRAPPED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "0 one\n"
    assert done.returncode == -11
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 1


def test_newer_features_leave_the_flags_of_every_core(hidden_features: ModuleType) -> None:
    """And nothing else changes."""
    cores = "processor\t: {}\nmodel name\t: avx512\nflags\t\t: fpu avx avx2 avx512f avx_vnni amx_int8 fma{}\n\n"
    cpuinfo = cores.format(0, "") + cores.format(1, " avx512_vnni")
    kept = cores.replace(" avx512f avx_vnni amx_int8", "")
    assert hidden_features.cpuinfo_without_newer(cpuinfo) == kept.format(0, "") + kept.format(1, "")


@pytest.mark.parametrize(
    ("x86_linux", "flags", "compiler", "said"),
    [
        (False, "", True, "use such a machine"),
        (True, "avx2", False, None),
        (True, "avx2 avx512_vnni", True, "no cpuid_fault in /proc/cpuinfo"),
        (True, "avx2 avx_vnni cpuid_fault", False, "apt-get install gcc"),
        (True, "avx2 avx_vnni cpuid_fault", True, None),
    ],
    ids=["another system", "nothing to hide", "no trap", "no compiler", "it can"],
)
def test_where_nothing_can_be_hidden_one_line_says_what_to_do(
    hidden_features: ModuleType, x86_linux: bool, flags: str, compiler: bool, said: str | None
) -> None:
    """A CPU with nothing newer runs the command as it is."""
    found = hidden_features.obstacle(x86_linux=x86_linux, flags=frozenset(flags.split()), compiler=compiler)
    if said is None:
        assert found is None
    else:
        assert said in found
        assert "\n" not in found


def test_the_status_of_the_command_is_the_script_s(
    hidden_features: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """So that make sees failing tests; where nothing can be hidden the command is not run."""
    monkeypatch.setattr(hidden_features, "obstacle_here", lambda: "no such CPU")
    assert hidden_features.main(["false"]) == 1
    assert capfd.readouterr().err == "cannot run as on AVX2 alone: no such CPU\n"
    assert hidden_features.main([]) == 2
    monkeypatch.undo()
    if hidden_features.obstacle_here() is None:
        assert hidden_features.main(["sh", "-c", "exit 7"]) == 7


def test_make_runs_the_whole_suite_so() -> None:
    """`make test-avx2` stands at the head of the Makefile and among the commands for contributors."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "#   make test-avx2 " in makefile
    assert "$(BIN)/python benchmarks/emulate/hidden_features.py $(BIN)/pytest" in makefile
    assert "make test-avx2" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
