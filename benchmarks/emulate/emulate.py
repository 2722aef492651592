"""Whether a bundle gives the same answers on other CPUs, which qemu plays: those of a Raspberry Pi 4 and 5, a Haswell.

    python benchmarks/emulate/emulate.py [--bundle B] [--images 200] [--cores cortex-a72,cortex-a76,haswell] [--record]

The first run makes an arm64 Debian below `--root` (a few minutes) and installs the project's wheel in it. Then each
core runs the same images as this machine. What it gave is kept image by image: an interrupted run goes on where it
ended; remove `outcomes` below the root to run all again. `--record` writes the comparison to recorded.json, from which
`make figures` writes the tables of the documents. Emulation shows whether answers are right; it shows nothing about
speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from comparison import compare, equal_to_the_last_bit, merged, read_outcomes
from dot_products import LOGGING, count_dot_products
from emulated_system import BENCH, CORES, ArmSystem, EmulationError, need, x86_command
from hidden_features import hidden_command
from run_images import POLICIES

from lraee.bundle.folder import find_bundle
from lraee.cli import errors_as_one_line

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
SCRIPT = HERE / "run_images.py"
NATIVE = "native"
HIDDEN = "haswell, by CPUID"
"""No emulation: this machine's CPU with its newer features hidden, so as fast as AVX2 is here; x86 only."""
SATURATING = "haswell, products saturate"
"""Haswell without `session.x64quantprecision`: what the option is for."""
QEMU_CORES = tuple(CORES)
PINNED = ("numpy", "onnxruntime")
"""Packages of which both sides run the same version."""


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("lraee-*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmulationError(f"the wheel cannot be built:\n{done.stderr.strip()}")
    (wheel,) = folder.glob("lraee-*.whl")
    return wheel


def command_for(name: str, arm: ArmSystem, root: Path, bundle: Path, out: Path, images: int) -> list[str]:
    """What runs `run_images.py` on a core."""
    if name == NATIVE:
        return [sys.executable, str(SCRIPT), str(bundle), str(out), str(images)]
    if name == HIDDEN:
        words = [sys.executable, str(SCRIPT), str(bundle), str(out), str(images)]
        try:
            return hidden_command(root / "hidden", words)
        except RuntimeError as error:
            raise EmulationError(str(error)) from error
    if name.startswith("haswell"):
        options = ["--let-saturate"] if name == SATURATING else []
        words = [sys.executable, str(SCRIPT), str(bundle), str(out), str(images), *options]
        return x86_command(CORES["haswell"], root / "x86", words)
    bound = {SCRIPT: "/tmp/run_images.py", bundle: f"/tmp/{bundle.name}", out.parent: "/tmp/outcomes"}
    words = [f"{BENCH}/python", "/tmp/run_images.py", f"/tmp/{bundle.name}", f"/tmp/outcomes/{out.name}", str(images)]
    return arm.command(CORES[name], words, bound=bound)


def run(name: str, command: list[str], log: Path) -> None:
    """Run a core, what it says on stderr goes to a file.

    Raises:
        EmulationError: it failed.
    """
    print(f"{name}: running", flush=True)
    with log.open("w", encoding="utf-8") as errors:
        status = subprocess.run(command, stderr=errors, stdout=errors, check=False).returncode
    if status != 0:
        last = "\n".join(log.read_text("utf-8", errors="replace").strip().splitlines()[-5:])
        raise EmulationError(f"{name} ended with status {status}; the end of {log}:\n{last}")


def dot_products(name: str, arm: ArmSystem, folder: Path) -> int:
    """Dot product instructions that an ARM core meets while one image runs through the shipped bundle.

    Raises:
        EmulationError: it failed.
    """
    log, out = folder / f"{name}.in_asm", folder / f"{name}.one.jsonl"
    out.unlink(missing_ok=True)
    log.touch()
    core = dataclasses.replace(CORES[name], model=f"{name} {LOGGING} /tmp/in_asm")
    words = [f"{BENCH}/python", "/tmp/run_images.py", "reference", f"/tmp/outcomes/{out.name}", "1"]
    bound = {SCRIPT: "/tmp/run_images.py", folder: "/tmp/outcomes", log: "/tmp/in_asm"}
    run(f"{name}, noting its instructions", arm.command(core, words, bound=bound), folder / f"{name}.one.log")
    with log.open(encoding="utf-8", errors="replace") as lines:
        count = count_dot_products(lines)
    log.unlink()
    return count


def first_line(*command: str) -> str:
    """Of what a program says of its version."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def describe(bundle: Path) -> str:
    """The bundle's name as the table has it: the model, whether it merges tokens, and how it was quantized."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    quantizer = (manifest["quantization"] or {}).get("quantizer", manifest["precision"])
    merging = " with merged tokens" if manifest.get("schedules") else ""
    return f"{manifest['model']['id']}{merging}, {quantizer}"


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="reference")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument(
        "--cores", default="cortex-a72,cortex-a76,haswell", help=f"of these, or none: {', '.join(QEMU_CORES)}"
    )
    parser.add_argument("--hide", action="store_true", help="also this CPU with its newer features hidden (x86)")
    parser.add_argument("--root", type=Path, default=PROJECT / "out" / "emulate")
    parser.add_argument("--let-saturate", action="store_true", help="also Haswell without the exact kernel")
    parser.add_argument("--dot-products", action="store_true", help="also count dot product instructions of ARM cores")
    parser.add_argument("--compare-only", action="store_true", help="run nothing, compare what is there")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    arguments.cores = arguments.cores.split(",") if arguments.cores else []
    if unknown := [core for core in arguments.cores if core not in QEMU_CORES]:
        parser.error(f"{unknown[0]!r} is no core; wanted some of {', '.join(QEMU_CORES)}")
    if arguments.images < 1:
        parser.error(f"--images is {arguments.images}, wanted at least 1")
    if arguments.hide:
        arguments.cores.append(HIDDEN)
    if arguments.let_saturate:
        arguments.cores.append(SATURATING)
    return arguments


def main() -> int:
    """Command line; 1 when a label differs or something is missing."""
    arguments = parsed()
    with errors_as_one_line():
        bundle = find_bundle(arguments.bundle).resolve()
    try:
        return emulate(arguments, bundle)
    except EmulationError as error:
        print(error, file=sys.stderr)
        return 1


def emulate(arguments: argparse.Namespace, bundle: Path) -> int:
    """Run on every core, compare, print and record."""
    root, cores = arguments.root.resolve(), arguments.cores
    need(*(CORES["haswell" if core == SATURATING else core].program for core in cores if core != HIDDEN))
    arm = ArmSystem(root / "arm64")
    key = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()[:12]
    folder = root / "outcomes" / f"{bundle.stem}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{re.sub('[^a-z0-9]+', '-', name)}.jsonl" for name in (NATIVE, *cores)}
    if not arguments.compare_only:
        for name, path in paths.items():
            run(name, command_for(name, arm, root, bundle, path, arguments.images), path.with_suffix(".log"))
            if name == NATIVE and any(core.startswith("cortex") for core in cores):
                versions = {package: read_outcomes(path)[0][package] for package in PINNED}
                print("arm64 system: building what is not there", flush=True)
                arm.build()
                arm.install(build_wheel(root / "dist"), versions)
    here, native = read_outcomes(paths[NATIVE])
    runs: list[dict[str, Any]] = []
    for core in cores:
        there, emulated = read_outcomes(paths[core])
        if not (native.keys() & emulated.keys()):
            raise EmulationError(f"no image was run on both {NATIVE} and {core}; leave --compare-only away")
        for policy in (policy for policy in POLICIES if policy in next(iter(emulated.values()))):
            found = compare(native, emulated, policy)
            runs.append({"bundle": describe(bundle), "core": core, "policy": policy, **found, "circumstances": there})
            print(
                f"{core}, {policy}: of {found['images']} images {found['equal_labels']} labels and "
                f"{found['equal_exits']} exits are equal, least cosine {found['least_cosine']:.7f}"
            )
    new: dict[str, Any] = {"native": here, "runs": runs}
    arms = [core for core in cores if core.startswith("cortex")]
    if len(arms) == 2:
        one, other = (read_outcomes(paths[core])[1] for core in arms)
        alike = equal_to_the_last_bit(one, other)
        new["arm_cores"] = {describe(bundle): alike}
        print(f"{' and '.join(arms)}: {alike['equal']} of {alike['images']} images equal to the last bit")
    if arguments.dot_products:
        new["dot_product_instructions"] = {core: dot_products(core, arm, folder) for core in arms}
        print(f"dot product instructions: {new['dot_product_instructions']}")
    if arguments.record:
        record(new, qemu=cores != [HIDDEN])
    agree = all(run["equal_labels"] == run["images"] for run in runs if run["core"] != SATURATING)
    return 0 if agree else 1


def record(new: dict[str, Any], *, qemu: bool) -> None:
    """Write recorded.json, from which `make figures` writes tables; `qemu` when it took part."""
    path = HERE / "recorded.json"
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    new = merged(old, {**({"qemu": first_line("qemu-aarch64-static", "--version")} if qemu else {}), **new})
    path.write_text(json.dumps(new, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
