"""Exports whose products cannot saturate: no weight is too large for its inputs, and default sessions are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import lraee
from lraee.bundle.folder import Bundle
from lraee.bundle.strict_json import read_json
from lraee.errors import ExportError
from lraee.ort.cpu import int8_products_saturate
from lraee_calibration_data import fashion_mnist_pool, fashion_mnist_test, load_pixels, open_dataset
from lraee_exporters.int8.linear import SMALL_INPUTS, SMALL_WEIGHTS
from lraee_exporters.single_file import SATURATES
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.metrics import Metrics
from lraee_toolchain.export import ExportResult, export


@pytest.fixture(scope="module", params=["naive", "strong"])
def exported(
    request: pytest.FixtureRequest,
    small_config: Callable[..., ExportConfig],
    picked: Callable[..., Path],
    tmp_path_factory: Any,
) -> tuple[ExportConfig, ExportResult]:
    """A small export with merged tokens and one file beside it, quantized on a few images."""
    folder = tmp_path_factory.mktemp(request.param)
    config = small_config(
        folder / "exact.lraee",
        calibration=picked(fashion_mnist_pool(), folder / "calibration.zip", step=400, start=1),
        quantizer=request.param,
        merge_tokens=((3,),),
        no_saturation=True,
        single_file=True,
        precisions=request.param == "naive",
        evaluate=picked(fashion_mnist_test(), folder / "test.zip", step=40),
    )
    return config, export(config)


def test_no_product_of_any_part_can_saturate(exported: tuple[ExportConfig, ExportResult]) -> None:
    """By the integers in the files: weights within 64, or a clipped input; the manifest says so, in format 4."""
    bundle = Bundle(exported[1].bundle)
    assert bundle.manifest.format == 4
    assert not bundle.manifest.saturates
    for part in bundle.manifest.parts:
        graph = onnx.load(bundle.folder / part.graph).graph
        weights = [numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
        largest = max(int(np.abs(weight.astype(int)).max()) for weight in (*weights, np.zeros(1, np.int8)))
        quantized = sum(node.op_type == "QuantizeLinear" for node in graph.node)
        if part.name != "graph" and largest > SMALL_WEIGHTS.weights:
            clips = [node for node in graph.node if node.op_type == "Clip"]
            assert len(clips) == quantized > 0, part.name
            values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
            assert {int(values[node.input[2]]) for node in clips} == {SMALL_INPUTS.inputs}


def test_default_sessions_answer_as_the_runtime(exported: tuple[ExportConfig, ExportResult]) -> None:
    """The one file, with default options, on whatever CPU this is."""
    config, result = exported
    assert result.single_file is not None
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(result.single_file, options)
    model = lraee.load(result.bundle, threads=1)
    assert config.train is not None
    images = open_dataset(config.train)
    pixels = load_pixels(images.subset(range(0, len(images), 3)), model.manifest.preprocessing).pixels
    for image in range(len(pixels)):
        wanted = model.run_pixels(pixels[image : image + 1])
        embedding, _, block, _ = session.run(None, {"pixels": pixels[image : image + 1]})
        assert block[0] == wanted.exit_block[0]
        assert float((embedding * wanted.embedding).sum()) > 0.9999


def test_the_report_says_what_it_costs(exported: tuple[ExportConfig, ExportResult]) -> None:
    """Accuracy and time beside those of the usual quantization, which is built for it."""
    config, result = exported
    found = read_json(Metrics, result.report / "metrics.json")
    cost = found.saturation
    if not config.precisions:
        assert cost is None
        return
    assert cost is not None
    assert found.evaluation is not None
    assert cost.unsaturated.mean == found.evaluation.rows[0].accuracy.mean  # what the bundle itself answers
    assert cost.difference.mean == pytest.approx(cost.unsaturated.mean - cost.usual.mean)
    assert 0.1 < cost.usual_ms / cost.unsaturated_ms < 10
    assert cost.matters_here == int8_products_saturate()
    for report in ("report.md", "report.html"):
        assert "What it costs that no product saturates" in (result.report / report).read_text("utf-8")


def test_one_file_of_another_bundle_is_written_with_a_warning(
    small_config: Callable[..., ExportConfig], tmp_path: Path
) -> None:
    """Which names the option; and without INT8 the option is refused."""
    notices: list[str] = []

    class Notes:
        def stage(self, name: str, found: bool) -> None:
            """Ignore."""

        def steps(self, total: int | None) -> Callable[[int], None]:
            """Ignore."""
            return lambda done: None

        def notice(self, text: str) -> None:
            """Keep."""
            notices.append(text)

    config = small_config(tmp_path / "plain.lraee", single_file=True, exits="none")
    result = export(config, Notes())
    assert result.single_file == tmp_path / "plain.single" / "plain.onnx"
    assert result.single_file.is_file()
    assert f"plain.onnx: {SATURATES}" in notices
    with pytest.raises(ExportError, match="--no-saturation is about products of INT8"):
        export(replace(config, out=tmp_path / "float.lraee", precision="fp32", no_saturation=True))
