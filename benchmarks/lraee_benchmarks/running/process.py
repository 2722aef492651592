"""An object in a Python process of its own: its methods are called here and run there.

Requests and answers are pickled over stdin and stdout, so that dataclasses and arrays pass as they are. The spawn
method of multiprocessing does as much, but it imports the caller's main module first, which runs a program without an
``if __name__`` guard a second time; it leaves a process for tracking resources; and it cannot say why a process ended.
Here stderr is kept, and an error quotes its last line.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from lraee.errors import BundleError, LraeeError
from lraee_benchmarks.output_files import temporary_file

Held = TypeVar("Held")
Options = ParamSpec("Options")
Answer = TypeVar("Answer")

STOP_SECONDS = 5.0
"""A process whose stdin has been closed ends at once; after this time it is killed."""


class Remote(Generic[Held]):
    """An object held by another process; a context manager that ends the process."""

    def __init__(self, name: str, held: Held, *, environment: Mapping[str, str] | None = None) -> None:
        """Start a process and send the object there.

        Args:
            name: of the process, for errors, such as ``a launch``.
            held: the object; its class must lie in a module that the process can import.
            environment: variables that the process has besides those of this one.

        Raises:
            DataError: temporary files cannot be made.
        """
        self.name = name
        self._errors = temporary_file()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(environment or {})},
        )
        self._send(held)

    def __enter__(self) -> Remote[Held]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ask(
        self, method: Callable[Concatenate[Held, Options], Answer], *args: Options.args, **kwargs: Options.kwargs
    ) -> Answer:
        """Call a method of the object there and wait for what it returns.

        Raises:
            BundleError: the method raised an error of this project, or the process ended.
        """
        self._send((method, args, kwargs))
        assert self._process.stdout is not None
        try:
            failure, answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._ended() from None
        if failure is not None:
            raise BundleError(failure)
        result: Answer = answer
        return result

    def stop(self) -> None:
        """End the process, which may be asked no more."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._wait()
        self._errors.close()

    def _send(self, item: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # reading finds out why
            pickle.dump(item, self._process.stdin)
            self._process.stdin.flush()

    def _wait(self) -> int:
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _ended(self) -> BundleError:
        status = self._wait()
        self._errors.seek(0)
        return ended_error(self.name, status, self._errors.read())


def ended_error(name: str, status: int, errors: bytes) -> BundleError:
    """Describe a process that ended before it answered.

    >>> ended_error("a launch", -9, b"")
    BundleError('a launch ended with status -9: no message')

    Args:
        name: of the process.
        status: as `subprocess.Popen.returncode` has it, negative for a signal.
        errors: what it wrote to stderr.
    """
    last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    return BundleError(f"{name} ended with status {status}: {last[0]}")


def main() -> None:
    """Hold the object that comes first on stdin, and call its methods until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to stderr
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    held = pickle.load(requests)
    while True:
        try:
            method, args, kwargs = pickle.load(requests)
        except EOFError:
            return
        answer: tuple[str | None, Any]
        try:
            answer = (None, method(held, *args, **kwargs))
        except LraeeError as error:
            answer = (str(error), None)
        with suppress(BrokenPipeError):  # the process that asked has ended
            pickle.dump(answer, answers)
            answers.flush()


if __name__ == "__main__":
    main()
