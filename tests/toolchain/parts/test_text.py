"""The text tower's stage: proved against torch, in the bundle at every precision, left away when asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import lraee
from lraee.bundle.manifest import TextInfo
from lraee.bundle.strict_json import read_json
from lraee.errors import LabelsError, ParityError, TowerError
from lraee_exporters.graphs.text import TextPrecision
from lraee_exporters.labels import reference_labels
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.loading.text_tower import clip_merges, text_tower_of
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.export import export
from lraee_toolchain.parts import text as text_part
from lraee_toolchain.parts.text import TEXT_NAME, build_text_part


@pytest.mark.parametrize("precision", get_args(TextPrecision))
def test_the_stage_has_graph_weights_and_merges(precision: TextPrecision, tmp_path: Path) -> None:
    """Each precision is about half as large as the one before."""
    build_text_part(load_model("reference"), reference_labels(), precision, tmp_path)
    info = read_json(TextInfo, tmp_path / TEXT_NAME)
    assert (info.precision, info.context_length) == (precision, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "merges.txt", "parts.json", "text.data", "text.json", "text.onnx", "tokenizer.onnx"
    ]  # fmt: skip
    largest = {"fp32": 13.1e6, "fp16": 6.6e6, "int8": 3.5e6}[precision]
    assert largest * 0.9 < (tmp_path / "text.data").stat().st_size < largest


@pytest.mark.parametrize("precision", get_args(TextPrecision))
@pytest.mark.parametrize(
    "change",
    [
        lambda tower: replace(tower, activation="quick_gelu"),
        lambda tower: replace(tower, positions=tower.positions[::-1].copy()),
        lambda tower: replace(tower, blocks=tower.blocks[::-1]),
    ],
    ids=["activation", "positions", "blocks"],
)
def test_a_text_tower_that_is_not_torchs_is_refused(
    change: Callable[[Any], Any], precision: TextPrecision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at INT8, whose own error is larger than that of a wrong activation."""
    monkeypatch.setattr(text_part, "text_tower_of", lambda model: change(text_tower_of(model)))
    with pytest.raises(ParityError, match=r"the exported text tower differs from torch.*--text none"):
        build_text_part(load_model("reference"), reference_labels(), precision, tmp_path)


def test_token_ids_that_are_not_open_clips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with the text."""
    monkeypatch.setattr(text_part, "clip_merges", lambda: clip_merges()[::-1])
    with pytest.raises(ParityError, match=r"the text '.*' has other token ids"):
        build_text_part(load_model("reference"), reference_labels(), "fp16", tmp_path)


def test_an_export_has_the_text_tower_and_its_labels_are_those_of_torch(exported: Any) -> None:
    """At float16, which is the default."""
    model = lraee.load(exported.result.bundle, threads=1, verify="all")
    assert model.manifest.text is not None
    assert model.manifest.text.precision == "fp16"
    model.set_labels(model.labels)
    np.testing.assert_allclose(model.parts.labels.matrix.T, model.bundle.label_embeddings, atol=1e-5)


def test_an_export_without_the_text_tower_has_fixed_labels(exported: Any) -> None:
    """Nothing else differs: the stages before are found again."""
    out = exported.config.out.with_name("fixed.lraee")
    result = export(replace(exported.config, out=out, text="none"))
    model = lraee.load(result.bundle, threads=1, verify="all")
    assert model.manifest.text is None
    there = {path.name for path in exported.result.bundle.iterdir()}
    assert there - {path.name for path in result.bundle.iterdir()} == {
        "text.onnx",
        "text.data",
        "merges.txt",
        "tokenizer.onnx",
    }
    with pytest.raises(LabelsError, match="no text tower"):
        model.set_labels(["shoe", "bag"])


def test_a_text_tower_that_cannot_be_exported_is_said_before_any_work(
    small_config: Callable[..., ExportConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error, nothing at the target, and no image was read."""
    monkeypatch.setattr("lraee_exporters.loading.text_tower.VOCABULARY", 1)
    with pytest.raises(TowerError, match=r"the text tower of reference cannot be exported.*--text none"):
        export(small_config(tmp_path / "x.lraee"))
    assert not (tmp_path / "x.lraee").exists()
