"""Measure a bundle in headless Chromium, in the assembled page: what leaving early saves, and whether it answers alike.

    python benchmarks/experiments/browser.py SITE BUNDLE --images SOURCE [--name NAME] [--count 100] [--threads]

SITE is a folder that ``npm run page`` wrote with the bundle in it, called NAME there (by default as BUNDLE); BUNDLE is
what Python opens. Images are files of SOURCE, at random; the browser decodes them, and so does Python.

An answer is the same where label and block are; of the others it is told how near a gate of the operating point lies to
its threshold. Then each image runs up to five times at the default operating point and at full depth, in turns, and the
medians of an image count. Time saved is 1 minus the ratio of the sums of these medians over all images; it stands
beside the FLOPs saved on the same images. ``--threads`` serves the page with the headers that allow threads; without,
there is one.
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import lraee
from experiments.chromium import Tab, chromium, find_chromium
from experiments.javascript import distance
from lraee.bundle.folder import find_bundle
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.wording import device_line
from lraee_calibration_data import open_dataset

SERVING = runpy.run_path(str(Path(__file__).resolve().parents[2] / "docs" / "programs" / "serve.py"))

ADD_INPUT = (
    "document.body.append(Object.assign(document.createElement('input'), {type: 'file', id: 'all', multiple: true}))"
)

OPEN = """(async () => {
  const { Client } = await import("/page/client.js");
  const entries = await (await fetch("/bundles.json")).json();
  globalThis.client = new Client();
  return client.ask("open", { entry: entries.find(({ name }) => name === NAME) });
})()"""

ASK = """(async () => {
  const file = document.getElementById("all").files[AT];
  const policy = { kind: "point", name: null };
  const { exitBlock, label, flopsSaved, embedding } = await client.ask("classify", { file, policy });
  const times = TIMED ? await client.ask("compare", { policy }) : null;
  return { exitBlock, label, flopsSaved, times, embedding: Array.from(embedding) };
})()"""


def ask_page(tab: Tab, name: str, paths: Sequence[Path], *, timed: bool) -> list[dict[str, Any]]:
    """Let the page's own runner classify files at the default operating point, and time them against full depth.

    Args:
        tab: a page that is open.
        name: the bundle's, in the page's list.
        paths: files that the browser decodes.
        timed: whether each file also runs in turns with full depth.
    """
    tab.run(ADD_INPUT)
    tab.choose("#all", *paths)
    tab.run(OPEN.replace("NAME", repr(name)))
    said = ASK.replace("TIMED", str(timed).lower())
    return [tab.run(said.replace("AT", str(at))) for at in range(len(paths))]


def written(source: Path, count: int, folder: Path) -> list[Path]:
    """Copy some images of a folder or archive, as the files that they are."""
    dataset = open_dataset(source)
    chosen = np.random.default_rng(0).permutation(len(dataset.samples))[:count]
    paths = []
    for index in chosen:
        content = dataset.read_bytes(int(index))
        ending = ".png" if content.startswith(b"\x89PNG") else ".jpg"
        paths.append(folder / f"{index}{ending}")
        paths[-1].write_bytes(content)
    return paths


def print_answers(model: lraee.Model, paths: Sequence[Path], found: Sequence[dict[str, Any]]) -> None:
    """Compare answers with Python's, and print how many are the same and the others."""
    same, others, cosines = 0, [], [1.0]
    for path, met in zip(paths, found, strict=True):
        own = model.classify(path)
        if met["exitBlock"] == own.exit_block:
            cosines.append(float(np.dot(met["embedding"], own.embedding)))
        if (met["exitBlock"], met["label"]) == (own.exit_block, own.label):
            same += 1
            continue
        others.append(
            f"{path.name}: block {met['exitBlock']} and {met['label']}, in Python {own.exit_block} and {own.label} "
            f"({own.top[0][1]:.3f}, next {own.top[1][1]:.3f}); a gate is {distance(model, path):.4f} from its "
            "threshold"
        )
    print(f"{same} of {len(paths)} the same, cosine at least {min(cosines):.6f} where blocks agree")
    print("\n".join(others))


def print_times(found: Sequence[dict[str, Any]]) -> None:
    """Print what leaving early saves in time beside what it saves in FLOPs."""
    own, full = (sum(met["times"][key] for met in found) for key in ("ms", "fullMs"))
    time_saved, flops_saved = 1 - own / full, float(np.mean([met["flopsSaved"] for met in found]))
    print(
        f"full depth {full / len(found):.2f} ms, default operating point {own / len(found):.2f} ms an image: "
        f"{time_saved:.3f} of the time saved, {flops_saved:.3f} of the FLOPs, ratio {time_saved / flops_saved:.2f}"
    )


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("site", type=Path)
    made.add_argument("bundle")
    made.add_argument("--images", type=Path, required=True, help="folder or archive of labelled images")
    made.add_argument("--name", help="of the bundle in the page's list")
    made.add_argument("--count", type=int, default=100)
    made.add_argument("--threads", action="store_true", help="with the headers that allow threads")
    made.add_argument("--no-times", action="store_true", help="answers alone")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask the page, then Python, and print."""
    given = parser().parse_args(arguments)
    program = find_chromium()
    if program is None:
        raise SystemExit("Chromium is not on the path: apt-get install chromium")
    headers = SERVING["ISOLATION"] if given.threads else {}
    with ExitStack() as ending:
        server = ending.enter_context(SERVING["server"](given.site, 0, headers))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ending.callback(server.shutdown)
        paths = written(given.images, given.count, Path(ending.enter_context(tempfile.TemporaryDirectory())))
        browser = ending.enter_context(chromium(program))
        tab = browser.tab()
        tab.open(f"http://localhost:{server.server_port}/page/page.css")  # of the same server, and busy with nothing
        found = ask_page(tab, given.name or Path(given.bundle).stem, paths, timed=not given.no_times)
        print(device_line(describe_device()))
        print(f"{browser.send('Browser.getVersion')['product']}, {'threads' if given.threads else 'one thread'}")
        print_answers(lraee.load(find_bundle(given.bundle), threads=1), paths, found)
        if not given.no_times:
            print_times(found)


if __name__ == "__main__":
    main()
