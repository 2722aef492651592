"""Sessions get the settings that the CPU needs, and share one arena."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

import lraee
from lraee.errors import BundleError
from lraee.ort import cpu, sessions
from lraee.ort.limits import cpu_quota
from lraee.ort.sessions import SessionSettings, make_session, session_options
from lraee.ort.threads import usable_cores

EXACT = "session.x64quantprecision"


def entry(options: ort.SessionOptions, key: str) -> str | None:
    """Read a configuration entry, or None."""
    try:
        value: str = options.get_session_config_entry(key)
    except RuntimeError:
        return None
    return value


@pytest.fixture
def pretend(monkeypatch):
    """Makes this machine look like another."""

    def be(machine: str, *flags: str) -> None:
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
        monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))

    return be


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", ("sse4_2", "avx2"), True),
        ("x86_64", ("avx2", "avx512f", "avx512bw"), True),
        ("AMD64", (), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx512f", "avx512_vnni"), False),
        ("x86_64", ("amx_int8", "amx_tile"), False),
        ("aarch64", ("asimd",), False),
        ("aarch64", ("asimd", "asimddp", "i8mm"), False),
        ("armv7l", ("neon",), False),
    ],
)
def test_the_exact_kernel_is_asked_for_only_where_products_saturate(pretend, machine, flags, saturates):
    """Elsewhere the option would cost time for nothing."""
    pretend(machine, *flags)
    assert cpu.int8_products_saturate() is saturates
    assert entry(session_options(SessionSettings()), EXACT) == ("1" if saturates else None)
    assert entry(session_options(SessionSettings(saturates=False)), EXACT) is None


def test_the_exact_kernel_gives_the_same_answers(golden, pretend, monkeypatch):
    """On any machine, as if it saturated: equal to a float rounding, since integer products are exact either way."""
    pixels = np.full((1, 16, 16, 3), 77, np.uint8)
    usual = lraee.load(golden, threads=1).run_pixels(pixels)
    monkeypatch.setattr(sessions, "int8_products_saturate", lambda: True)
    exact = lraee.load(golden, threads=1).run_pixels(pixels)
    assert exact.probabilities == pytest.approx(usual.probabilities, abs=1e-5)


def test_the_arena_is_registered_once(monkeypatch):
    """However many sessions are made, from however many threads."""
    calls: list[object] = []
    monkeypatch.setattr(sessions, "_arena_is_registered", False)
    monkeypatch.setattr(sessions.ort, "create_and_register_allocator", lambda *given: calls.append(given))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: session_options(SessionSettings(threads=1)), range(32)))
    assert len(calls) == 1
    assert all(entry(options, "session.use_env_allocators") == "1" for options in made)
    assert not any(options.enable_mem_pattern for options in made)


def test_threads_are_those_asked_for_or_one_for_each_usable_core():
    """Usable are the cores that this process may run on, and has the time of."""
    assert session_options(SessionSettings(threads=3)).intra_op_num_threads == 3
    assert session_options(SessionSettings()).intra_op_num_threads == usable_cores()
    if hasattr(os, "sched_getaffinity") and cpu_quota() is None:
        assert usable_cores() == len(os.sched_getaffinity(0))
    assert SessionSettings().thread_count >= 1


def test_own_pools_do_not_spin_and_the_global_pool_is_shared():
    """Threads that wait must not take the cores from those that work, nor keep them busy between two parts if asked."""
    own = session_options(SessionSettings())
    assert entry(own, "session.intra_op.allow_spinning") == "0"
    assert entry(session_options(SessionSettings(spinning=True)), "session.intra_op.allow_spinning") == "1"
    shared = session_options(SessionSettings(thread_pool="global"))
    assert own.use_per_session_threads
    assert entry(own, "session.force_spinning_stop") == "1"
    assert not shared.use_per_session_threads
    assert entry(shared, "session.force_spinning_stop") is None


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x0a", b"\x08\x0a\x12\x02\xff\xff"])
def test_what_onnx_runtime_cannot_load_is_a_bundle_error(tmp_path, capfd, content):
    """Named by its file, and nothing is printed."""
    path = tmp_path / "part.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"^part\.onnx: ONNX Runtime [\d.]+ cannot load it"):
        make_session(path, SessionSettings())
    assert capfd.readouterr().out == ""


OTHER_CODE = """
import sys
import numpy as np
import onnxruntime as ort
import lraee

def register(limit):
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"max_mem": limit}))

def session(shared):
    options = ort.SessionOptions()
    if shared:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return ort.InferenceSession(bundle.folder / "block_01.onnx", options)

bundle = lraee.bundle.folder.Bundle(lraee.bundle.folder.find_bundle("reference"))
tower = bundle.manifest.tower
feed = {"tokens": np.ones((2, tower.tokens, tower.width), np.float32)}
register(64 << 20)
before = [session(shared) for shared in (False, True)]
wanted = before[0].run(None, feed)[0]
model = lraee.load(bundle.folder, threads=1)
pixels = np.zeros((3, 28, 28, 3), np.uint8)
answer = model.run_pixels(pixels).probabilities
after = [session(shared) for shared in (False, True)]
register(64 << 20)
assert np.array_equal(model.run_pixels(pixels).probabilities, answer)
del model
for other in (*before, *after):
    assert np.array_equal(other.run(None, feed)[0], wanted)
print("fine")
"""


def test_other_sessions_of_the_process_work_before_and_after():
    """Those with their own arena and those that share one, also when other code registered an arena first."""
    done = subprocess.run([sys.executable, "-c", OTHER_CODE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_an_arena_of_other_code_that_cannot_be_replaced_is_shared(monkeypatch):
    """As ONNX Runtime had it once; any other failure is none of ours to hide."""
    monkeypatch.setattr(sessions, "_arena_is_registered", False)
    message = "An allocator for this device has already been registered for sharing."

    def refuse(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(sessions.ort, "create_and_register_allocator", refuse)
    assert entry(session_options(SessionSettings()), "session.use_env_allocators") == "1"
    monkeypatch.setattr(sessions, "_arena_is_registered", False)
    message = "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        session_options(SessionSettings())


def test_prepacking_is_off_where_memory_is_to_stay_low():
    """And on elsewhere: it makes a copy of the weights, which runs nearly twice as fast."""
    assert entry(session_options(SessionSettings(memory="low")), "session.disable_prepacking") == "1"
    assert entry(session_options(SessionSettings()), "session.disable_prepacking") is None
