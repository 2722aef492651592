"""Whether the ranges of versions that pyproject.toml claims are true, for every Python of this machine.

    python benchmarks/versions/versions.py [--record] [--only "3.11 lowest"]... [--python PROGRAM]...

For each CPython from 3.11 on, twice: with the lowest release of every dependency that is allowed and has a wheel, and
with the newest that pip takes. An environment with the base dependencies runs the shipped bundle, Pillow joins it for
image files, and one with all that an export needs exports the reference. What could not be run is named. The
environments (about 6 GB with the CUDA libraries that PyPI's torch brings) are made below `--root`, one at a time, and
removed. `--record` writes the outcome to recorded.json and into README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from environments import Environment, Interpreter, VersionsError, claims, interpreters, last_lines, lowest
from packaging.utils import canonicalize_name
from table import outcome_rows

from lraee_benchmarks.output_files import with_block

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
RECORD = HERE / "recorded.json"
STAGES = ("base", "image", "export")
KINDS = ("lowest", "newest")
EXPECTED = ("3.11", "3.12", "3.13", "3.14")
"""Minor versions whose absence is worth a word."""

LEAST_EQUAL = 0.97
"""Share of images whose label is that of this environment: kernels of other releases round differently, and an image
whose two best labels are about as likely may get the other one."""


def build_wheel(folder: Path) -> Path:
    """The project's wheel.

    Raises:
        VersionsError: it cannot be built.
    """
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise VersionsError(f"the wheel cannot be built: {last_lines(done)}")
    (wheel,) = folder.glob("lraee-*.whl")
    return wheel


def check(python: Path, stage: str) -> dict[str, Any]:
    """Run `check.py` with an interpreter, from an empty folder; its answers.

    Raises:
        VersionsError: it failed.
    """
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), "-I", str(HERE / "check.py"), stage]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise VersionsError(last_lines(done))
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def judge(answers: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compare answers with those of this environment.

    Raises:
        VersionsError: too many differ.
    """
    for name, expected in wanted.items():
        given = answers[name]
        pairs = list(zip(given, expected, strict=True)) if isinstance(expected, list) else []
        share = sum(one == other for one, other in pairs) / len(pairs) if pairs else given / 100
        if share < LEAST_EQUAL:
            raise VersionsError(
                f"{name}: {share:.0%} are as with this environment's versions, wanted {LEAST_EQUAL:.0%}"
            )


def install(environment: Environment, wheel: Path, stage: str, pins: Mapping[str, Any]) -> None:
    """Install the wheel with what a stage needs; pinned, or the newest that pip takes.

    Raises:
        VersionsError: pip cannot.
    """
    constraints = environment.folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), "utf-8")
    target = str(wheel) if stage == "base" else f"{wheel}[{stage}]"
    environment.pip("install", "--quiet", "--upgrade", "--constraint", str(constraints), target)


def run(interpreter: Interpreter, kind: str, wheel: Path, root: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Every stage for an interpreter and a kind of versions.

    Returns:
        `python`, `versions` of each stage's dependencies, `raised` (why one is higher than its bound), and `failed`:
        reasons by stage, empty if all is well.
    """
    bounds = claims(PROJECT / "pyproject.toml")
    outcome: dict[str, Any] = {"python": interpreter.version, "versions": {}, "raised": {}, "failed": {}}
    folder = root / "environment"
    environment: Environment | None = None
    pins: Mapping[str, Any] = {}
    if kind == "lowest":
        print(f"{interpreter.minor} {kind}: finding them", flush=True)
        try:
            every = {name: bound for stage in STAGES for name, bound in bounds[stage].items()}
            pins, outcome["raised"] = lowest(Environment.create(interpreter, folder), every)
        except VersionsError as error:
            outcome["failed"] = dict.fromkeys(STAGES, str(error))
            print(f"{interpreter.minor} {kind}: FAILED: {error}", flush=True)
    for stage in () if outcome["failed"] else STAGES:
        print(f"{interpreter.minor} {kind}: {stage}", flush=True)
        needed = {**bounds["base"], **(bounds[stage] if stage != "base" else {})}
        try:
            if environment is None or stage == "export":  # Pillow alone joins the base
                environment = Environment.create(interpreter, folder)
            install(environment, wheel, stage, pins)
            installed = environment.installed()
            outcome["versions"][stage] = {name: installed[canonicalize_name(name)] for name in needed}
            judge(check(environment.python, stage), wanted[stage])
        except VersionsError as error:
            outcome["failed"][stage] = str(error)
            print(f"{interpreter.minor} {kind}: {stage} FAILED: {error}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, action="append", default=[], help="another interpreter; may be repeated")
    parser.add_argument("--only", action="append", default=[], help='a run such as "3.11 lowest"; may be repeated')
    parser.add_argument("--root", type=Path, default=PROJECT / "out" / "versions", help="where environments are made")
    parser.add_argument("--record", action="store_true", help="write recorded.json and README.md")
    return parser.parse_args(words)


def main() -> int:
    """Command line; 1 when something failed."""
    arguments = parsed()
    root = arguments.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    try:
        found = interpreters(arguments.python)
        runs = {f"{each.minor} {kind}": (each, kind) for each in found for kind in KINDS}
        if unknown := [name for name in arguments.only if name not in runs]:
            raise VersionsError(f"there is no run {unknown[0]!r}; there are {', '.join(runs)}")
        wanted = {"base": check(Path(sys.executable), "base"), "image": check(Path(sys.executable), "image")}
        wanted["export"] = {"equal_labels": 100}
        missing = [minor for minor in EXPECTED if minor not in {each.minor for each in found}]
        for minor in missing:
            print(f"{minor}: no interpreter found; give one with --python", flush=True)
        outcomes: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            wheel = build_wheel(Path(folder))
            for name in arguments.only or runs:
                outcomes[name] = run(*runs[name], wheel, root, wanted)
    except VersionsError as error:
        print(error, file=sys.stderr)
        return 1
    new = {"claims": claims(PROJECT / "pyproject.toml"), "missing": missing, "runs": outcomes}
    print("\n".join(outcome_rows(new)))
    if arguments.record:
        record(new)
    return 1 if any(outcome["failed"] for outcome in outcomes.values()) else 0


def record(new: dict[str, Any]) -> None:
    """Write what ran to recorded.json, next to earlier runs, and the table into README.md."""
    old = json.loads(RECORD.read_text("utf-8"))["runs"] if RECORD.exists() else {}
    new = {**new, "runs": dict(sorted({**old, **new["runs"]}.items()))}
    RECORD.write_text(json.dumps(new, indent=1) + "\n", "utf-8")
    readme = HERE / "README.md"
    readme.write_text(with_block(readme.read_text("utf-8"), "versions", "\n".join(outcome_rows(new))), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
