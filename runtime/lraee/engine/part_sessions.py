"""Makes the session of each part once, when first reached or in the background, and shares it among all threads."""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import onnxruntime as ort

from lraee.bundle.folder import Bundle
from lraee.bundle.linked_graph import LinkedGraph
from lraee.engine.buffers import TokenBuffers
from lraee.errors import ForkError, LraeeError, SettingsError
from lraee.ort.forking import give_up, no_fork_meanwhile, watch_forks
from lraee.ort.mapped_pages import MappedPages, make_mapped
from lraee.ort.sessions import SessionSettings, global_thread_pool_is_set, make_session, threads_of
from lraee.ort.threads import default_threads, fitting_threads
from lraee.ort.version import check_onnxruntime

_everyones: WeakSet[Sessions] = WeakSet()
"""The sessions of all models of this process."""


class Sessions:
    """Holds the sessions by part name, and the buffers that they read and write."""

    def __init__(self, bundle: Bundle, settings: SessionSettings) -> None:
        """Check the bundle and count the threads; no session is made yet.

        Args:
            bundle: whose parts are run.
            settings: of all sessions. Where a limit of the system is too narrow for the threads of all of them, they
                get fewer, with a `ThreadsWarning`.

        Raises:
            BundleError: the bundle names a later ONNX Runtime than the installed one.
        """
        check_onnxruntime(bundle.manifest.onnxruntime)
        self._bundle = bundle
        manifest = bundle.manifest
        threads = settings.threads or default_threads(manifest.block_flops)
        self._settings = replace(settings, threads=threads, saturates=manifest.saturates)
        self._lost_in_fork = False
        self._begin()
        watch_forks(self)
        _everyones.add(self)
        self.threads  # noqa: B018  # counted now, so that loading a model warns of a narrow limit

    def _begin(self) -> None:
        tower = self._bundle.manifest.tower
        self._threads: int | None = None  # of sessions to come; in a child that was forked, planned when one comes
        self._made: dict[str, ort.InferenceSession] = {}
        self._pages: dict[str, MappedPages] = {}  # where memory is to stay low
        self.buffers = TokenBuffers(tower.tokens, tower.width)
        self._unlock()

    def _unlock(self) -> None:
        self._locks = {part.name: threading.Lock() for part in self._bundle.manifest.parts}
        self._background: threading.Thread | None = None
        self._stopping = threading.Event()

    def __getitem__(self, name: str) -> ort.InferenceSession:
        """Give the session of part `name`; its files are verified before it is made.

        Raises:
            BundleError: a file of the part is damaged, or ONNX Runtime cannot load it.
            ForkError: the process-wide thread pool was lost in a fork.
        """
        made = self._made.get(name)
        return made if made is not None else self._make(name)

    @property
    def threads(self) -> int:
        """Threads that run one part, the caller included: as asked for, or as many as the system allows."""
        if self._settings.thread_pool == "global" and global_thread_pool_is_set():
            return self._settings.thread_count
        if self._threads is None:
            starting = 1 if self._settings.thread_pool == "global" else len(self._to_come())
            promised = sum(other.threads_to_come for other in list(_everyones) if other is not self)
            self._threads = fitting_threads(self._settings.thread_count, sessions=starting, promised=promised)
        return self._threads

    @property
    def settings(self) -> SessionSettings:
        """Settings of the sessions, with the number of threads that they get."""
        return replace(self._settings, threads=self.threads)

    @property
    def thread_total(self) -> int:
        """Threads that all parts together have started once every session is made; callers do not count."""
        if self._settings.thread_pool == "global":
            return self.threads - 1
        return self._started() + self.threads_to_come

    @property
    def threads_to_come(self) -> int:
        """Threads that sessions still to be made will start; none is planned in a child before it makes its first."""
        planned = self._threads if self._settings.thread_pool == "session" else None
        return 0 if planned is None else (planned - 1) * len(self._to_come())

    def _started(self) -> int:
        """Count the threads that the sessions have started for themselves."""
        return sum(threads_of(session, self._settings) - 1 for session in list(self._made.values()))

    def _to_come(self) -> list[str]:
        """List the parts without a session so far."""
        text = ["text"] if self._bundle.manifest.text is not None else []
        return [name for name in self.names() + text if name not in self._made]

    def rest(self, name: str) -> None:
        """Note that a part has run: where memory is to stay low, its weights leave the process until the next run."""
        if name in self._pages:
            self._pages[name].drop()

    def names(self) -> list[str]:
        """List every part that `classify` may reach, in an image's order; the part of texts is not among them."""
        return self._bundle.manifest.session_parts

    def warm(self) -> None:
        """Make the sessions of every part that `classify` may reach."""
        for name in self.names():
            self[name]

    def preload(self) -> None:
        """Start to `warm` in a background thread, which ends when all is made, or earlier at the end of the process.

        It begins with the deepest part. An image that comes meanwhile makes the sessions of early parts itself, on
        another core; in the other order it would wait for each.

        A part that cannot be made is skipped here: the call that reaches it gets the error.

        Raises:
            SettingsError: a limit of the system leaves no room for the thread.
        """
        self._background = threading.Thread(target=self._preload, name="lraee-preload", daemon=True)
        try:
            self._background.start()
        except RuntimeError as error:
            self._background = None
            raise SettingsError(
                f"preload is on, and the system does not give the thread that it needs ({error}); leave it off, or "
                "raise the limit on tasks (ulimit -u, or the container's limit on processes)"
            ) from error

    def _preload(self) -> None:
        atexit.register(self._stop_preloading)
        try:
            for name in reversed(self.names()):
                if self._stopping.is_set():
                    return
                with suppress(LraeeError, OSError):
                    self[name]
        finally:
            atexit.unregister(self._stop_preloading)

    def _stop_preloading(self) -> None:
        self._stopping.set()
        if self._background is not None:
            self._background.join()

    def _make(self, name: str) -> ort.InferenceSession:
        if self._lost_in_fork:
            raise ForkError(
                "this process was forked from one that uses ONNX Runtime's process-wide thread pool, which has no "
                "threads here; load the model after the fork, or with thread_pool='session'"
            )
        with self._locks[name]:  # one for each part: a call does not wait while others are preloaded
            made = self._made.get(name)
            if made is None:
                part = self._bundle.manifest.part(name)
                path = self._bundle.checked_part(part)
                with no_fork_meanwhile():
                    if self._settings.memory == "low" and part.data is not None:
                        weights = self._bundle.folder / part.data
                        made, pages = make_mapped(lambda: self._open(path), weights)
                        self._pages[name] = pages
                    else:
                        made = self._open(path)
                self._made[name] = made
        return made

    def _open(self, path: Path | LinkedGraph) -> ort.InferenceSession:
        """Make a session; if other processes have taken the room for its threads, later sessions ask for fewer."""
        if self._settings.thread_pool == "global":
            return make_session(path, self._settings)
        made = make_session(path, self.settings, siblings=len(self._to_come()) - 1)
        self._threads = min(self.threads, threads_of(made, self._settings))
        return made

    def after_fork(self) -> None:
        """Give up, in the child, sessions whose threads are missing there, and locks that stay closed."""
        if self._settings.thread_pool == "session" and not self._started():
            self._unlock()
            return
        give_up((self._made, self.buffers))
        self._lost_in_fork = self._settings.thread_pool == "global"
        self._begin()
