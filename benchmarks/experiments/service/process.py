"""Starts a service as a process of its own, on cores of its own, and watches its memory and its files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY_S = 120.0


class Service:
    """A process that serves a bundle."""

    def __init__(self, process: subprocess.Popen[str], port: int, log_file: Path) -> None:
        """Take over a process that has started."""
        self.process, self.port, self.log_file = process, port, log_file

    def get(self, path: str) -> tuple[int, str]:
        """Ask for a path; status and body."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def rss_mb(self) -> float:
        """Memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(kilobytes) * 1024 / 1e6

    def open_files(self) -> int:
        """File descriptors that it holds, sockets included."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def counted(self, name: str) -> dict[str, float]:
        """The values of a counter, by its labels."""
        _, text = self.get("/metrics")
        found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    def logged(self) -> Counter[int]:
        """How often each status of requests for answers is in its log."""
        events = (json.loads(line) for line in self.log_file.read_text("utf-8").splitlines())
        return Counter(event["status"] for event in events if event.get("path") in ("/v1/classify", "/v1/embed"))

    def signal_stop(self) -> None:
        """Tell it to stop."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def serving(bundle: str, cores: set[int], *options: str) -> Iterator[Service]:
    """Start a service and wait until it is ready; it is stopped at the end if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / "service.log"
        words = [sys.executable, "-m", "lraee", "serve", bundle, "--port", "0", *options]
        with log_file.open("w") as log:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        os.sched_setaffinity(process.pid, cores)  # before it starts any thread
        assert process.stdout is not None
        try:
            address = process.stdout.readline()
            if not address:
                raise SystemExit(f"the service did not start:\n{log_file.read_text('utf-8')}")
            service = Service(process, int(address.rstrip("/\n").rpartition(":")[2]), log_file)
            end = time.monotonic() + READY_S
            while service.get("/readyz")[0] != 200:
                if time.monotonic() > end:
                    raise SystemExit("the service does not get ready")
                time.sleep(0.1)
            yield service
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            process.stdout.close()
