"""Answers to learn from are means over views, the same in whatever batches the images come."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from typer.testing import CliRunner

import lraee_toolchain.export as pipeline
from lraee.bundle.folder import Bundle
from lraee.errors import ExportError
from lraee_toolchain import cli
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.config.learning import Adaptation, HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.disk_need import Sizes, disk_need
from lraee_toolchain.data.splits import load_pixel_set
from lraee_toolchain.data.teacher_views import LEAST_AREA, view
from lraee_toolchain.export import export
from lraee_toolchain.report.bundle_tables import measure_of
from lraee_toolchain.report.command import commands_of
from lraee_toolchain.stages.exits import Stages
from lraee_toolchain.stages.inputs import Silent


def pictures(count: int = 6, size: int = 16) -> np.ndarray:
    """A gradient from left to right and one from top to bottom, brighter from picture to picture."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    return np.stack([np.stack([8 * x + n, 8 * y + n, 0 * x + n], axis=-1) for n in range(count)]).astype(np.uint8)


def test_the_first_views_are_the_image_and_its_mirror() -> None:
    """Without mirroring, crops begin at once."""
    pixels = pictures()
    np.testing.assert_array_equal(view(pixels, 0, first=0, flip=True, seed=0), pixels)
    np.testing.assert_array_equal(view(pixels, 1, first=0, flip=True, seed=0), pixels[:, :, ::-1])
    assert not (view(pixels, 1, first=0, flip=False, seed=0) == pixels[:, :, ::-1]).all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_view_does_not_depend_on_the_batch(number: int) -> None:
    """But on the seed, the number and the row, where it is a crop."""
    pixels = pictures()
    whole = view(pixels, number, first=10, flip=True, seed=0)
    parts = [view(pixels[a : a + 2], number, first=10 + a, flip=True, seed=0) for a in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert whole.shape == pixels.shape
    assert whole.dtype == np.uint8
    others = [view(pixels, number, first=11, flip=True, seed=0), view(pixels, number, first=10, flip=True, seed=1)]
    assert all((other == whole).all() == (number == 1) for other in others)


@pytest.mark.parametrize(("number", "mirrored"), [(2, False), (3, True), (4, False)])
def test_crops_keep_half_of_the_area_or_more(number: int, mirrored: bool) -> None:
    """A crop of a gradient is a gradient of the same direction, less steep; odd views are mirrored."""
    pixels = pictures(count=40)
    seen = view(pixels, number, first=0, flip=True, seed=3).astype(float)
    across = (seen[:, 8, -3, 0] - seen[:, 8, 2, 0]) / (8 * 11)
    down = (seen[:, -3, 8, 1] - seen[:, 2, 8, 1]) / (8 * 11)
    assert ((across < 0) == mirrored).all()
    for steep in (np.abs(across), down):
        assert steep.min() >= LEAST_AREA**0.5 - 0.03
        assert steep.max() <= 1.03
    assert np.ptp(down) > 0.15


def test_heads_learn_from_the_mean_of_the_views(small_config: Callable[..., ExportConfig], tmp_path: Path) -> None:
    """Embeddings of unit length and probabilities; with labels, only the heads' images have several views."""
    heads = HeadTraining(epochs=1, teacher_views=3)
    config = small_config(tmp_path / "x.lraee", heads=heads, supervision="label-free", max_accuracy_drop=60.0)
    with WorkFolder(tmp_path / "work", Silent().stage) as work:
        stages = Stages(config, work, Silent())
        plain = stages.answers(stages.splits.gating, stages.float_parts, views=1)
        taught = stages.lessons(stages.splits.gating, views=1)
        pixels = load_pixel_set(stages.pixels(stages.splits.gating, views=1)).pixels[:5]
        chain = stages.chain(stages.float_parts)
        tails = []
        for number in range(3):
            *_, tokens = chain.sized_after_blocks(view(pixels, number, first=0, flip=True, seed=0))
            tails.append(chain.tail(tokens))
        np.testing.assert_allclose(plain.embedding[:5], tails[0][0], atol=1e-5)
        mean = np.mean([embedding for embedding, _ in tails], axis=0)
        wanted = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(taught.embedding[:5], wanted, atol=1e-5)
        np.testing.assert_allclose(taught.probabilities[:5], np.mean([p for _, p in tails], axis=0), atol=1e-5)
        parts = stages.parts("naive INT8")
        route = stages.route(parts)
        np.testing.assert_array_equal(route.gating.teacher.probabilities[:5], taught.probabilities[:5])
        labelled = Stages(replace(config, supervision="labels"), work, Silent()).route(parts)
        np.testing.assert_array_equal(labelled.gating.teacher.probabilities[:5], plain.probabilities[:5])
        np.testing.assert_array_equal(labelled.heads.teacher.embedding[:5], route.heads.teacher.embedding[:5])
    done = export(replace(config, work=tmp_path / "work"))
    manifest = Bundle(done.bundle).manifest
    assert manifest.provenance["taught_by"] == "FP32's mean answer over 3 views of each image"
    assert measure_of(manifest) == "agreement with FP32's mean answer over 3 views of each image"


def test_their_answers_are_counted_before_the_export_begins() -> None:
    """For the heads' and the gating images, for the trunk as given and the tuned one."""
    sizes = Sizes(
        rows={"heads": 70, "gating": 30, "calibration": 10},
        image_size=28,
        tokens=17,
        blocks=12,
        width=64,
        embed_dim=32,
        labels=10,
        class_token=True,
        weights=1000,
    )
    config = ExportConfig(model="reference", out=Path("x.lraee"))
    several = replace(config, heads=HeadTraining(teacher_views=4))
    an_answer = 4 * (32 + 10)
    assert disk_need(sizes, several).total - disk_need(sizes, config).total == 100 * an_answer
    tuned, tuned_several = (replace(one, adapt=Adaptation()) for one in (config, several))
    assert disk_need(sizes, tuned_several).total - disk_need(sizes, tuned).total == 200 * an_answer


def test_the_report_repeats_the_options() -> None:
    """Only where they are not the default."""
    heads = HeadTraining(teacher_views=4, teacher_flip=False)
    command, _ = commands_of(ExportConfig(model="reference", out=Path("x.lraee"), heads=heads))
    assert command == "lraee-export reference -o x.lraee --teacher-views 4 --teacher-no-flip"


@pytest.mark.parametrize(
    ("heads", "supervision", "message"),
    [
        (HeadTraining(teacher_views=0), "auto", "--teacher-views is 0, wanted 1 to 64"),
        (HeadTraining(teacher_views=65), "auto", "--teacher-views is 65, wanted 1 to 64"),
        (HeadTraining(teacher_flip=False), "auto", "--teacher-no-flip is about the views of --teacher-views"),
        (HeadTraining(label_share=1.5), "auto", "--label-share is 1.5, wanted a share from 0 to 1"),
        (HeadTraining(label_share=0.3), "label-free", "--supervision label-free uses none; drop one of the two"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    heads: HeadTraining, supervision: Literal["auto", "label-free"], message: str
) -> None:
    """Before anything is loaded."""
    with pytest.raises(ExportError, match=re.escape(message)):
        ExportConfig(model="reference", out=Path("x.lraee"), heads=heads, supervision=supervision).check()


def test_the_command_builds_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of heads and their teacher."""
    seen: list[ExportConfig] = []

    def keep(config: ExportConfig, progress: object) -> None:
        seen.append(config)
        raise ExportError("enough")

    monkeypatch.setattr(pipeline, "export", keep)
    options = ["--label-share", "0.3", "--teacher-views", "4", "--teacher-no-flip", "--epochs", "7"]
    CliRunner().invoke(cli.app, ["reference", "-o", str(tmp_path / "x.lraee"), *options])
    assert seen[0].heads == HeadTraining(epochs=7, label_share=0.3, teacher_views=4, teacher_flip=False)
