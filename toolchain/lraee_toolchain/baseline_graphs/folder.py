"""Make the folder of models that ``lraee-bench`` compares a bundle with, each a stage of its own.

    fp32.onnx     the float tower built node by node, pixels to probabilities
    static.onnx   what torch.onnx.export and ONNX Runtime's quantize_static give by default
    dynamic.onnx  the same with quantize_dynamic
    floor.onnx    the bundle's GEMMs alone, a lower bound rather than a model
    baselines.json  how each was made

The tools of other libraries may fail on a model: what cannot be made is left out with its reason, and the rest is kept.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx

from lraee.bundle.files import file_entry
from lraee.bundle.manifest import FileEntry
from lraee.bundle.strict_json import read_json, write_json
from lraee.errors import MissingExtraError
from lraee_exporters.graphs.bare_gemms import build_floor, save_floor
from lraee_toolchain.baseline_graphs.library_defaults import Quantizer, Recipe, quantize_by_default, trace
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.parts.build import build_float_baseline
from lraee_toolchain.stages.exits import Stages

RECORD = "baselines.json"
RECIPE = "recipe.json"
"""How one graph was made, in its stage."""

FORMAT = 1
"""Of ``baselines.json``."""

_FAILURES = (
    MissingExtraError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    OSError,
    MemoryError,
)
"""What torch's exporter and ONNX Runtime's tools were seen to raise, or raise in their sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineEntry:
    """A baseline and how it was made."""

    name: str
    recipe: Recipe
    source: Recipe | None
    """How the float graph was made that this one was quantized from."""
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRecord:
    """The content of ``baselines.json``."""

    format: int
    model: str
    weights: str
    fingerprint: str
    """Of the float tower, as in the bundle's manifest."""
    baselines: tuple[BaselineEntry, ...]
    failed: dict[str, str]
    """Why a baseline is not there, by its name."""


class BaselineMaker:
    """Makes the folder: `trace` runs while torch's model is still in memory, `make` at any time after it."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.failed: dict[str, str] = {}
        self._traced: Path | None = None

    def trace(self) -> None:
        """Export the torch tower; if that fails, neither quantized baseline can be made."""
        model, size = self.stages.model.torch_model, self.stages.tower.image_size
        self._traced = self._attempt(
            "static",
            "traced",
            {"tower": self.stages.fingerprint},
            lambda folder: write_json(trace(model, size, folder), folder / RECIPE),
        )
        if self._traced is None:
            self.failed["dynamic"] = self.failed["static"]

    def make(self, tower_parts: Path) -> Path:
        """Make all baselines that can be made, as one folder.

        Args:
            tower_parts: the bundle's parts, whose GEMMs the floor takes.
        """
        stages = self.stages
        made = {
            "fp32": self._attempt("fp32", "fp32", {"tower": stages.fingerprint}, self._build_float),
            "floor": self._attempt("floor", "floor", {"parts": tower_parts.name}, _floor_of(tower_parts)),
        }
        if self._traced is not None:
            pixels = stages.pixels(stages.splits.calibration, views=stages.splits.views)
            for name in ("static", "dynamic"):
                inputs = {"traced": self._traced.name, "pixels": pixels.name}
                made[name] = self._attempt(name, f"default-{name}", inputs, self._quantize(name, self._traced, pixels))
        there = {name: folder for name, folder in made.items() if folder is not None}
        return stages.work.stage(
            "baselines",
            {"made": {name: folder.name for name, folder in there.items()}, "failed": self.failed},
            lambda folder: self._gather(there, folder),
        )

    def _attempt(
        self, name: str, stage: str, inputs: Mapping[str, object], make: Callable[[Path], None]
    ) -> Path | None:
        try:
            return self.stages.work.stage(stage, inputs, make)
        except _FAILURES as error:
            self.failed[name] = failure_reason(error)
            return None

    def _build_float(self, folder: Path) -> None:
        build_float_baseline(self.stages.tower, folder)
        recipe = _own_recipe("lraee_exporters.graphs.whole_tower.build_whole", "uint8 (batch, size, size, 3) pixels")
        write_json(recipe, folder / RECIPE)

    def _quantize(self, name: Quantizer, traced: Path, pixels: Path) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            rows = load_pixel_set(pixels).pixels
            graph = traced / "traced.onnx"
            recipe = quantize_by_default(name, graph, rows, self.stages.tower.preprocessing, folder)
            write_json(recipe, folder / RECIPE)

        return make

    def _gather(self, there: Mapping[str, Path], folder: Path) -> None:
        entries = []
        for name, made in there.items():
            recipe = read_json(Recipe, made / RECIPE)
            source = None
            if name in ("static", "dynamic") and self._traced is not None:
                source = read_json(Recipe, self._traced / RECIPE)
            files = sorted(path for path in made.iterdir() if path.suffix in {".onnx", ".data"})
            for path in files:
                shutil.copyfile(path, folder / path.name)
            entries.append(
                BaselineEntry(name=name, recipe=recipe, source=source, files=tuple(file_entry(path) for path in files))
            )
        tower = self.stages.tower
        record = BaselineRecord(
            format=FORMAT,
            model=tower.model_id,
            weights=tower.weights,
            fingerprint=self.stages.fingerprint,
            baselines=tuple(entries),
            failed=dict(self.failed),
        )
        write_json(record, folder / RECORD)


def failure_reason(error: Exception) -> str:
    """Describe a failure in one line that may be published with a bundle: of paths only the last name is kept.

    >>> failure_reason(ValueError("cannot read '/srv/model/block_01.onnx'"))
    "ValueError: cannot read 'block_01.onnx'"

    Between quotes a name may hold blanks; elsewhere it may where the folder is there.
    """
    if isinstance(error, MissingExtraError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f": {Path(os.fsdecode(error.filename)).name}" if error.filename else ""
        return f"{type(error).__name__}: {error.strerror}{place}"
    line = next(iter(str(error).strip().splitlines()), "no message")
    line = re.sub(r"(?<=['\"])/(?:[^'\"/]+/)+", "", _without_folders(line))
    return f"{type(error).__name__}: " + re.sub(r"(?<![\w/])/(?:[^/\s'\"]+/)+", "", line)


def _without_folders(line: str) -> str:
    """Replace each folder of this machine by ``/-``, so that no path holds a blank that is there."""
    for start in reversed([found.start() for found in re.finditer(r"(?<![\w/])/", line)]):
        ends = [start + found.end() for found in re.finditer(r"[^/](?=/)", line[start:])]
        if end := next((end for end in reversed(ends) if os.path.isdir(line[start:end])), 0):
            line = f"{line[:start]}/-{line[end:]}"
    return line


def _floor_of(tower_parts: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save_floor(build_floor(onnx.load(tower_parts / "graph.onnx")), folder)
        recipe = _own_recipe("lraee_exporters.graphs.bare_gemms.build_floor", "the inputs of the products, quantized")
        write_json(recipe, folder / RECIPE)

    return make


def _own_recipe(tool: str, takes: str) -> Recipe:
    return Recipe(
        tool=tool, versions={name: version(name) for name in ("lraee", "onnx")}, options={}, defaults={}, input=takes
    )
