"""What `--baselines` writes beside a bundle, and what happens when a tool of others fails."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from lraee.bundle.strict_json import read_json
from lraee.ort import sessions
from lraee.ort.sessions import SessionSettings, make_session
from lraee_calibration_data import fashion_mnist_sample
from lraee_toolchain.baseline_graphs import library_defaults
from lraee_toolchain.baseline_graphs.folder import RECORD, BaselineRecord, failure_reason
from lraee_toolchain.cli import app
from lraee_toolchain.export import ExportResult


def images(count: int) -> np.ndarray:
    """Garments as the float peers take them, (count, 3, 28, 28) float32 with the reference's mean and std of 0.5."""
    grey = fashion_mnist_sample()[:count].astype(np.float32) / 255
    return np.repeat((grey[:, None] - 0.5) / 0.5, 3, axis=1)


def run(folder: Path, name: str, pixels: np.ndarray) -> np.ndarray:
    """Embeddings of one baseline."""
    session = make_session(folder / f"{name}.onnx", SessionSettings(threads=1))
    return np.asarray(session.run(["embedding"], {"image": pixels})[0])


def test_everything_lies_beside_the_bundle_with_its_origin(exported_with_baselines: ExportResult) -> None:
    """Four graphs, their weights, and a record whose hashes are right."""
    folder = exported_with_baselines.baselines
    assert folder is not None
    assert exported_with_baselines.failed_baselines == {}
    record = read_json(BaselineRecord, folder / RECORD)
    assert [entry.name for entry in record.baselines] == ["fp32", "floor", "static", "dynamic"]
    listed = {file.name: file for entry in record.baselines for file in entry.files}
    assert {path.name for path in folder.iterdir()} == {*listed, RECORD}
    for name, file in listed.items():
        content = (folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size_bytes, file.sha256)
    static = next(entry for entry in record.baselines if entry.name == "static")
    assert static.recipe.tool == "onnxruntime.quantization.quantize_static"
    assert static.recipe.options["calibration images"] == "384"
    assert static.recipe.defaults["quant_format"] == "QDQ"
    assert static.recipe.defaults["calibrate_method"] == "CalibrationMethod.MinMax"
    assert static.source is not None
    assert static.source.tool == "torch.onnx.export"


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_a_quantized_baseline_takes_any_batch(exported_with_baselines: ExportResult, name: str) -> None:
    """And answers the same for an image alone as for it in a batch, up to its quantization: cosine above 0.98."""
    assert exported_with_baselines.baselines is not None
    together = run(exported_with_baselines.baselines, name, images(3))
    assert together.shape == (3, 128)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = run(exported_with_baselines.baselines, name, images(1))
    assert float(alone[0] @ together[0]) > 0.98


def test_the_static_baseline_shares_no_quantized_constant(exported_with_baselines: ExportResult) -> None:
    """Each DequantizeLinear over a constant has values and a zero point of its own; the recipe says that they are
    copies.
    """
    assert exported_with_baselines.baselines is not None
    graph = onnx.load(exported_with_baselines.baselines / "static.onnx", load_external_data=False).graph
    constants, readers = {tensor.name for tensor in graph.initializer}, Counter(x for n in graph.node for x in n.input)
    over = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    assert over
    for node in over:
        assert (readers[node.input[0]], readers[node.input[2]], readers[node.output[0]]) == (1, 1, 1), node.name
    record = read_json(BaselineRecord, exported_with_baselines.baselines / RECORD)
    static = next(entry for entry in record.baselines if entry.name == "static")
    assert static.recipe.options["quantized constants"] == "a copy for each use"


def test_copies_of_a_constant_load_with_exact_products_and_change_nothing(
    tmp_path: Path, shared_constant: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime cannot load the shared one where products saturate: it would make it unsigned twice."""
    x = np.array([[0.25, -0.5]], np.float32)
    onnx.save(shared_constant, tmp_path / "shared.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "int8_products_saturate", lambda: False)
        wanted = make_session(tmp_path / "shared.onnx", SessionSettings(threads=1)).run(["y"], {"x": x})[0]
    assert library_defaults.separate_constants(shared_constant.graph) == 1
    assert library_defaults.separate_constants(shared_constant.graph) == 0
    onnx.checker.check_model(shared_constant)
    onnx.save(shared_constant, tmp_path / "copies.onnx")
    got = make_session(tmp_path / "copies.onnx", SessionSettings(threads=1)).run(["y"], {"x": x})[0]
    np.testing.assert_array_equal(got, wanted)


def test_weights_lie_beside_the_graph_and_no_folder_of_this_machine_in_it(
    exported_with_baselines: ExportResult,
) -> None:
    """torch writes stack traces into every node."""
    assert exported_with_baselines.baselines is not None
    for name in ("static", "dynamic"):
        graph = (exported_with_baselines.baselines / f"{name}.onnx").read_bytes()
        assert len(graph) < 500_000
        assert b"site-packages" not in graph


def test_a_baseline_that_fails_is_named_and_loses_nothing_else(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without onnxscript torch exports nothing: one line each, a status that scripts see, and all else is there."""
    monkeypatch.setattr(library_defaults, "find_spec", lambda name: None)
    work = shutil.copytree(exported.config.work, tmp_path / "work", ignore=shutil.ignore_patterns("traced-*"))
    options = ["--train", str(exported.config.train), "--work", str(work), "--exits", "8", "--reads", "patch_mean"]
    options += ["--epochs", "1", "--baselines"]
    done = CliRunner().invoke(app, ["reference", "-o", str(tmp_path / "a.lraee"), *options])
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("lraee-export: ")]
    assert len(lines) == 2
    assert "the static baseline could not be made, all else is written" in lines[0]
    assert (tmp_path / "a.lraee").is_dir()
    folder = tmp_path / "a.baselines"
    assert {path.stem for path in folder.glob("*.onnx")} == {"fp32", "floor"}
    assert "pip install 'lraee[export]'" in read_json(BaselineRecord, folder / RECORD).failed["static"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file", "/srv/my work/fp32.onnx"), "FileNotFoundError: No such file: fp32.onnx"),
        (OSError(28, "No space left on device"), "OSError: No space left on device"),
        (ValueError("cannot read '/srv/my work/fp32.onnx'\nmore"), "ValueError: cannot read 'fp32.onnx'"),
        (RuntimeError("/srv/work/x.data: 3 of 4 bytes"), "RuntimeError: x.data: 3 of 4 bytes"),
        (RuntimeError("INT8/FP32, see https://example.org/a/b"), "RuntimeError: INT8/FP32, see https://example.org/a/b"),
        (MemoryError(), "MemoryError: no message"),
    ],
)  # fmt: skip
def test_a_reason_names_no_folder(error: Exception, reason: str) -> None:
    """The record may be published, and says nothing of the machine that wrote it but what went wrong."""
    assert failure_reason(error) == reason


def test_a_reason_names_no_folder_that_has_blanks(tmp_path: Path) -> None:
    """ONNX Runtime quotes no path; so the folders that are there tell where a path ends."""
    folder = tmp_path / "my own work" / "of é"
    folder.mkdir(parents=True)
    error = RuntimeError(f"Load model from {folder}/x.onnx failed: {tmp_path}/my own work/y.data is not /nowhere/z")
    assert failure_reason(error) == "RuntimeError: Load model from x.onnx failed: y.data is not z"
