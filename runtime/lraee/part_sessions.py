"""The sessions of a bundle by part name: made once, when first reached or in the background, shared by all threads."""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress

import onnxruntime as ort

from lraee.buffers import TokenBuffers
from lraee.bundle import Bundle
from lraee.errors import ForkError, LraeeError
from lraee.forking import give_up, no_fork_meanwhile, watch_forks
from lraee.manifest import block_names
from lraee.mapped_pages import MappedPages, make_mapped
from lraee.onnxruntime_version import check_onnxruntime
from lraee.sessions import SessionSettings, make_session


class Sessions:
    """Sessions by part name, and the buffers that they read and write."""

    def __init__(self, bundle: Bundle, settings: SessionSettings) -> None:
        """Nothing is made yet.

        Args:
            bundle: whose parts.
            settings: of all sessions.

        Raises:
            BundleError: the bundle names a later ONNX Runtime than the installed one.
        """
        check_onnxruntime(bundle.manifest.onnxruntime)
        self._bundle = bundle
        self._settings = settings
        self._survives_forks = settings.thread_count == 1 and settings.thread_pool == "session"
        self._lost_in_fork = False
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        tower = self._bundle.manifest.tower
        self._made: dict[str, ort.InferenceSession] = {}
        self._pages: dict[str, MappedPages] = {}  # where memory is to stay low
        self.buffers = TokenBuffers(tower.tokens, tower.width)
        self._unlock()

    def _unlock(self) -> None:
        self._locks = {part.name: threading.Lock() for part in self._bundle.manifest.parts}
        self._background: threading.Thread | None = None
        self._stopping = threading.Event()

    def __getitem__(self, name: str) -> ort.InferenceSession:
        """The session of part `name`, whose files are verified before it is made.

        Raises:
            BundleError: a file of the part is damaged, or ONNX Runtime cannot load it.
            ForkError: the process-wide thread pool was lost in a fork.
        """
        made = self._made.get(name)
        return made if made is not None else self._make(name)

    def rest(self, name: str) -> None:
        """The part has run: where memory is to stay low, its weights leave the process until the next run."""
        if name in self._pages:
            self._pages[name].drop()

    def names(self) -> list[str]:
        """Every part that `classify` may reach, in the order in which an image does; not that of texts."""
        manifest = self._bundle.manifest
        names = ["stem"]
        for number, block in enumerate(block_names(manifest.tower.blocks), start=1):
            exit = manifest.exit_behind(number)
            names += [block] if exit is None else [block, exit.part]
        return [*names, "tail"]

    def warm(self) -> None:
        """Make the sessions of every part that `classify` may reach."""
        for name in self.names():
            self[name]

    def preload(self) -> None:
        """Begin to `warm` in a thread of its own, which ends when all is made; at the end of the process, before that.

        It begins with the deepest part: an image that comes meanwhile makes the sessions of early parts itself, on
        another core, and meets the others half-way. In the other order it would only wait for each.

        A part that cannot be made is passed over here: who reaches it gets the error.
        """
        self._background = threading.Thread(target=self._preload, name="lraee-preload", daemon=True)
        self._background.start()

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
        with self._locks[name]:  # one for each part: who needs one now does not wait for others to be preloaded
            made = self._made.get(name)
            if made is None:
                part = self._bundle.manifest.part(name)
                path = self._bundle.checked_part(part)
                with no_fork_meanwhile():
                    if self._settings.memory == "low" and part.data is not None:
                        weights = self._bundle.folder / part.data
                        made, pages = make_mapped(lambda: make_session(path, self._settings), weights)
                        self._pages[name] = pages
                    else:
                        made = make_session(path, self._settings)
                self._made[name] = made
        return made

    def after_fork(self) -> None:
        """In the child: give up what needs threads that are not there, and locks that nobody will open."""
        if self._survives_forks:
            self._unlock()
            return
        give_up((self._made, self.buffers))
        self._lost_in_fork = self._settings.thread_pool == "global"
        self._begin()
