"""The rules of a service without a network: what is accepted, how forms are parsed, which labels are kept."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from served import form_of

from lraee.errors import ImageError, LabelsError, SettingsError
from lraee.service.admission import BODIES_HELD, WAIT_SHARE, WINDOW_IMAGES, Admission
from lraee.service.app import direct
from lraee.service.bodies import parse_body, parse_form, read_body
from lraee.service.label_cache import LabelCache
from lraee.service.logs import JsonLog
from lraee.service.problems import Problem
from lraee.service.settings import ServiceSettings

FORM = "multipart/form-data; boundary=here"


class Clock:
    """Shows the time that it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def status_of(call: Callable[[], object]) -> int:
    """The status of the problem that a call raises, or 200."""
    try:
        call()
    except Problem as problem:
        return problem.status
    return 200


@given(st.lists(st.tuples(st.sampled_from(["images", "top", "labels"]), st.binary(max_size=60)), max_size=8))
def test_a_form_is_parsed_to_what_was_put_in(parts: list[tuple[str, bytes]]) -> None:
    """Any bytes but the boundary itself."""
    parts = [(name, content.replace(b"--here", b"")) for name, content in parts]
    body = form_of(*((name, None, content) for name, content in parts))
    assert parse_form(body, FORM) == [(name, None, content) for name, content in parts]


@given(st.binary(max_size=200), st.sampled_from([FORM, 'multipart/form-data; boundary="a b"', "multipart/form-data"]))
def test_a_form_is_parsed_or_refused(body: bytes, kind: str) -> None:
    """Whatever it is made of, also cut off anywhere."""
    whole = form_of(("images", "a.png", b"content"), ("top", None, b"3"))
    for tried in (body, whole[: len(body)], whole[: len(body)] + body, b"--here\r\n" + body):
        assert status_of(partial(parse_body, tried, kind)) in (200, 400, 422)


@given(st.lists(st.integers(1, 400), max_size=20), st.integers(100, 2000))
def test_a_body_is_read_up_to_the_limit_and_no_further(sizes: list[int], limit: int) -> None:
    """What is held is never more than the limit and a piece."""
    held: list[int] = []
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for size in sizes:
            taken += size
            yield bytes(size)

    settings = ServiceSettings(body_bytes=limit)
    status = status_of(lambda: asyncio.run(read_body(pieces(), None, settings, held.append)))
    assert status == (200 if sum(sizes) <= limit else 413)
    assert taken <= limit + max(sizes, default=0)
    assert sum(held) <= limit


def test_images_are_accepted_while_they_would_be_answered_in_time() -> None:
    """From what one took lately; a first one is accepted whatever it takes."""
    admission = Admission(ServiceSettings(time_limit_s=1.0, queue=64, images=1))
    admission.learn(0.1)
    with ExitStack() as held:
        for _ in range(int(WAIT_SHARE * 1.0 / 0.1)):
            held.enter_context(admission.accepted(1))
        with pytest.raises(Problem, match=r"5 images are waiting, which takes 0\.60 s") as refused:
            admission.check()
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    admission.learn(1000.0)
    with admission.accepted(1):
        assert admission.images == 1
    assert admission.images == 0


def test_the_time_of_an_image_is_that_of_busy_time_alone() -> None:
    """Pauses between requests do not count, and images side by side count once."""
    clock = Clock()
    admission = Admission(ServiceSettings(), clock)
    for _ in range(WINDOW_IMAGES):
        clock.now += 100.0
        with admission.accepted(1) as answered:
            clock.now += 0.01
            answered(1)
    assert admission.image_s == pytest.approx(0.01)
    admission = Admission(ServiceSettings(), clock)
    with admission.accepted(8) as answered:
        for _ in range(WINDOW_IMAGES // 4):
            with admission.accepted(4) as more:
                clock.now += 0.04
                more(4)
        answered(0)
    assert admission.image_s == pytest.approx(0.01)


def test_bodies_of_all_requests_together_have_a_limit() -> None:
    """What is over it is refused, and is free again when a request ends."""
    admission = Admission(ServiceSettings(body_bytes=1_000_000))
    with admission.holding() as first, admission.holding() as second:
        first(BODIES_HELD * 1_000_000)
        second(60_000)
        with pytest.raises(Problem) as refused:
            second(60_000)
        assert refused.value.status == 429
    assert admission.body_bytes == 0


def test_labels_are_embedded_once_for_requests_at_the_same_time() -> None:
    """Those used last are kept; an error is given to all that wait, and not kept."""
    embedded: list[tuple[str, ...]] = []
    noted: list[bool] = []

    def embed(names: tuple[str, ...]) -> Any:
        embedded.append(names)
        time.sleep(0.02)
        if "bad" in names:
            raise LabelsError("bad labels")
        return object()

    async def ask() -> None:
        cache = LabelCache(embed, sets=2, noted=noted.append)
        one, same = await asyncio.gather(cache.parts(("a", "b")), cache.parts(("a", "b")))
        assert one is same
        assert embedded == [("a", "b")]
        await cache.parts(("c", "d"))
        await cache.parts(("a", "b"))
        await cache.parts(("e", "f"))
        assert len(cache) == 2
        assert await cache.parts(("a", "b")) is one
        for _ in range(2):
            with pytest.raises(LabelsError, match="bad labels"):
                await cache.parts(("bad", "b"))
        asking = asyncio.ensure_future(cache.parts(("g", "h")))
        await asyncio.sleep(0)
        asking.cancel()  # whoever else waits for them still gets them
        await cache.parts(("g", "h"))
        many = await asyncio.gather(*(cache.parts((str(n), "x")) for n in range(12)), return_exceptions=True)
        assert [one.status for one in many if isinstance(one, Problem)] == [429] * 4
        cache.close()

    asyncio.run(ask())
    assert embedded[:4] == [("a", "b"), ("c", "d"), ("e", "f"), ("bad", "b")]
    assert noted[:5] == [False, False, False, True, False]


def test_a_log_that_nobody_reads_holds_up_nothing() -> None:
    """Lines beyond the queue are counted as dropped."""

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            threading.Event().wait(0.5)
            return super().write(text)

    dropped: list[None] = []
    log = JsonLog(Stuck(), lambda: dropped.append(None))
    began = time.monotonic()
    for number in range(10_500):
        log.event("request", number=number, message="x" * 2000 if number == 0 else None)
    assert time.monotonic() - began < 5
    assert len(dropped) >= 400
    written = io.StringIO()
    log = JsonLog(written)
    log.event("one", level="warning", path="/", nothing=None)
    log.close()
    assert {"level": "warning", "event": "one", "path": "/"}.items() <= json.loads(written.getvalue()).items()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 70000), ("port", "8000"), ("host", ""), ("token", "short"), ("token", "with a blank inside it"),
        ("batch_size", 0), ("queue", True), ("time_limit_s", 0), ("time_limit_s", float("inf")), ("images", 65),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(field: str, value: Any) -> None:
    """And a token is never shown."""
    with pytest.raises(SettingsError) as refused:
        ServiceSettings(**{field: value})
    assert "blank inside" not in str(refused.value)


def test_errors_of_image_routes_become_answers_and_faults_go_on() -> None:
    """As the framework does it: a fault is answered with 500, and then raised for the log."""
    app = FastAPI()

    @app.post("/raises")
    async def raises(request: Request) -> Response:
        raise {"problem": Problem(415, "no"), "library": ImageError("bad"), "fault": RuntimeError("broken")}[
            request.query_params["what"]
        ]

    def ask(what: str) -> tuple[int, str]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/raises", "headers": [], "query_string": what.encode()}
        with pytest.raises(RuntimeError, match="broken") if what == "what=fault" else nullcontext():
            asyncio.run(direct(app)(scope, None, send))  # type: ignore[arg-type]
        return sent[0]["status"], json.loads(sent[1]["body"])["error"]["message"]

    assert ask("what=problem") == (415, "no")
    assert ask("what=library") == (422, "bad")
    assert ask("what=fault") == (500, "the service has a fault; its log says which")
