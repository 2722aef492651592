"""ONNX Runtime sessions, made in one place, with the settings that make a chain of parts cost what one graph costs.

- One arena for all sessions of the process (`use_env_allocators`, memory pattern off): with an arena each, activations
  never stay in cache. The arena is registered once in ONNX Runtime's environment; sessions of other code in the same
  process use it only if they ask for it. An arena that other code has registered before is replaced: its sessions keep
  theirs, sessions that it makes later share this one.
- `force_spinning_stop`: the threads of one session stop spinning when its run ends. Thirteen spinning pools on two
  cores take ten times as long.
- Where memory is to stay low, `disable_prepacking`: weights are read where their file is mapped, instead of from a
  private copy; `lraee.mapped_pages` gives their pages back.
- `x64quantprecision` only where U8S8 products saturate (see `cpu.int8_products_saturate`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from lraee.cpu import available_cores, int8_products_saturate
from lraee.errors import BundleError
from lraee.onnxruntime_version import check_global_pool, load_failure

_arena_lock = threading.Lock()
_arena_is_registered = False
_global_pool_is_set = False


def _register_arena() -> None:
    """Register the shared CPU arena once in this process."""
    global _arena_is_registered
    with _arena_lock:
        if not _arena_is_registered:
            memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            try:
                ort.create_and_register_allocator(memory, None)
            except _LOAD_ERRORS as error:
                if "already been registered" not in str(error):  # old versions keep the first one, which will do
                    raise
            _arena_is_registered = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How sessions are made."""

    threads: int | None = None
    """Cores used inside one operator; None takes all that the process may run on."""
    thread_pool: Literal["session", "global"] = "session"
    """``global`` uses ONNX Runtime's process-wide pool, which `use_global_thread_pool` must have set up: only for
    programs that own their process, since it makes any other default session raise."""
    memory: Literal["normal", "low"] = "normal"
    """``low`` reads weights where they are mapped and gives their pages back after each part: about half as fast."""

    @property
    def thread_count(self) -> int:
        """The number of threads, at least 1."""
        return self.threads or available_cores()


def use_global_thread_pool(threads: int) -> None:
    """Set the size of ONNX Runtime's process-wide pool, before any session is made."""
    global _global_pool_is_set
    check_global_pool()
    ort.set_global_thread_pool_sizes(threads, 1)
    _global_pool_is_set = True


def global_thread_pool_is_set() -> bool:
    """Whether sessions with threads of their own are refused in this process, because of `use_global_thread_pool`."""
    return _global_pool_is_set


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    """The options described at the head of this file."""
    _register_arena()
    options = ort.SessionOptions()
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_env_allocators", "1")
    if settings.thread_pool == "global":
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = settings.thread_count
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if settings.memory == "low":
        options.add_session_config_entry("session.disable_prepacking", "1")
    if int8_products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def make_session(path: Path, settings: SessionSettings) -> ort.InferenceSession:
    """Open one ONNX file on the CPU.

    Raises:
        BundleError: ONNX Runtime cannot load it.
    """
    try:
        return ort.InferenceSession(
            str(path),
            session_options(settings),
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would print and try the same again
        )
    except _LOAD_ERRORS as error:
        raise BundleError(load_failure(path.name, str(error))) from error


_state = ort.capi.onnxruntime_pybind11_state
_LOAD_ERRORS = (
    _state.Fail,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.InvalidArgument,
    _state.NotImplemented,
    _state.RuntimeException,
    RuntimeError,
    ValueError,
)
"""What ONNX Runtime raises for a file that it cannot load; the last two for errors that C++ did not expect."""
