"""Names what a camera sees, each frame within a deadline, and prints a line when the label changes.

    python camera.py 0                                                      # the first camera, through OpenCV
    rpicam-vid --timeout 0 --codec mjpeg --output - | python camera.py -    # MJPEG on stdin, without OpenCV
    python camera.py clip.mjpeg --fps 10                                    # a clip, as if a camera delivered it

A clip is a folder of images, or a file that ends in ``.mjpeg``; OpenCV opens anything else. While a frame is computed,
newer ones replace each other. SIGTERM and Ctrl-C end the program with status 0; a camera that ends or gives no frame
for some seconds ends it with status 1, so that a service manager starts it again. Needs lraee's extra ``image``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import lraee
from lraee.images.read import ImageSource

Newest = Queue[tuple[int, ImageSource | Exception]]  # its one place has the newest frame, or why there are no more


def frames(source: str) -> Iterator[ImageSource]:
    """Open a camera or a clip, and yield its frames."""
    path = Path(source)
    if source == "-" or path.suffix == ".mjpeg":
        with open(0 if source == "-" else path, "rb", buffering=0, closefd=source != "-") as file:
            rest = b""
            while chunk := file.read(65536):
                *jpegs, rest = (rest + chunk).split(b"\xff\xd9")  # ends a JPEG
                yield from (jpeg[jpeg.find(b"\xff\xd8") :] + b"\xff\xd9" for jpeg in jpegs)
    elif path.is_dir():
        yield from sorted(path.iterdir())
    else:
        import cv2  # pip install opencv-python-headless

        camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        while (read := camera.read())[0]:
            yield lraee.frames.from_bgr(read[1])


def deliver(source: str, fps: float, newest: Newest) -> None:
    """Put each frame in the place of the one before, unless that was taken."""
    is_clip = Path(source).is_file() or Path(source).is_dir()
    number, reason = 0, Exception("" if is_clip else f"{source} has no more frames")
    try:
        for number, frame in enumerate(frames(source), start=1):
            with suppress(Empty):
                newest.get_nowait()
            newest.put((number, frame))
            time.sleep(1 / fps if is_clip else 0)
    except Exception as error:  # of any kind: `watch` tells it
        reason = error
    newest.put((number, reason))


def watch(model: lraee.Model, newest: Newest, told: argparse.Namespace) -> str:
    """Name the newest frame until there are no more, and return why; an empty text is no error."""
    number = answered = late = in_row = 0
    shown = label = ""
    try:
        while True:
            number, frame = newest.get(timeout=told.timeout)
            if isinstance(frame, Exception):
                return str(frame)
            begun = time.perf_counter()
            with suppress(lraee.errors.ImageError):  # a frame that was damaged on the way
                answer = model.classify(frame, top=1)
                took_ms = 1000 * (time.perf_counter() - begun)
                answered, late = answered + 1, late + (took_ms > told.deadline)
                seen = answer.label if answer.score >= told.at_least else "unsure"
                in_row, label = (in_row + 1 if seen == label else 1), seen
                if in_row >= told.steady and label != shown:
                    shown = label
                    print(f"{datetime.now():%H:%M:%S} {label} ({answer.score:.2f}, {took_ms:.0f} ms)", flush=True)
                if told.alive is not None:
                    told.alive.touch()
    except Empty:
        return f"no frame came within {told.timeout:g} s"
    finally:
        print(f"{answered} of {number} frames answered, {late} of these late", file=sys.stderr)


def main() -> None:
    """Read the options, and watch."""
    parser = argparse.ArgumentParser(description="Name what a camera sees, each frame within a deadline.")
    parser.add_argument("source", help="number or address of a camera, - for MJPEG on stdin, or a clip")
    parser.add_argument("--bundle", default="photo-clip", help="folder of a bundle, or the name of a shipped one")
    parser.add_argument("--deadline", type=float, default=100, help="milliseconds for a frame (100)")
    parser.add_argument("--at-least", type=float, default=0.5, help="probability that a label needs (0.5)")
    parser.add_argument("--steady", type=int, default=2, help="frames in a row that must agree on a label (2)")
    parser.add_argument("--fps", type=float, default=25, help="frames per second of a clip (25)")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for a frame (10)")
    parser.add_argument("--alive", type=Path, help="file that is touched after each frame, for health checks")
    told = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        policy = lraee.Deadline(told.deadline, lraee.Adaptive())
        model = lraee.load(told.bundle, policy=policy, reading=lraee.Reading(reduce_jpeg=True))
        model.warm()  # the first frame has no time for it
        newest: Newest = Queue(maxsize=1)
        Thread(target=deliver, args=(told.source, told.fps, newest), daemon=True).start()
        sys.exit(watch(model, newest, told) or None)
    except KeyboardInterrupt:
        pass
    except lraee.LraeeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
