"""Describes why a request is not answered: a status, a message, and when to ask again."""

from __future__ import annotations

import json
import math

from lraee.errors import BundleError, LraeeError, ServiceError

WORDS = {
    400: "The request is malformed.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site.",
    408: "The body did not arrive in time.",
    413: "The body or an image is too large.",
    415: "The body is not an image, or of a format that is not accepted.",
    422: "An image, a policy, labels or another parameter cannot be used.",
    429: "Too much is waiting; Retry-After says when to ask again.",
    503: "The service is starting or stopping, or could not answer in time; Retry-After says when to ask again.",
}
"""What each status means, for the description of the service."""

GONE = 499
"""Status in log and counters where the client closed its connection; nothing is sent."""

TOO_LARGE = frozenset({"max_pixels"})
"""Settings that an error names where an image is too large: see `LraeeError.setting`."""


class Problem(Exception):
    """Ends a request without an answer."""

    def __init__(
        self, status: int, message: str, *, retry_after_s: float | None = None, headers: dict[str, str] | None = None
    ) -> None:
        """Put it together.

        Args:
            status: of the response.
            message: what was met, what was wanted, and what to do next.
            retry_after_s: seconds after which the client may ask again; None says nothing of it.
            headers: further headers of the response.
        """
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))


class Gone(Exception):
    """The client closed its connection before it was answered."""


def problem_of(error: LraeeError) -> Problem:
    """Choose the status of an error of the library; its message is the library's."""
    if isinstance(error, ServiceError | BundleError):
        return Problem(503, str(error), retry_after_s=1)
    return Problem(413 if error.setting in TOO_LARGE else 422, str(error))


def error_body(status: int, message: str) -> bytes:
    """Give the body of a response that is no answer.

    >>> error_body(422, "one.jpg is empty")
    b'{"error":{"status":422,"message":"one.jpg is empty"}}'
    """
    return json.dumps({"error": {"status": status, "message": message}}, separators=(",", ":")).encode()
