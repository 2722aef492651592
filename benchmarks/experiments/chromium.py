"""Drives a headless Chromium through its debugging pipe, with the standard library alone.

Source: the Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol/. Messages are JSON that ends
in a zero byte, on the file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root and containers do not get
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-pipe",
)

START = """
import os, sys
reading, writing, *words = sys.argv[1:]
os.dup2(int(reading), 3)
os.dup2(int(writing), 4)
os.execv(words[0], words)
"""
"""Becomes the browser, with the pipes at the numbers where it looks for them."""

PATIENCE_S = 60.0
"""How long an answer may take."""


class BrowserError(Exception):
    """The browser refused something, or a script in it failed."""


def find_chromium() -> str | None:
    """Find a Chromium or Chrome on the path."""
    return next((found for name in NAMES if (found := shutil.which(name)) is not None), None)


class Tab:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **given: Any) -> Any:
        """Call a method of the protocol."""
        return self._browser.send(method, session=self._session, **given)

    def run(self, script: str) -> Any:
        """Evaluate JavaScript, wait for its promise, and give its value."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(answer["exceptionDetails"].get("exception", {}).get("description", str(answer)))
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def wait(self, condition: str, seconds: float = PATIENCE_S) -> Any:
        """Wait until an expression of JavaScript is true, and give its value."""
        end = time.monotonic() + seconds
        while True:
            with suppress(BrowserError):
                if value := self.run(condition):
                    return value
            if time.monotonic() > end:
                raise BrowserError(f"after {seconds:.0f} s it is not so: {condition}; page: {self.text()}")
            time.sleep(0.02)

    def close(self) -> None:
        """Close the page."""
        self.send("Page.close")

    def text(self) -> str:
        """Give the text of the page that a person sees."""
        return str(self.run("document.body?.innerText ?? ''"))

    def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Set the size of the window in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=is_phone
        )

    def choose(self, selector: str, *paths: Path) -> None:
        """Give files to an input element."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drop(self, selector: str, path: Path) -> None:
        """Drop a file onto an element."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, data=data, **place)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))


class Browser:
    """A running Chromium; `events` has what it told without being asked."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._buffer = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, *, session: str | None = None, **given: Any) -> Any:
        """Call a method of the protocol and wait for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": given}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def tab(self) -> Tab:
        """Open a page in a profile of its own: without caches, stored data or service workers of others."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Tab(self, self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def faults(self) -> list[str]:
        """List errors that nobody caught, and what the browser reports as errors but for icons that files lack."""
        thrown = [e["params"]["exceptionDetails"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        errors = [f"{e['text']} {e.get('url', '')}" for e in logged if e["level"] == "error"]
        return [str(one) for one in thrown] + [error for error in errors if not error.endswith("/favicon.ico")]

    def _read(self) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reading], [], [], PATIENCE_S)
            piece = os.read(self._reading, 1 << 20) if ready else b""
            if not piece:
                raise BrowserError("the browser ended, or does not answer")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """Start a browser with a profile that is removed afterwards."""
    pipes = [os.pipe(), os.pipe()]
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (pipes[0][0], pipes[1][1])]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        started = [sys.executable, "-c", START, *map(str, theirs), program, *OPTIONS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(started, pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (*theirs, pipes[0][0], pipes[1][1]):
            os.close(end)
        browser = Browser(pipes[1][0], pipes[0][1])
        try:
            yield browser
            with suppress(BrowserError, OSError):
                browser.send("Browser.close")
        finally:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
            os.close(pipes[1][0])
            os.close(pipes[0][1])
