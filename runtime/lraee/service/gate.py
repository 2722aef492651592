"""Stands before the application: asks for the token, counts and logs each request, and adds headers to each answer."""

from __future__ import annotations

import hashlib
import hmac
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from lraee.service.logs import JsonLog
from lraee.service.metrics import Metrics
from lraee.service.problems import GONE, error_body
from lraee.service.settings import ServiceSettings

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
"""Of every answer."""

TOO_SLOW = 408

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Paths that need no token."""


class Gate:
    """Is the application that the server calls."""

    def __init__(self, app: App, settings: ServiceSettings, metrics: Metrics, log: JsonLog) -> None:
        """Put it together.

        Args:
            app: that answers.
            settings: have the token, and how much of a body is read and dropped where a request is refused; where more
                may come, the connection is closed.
            metrics: count each request.
            log: gets a line for each request.
        """
        self._app, self._metrics, self._log = app, metrics, log
        self._body_bytes = settings.body_bytes
        self._token = None if settings.token is None else _digest(f"Bearer {settings.token}".encode())
        self.is_stopping = False
        """Whether each answer closes its connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, state = time.perf_counter(), GONE, scope.setdefault("state", {})
        read_all = False

        async def noted_receive() -> MutableMapping[str, Any]:
            nonlocal read_all
            message = await receive()
            read_all = read_all or not message.get("more_body", False)
            return message

        async def noted_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                is_read = status < 400 or read_all or (status != TOO_SLOW and self._is_short(scope))
                closing = [] if is_read and not self.is_stopping else [(b"connection", b"close")]
                message["headers"] = [*message["headers"], *HEADERS, *closing]
            await send(message)

        try:
            if self._is_allowed(scope):
                await self._app(scope, noted_receive, noted_send)
            else:
                await _refuse(noted_send)
        except Exception as error:  # answered with 500 already: the server must go on
            trace = "".join(traceback.format_exception(error)[-3:])
            self._log.event("fault", "error", error=type(error).__name__, message=str(error), trace=trace)
        seconds = time.perf_counter() - began
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.request(path, status, seconds)
        self._log.event(
            "request",
            "info" if status < 500 else "warning",
            method=scope["method"][:16],
            path=path,
            status=status,
            ms=round(1000 * seconds, 2),
            images=state.get("images"),
            blocks=state.get("blocks"),
            message=state.get("message"),
        )

    def _is_allowed(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in OPEN_PATHS:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(_digest(given[0]), self._token)

    def _is_short(self, scope: Scope) -> bool:
        """Tell whether what is left of the body may be read and dropped."""
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if lengths:
            return lengths[0].isdigit() and int(lengths[0][:19]) <= self._body_bytes
        return not any(name == b"transfer-encoding" for name, _ in scope["headers"])


def _digest(header: bytes) -> bytes:
    """Hash a header, so that comparing takes the same time whatever its length is."""
    return hashlib.sha256(header).digest()


async def _refuse(send: Send) -> None:
    body = error_body(401, "the token is missing or wrong; send it in the header Authorization: Bearer TOKEN")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
