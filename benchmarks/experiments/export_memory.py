"""Measure how much memory an export with every table takes, and how it grows with the number of images.

    python benchmarks/experiments/export_memory.py --images 5000 20000 --limit-gb 4

Photos are made up, of various sizes in class folders; the tower is small and random, since what grows with the images
must not depend on it. Each export runs under a hard limit on its private memory (RLIMIT_DATA): beyond it, the system
refuses memory and the export fails. Anonymous memory (RssAnon) is sampled; what is memory-mapped does not count, since
the system may drop it. Prints the peak of every stage and the growth from one size to the next, writes them with
``--json``, and fails where an image more takes more than 5 KB (``--most-growth``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lraee_benchmarks.device.memory import kilobytes_by_key

MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 6, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
"""Six blocks of 17 tokens."""

LABELS = 50

EVALUATED = 0.25
"""Share of the photos that only the report looks at."""

SAMPLE_SECONDS = 0.02


def write_model(folder: Path) -> Path:
    """Write an open_clip folder with random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    model = open_clip.CLIP(**json.loads(json.dumps(MODEL)))
    content = {"model_cfg": MODEL, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content), "utf-8")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_photos(folder: Path, count: int, *, seed: int) -> Path:
    """Write JPEGs of smooth noise, 40 to 160 pixels a side; the noise of a label has a colour of its own."""
    if folder.is_dir():
        return folder
    colours = np.random.default_rng(1).uniform(0, 255, (LABELS, 3))
    for label in range(LABELS):
        (folder / f"label {label:02d}").mkdir(parents=True)

    def write(number: int) -> None:
        generator = np.random.default_rng([seed, number])
        width, height = (int(side) for side in generator.integers(40, 161, 2))
        coarse = generator.normal(colours[number % LABELS], 60, (6, 6, 3)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"label {number % LABELS:02d}" / f"{number:06d}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))
    return folder


def measure(command: Sequence[str], limit_bytes: int) -> dict[str, Any]:
    """Run a command under a hard limit on private memory and sample its anonymous memory, stage by stage.

    Raises:
        SystemExit: the command failed; its last lines are printed.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limit
    ) as run:
        lines, stage, peaks = [], ["start"], {}

        def read() -> None:
            assert run.stderr is not None
            for line in run.stderr:
                lines.append(line.rstrip())
                if not line.startswith("note:"):
                    stage.append(line.strip())

        reader = threading.Thread(target=read)
        reader.start()
        while run.poll() is None:
            there = kilobytes_by_key(f"/proc/{run.pid}/status").get("RssAnon", 0)
            peaks[stage[-1]] = max(peaks.get(stage[-1], 0), there)
            time.sleep(SAMPLE_SECONDS)
        reader.join()
    if run.returncode != 0:
        raise SystemExit("\n".join([*lines[-5:], f"the export ended with {run.returncode}"]))
    return {"peak_bytes": max(peaks.values()), "stages": peaks, "seconds": round(time.monotonic() - began)}


def export_command(model: Path, photos: dict[str, Path], out: Path, options: Sequence[str]) -> list[str]:
    """Give the command of one export."""
    labels = out.with_suffix(".txt")
    labels.write_text("".join(f"label {label:02d}\n" for label in range(LABELS)), "utf-8")
    sources = [text for name, folder in photos.items() for text in (f"--{name}", str(folder))]
    tables = ["--ablations", "--seeds", "1", "--epochs", "1", "--exits", "2,4,5", "--max-accuracy-drop", "20"]
    return [
        *(sys.executable, "-m", "lraee_toolchain.cli"),
        *(str(model), "--out", str(out), "--labels", str(labels)),
        *(*sources, *tables, *options),
    ]


def main() -> None:
    """Export once for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 20000], help="photos of each export")
    parser.add_argument("--limit-gb", type=float, default=4.0, help="hard limit on private memory")
    parser.add_argument("--most-growth", type=float, default=5000, help="bytes of memory that an image more may take")
    parser.add_argument("--work", type=Path, help="folder for photos and exports, kept; a temporary one by default")
    parser.add_argument("--json", type=Path, help="write what was measured here")
    parser.add_argument("options", nargs="*", help="further options of lraee-export, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.work or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        model = write_model(root / "model")
        found = []
        for count in sorted(arguments.images):
            evaluated = round(EVALUATED * count)
            photos = {
                "train": write_photos(root / f"train-{count}", count - evaluated, seed=0),
                "evaluate": write_photos(root / f"evaluate-{count}", evaluated, seed=1),
            }
            command = export_command(model, photos, root / f"images-{count}.lraee", arguments.options)
            found.append({"images": count, **measure(command, round(arguments.limit_gb * 2**30))})
            print(
                f"{count} images: peak {found[-1]['peak_bytes'] / 2**20:.0f} MiB, {found[-1]['seconds']} s", flush=True
            )
    growths: list[float] = []
    for small, large in itertools.pairwise(found):
        more = large["images"] - small["images"]
        growths.append((large["peak_bytes"] - small["peak_bytes"]) / more)
        print(f"growth from {small['images']} to {large['images']} images, bytes an image:")
        print(f"  {growths[-1]:8.0f}  peak of all")
        for stage, peak in large["stages"].items():
            print(f"  {(peak - small['stages'].get(stage, peak)) / more:8.0f}  {stage} ({peak / 2**20:.0f} MiB)")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if growths and max(growths) > arguments.most_growth:
        raise SystemExit(f"memory grows by {max(growths):.0f} bytes an image, wanted at most {arguments.most_growth:g}")


if __name__ == "__main__":
    main()
