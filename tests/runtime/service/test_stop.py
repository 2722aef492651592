"""A service that is told to stop answers what it accepted, and one whose parts fail says so instead of hanging."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from served import Service, serving

import lraee


class Client(threading.Thread):
    """Sends one image after the other on a connection that it keeps, until the service is gone."""

    def __init__(self, service: Service, image: bytes) -> None:
        super().__init__(daemon=True)
        self.service, self.image = service, image
        self.statuses: Counter[int] = Counter()
        self.cut: list[str] = []

    def run(self) -> None:
        """An answer that began must come whole."""
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)
            try:
                connection.connect()
                while True:
                    connection.request("POST", "/v1/classify", self.image, {"Content-Type": "image/png"})
                    response = connection.getresponse()
                    try:
                        assert response.read().endswith(b"}")
                    except Exception as error:
                        self.cut.append(repr(error))
                    self.statuses[response.status] += 1
                    if response.will_close:
                        break
            except ConnectionRefusedError:
                return
            except (http.client.HTTPException, OSError):
                pass  # a connection that waited for its next request was closed: it was not accepted
            finally:
                connection.close()


def test_a_stop_under_load_loses_no_accepted_request(tmp_path: Path, clothes: list[bytes]) -> None:
    """As many requests are answered as the log has; a body that was half sent is awaited; the status is 0."""
    with serving(tmp_path, "reference", "--time-limit", "30") as service:  # so that a busy machine refuses nothing
        clients = [Client(service, clothes[number]) for number in range(8)]
        for client in clients:
            client.start()
        half = socket.create_connection(("127.0.0.1", service.port), 30)
        half.sendall(head_of(clothes[0]) + clothes[0][:50])
        time.sleep(1.0)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        half.sendall(clothes[0][50:])
        answer = half.makefile("rb").read()
        half.close()
        assert service.process.wait(30) == 0
        for client in clients:
            client.join(30)
        asked = [event for event in service.events() if event.get("path") == "/v1/classify"]
        logged = Counter(event["status"] for event in asked)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    got = sum((client.statuses for client in clients), Counter({200: 1}))
    assert got == logged
    assert set(got) == {200}
    assert got[200] > 50
    assert [client.cut for client in clients] == [[]] * 8


def test_the_log_is_json_and_tells_of_each_request(service: Service, clothes: list[bytes]) -> None:
    """Without pictures and without the address, in which labels may stand."""
    service.image(clothes[0], "/v1/classify?labels=secret+one,secret+two")
    service.image(b"nothing")
    time.sleep(0.4)
    events = service.events()
    assert [event["event"] for event in events if event["event"] != "request"] == ["listening", "ready"]
    answered, refused = events[-2:]
    assert (answered["status"], answered["images"], answered["path"]) == (200, 1, "/v1/classify")
    assert answered["blocks"][0] in range(1, 13)
    assert (refused["status"], refused["message"][:12]) == (415, "the image is")
    assert "secret" not in service.log_file.read_text("utf-8")


def test_cut_connections_leave_nothing_open(service: Service, clothes: list[bytes]) -> None:
    """Neither sockets nor images that wait; what was cut while it was answered is counted as such."""
    service.image(clothes[0])
    time.sleep(0.3)
    before = service.open_files()
    for number in range(120):
        with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
            connection.sendall((head_of(clothes[0]) + clothes[0])[: number * 7 if number % 2 else None])
            if number % 3 == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end
    end = time.monotonic() + 10
    while service.open_files() > before or service.metric("lraee_images_waiting"):
        assert time.monotonic() < end, f"{service.open_files()} files are open, {before} before"
        time.sleep(0.1)
    assert service.image(clothes[0]).status == 200


def test_a_damaged_part_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """It is never ready, and the exit status is 1."""
    source = Path(lraee.load("reference").bundle.folder)
    copy = Path(shutil.copytree(source, tmp_path / "damaged.lraee"))
    content = bytearray((copy / "block_12.data").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "block_12.data").write_bytes(content)
    done = run(str(copy), "--port", "0")
    assert done.returncode == 1
    assert "error: block_12.data" in done.stderr.splitlines()[-1]


def test_a_stop_before_it_is_ready_is_no_error() -> None:
    """Status 0, although its sessions were not made yet."""
    command = [sys.executable, "-m", "lraee", "serve", "photo-clip", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/readyz")
    starting = connection.getresponse()
    assert (starting.status, starting.read()) == (503, b'{"status":"starting"}')
    connection.request("POST", "/v1/classify", b"x", {"Content-Type": "image/png"})
    assert connection.getresponse().status == 503
    connection.close()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "error" in errors) == (0, False)


def test_a_client_that_reads_nothing_is_cut_off(service: Service, clothes: list[bytes]) -> None:
    """Its answers would wait in memory for ever, and a stop would wait for it."""
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    before = service.open_files()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        connection.settimeout(0.5)
        end = time.monotonic() + 40
        while service.open_files() > before:
            with suppress(OSError):
                connection.sendall(request * 20)
            assert time.monotonic() < end
    assert service.image(clothes[0]).status == 200


def test_a_port_that_is_taken_is_named(service: Service) -> None:
    """With the option that gives another one."""
    done = run("reference", "--port", str(service.port))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"nothing can listen at 127.0.0.1, port {service.port}: Address already in use" in line
    assert line.endswith("or give another --port")


@pytest.mark.parametrize(("content", "said"), [("short", "16 or more visible"), (None, "the token cannot be read")])
def test_a_token_that_is_none_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    """And never shown."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    done = run("reference", "--port", "0", "--token-file", str(tmp_path / "token"))
    assert (done.returncode, said in done.stderr) == (1, True)
    assert "short" not in done.stderr


def head_of(image: bytes) -> bytes:
    """The head of a request with an image."""
    length = f"Content-Length: {len(image)}"
    return f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{length}\r\n\r\n".encode()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends by itself."""
    command = [sys.executable, "-m", "lraee", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
