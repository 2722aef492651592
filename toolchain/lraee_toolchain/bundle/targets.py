"""Puts a bundle and its companions where they were asked for, all together, and touches nothing that no export wrote.

A bundle ``x.lraee`` has companions beside it: ``x.report``, ``x.baselines``, ``x.adapted``, ``x.evaluation``,
``x.single``. Whoever
finds one takes it for this bundle's. So an export that replaces a bundle also removes the companions that it does not
make again. A folder that merely has such a name is told by its content, and stays.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lraee.bundle.manifest import MANIFEST_NAME
from lraee.errors import ExportError
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.durable import sync, sync_tree, writing

OTHER_PLACE = "choose another --out; all stages are finished, and the same command goes on from them"
"""Advice where a finished folder cannot be written."""

Owner: TypeAlias = Literal["nobody", "lraee", "both", "others"]
"""Who wrote what lies at a target; ``both`` is a folder of an export with files that no export writes."""

SYSTEM_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file managers leave in any folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What an export writes into one of its folders."""

    record: str
    """A JSON object that is always there."""
    keys: tuple[str, ...]
    """Some of its keys; none where a damaged record counts too."""
    names: re.Pattern[str]
    """Every file that an export may write."""


KINDS = {
    ".lraee": Kind(
        record=MANIFEST_NAME,
        keys=(),
        names=re.compile(r"[\w-]+\.(onnx|data|json|npy)|merges\.txt|MODEL_CARD.*|LICENSE.*"),
    ),
    ".report": Kind(
        record="metrics.json",
        keys=("parity", "images"),
        names=re.compile(r"metrics\.json|report\.(md|html)|noise-.+\.csv"),
    ),
    ".baselines": Kind(
        record="baselines.json",
        keys=("format", "fingerprint", "baselines"),
        names=re.compile(r"baselines\.json|(fp32|static|dynamic|floor)\.(onnx|data)"),
    ),
    ".adapted": Kind(
        record="adaptation.json",
        keys=("machine", "epochs"),
        names=re.compile(r"adaptation\.json|exit_heads\.safetensors|open_clip_(config\.json|model\.safetensors)"),
    ),
    ".evaluation": Kind(
        record="evaluation.json",
        keys=("source", "images"),
        names=re.compile(r"evaluation\.json|images\.zip"),
    ),
    ".single": Kind(
        record="single_file.json",
        keys=("bundle", "point"),
        names=re.compile(r"single_file\.json|.+\.onnx"),
    ),
}
"""The bundle and its companions, by suffix."""


def strangers(target: Path) -> list[str]:
    """Name what lies in a folder that no export writes there."""
    names = KINDS[target.suffix].names
    met = (path for path in sorted(target.iterdir()) if path.name not in SYSTEM_FILES)
    return [path.name for path in met if not names.fullmatch(path.name) or path.is_dir()]


def owner_of(target: Path) -> Owner:
    """Tell who wrote what lies at a target, by its content; an empty folder is nobody's."""
    if target.is_symlink():
        return "others"
    if not target.exists():
        return "nobody"
    if not target.is_dir():
        return "others"
    if not any(target.iterdir()):
        return "nobody"
    kind = KINDS[target.suffix]
    record = target / kind.record
    if not record.is_file() or not set(kind.keys) <= _keys(record):
        return "others"
    return "both" if strangers(target) else "lraee"


def _keys(record: Path) -> set[str]:
    try:
        content: Any = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return set(content) if isinstance(content, dict) else set()


class Targets:
    """The folders of one export: ``out`` and its companions, by suffix."""

    def __init__(self, out: Path) -> None:
        """Name the bundle.

        Args:
            out: a folder name ending in ``.lraee``.
        """
        self.out = out
        self.all = {suffix: out.with_suffix(suffix) for suffix in KINDS}
        self.installing = out.with_name(f".{out.name}.installing")
        """Lies there while finished folders are moved, so that a rerun knows what lies there as its own."""

    @classmethod
    def checked(cls, config: ExportConfig) -> Targets:
        """Give the targets of an export whose options and targets are in order.

        Raises:
            ExportError: options contradict each other, or as `check` says.
        """
        with writing(config.out.name, config.out.parent, "choose another --out"):
            config.check()
            targets = cls(config.out)
            targets.check(config)
        return targets

    def check(self, config: ExportConfig) -> None:
        """Refuse, before any work is done, to touch what this export may not replace or remove.

        Raises:
            ExportError: a target exists and nobody asked to replace it, or it holds what no export writes.
        """
        is_own = self.installing.exists() and not self.out.exists()
        may_replace = config.overwrite or is_own
        made = {".lraee", ".report"} | ({".baselines"} if config.baselines else set())
        made |= {".adapted"} if config.adapt is not None else set()
        made |= {".evaluation"} if config.evaluate_share is not None else set()
        made |= {".single"} if config.single_file else set()
        for suffix, target in self.all.items():
            owner = owner_of(target)
            there = target.exists() or target.is_symlink()
            if not may_replace and there and (suffix in made or owner == "lraee"):
                what = "replace" if suffix in made else "remove"
                raise ExportError(f"{target} exists; choose another --out, or pass --overwrite to {what} it")
            if owner == "both" or (owner == "others" and suffix in made):
                raise ExportError(
                    f"{target} {_what_others_wrote(target)}, so it is not replaced; move it, or choose another --out"
                )

    def recover(self) -> None:
        """Put back what an export set aside that died before its bundle was in place; else clear up after it."""
        if self.installing.exists() and _staged(self.out).exists():
            self._put_back()
        for target in self.all.values():
            _remove(_aside(target))
            _remove(_staged(target))
        if self.out.exists():
            self.installing.unlink(missing_ok=True)

    def install(self, finished: Mapping[str, Path]) -> None:
        """Copy finished folders to their targets, and remove the companions of an older bundle that are not among them.

        Copies are written and synced first, so that moving them needs no more room; old folders are set aside and
        removed last. If this fails, all is as it was. If the process dies, every target is old, absent or new; what is
        old lies there or aside, and `recover` in the next export puts it back or clears it away.

        Args:
            finished: folders by suffix, among them that of the bundle.

        Raises:
            ExportError: a copy cannot be written or moved.
        """
        self.recover()
        gone = [target for suffix, target in self.all.items() if suffix not in finished and owner_of(target) == "lraee"]
        order = [self.all[suffix] for suffix in finished if suffix != ".lraee"]
        order.append(self.out)  # last: where the bundle is, all is
        try:
            for target in order:
                with writing(target.name, target.parent, OTHER_PLACE):
                    _remove(_staged(target))
                    _copy_tree(finished[target.suffix], _staged(target))
                    sync_tree(_staged(target))
            with writing(self.out.name, self.out.parent, OTHER_PLACE):
                self.installing.touch()
                self._move(gone, order)
        except BaseException:
            for target in order:
                _remove(_staged(target))
            raise
        for target in (*gone, *order):
            _remove(_aside(target))
        self.installing.unlink(missing_ok=True)

    def _move(self, gone: Sequence[Path], order: Sequence[Path]) -> None:
        """Set old folders aside and move the copies in; put all back if that fails before the bundle is in place."""
        placed = []
        try:
            for target in (*gone, *order):
                if target.exists():
                    target.rename(_aside(target))
                if target in order:
                    _staged(target).rename(target)
                    placed.append(target)
            sync(self.out.parent)
        except BaseException:
            if self.out not in placed:
                for target in placed:
                    _remove(target)
                self._put_back()
                self.installing.unlink(missing_ok=True)
            raise

    def _put_back(self) -> None:
        """Put every folder that lies aside back to where it was."""
        for target in self.all.values():
            if _aside(target).exists():
                _remove(target)
                _aside(target).rename(target)


def _what_others_wrote(target: Path) -> str:
    if target.is_symlink():
        return "is a link"
    if not target.is_dir():
        return "is a file"
    names = strangers(target)
    kind = KINDS[target.suffix]
    if not names:
        return f"has no {kind.record} of an export"
    return f"holds {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}, which no export writes there"


def _staged(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a folder as `shutil.copytree` does, but let the system's errors through with their numbers."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            shutil.copyfile(path, copy)
