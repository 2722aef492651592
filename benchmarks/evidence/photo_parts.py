"""The parts of the evidence on photos: what each exports, how one is run, and the record that it leaves.

A part is one `lraee-export` and one search with its bundle. Its record is written whole, at the very end. A part that
was interrupted goes on from its work folder, which the parts of one trunk share, so that the trunk is tuned once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from part_records import FORMAT, PhotosError, Record, kept_record, ran_on, read_json, read_record, timed, write_whole

from evidence import TIMES
from lraee.bundle.folder import Bundle

FOLDER = Path(__file__).resolve().parent
RECORDS = FOLDER / "photos"
RETRIEVAL = FOLDER.parent / "experiments" / "retrieval.py"

COMMON = ("--quantizer", "strong", "--text", "none", "--seeds", "3", "--max-accuracy-drop", "0.6")
"""Options of every part; the budget leaves room for pool and test, which are of different splits of ImageNet."""

TUNING = ("--adapt", "--adapt-epochs", "8", "--adapt-exit-weight", "5")
"""How the trunk is tuned, in every arm alike; chosen on the gating split alone."""

TRUNKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "given": ("trunk as given", ()),
    "control": ("trunk tuned without exits", (*TUNING, "--adapt-exits", "none")),
    "labels": ("trunk tuned with exits and labels", TUNING),
    "label-free": ("trunk tuned with exits, without labels", (*TUNING, "--supervision", "label-free")),
    "again": ("trunk tuned with exits and labels, another seed", (*TUNING, "--seed", "1")),
}
"""Each arm: what it is called, and its options."""

ATTENTION = ("--reads", "attention", "--epochs", "15", "--exits", "6,7,8,9,10,11")
"""Heads that read all tokens learn for half as many passes, each of which is long, and stand where the tuned trunk has
learned with some."""

DISTILLED = (*ATTENTION, "--label-share", "0.3")

HEADS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pooled": ("pooled heads", ("--reads", "both")),
    "attention": ("attention heads", ATTENTION),
    "distilled": ("attention heads that learn from labels and FP32's answers", DISTILLED),
    "merged": ("the same, and merged tokens", (*DISTILLED, "--merge-tokens", "0,0,0,0,4,4,4,4,4,5,4,0")),
}
"""Each kind of exits: what it is called, and its options.

The pairs that merge are those that `--merge-tokens 0.15` finds before it moves some to neighbouring blocks.
"""

TABLES = ("--ablations", "--tables", "exported")

SEARCHED = ("adaptive=balanced", "adaptive=fast")
"""Policies whose embeddings are searched."""

LEFT_OUT = (*TIMES, "skipped", "passed_over", "notices")
"""Keys of metrics.json that hold times, or names of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One export of the evidence."""

    trunk: str
    """Of `TRUNKS`."""
    heads: str
    """Of `HEADS`."""
    tables: tuple[str, ...]
    """Options for what is measured besides the bundle itself."""
    hours: float
    """Expected, on 2 cores with fast bf16."""

    @property
    def name(self) -> str:
        """Such as ``labels-attention``."""
        return f"{self.trunk}-{self.heads}"

    @property
    def words(self) -> str:
        """Say what it is."""
        return f"{TRUNKS[self.trunk][0]}, {HEADS[self.heads][0]}"

    @property
    def options(self) -> tuple[str, ...]:
        """Give the options of `lraee-export`, without model and images."""
        return (*COMMON, *TRUNKS[self.trunk][1], *HEADS[self.heads][1], *self.tables)


PARTS = (
    Part(trunk="given", heads="pooled", tables=("--ablations",), hours=1.2),
    Part(trunk="given", heads="attention", tables=(), hours=0.6),
    Part(trunk="given", heads="distilled", tables=(), hours=0.3),
    Part(trunk="given", heads="merged", tables=(), hours=0.4),
    Part(trunk="control", heads="attention", tables=(), hours=0.8),
    Part(trunk="labels", heads="attention", tables=(), hours=1.2),
    Part(trunk="again", heads="attention", tables=TABLES, hours=1.9),
    Part(trunk="again", heads="pooled", tables=TABLES, hours=0.5),
    Part(trunk="label-free", heads="attention", tables=(), hours=0.8),
)
"""All of it, in the order in which it runs. Heads of all tokens are compared with their rivals on the second trunk that
was tuned with labels alone, so that no part takes two hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What the evidence is measured with; none of it is shipped."""

    model: Path
    """An open_clip folder."""
    pool: Path
    """Zip of photos that heads, gates, thresholds and trunks learn from."""
    test: Path
    """Zip of labelled photos for the tables alone."""
    labels: Path
    """File with one label a line."""

    def fingerprints(self) -> dict[str, str]:
        """Hash each of them, SHA-256.

        Raises:
            PhotosError: one is not there.
        """
        return {name: _fingerprint(name, getattr(self, name)) for name in ("model", "pool", "test", "labels")}


def _fingerprint(name: str, path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise PhotosError(f"PHOTO_{name.upper()}={path}: there is nothing; give the {name} of the evidence on photos")
    digest = hashlib.sha256()
    for file in files:
        if file.suffix in (".json", ".safetensors", ".zip", ".txt", ".bin", ".pt"):
            digest.update(file.name.encode() if path.is_dir() else b"")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs parts and keeps their records."""

    data: Data
    out: Path
    """Bundles, reports and work folders."""
    records: Path = RECORDS
    more: tuple[str, ...] = ()
    """Options of `lraee-export` after those of each part, to try things out with few passes."""
    more_tuning: tuple[str, ...] = ()
    """The same for the parts that tune the trunk."""

    def options(self, part: Part) -> list[str]:
        """Give all options of a part's export, without model, images and places."""
        tuning = self.more_tuning if "--adapt" in part.options else ()
        return [*part.options, *self.more, *tuning]

    def run(self, part: Part) -> Record:
        """Give the record of a part, which is run unless it is there.

        Raises:
            PhotosError: the record was made from other inputs, or a command failed.
        """
        wanted = {"data": self.data.fingerprints(), "options": self.options(part)}
        path = self.records / f"{part.name}.json"
        if (found := kept_record(path, wanted)) is not None:
            print(f"{part.name}: recorded")
            return found
        print(f"{part.name}: {part.words}, about {part.hours:g} h")
        bundle, searched = self.out / f"{part.name}.lraee", self.out / f"{part.name}.retrieval.json"
        clock, state = self.out / f"{part.name}.seconds", self.out / f"{part.name}.state.json"
        self.out.mkdir(parents=True, exist_ok=True)
        begun = read_json(state) if state.is_file() else {}
        if {key: begun.get(key) for key in wanted} != wanted:  # nothing was begun with these inputs
            begun = {}
            clock.unlink(missing_ok=True)
            write_whole(state, json.dumps({**wanted, "exported": False}))
        if not begun.get("exported") or not bundle.is_dir():
            timed(self._export(part, bundle), clock)
            write_whole(state, json.dumps({**wanted, "exported": True}))
        policies = [word for policy in SEARCHED for word in ("--policy", policy)]
        images = ("--images", str(self.data.test), "--json", str(searched))
        timed([sys.executable, str(RETRIEVAL), str(bundle), *images, *policies], clock)
        manifest = Bundle(bundle).manifest
        metrics = json.loads((bundle.with_suffix(".report") / "metrics.json").read_text("utf-8"))
        record = {
            "format": FORMAT,
            "part": part.name,
            **wanted,
            "hours": round(float(clock.read_text()) / 3600, 3),
            **ran_on(),
            "precision": f"{manifest.quantization.quantizer} INT8" if manifest.quantization else "FP32",
            "adapted": manifest.provenance.get("adapted"),
            "exits": [exit.block for exit in manifest.exits],
            "full_flops": manifest.full_flops,
            "metrics": {key: value for key, value in metrics.items() if key not in LEFT_OUT},
            "retrieval": json.loads(searched.read_text("utf-8")),
        }
        self.records.mkdir(parents=True, exist_ok=True)
        report = (bundle.with_suffix(".report") / "report.md").read_text("utf-8")
        write_whole(path.with_suffix(".md"), report.replace(str(self.data.model), self.data.model.name))
        write_whole(path, json.dumps(record, separators=(",", ":")) + "\n")
        return record

    def _export(self, part: Part, bundle: Path) -> list[str]:
        data = self.data
        images = ("--train", str(data.pool), "--evaluate", str(data.test), "--labels", str(data.labels))
        place = ("-o", str(bundle), "--work", str(self.out / f"{part.trunk}.work"), "--overwrite")
        command = [sys.executable, "-m", "lraee_toolchain.cli", str(data.model), *place, *images]
        return [*command, *self.options(part)]

    def clear(self, parts: Sequence[Part]) -> None:
        """Remove the work folder of every trunk whose parts are all recorded: tokens take 10 GB and more."""
        for trunk in {part.trunk for part in parts}:
            names = [part.name for part in PARTS if part.trunk == trunk]
            if all((self.records / f"{name}.json").is_file() for name in names):
                shutil.rmtree(self.out / f"{trunk}.work", ignore_errors=True)


def recorded(folder: Path = RECORDS) -> dict[str, Record]:
    """Read the records of all parts that there are, in the order of `PARTS`.

    Raises:
        PhotosError: two were made from other images or another model.
    """
    found = {part.name: read_record(path) for part in PARTS if (path := folder / f"{part.name}.json").is_file()}
    for name, other in found.items():
        first = next(iter(found))
        if other["data"] != found[first]["data"]:
            raise PhotosError(f"{name} and {first} were made from other images or models; run one of them again")
    return found


def chosen(names: Sequence[str]) -> Iterator[Part]:
    """Give the parts of these names, or all.

    Raises:
        PhotosError: there is no part of that name.
    """
    by_name = {part.name: part for part in PARTS}
    for name in names:
        if name not in by_name:
            raise PhotosError(f"there is no part {name!r}, wanted one of {', '.join(by_name)}")
    yield from (part for part in PARTS if not names or part.name in names)
