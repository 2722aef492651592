"""What a service refuses: with a status, a message of the library, and without reading what it need not read."""

from __future__ import annotations

import io
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from served import Service, form_of, serving

TOKEN = "correct-horse-battery-staple"

AUDITED = """
import sys
seen = []
def hook(event, args):
    if event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.listdir", "os.scandir"):
        seen.append(f"{event} {args[0]!r}")
import signal
signal.signal(signal.SIGUSR1, lambda *given: (seen.clear(), sys.addaudithook(hook)))
signal.signal(signal.SIGUSR2, lambda *given: sys.stderr.write("SEEN " + "; ".join(seen) + "\\n"))
from lraee.cli import main
main()
"""
"""The program, which tells after SIGUSR2 what it opened since SIGUSR1."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a token and small limits."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "token").write_text(f"{TOKEN}\n")
    limits = ("--max-body-mb", "0.3", "--max-images", "2", "--body-time", "0.6", "--max-pixels", "1000000")
    token = str(folder / "token")
    with serving(folder, "reference", "--token-file", token, *limits, "--label-sets", "2") as started:
        started.token = TOKEN
        yield started


@pytest.fixture(scope="session")
def slow_image() -> bytes:
    """A PNG that takes long to decode and is small to send."""
    made = io.BytesIO()
    Image.fromarray(np.zeros((4500, 4500, 3), np.uint8)).save(made, "png", compress_level=9)
    return made.getvalue()


def say(port: int, sent: bytes) -> bytes:
    """Send bytes as they are, and give what comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(sent)
        found = b""
        with suppress(ConnectionResetError):  # closed while it had not read all
            while piece := connection.recv(65536):
                found += piece
        return found


def test_the_token_is_asked_for_where_images_are_answered(strict: Service, clothes: list[bytes]) -> None:
    """Health and the page need none; a wrong one, two, or a part of it are refused."""
    assert strict.image(clothes[0]).status == 200
    for header in ("", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
        for method, path in (("POST", "/v1/classify"), ("GET", "/v1/model"), ("GET", "/metrics"), ("GET", "/none")):
            reply = strict.ask(
                method, path, clothes[0] if method == "POST" else None, "image/png", Authorization=header
            )
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.message.startswith("the token is missing or wrong")
    strict.token = None
    assert [strict.ask("GET", path).status for path in ("/healthz", "/readyz", "/", "/openapi.json")] == [200] * 4
    schemes = strict.ask("GET", "/openapi.json").json["components"]["securitySchemes"]
    strict.token = TOKEN
    assert schemes == {"token": {"type": "http", "scheme": "bearer"}}
    assert TOKEN not in strict.log_file.read_text("utf-8")


def test_a_body_that_is_too_large_is_refused_before_it_is_read(strict: Service) -> None:
    """By what it announces, or as soon as too much has come."""
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/png\r\n"
    announced = say(strict.port, f"{head}Content-Length: 900000000000\r\n\r\n".encode())
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    streamed = say(strict.port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 5)
    for found in (announced, streamed):
        assert found.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in found.lower()
        assert b"the body has more than 300,000 bytes" in found
    reply = strict.image(bytes(400_000))
    assert reply.status == 413


def test_a_body_or_a_head_that_comes_too_slowly_ends_the_connection(strict: Service) -> None:
    """408 where a request began; nothing where none did."""
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/png\r\n"
    began = time.monotonic()
    found = say(strict.port, f"{head}Content-Length: 1000\r\n\r\nabc".encode())
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b"3 bytes of the body came within 0.6 s" in found
    assert say(strict.port, b"GET /healthz HT") == b""
    assert say(strict.port, b"") == b""
    assert say(strict.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea").count(b"HTTP/1.1 ") == 1
    assert time.monotonic() - began < 8


def test_a_head_without_end_is_refused(strict: Service) -> None:
    """Whether its one line is too long, its fields are too many, or they come after the body; memory does not grow."""
    chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    for start, more in (
        (b"GET /healthz?", b"x" * 1000),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"x" * 1000),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X: %s\r\n" % (b"x" * 995)),
        (chunked, b"X: %s\r\n" % (b"x" * 995)),
    ):
        sent = 0
        with socket.create_connection(("127.0.0.1", strict.port), 10) as connection:
            connection.sendall(start)
            try:
                while sent < 4_000_000:
                    connection.sendall(more)
                    sent += len(more)
            except OSError:
                pass
        assert sent < 4_000_000, start
    assert strict.ask("GET", "/healthz").status == 200


def test_requests_that_come_at_once_are_answered_in_turn_up_to_a_limit(strict: Service) -> None:
    """Of one connection; beyond the limit it is closed."""
    one, last = (f"GET /healthz HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode() for more in ("", "Connection: close\r\n"))
    assert say(strict.port, one * 40 + last).count(b"HTTP/1.1 200 ") == 41
    assert say(strict.port, one * 5000).count(b"HTTP/1.1 200 ") < 5000
    assert strict.ask("GET", "/healthz").status == 200


def test_another_protocol_is_not_changed_to(strict: Service) -> None:
    """The request is answered as if it did not ask for one."""
    head = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: {}\r\n\r\n"
    for name in ("websocket", "h2c"):
        assert say(strict.port, head.format(name).encode()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("?policy=nothing", "'nothing' is not a policy"),
        ("?policy=adaptive=nowhere", "there is no operating point 'nowhere'"),
        ("?policy=exit=3", "there is no exit after block 3"),
        ("?deadline_ms=-1", "deadline_ms is '-1', wanted milliseconds"),
        ("?deadline_ms=nan", "deadline_ms is 'nan', wanted milliseconds"),
        ("?deadline_ms=5&policy=deadline=5", "the policy has a deadline too"),
        ("?top=0", "top is '0', wanted a whole number from 1 to 1000"),
        ("?top=1&top=2", "top is given more than once"),
        ("?polcy=full", "there is no parameter 'polcy'; wanted policy, deadline_ms, top, labels"),
        ("?labels=cat", "met 1 labels, 1 different; wanted at least two"),
        ("?labels=cat,cat", "met 2 labels, 1 different"),
        ("?labels=cat,", "Label 2 of 2 is blank"),
        ("?labels=[1,2]", "labels are JSON, wanted a list of texts"),
        ("?labels=[[", "labels begin like a JSON list and are none"),
        ("?labels=" + "x" * 300 + ",b", "has 300 characters; wanted 200"),
        ("?labels=Cat,cat", "are one to the text tower"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(
    strict: Service, clothes: list[bytes], path: str, message: str
) -> None:
    """With the library's words, in the address and in a form."""
    reply = strict.image(clothes[0], f"/v1/classify{path}")
    assert reply.status == 422
    assert message in reply.message
    fields = [tuple(item.split("=", 1)) for item in path[1:].split("&")]
    form = strict.form(
        "/v1/embed", ("images", None, clothes[0]), *((name, None, value.encode()) for name, value in fields)
    )
    assert (form.status, message in form.message) == (422, True)


@pytest.mark.parametrize(
    ("kind", "body", "status", "message"),
    [
        ("text/plain", b"x", 415, "the body is text/plain, wanted image/jpeg"),
        ("", b"x", 415, "the body is of no type"),
        ("image/svg+xml", b"<svg/>", 415, "the body is image/svg+xml"),
        ("image/png", b"%!PS-Adobe-3.0 EPSF-3.0", 415, "in none of the formats JPEG, PNG, WebP, GIF, BMP"),
        ("image/png", b"/etc/passwd", 415, "in none of the formats"),
        ("image/png", b"file:///etc/passwd", 415, "in none of the formats"),
        ("image/png", b"http://127.0.0.1/a.png", 415, "in none of the formats"),
        ("image/png", b"", 422, "the image is empty: it has 0 bytes"),
        ("image/png", b"\x89PNG\r\n\x1a\nrest", 422, "the image"),
        ("image/jpeg", b"\xff\xd8\xff\xe0" * 50, 422, "the image"),
        ("multipart/form-data", b"", 400, "the form has no boundary"),
        ("multipart/form-data; boundary=here", b"", 400, "its last boundary is missing"),
        ("multipart/form-data; boundary=here", b"--here--", 422, "the form has no image"),
        ("multipart/form-data; boundary=here", b"--here\r\n\r\nx\r\n--here--", 400, "a part has no"),
        ("multipart/form-data; boundary=here", form_of(("top", None, b"\xff")), 400, "is not UTF-8"),
        ("multipart/form-data; boundary=here", form_of(("images", "a", b"x"))[:-9], 400, "cut off"),
        ("multipart/form-data; boundary=here", form_of(*[("images", None, b"x")] * 3), 422, "wanted at most 2"),
        ("multipart/form-data; boundary=here", form_of(("file", None, b"x"), ("images", None, b"")), 422, "'file'"),
    ],
)
def test_bodies_that_cannot_be_used_are_refused(
    strict: Service, kind: str, body: bytes, status: int, message: str
) -> None:
    """With a status that says what is wrong: type, form, or image."""
    reply = strict.image(body, kind=kind)
    assert reply.status == status, reply.content
    assert message in reply.message


def test_an_image_with_too_many_pixels_is_refused(strict: Service) -> None:
    """By its header, before it is decoded."""
    made = io.BytesIO()
    Image.new("1", (4000, 4000)).save(made, "png")
    reply = strict.image(made.getvalue())
    assert reply.status == 413
    assert "it is 4000 x 4000 pixels, wanted at most 1,000,000" in reply.message


def test_paths_and_methods_that_are_not_there_are_refused_in_the_same_form(strict: Service) -> None:
    """404 and 405 are JSON too, and every answer forbids guessing its type."""
    none, method = strict.ask("GET", "/none"), strict.ask("DELETE", "/v1/classify")
    assert (none.status, none.message, method.status, method.headers["allow"]) == (404, "Not Found", 405, "POST")
    for path in ("/../../etc/passwd", "/%2e%2e/etc/passwd", "//127.0.0.1/x", "/static/x"):
        assert strict.ask("GET", path).status == 404
    assert none.headers["x-content-type-options"] == "nosniff"


def test_labels_of_many_requests_take_bounded_memory(strict: Service, clothes: list[bytes]) -> None:
    """Two sets are kept here; others are embedded again."""
    for number in (1, 2, 3, 1):
        assert strict.image(clothes[0], f"/v1/classify?labels=thing {number},other".replace(" ", "%20")).status == 200
    lines = strict.ask("GET", "/metrics").content.decode()
    (kept,) = re.findall(r'lraee_label_sets_total\{kept="true"\} (\S+)', lines) or ["0"]
    assert float(kept) == 0


def test_nothing_that_a_client_names_is_opened(tmp_path: Path, clothes: list[bytes]) -> None:
    """No file, folder, address or program, wherever the name stands."""
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with serving(tmp_path, "reference", program=("-c", AUDITED)) as started:
        for image in clothes[:2]:
            started.image(image)
        started.image(clothes[0], "/v1/classify?labels=first,second")
        started.image(b"\xff\xd8\xff\xe0" * 50, kind="image/jpeg")  # what libraries load late is loaded now
        started.process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        names = [
            "/etc/passwd",
            "labels.txt",
            str(tmp_path / "labels.txt"),
            "http://127.0.0.1:9/a.png",
            "file:///etc/hosts",
        ]
        for name in names:
            started.image(name.encode(), kind="application/octet-stream")
            started.image(clothes[0], f"/v1/classify?labels={quote(name)}")
            started.image(clothes[0], f"/v1/classify?labels={quote(name)},x")
            started.image(clothes[0], f"/v1/classify?policy={quote(name)}")
            started.form("/v1/classify", ("images", name, clothes[0]), ("labels", name, name.encode()))
        started.process.send_signal(signal.SIGUSR2)
        time.sleep(0.5)
        assert started.stop() == 0
        (seen,) = [line for line in started.log_file.read_text("utf-8").splitlines() if line.startswith("SEEN")]
        assert seen.strip() == "SEEN"


def test_what_cannot_be_answered_in_time_is_refused(tmp_path: Path, slow_image: bytes, clothes: list[bytes]) -> None:
    """503 for a request that takes longer than the limit, 429 while no place is free; both say when to ask again."""
    limits = ("--queue", "1", "--max-images", "1", "--time-limit", "0.08")
    with serving(tmp_path, "reference", *limits) as started:
        replies: list[Any] = []
        asking = [threading.Thread(target=lambda: replies.append(started.image(slow_image))) for _ in range(8)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        statuses = {reply.status for reply in replies}
        assert statuses == {429, 503}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies)
        messages = {reply.status: reply.message for reply in replies}
        assert messages[429] == "1 images are waiting, and at most 1 may; ask again later"
        assert messages[503].startswith("there is no answer within 0.08 s")
        end = time.monotonic() + 10
        while started.image(clothes[0]).status != 200:
            assert time.monotonic() < end, "it does not recover"
        assert started.metric("lraee_images_waiting") == 0
        assert started.stop() == 0
