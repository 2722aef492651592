"""Starts services as processes of their own on loopback, and asks them; for tests of any folder."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    content: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.content)

    @property
    def message(self) -> str:
        """That of an error."""
        assert self.json["error"]["status"] == self.status
        return str(self.json["error"]["message"])


@dataclass(slots=True, kw_only=True)
class Service:
    """A process that serves a bundle."""

    process: subprocess.Popen[str]
    port: int
    log_file: Path
    token: str | None = None

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str | None = None, **headers: str) -> Reply:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            sent["Content-Type"] = kind
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=found, content=response.read())
        finally:
            connection.close()

    def image(self, image: bytes, path: str = "/v1/classify", kind: str = "image/png") -> Reply:
        """Send one image."""
        return self.ask("POST", path, image, kind)

    def form(self, path: str, *parts: tuple[str, str | None, bytes]) -> Reply:
        """Send a form: name, file name and content of each part."""
        return self.ask("POST", path, form_of(*parts), "multipart/form-data; boundary=here")

    def metric(self, name: str) -> float:
        """The sum of a counter over its labels."""
        lines = self.ask("GET", "/metrics").content.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition(" ")[0].partition("{")[0] == name)

    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log_file.read_text("utf-8").splitlines()]

    def open_files(self) -> int:
        """File descriptors that it holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> int:
        """End it with SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


def form_of(*parts: tuple[str, str | None, bytes]) -> bytes:
    """The body of a form with the boundary ``here``."""
    body = b""
    for name, file_name, content in parts:
        file = "" if file_name is None else f'; filename="{file_name}"'
        body += f'--here\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--here--\r\n"


@contextmanager
def serving(folder: Path, bundle: str, *options: str, program: tuple[str, ...] = ("-m", "lraee")) -> Iterator[Service]:
    """Start a service and wait until it is ready; at the end it is stopped if it still runs."""
    log_file = folder / f"{time.monotonic_ns()}.log"
    command = [sys.executable, *program, "serve", bundle, "--port", "0", "--threads", "1", *options]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    with log_file.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment)
    assert process.stdout is not None
    try:
        address = process.stdout.readline()
        assert address, f"it did not start: {log_file.read_text('utf-8')}"
        service = Service(process=process, port=int(address.rstrip("/\n").rpartition(":")[2]), log_file=log_file)
        end = time.monotonic() + PATIENCE_S
        while service.ask("GET", "/readyz").status != 200:
            assert time.monotonic() < end, "it does not get ready"
            time.sleep(0.05)
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.stdout.close()
