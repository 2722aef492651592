"""A model that was loaded before a fork works in the child, or says what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PROGRAM = """
import os, signal, sys
import numpy as np
import lraee

threads, pool, before = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if pool == "global":
    lraee.ort.sessions.use_global_thread_pool(threads)
model = lraee.load("reference", threads=threads, thread_pool=pool, preload=before == "preload")
pixels = np.arange(8 * 28 * 28 * 3, dtype=np.uint32).astype(np.uint8).reshape(8, 28, 28, 3)
if before == "run":
    wanted = model.run_pixels(pixels, policy=lraee.Full()).probabilities
child = os.fork()
if child == 0:
    signal.alarm(30)  # a run with lost threads would wait for ever
    if len(sys.argv) > 4:
        grandchild = os.fork()
        if grandchild:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
try:
    got = model.run_pixels(pixels, policy=lraee.Full()).probabilities
except lraee.LraeeError as error:
    print(type(error).__name__, error)
    sys.exit(3)
if before == "run" and not np.array_equal(got, wanted):
    sys.exit(4)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""The child ends as programs usually do, so that the end of the process is tested too."""


def forked(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program in its own process."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, *map(str, arguments)]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}  # see `lraee.ort.forking`
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("before", ["run", "nothing", "preload"])
def test_a_child_answers_as_its_parent(threads, before):
    """Whether sessions were made before the fork, not yet, or were just being made."""
    done = forked(threads, "session", before)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_grandchild_answers_too():
    """Workers may fork workers."""
    assert forked(2, "session", "run", "grandchild").returncode == 0


def test_the_process_wide_pool_is_lost_and_the_error_says_what_to_do():
    """It is made once in a process, so no new one can be made in the child."""
    done = forked(2, "global", "run")
    assert done.returncode == 3
    assert done.stdout.startswith("ForkError this process was forked")
    assert "load the model after the fork, or with thread_pool='session'" in done.stdout
