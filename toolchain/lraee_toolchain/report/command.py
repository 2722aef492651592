"""Write the commands that repeat an export, from its configuration."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from lraee_toolchain.config.learning import Adaptation, HeadTraining
from lraee_toolchain.config.options import ExportConfig

ELSEWHERE = {"model", "out", "heads", "adapt", "merge_tokens", "workers", "work", "overwrite"}
"""Fields that are not plain options, or say nothing about the result."""


def commands_of(config: ExportConfig) -> list[str]:
    """Write the commands that export and measure, without options that have their default value.

    An absolute path is cut to its last name, so that a report may be shown around.

    >>> commands_of(ExportConfig(model="reference", out=Path("a.lraee"), exits=(4, 8), ablations=True))
    ['lraee-export reference -o a.lraee --exits 4,8 --ablations', 'lraee-bench a.lraee']
    """
    words = ["lraee-export", _shown(config.model), "-o", _shown(config.out)]
    for field in fields(ExportConfig):
        value = getattr(config, field.name)
        if field.name in ELSEWHERE or value == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        words += [option] if value is True else [option, _shown(value)]
    if config.heads.epochs != HeadTraining().epochs:
        words += ["--epochs", str(config.heads.epochs)]
    if config.heads.rank is not None:
        words += ["--head-rank", str(config.heads.rank)]
    if config.heads.label_share != HeadTraining().label_share:
        words += ["--label-share", f"{config.heads.label_share:g}"]
    if config.heads.teacher_views != 1:
        words += ["--teacher-views", str(config.heads.teacher_views)]
    words += [] if config.heads.teacher_flip else ["--teacher-no-flip"]
    words += [word for wish in config.merge_tokens for word in ("--merge-tokens", _shown(wish))]
    words += _tuning(config)
    return [shlex.join(words), shlex.join(["lraee-bench", _shown(config.out)])]


def _tuning(config: ExportConfig) -> list[str]:
    """Write the options of tuning the trunk; a setting that the command lacks is none of them.

    >>> tuning = Adaptation(epochs=2, average=0.5, flip=False)
    >>> _tuning(ExportConfig(model="reference", out=Path("a.lraee"), adapt=tuning))
    ['--adapt', '--adapt-epochs', '2', '--adapt-average', '0.5', '--adapt-no-flip']
    """
    if config.adapt is None:
        return []
    words = ["--adapt"]
    for name in ("epochs", "learning_rate", "rank", "exits", "exit_weight", "average"):
        if (value := getattr(config.adapt, name)) != getattr(Adaptation(), name):
            words += [f"--adapt-{name.replace('_', '-')}", _shown(value)]
    return words if config.adapt.flip else [*words, "--adapt-no-flip"]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    kind, colon, path = str(value).rpartition(":")  # as in local-dir:FOLDER
    return kind + colon + Path(path).name if Path(path).is_absolute() else str(value)
