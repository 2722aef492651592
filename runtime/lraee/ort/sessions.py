"""Makes all ONNX Runtime sessions, with settings by which a chain of parts costs what one graph costs.

- One arena for all sessions of the process (`use_env_allocators`, memory pattern off): with an arena each, activations
  never stay in cache. The arena is registered once in ONNX Runtime's environment; sessions of other code in the same
  process use it only if they ask for it. An arena that other code has registered before is replaced: its sessions keep
  theirs, sessions that it makes later share this one.
- `allow_spinning=0`: threads sleep until there is work for them. Threads that wait in a loop take the cores from the
  very threads that they wait for, as soon as another process wants one: on two busy cores the
  reference took 84 ms with two spinning threads and 8.5 with two that sleep, a ViT-B/32 548 and 147. With both cores
  free, spinning saves 5 % of the ViT-B/32 (`python benchmarks/experiments/threads.py`). Where threads are to spin,
  `force_spinning_stop` ends it with the run of their session.
- Where memory is to stay low, `disable_prepacking`: weights are read where their file is mapped, instead of from a
  private copy; `lraee.ort.mapped_pages` gives their pages back.
- `x64quantprecision` only where U8S8 GEMMs saturate (see `cpu.int8_products_saturate`), and the bundle lets them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from lraee.bundle.linked_graph import LinkedGraph
from lraee.errors import BundleError, SettingsError
from lraee.ort.cpu import int8_products_saturate
from lraee.ort.forking import no_fork_meanwhile
from lraee.ort.threads import default_threads, fitting_threads, room_for
from lraee.ort.version import check_global_pool, load_failure

_arena_lock = threading.Lock()
_arena_is_registered = False
_global_pool_threads: int | None = None


def _register_arena() -> None:
    """Register the shared CPU arena once in this process."""
    global _arena_is_registered
    with _arena_lock:
        if not _arena_is_registered:
            memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            try:
                ort.create_and_register_allocator(memory, None)
            except RUNTIME_ERRORS as error:
                if "already been registered" not in str(error):  # old versions keep the first one, which will do
                    raise
            _arena_is_registered = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Holds the settings with which sessions are made."""

    threads: int | None = None
    """Threads that run one operator, the caller included; None takes `lraee.ort.threads.default_threads`."""
    thread_pool: Literal["session", "global"] = "session"
    """``global`` uses ONNX Runtime's process-wide pool, which `use_global_thread_pool` must have set up: only for
    programs that own their process, since it makes any other default session raise."""
    spinning: bool = False
    """Threads of a session wait for work in a loop during its run: faster where nothing else wants the cores, several
    times slower next to any other busy process. The process-wide pool spins as ONNX Runtime's default has it."""
    memory: Literal["normal", "low"] = "normal"
    """``low`` reads weights where they are mapped and gives their pages back after each part: about half as fast."""
    saturates: bool = True
    """Whether products of INT8 parts may saturate, so that they need the exact kernel where the CPU's fast one does;
    see `lraee.bundle.manifest.QuantizationInfo`."""

    @property
    def thread_count(self) -> int:
        """The number of threads, at least 1: of the process-wide pool where that is used and set."""
        if self.thread_pool == "global" and _global_pool_threads is not None:
            return _global_pool_threads
        return self.threads or default_threads()


def use_global_thread_pool(threads: int) -> None:
    """Set the size of ONNX Runtime's process-wide pool, before any session is made.

    Where a limit of the system is too narrow, it gets fewer threads, with a `ThreadsWarning`.
    """
    global _global_pool_threads
    check_global_pool()
    threads = fitting_threads(threads, sessions=1)
    ort.set_global_thread_pool_sizes(threads, 1)
    _global_pool_threads = threads


def global_thread_pool_is_set() -> bool:
    """Tell whether `use_global_thread_pool` was called, so that sessions cannot have their own threads."""
    return _global_pool_threads is not None


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    """Set the options that the head of this file describes."""
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
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if settings.memory == "low":
        options.add_session_config_entry("session.disable_prepacking", "1")
    if settings.saturates and int8_products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def make_session(
    path: Path | LinkedGraph,
    settings: SessionSettings,
    *,
    siblings: int = 0,
    options: ort.SessionOptions | None = None,
) -> ort.InferenceSession:
    """Open one ONNX file on the CPU; every session of the project is made here.

    Args:
        path: of the file, or its content where its weights are links.
        settings: of the session. Where a limit of the system is too narrow for its threads, it gets fewer, with a
            `ThreadsWarning`: ONNX Runtime would wait for ever for a thread that it does not get.
        siblings: sessions still to be made with these settings, which are to have as many threads.
        options: what `session_options` gave for these settings, with more set on it.

    Raises:
        BundleError: ONNX Runtime cannot load it.
        SettingsError: the settings ask for the process-wide pool, which is not set up.
    """
    own = settings.thread_pool == "session"
    with no_fork_meanwhile(), room_for(settings.thread_count if own else 1, sessions=1 + siblings) as threads:
        if options is None:
            options = session_options(replace(settings, threads=threads) if own else settings)
        elif own:
            options.intra_op_num_threads = threads
        if isinstance(path, LinkedGraph):
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.folder))
        try:
            return ort.InferenceSession(
                path.content if isinstance(path, LinkedGraph) else str(path),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it would print and try the same again
            )
        except RUNTIME_ERRORS as error:
            if "EnvCreatedWithGlobalThreadPools() was false" in str(error):
                raise SettingsError(
                    "thread_pool is 'global', but this process has no such pool; call "
                    "lraee.ort.sessions.use_global_thread_pool(threads) before any session is made, or load with "
                    "thread_pool='session'"
                ) from error
            raise BundleError(load_failure(path.name, str(error))) from error


def threads_of(session: ort.InferenceSession, settings: SessionSettings) -> int:
    """Count the threads that run one operator of a session, the caller included: those of the pool that it uses."""
    own = settings.thread_pool == "session"
    return int(session.get_session_options().intra_op_num_threads) if own else settings.thread_count


_state = ort.capi.onnxruntime_pybind11_state
RUNTIME_ERRORS = (
    _state.Fail,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.InvalidArgument,
    _state.NotImplemented,
    _state.RuntimeException,
    RuntimeError,
    ValueError,
)
"""What ONNX Runtime raises for a graph that it cannot load or run; the last two for errors that C++ did not expect."""
