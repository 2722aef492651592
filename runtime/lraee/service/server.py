"""Runs a service until it is told to stop: SIGTERM or Ctrl-C answer what was accepted, and end it with status 0."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lraee.errors import SettingsError
from lraee.model import Model
from lraee.service.answering import Answering
from lraee.service.app import direct, make_app
from lraee.service.gate import Gate
from lraee.service.logs import JsonLog, LibraryLog
from lraee.service.metrics import Metrics
from lraee.service.settings import ServiceSettings

HEAD_BYTES = 65536
"""Of a head, or of whatever else of a request is not its body, that are read at most; one piece more may come."""

PIPELINED = 64
"""Requests that a connection may send before an earlier one is answered."""

GRACE_S = 5.0
"""Seconds beyond the limits of time after which a stop no longer waits for clients."""


def serve(
    model: Model,
    settings: ServiceSettings,
    *,
    listening: Callable[[str], None] = lambda address: None,
    log: JsonLog | None = None,
) -> None:
    """Serve a model until SIGTERM or SIGINT; runs in the main thread.

    Args:
        model: that answers; its sessions are made while the service already tells that it starts.
        settings: where to listen, and the limits.
        listening: is called with the address once the port is open.
        log: gets an event for each request; None makes one that writes to stderr.

    Raises:
        SettingsError: the address or port cannot be had.
        LraeeError: a part of the bundle is damaged, or the thread that answers has failed.
    """
    opened = _listen(settings)
    metrics = Metrics(model.manifest, settings.batch_size)
    log = log if log is not None else JsonLog(dropped=metrics.dropped.inc)
    answering = Answering(model, settings, metrics)
    gate = Gate(direct(make_app(answering)), settings, metrics, log)
    _libraries_to(log)

    def stopping() -> None:
        answering.stop()
        gate.is_stopping = True

    server = _Server(_config(gate, settings), stopping)
    failure: list[Exception] = []

    def warm() -> None:
        try:
            answering.warm()
            log.event("ready", image_ms=round(1000 * answering.admission.image_s, 2))
        except Exception as error:  # raised again in the main thread; after a stop nobody waits for the sessions
            if answering.state != "stopping":
                failure.append(error)
                server.should_exit = True

    address = _address(opened)
    log.event("listening", address=address, bundle=model.bundle.place.stem)
    listening(address)
    warming = threading.Thread(target=warm, name="lraee-warm", daemon=True)
    warming.start()
    try:
        with opened:
            asyncio.run(server.serve(sockets=[opened]))
    finally:
        answering.close()
        warming.join()  # the interpreter must not end while ONNX Runtime makes a session
        log.event("stopped")
        log.close()
    if failure:
        raise failure[0]


class _Protocol(HttpToolsProtocol):
    """Closes connections whose clients take too long: to send a head, to send what is dropped, or to read an answer.

    The parser itself bounds neither heads nor requests that come before earlier ones are answered; this class does.
    """

    patience_s: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._limits: dict[str, asyncio.TimerHandle] = {}
        self._head_bytes = 0
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")
        self._watch()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINED:
            raise httptools.HttpParserError("too many requests at a time on one connection")
        super().on_headers_complete()
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for what in ("reading", "writing"):
            self._set_limit(what, False)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_limit("writing", True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_limit("writing", False)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait for the client to read
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch(self) -> None:
        self._set_limit("reading", self.cycle is None or self.cycle.response_complete)

    def _set_limit(self, what: str, is_limited: bool) -> None:
        if is_limited and what not in self._limits:
            self._limits[what] = self.loop.call_later(self.patience_s, self.transport.abort)
        elif not is_limited and what in self._limits:
            self._limits.pop(what).cancel()


class _Server(uvicorn.Server):
    """Tells when it begins to stop, and ends with status 0 where uvicorn would raise the signal again."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _config(gate: Gate, settings: ServiceSettings) -> uvicorn.Config:
    protocol = type("Protocol", (_Protocol,), {"patience_s": settings.body_time_s})
    grace_s = settings.time_limit_s + settings.body_time_s + GRACE_S
    return uvicorn.Config(
        gate,
        http=protocol,
        ws="none",
        loop="asyncio",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=math.ceil(grace_s),
    )


def _listen(settings: ServiceSettings) -> socket.socket:
    """Open the port.

    Raises:
        SettingsError: it is taken, or the address is not one of this machine.
    """
    opened = None
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(place)
        opened.listen(settings.connections)
    except (OSError, UnicodeError) as error:
        if opened is not None:
            opened.close()
        why = getattr(error, "strerror", None) or str(error)
        setting = "host" if opened is None else "port"
        raise SettingsError(
            f"nothing can listen at {settings.host}, port {settings.port}: {why}; look whether another program does",
            setting=setting,
        ) from error
    return opened


def _address(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _libraries_to(log: JsonLog) -> None:
    """Send what libraries log to the log, and drop Python's warnings: it keeps each new text of them forever."""
    handler: Any = LibraryLog(log)
    logging.getLogger().addHandler(handler)
    warnings.simplefilter("ignore")
