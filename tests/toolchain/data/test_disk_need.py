"""The room that an export says it needs is the room that it takes, and too little ends it before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lraee.errors import ExportError
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.disk_need import Sizes, arrays_there, bytes_left, check_room, disk_need

HEADER = 128
"""Bytes before the values of a ``.npy`` file."""

B32 = Sizes(
    rows={"calibration": 6_400, "heads": 83_200, "gating": 38_400, "evaluation": 50_000},
    image_size=224,
    tokens=50,
    blocks=12,
    width=768,
    embed_dim=512,
    labels=1000,
    class_token=True,
    weights=87_849_216,
)
"""ViT-B/32 with 128,000 training and 50,000 evaluation images."""


def need_of(config: ExportConfig) -> tuple[Any, Path]:
    """What an export says it needs, as it computes it, and its work folder."""
    from lraee_toolchain.cache import WorkFolder
    from lraee_toolchain.stages.inputs import Inputs, Silent

    assert config.work is not None
    with WorkFolder(config.work) as work:
        return Inputs(config, work, Silent()).disk_need, config.work


def arrays(work: Path, *stages: str) -> int:
    """Bytes of the values of the arrays of some stages."""
    found = [path for stage in stages for path in work.glob(f"{stage}-*/*.npy") if path.name != "source.npy"]
    return sum(path.stat().st_size - HEADER for path in found)


def test_an_export_takes_what_it_says(exported: Any) -> None:
    """Pixels, features and answers, to the byte."""
    need, work = need_of(exported.config)
    assert arrays(work, "pixels") == need.pixels
    assert arrays(work, "features", "answers") == need.features
    assert bytes_left(need, work) <= need.meanwhile + need.weights


def test_an_export_with_tables_takes_what_it_says(with_tables: ExportConfig) -> None:
    """Four precisions, and images that prove a promise."""
    need, work = need_of(with_tables)
    assert arrays(work, "pixels") == need.pixels
    assert arrays(work, "features", "answers") == need.features


def test_imagenet_fits_a_usual_disk(tmp_path: Path) -> None:
    """Each part by hand; without the tables it is less than half."""
    config = ExportConfig(model="ViT-B-32", out=tmp_path / "x.lraee", ablations=True, evaluate=tmp_path)
    need = disk_need(B32, config)
    an_image = 4 * (12 * (2 * 768 + 1) + 512 + 1000)
    assert need.pixels == 178_000 * 224 * 224 * 3
    assert need.features == 171_600 * (4 * an_image + 4 * (512 + 1000)) + 50_000 * 3 * 4 * (512 + 1000)
    assert need.meanwhile == 2 * 4 * 6_400 * 50 * 768 + 29 * 4 * 2**14 * 768
    plain = disk_need(replace(B32), replace(config, ablations=False))
    assert plain.total < need.total / 2


def test_too_little_room_is_one_error_and_enough_a_sentence(tmp_path: Path) -> None:
    """On the disk that is there; what lies in the folder already is not needed again."""
    config = ExportConfig(model="ViT-B-32", out=tmp_path / "x.lraee", ablations=True, evaluate=tmp_path)
    many = replace(B32, rows=dict.fromkeys(B32.rows, 10**9))
    with pytest.raises(ExportError, match=r"has .* free, this export needs .* GB more there .*without --ablations"):
        check_room(disk_need(many, config), tmp_path, ablations=True)
    few = disk_need(replace(B32, rows=dict.fromkeys(B32.rows, 10)), config)
    said = check_room(few, tmp_path, ablations=True)
    assert said is not None
    assert said.startswith(f"the work folder takes up to {few.words}; ")
    (tmp_path / "features-1").mkdir()
    np.save(tmp_path / "features-1" / "embedding.npy", np.zeros(1000, np.float32))
    np.save(tmp_path / "features-1" / "tokens_03.npy", np.zeros(1000, np.float16))
    assert arrays_there(tmp_path) == 4000 + HEADER
    assert bytes_left(few, tmp_path) == few.total - 4000 - HEADER
    little = disk_need(replace(B32, weights=0, rows={"heads": 10}), config)
    assert check_room(little, tmp_path, ablations=False) is None
