"""One ONNX file answers as the bundle does that it was made from, in a session that knows nothing of bundles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import BundleError, ExportError
from lraee.ort.cpu import int8_products_saturate
from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset
from lraee_exporters.single_file import FULL, build_single_file, write_single_file

GOLDEN = Path(__file__).parents[1] / "runtime" / "golden"
BUNDLES = [*(f"format_{number}" for number in (1, 2, 3, 4)), "reference"]


def bundle_of(name: str) -> Path:
    """A golden bundle, or a shipped one."""
    return find_bundle(name) if name == "reference" else GOLDEN / f"{name}.lraee"


def pixels_for(name: str, model: lraee.Model) -> np.ndarray:
    """Images that the bundle has answers for, or 40 of its test images."""
    if name == "reference":
        images = open_dataset(fashion_mnist_test())
        return load_pixels(images.subset(range(0, len(images), len(images) // 40)), model.manifest.preprocessing).pixels
    with np.load(GOLDEN / f"{name}.expected.npz") as stored:
        return np.array(stored["pixels"])


def session_of(model: onnx.ModelProto, *, saturates: bool) -> ort.InferenceSession:
    """A session with default options, but for the exact kernel where products would saturate, and quiet."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if saturates and int8_products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("name", BUNDLES)
def test_it_answers_as_the_bundle_at_every_operating_point(name: str) -> None:
    """And at full depth: the same label, exit and embedding for every image."""
    bundle = Bundle(bundle_of(name))
    model = lraee.load(bundle_of(name), threads=1)
    pixels, met = pixels_for(name, model), set()
    for point in (*(point.name for point in bundle.manifest.operating_points), FULL):
        single = build_single_file(bundle, point)
        onnx.checker.check_model(single, full_check=True)
        session = session_of(single, saturates=bundle.manifest.saturates)
        policy = lraee.Full() if point == FULL else lraee.Adaptive(point)
        for image in range(len(pixels)):
            wanted = model.run_pixels(pixels[image : image + 1], policy=policy)
            embedding, probabilities, block, gate = session.run(None, {"pixels": pixels[image : image + 1]})
            assert block.tolist() == wanted.exit_block.tolist()
            assert probabilities.argmax() == wanted.probabilities.argmax()
            np.testing.assert_allclose(probabilities, wanted.probabilities, atol=1e-3)
            assert float((embedding * wanted.embedding).sum()) > 0.9999
            if wanted.early[0]:
                assert gate[0] == pytest.approx(wanted.gate[0], abs=1e-3)
            else:
                assert np.isnan(gate[0])
            met.add(int(block[0]))
    assert len(met) > 1


def test_labels_may_be_replaced_and_metadata_says_what_a_program_needs() -> None:
    """Labels are an input with the bundle's as default: here they are given in another order, and one is left out."""
    bundle = Bundle(bundle_of("format_1"))
    session = session_of(build_single_file(bundle, FULL), saturates=True)
    pixels = pixels_for("format_1", lraee.load(bundle_of("format_1")))[:1]
    scale = np.array(2 * bundle.manifest.logit_scale, np.float32)
    _, given, *_ = session.run(None, {"pixels": pixels})
    _, turned, *_ = session.run(None, {"pixels": pixels, "labels": bundle.label_embeddings[::-1]})
    _, two, *_ = session.run(None, {"pixels": pixels, "labels": bundle.label_embeddings[:2], "logit_scale": scale})
    np.testing.assert_allclose(turned, given[:, ::-1], atol=1e-6)
    assert two.shape == (1, 2)
    assert {one.name for one in session.get_inputs()} == {"pixels"}
    assert {one.name for one in session.get_overridable_initializers()} == {"labels", "logit_scale"}
    said = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    assert said["labels"] == list(bundle.labels.names)
    assert said["preprocessing"]["image_size"] == pixels.shape[1]
    assert said["operating_point"]["name"] == FULL
    assert said["model"]["saturates"] is True


def test_thresholds_of_single_labels_are_looked_up() -> None:
    """One label always leaves at the first exit, the others never do."""
    bundle = Bundle(bundle_of("format_4"))
    manifest = bundle.manifest
    (point,) = (one for one in manifest.operating_points if one.name == "balanced")
    first, _ = point.thresholds
    said = bundle.labels.names
    model = lraee.load(bundle_of("format_4"))
    pixels = pixels_for("format_4", model)
    here = model.run_pixels(pixels, policy=lraee.ExitAt(first.block)).probabilities.argmax(axis=1)
    per_class = tuple(0.0 if label == here[0] else 2.0 for label in range(len(said)))
    threshold = type(first)(block=first.block, value=0.0, per_class=per_class)
    changed = type(point)(name="per-class", thresholds=(threshold,), flops_saved=0.0, accuracy=None, full_accuracy=None)
    object.__setattr__(manifest, "operating_points", (changed,))
    session = session_of(build_single_file(bundle, "per-class"), saturates=False)
    blocks = [int(session.run(["exit_block"], {"pixels": image[None]})[0][0]) for image in pixels]
    assert blocks == [first.block if label == here[0] else manifest.tower.blocks for label in here]
    assert len(set(blocks)) == 2


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """An unknown point, a damaged bundle, a folder that is not there."""
    bundle = Bundle(bundle_of("format_1"))
    with pytest.raises(ExportError, match=r"no operating point 'fastest'; this bundle has balanced, .*, full"):
        build_single_file(bundle, "fastest")
    with pytest.raises(ExportError, match="cannot be written: No such file"):
        write_single_file(bundle, tmp_path / "none" / "one.onnx")
    folder = tmp_path / "damaged.lraee"
    folder.mkdir()
    for file in bundle.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((folder / "block_02.data").read_bytes())
    damaged[100] ^= 1
    (folder / "block_02.data").write_bytes(damaged)
    with pytest.raises(BundleError, match=r"block_02\.data has SHA-256"):
        write_single_file(Bundle(folder), tmp_path / "one.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.lraee"]


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-m", "lraee_exporters.single_file", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_a_file_once_and_warns_of_saturation(tmp_path: Path) -> None:
    """A second time only with --overwrite; products that cannot saturate need no warning."""
    out = tmp_path / "one.onnx"
    done = run(GOLDEN / "format_1.lraee", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "--no-saturation" in done.stderr
    again = run(GOLDEN / "format_4.lraee", "-o", out)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "exists; give another --output, or --overwrite" in again.stderr
    over = run(GOLDEN / "format_4.lraee", "-o", out, "--overwrite", "--point", "accurate")
    assert over.returncode == 0
    assert over.stderr == ""
    wrong = run(GOLDEN / "format_4.lraee", "-o", tmp_path / "one.bin")
    assert "wanted a file that ends in .onnx" in wrong.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.onnx"]
