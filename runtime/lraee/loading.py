"""Opens a bundle as a `Model`: checks what was passed in, before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lraee.bundle.folder import Bundle, find_bundle
from lraee.checks import check_choice, check_threads
from lraee.errors import SettingsError
from lraee.model import Model
from lraee.ort.sessions import SessionSettings
from lraee.ort.version import check_global_pool
from lraee.policies import Policy
from lraee.reading import PLAIN_READING, Reading


def load(
    bundle: str | Path,
    *,
    threads: int | None = None,
    verify: Literal["parts", "all"] = "parts",
    thread_pool: Literal["session", "global"] = "session",
    memory: Literal["normal", "low"] = "normal",
    preload: bool = False,
    policy: Policy | None = None,
    reading: Reading = PLAIN_READING,
) -> Model:
    """Open a bundle as a model that classifies images.

    Args:
        bundle: folder written by ``lraee-export``, its zip file (``python -m lraee zip``), or ``photo-clip`` or
            ``reference`` for one that is shipped, unless a bundle of that name lies in the current folder. Links in a
            folder may lead anywhere: files are known by their hashes.
        threads: threads that run one operator, the caller included; None takes one for each core that the process may
            use, or 1 where blocks are small: see `lraee.ort.threads.default_threads`. Where a limit of the system is
            too narrow for those of all sessions, they get fewer, with a `ThreadsWarning`; `Model.threads` says how
            many.
        verify: ``parts`` checks a part's hash before it is first used, ``all`` checks everything now.
        thread_pool: see `lraee.ort.sessions.SessionSettings`.
        memory: see `lraee.ort.sessions.SessionSettings`.
        preload: begin to make all sessions in the background, so that the first images find those of late blocks ready;
            otherwise a session is made when an image first reaches its part. See also `Model.warm`.
        policy: used when a call names none; None takes the bundle's default operating point, or full depth when it
            has no exits.
        reading: how images become pixels: EXIF orientation, limits, and the resizer; by default as open_clip does.

    Raises:
        BundleError: the bundle is damaged, incomplete, newer than this code or than the installed ONNX Runtime, or
            unsafe.
        SettingsError: a setting is unknown, of another type, or out of its range, such as threads without end, or
            there is no room for the thread that preloads.
        PolicyError: the bundle lacks what the policy asks for, or it is not a policy.
    """
    check_threads(threads)
    check_choice("verify", verify, ("parts", "all"))
    check_choice("thread_pool", thread_pool, ("session", "global"))
    if thread_pool == "global":
        check_global_pool()
    check_choice("memory", memory, ("normal", "low"))
    if not isinstance(reading, Reading):
        raise SettingsError(f"reading is a {type(reading).__name__}, wanted lraee.Reading(...)")
    opened = Bundle(find_bundle(bundle))
    if verify == "all":
        opened.verify()
    model = Model(opened, SessionSettings(threads=threads, thread_pool=thread_pool, memory=memory), policy, reading)
    if preload:
        model.preload()
    return model
