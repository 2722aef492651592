"""Serves a folder to browsers on this machine, with the two headers that let a page use threads.

python serve.py FOLDER [--port 8000]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class Handler(SimpleHTTPRequestHandler):
    """Answers with the files of a folder."""

    def __init__(self, *given: Any, headers: dict[str, str], **more: Any) -> None:
        self.own_headers = headers
        super().__init__(*given, **more)

    def end_headers(self) -> None:
        """Add the headers to every answer."""
        for name, value in self.own_headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *given: Any) -> None:
        """Say nothing of each request."""


class Server(ThreadingHTTPServer):
    """Answers several requests at a time."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that no longer waits for an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server(folder: Path, port: int, headers: dict[str, str]) -> Server:
    """Make the server; port 0 takes any that is free."""
    return Server(("127.0.0.1", port), partial(Handler, directory=str(folder), headers=headers))


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    if not (given.folder / "index.html").is_file():
        parser.error(f"{given.folder} has no index.html; wanted a folder that npm run page wrote")
    with server(given.folder, given.port, ISOLATION) as made, contextlib.suppress(KeyboardInterrupt):
        print(f"http://localhost:{made.server_port}/ (Ctrl+C ends it)")
        made.serve_forever()


if __name__ == "__main__":
    main()
