"""Export whole towers with random weights and record what that takes and gives.

    python benchmarks/experiments/towers/towers.py export FOLDER [--models ViT-B-16,ViT-B-16-SigLIP]
    python benchmarks/experiments/towers/towers.py time FOLDER

`export` writes one bundle for each model into FOLDER and checks parity with torch as every export does; `time` runs
what lies there and writes `towers.json`, from which `make figures` writes the tables of the documents. Random weights
show size, speed and that graphs compute what torch computes; of accuracy, and of what INT8 costs in it, they say
nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

import lraee
from lraee.bundle.manifest import block_names
from lraee.cli import errors_as_one_line
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.running.rounds import time_in_turn

MODELS = ("ViT-B-16", "ViT-B-16-SigLIP")
RECORD = Path(__file__).with_name("towers.json")
RUNS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What the export of one model took and proved."""

    model: str
    seconds: float
    """Start of the command, loading, FP32 and INT8 parts, parity, noise profile, report."""
    worst_cosine: float
    """Smallest mean-centred cosine to torch of any image at any stage, FP32."""
    worst_error: float
    """Largest error of any value at any stage over that stage's spread, FP32."""
    images: int
    """That activation ranges were found on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one tower."""

    exported: Exported
    depth: int
    width: int
    tokens: int
    image_size: int
    pooling: str
    probabilities: str
    gflops: float
    int8_megabytes: float
    """Stem, blocks and tail: graphs and weights, 10^6 bytes."""
    ms: dict[str, float]
    """Median milliseconds of an image at batch 1 and full depth, from pixels to probabilities, by threads."""


def export_model(model: str, folder: Path) -> None:
    """Export one model without exits, with the command that users have, and note what it took."""
    labels, bundle = folder / "labels.txt", folder / f"{model}.lraee"
    labels.write_text("cat\ndog\n")
    command = [Path(sys.executable).with_name("lraee-export"), model, "--pretrained", "random", "--out", bundle]
    options = ["--labels", labels, "--exits", "none", "--text", "none", "--overwrite"]
    begun = time.perf_counter()
    subprocess.run([*command, *options], check=True)
    seconds = time.perf_counter() - begun
    parity = json.loads((bundle.with_suffix(".report") / "metrics.json").read_text("utf-8"))["parity"]
    quantization = lraee.load(bundle).manifest.quantization
    noted = Exported(
        model=model,
        seconds=round(seconds, 1),
        worst_cosine=min(stage["cosine"] for stage in parity),
        worst_error=max(stage["error"] for stage in parity),
        images=0 if quantization is None else quantization.images,
    )
    (folder / f"{model}.json").write_text(json.dumps(asdict(noted), indent=1))
    print(f"{model}: {seconds:.0f} s, cosine {noted.worst_cosine:.8f}, error {noted.worst_error:.1e}", flush=True)


def time_model(exported: Exported, folder: Path) -> Row:
    """Time one bundle on one thread and on two."""
    models = {threads: lraee.load(folder / f"{exported.model}.lraee", threads=threads) for threads in (1, 2)}
    manifest = models[1].manifest
    tower, size = manifest.tower, manifest.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    calls = [partial(model.run_pixels, pixels, policy=lraee.Full()) for model in models.values()]
    medians = np.median(time_in_turn(calls, RUNS, warmup_rounds=3), axis=0)
    times = {str(threads): round(float(ms), 1) for threads, ms in zip(models, medians, strict=True)}
    print(f"{exported.model}: milliseconds by threads {times}")
    return Row(
        exported=exported,
        depth=tower.blocks,
        width=tower.width,
        tokens=tower.tokens,
        image_size=size,
        pooling=tower.pooling,
        probabilities=manifest.probabilities,
        gflops=round(manifest.full_flops / 1e9, 2),
        int8_megabytes=round(sum(map(manifest.bytes_of, ["stem", *block_names(tower.blocks), "tail"])) / 1e6, 1),
        ms=times,
    )


def time_all(folder: Path) -> None:
    """Run every bundle there and record it; other models keep what was recorded, if it was on such a device."""
    device = describe_device()
    exports = [Exported(**json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("*.json"))]
    rows = [time_model(exported, folder) for exported in exports]
    record = json.loads(RECORD.read_text("utf-8"))
    if record["device"]["model"] == device.model:
        timed = {row.exported.model for row in rows}
        kept = [row for row in record["rows"] if row["exported"]["model"] not in timed]
        rows += [Row(**{**row, "exported": Exported(**row["exported"])}) for row in kept]
    rows.sort(key=lambda row: row.gflops)
    RECORD.write_text(json.dumps({"device": asdict(device), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def main() -> None:
    """Parse and run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(MODELS), help="open_clip's names (default: %(default)s)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "time":
        time_all(options.folder)
        return
    for model in options.models.split(","):
        export_model(model, options.folder)


if __name__ == "__main__":
    with errors_as_one_line():
        main()
