"""Peers do the same job as the chain, and say how they were run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import BundleError, MissingExtraError
from lraee.ort.cpu import int8_products_saturate
from lraee.ort.sessions import SessionSettings
from lraee_benchmarks.images import load_sample
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.rows import baselines as peers
from lraee_benchmarks.rows import openvino_row as peer_openvino
from lraee_benchmarks.rows.baseline_files import baseline_path
from lraee_benchmarks.rows.baselines import (
    BASELINES,
    Baseline,
    available_baselines,
    check_peer,
    open_peer,
    open_running_peer,
)
from lraee_benchmarks.rows.float_input import Normalizer
from lraee_benchmarks.rows.policy_rows import Variant
from lraee_toolchain.baseline_graphs import library_defaults

ONE_THREAD = SessionSettings(threads=1)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Eight garments as one batch."""
    preprocessing = lraee.load("reference").manifest.preprocessing
    return load_sample("fashion-mnist", preprocessing, count=8, batch=8, seed=0).batches[0]


@pytest.fixture(scope="module")
def full(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the chain answers at full depth."""
    return lraee.load("reference", threads=1).run_pixels(pixels, policy=lraee.Full()).probabilities


BLANK = " " in tempfile.gettempdir() or " " in torch.__file__
"""Whether torch cannot compile here: its command for the C++ compiler ends a path at the first blank."""

OPENED = tuple(name for name in BASELINES if not (BLANK and name == "torch-compiled"))


@pytest.fixture(scope="module")
def opened(with_baselines: Bundle) -> dict[Baseline, Variant[NDArray[np.float32]]]:
    """Every peer that runs from this folder, opened once."""
    return {name: open_peer(with_baselines, name, ONE_THREAD) for name in OPENED}


@pytest.fixture
def copy(tmp_path: Path) -> Bundle:
    """A copy of the shipped bundle without baselines beside it."""
    return Bundle(Path(shutil.copytree(find_bundle("reference"), tmp_path / "copy.lraee")))


def test_the_graph_of_a_bundle_of_links_runs_and_openvino_is_refused(
    copy: Bundle, pixels: NDArray[np.uint8], full: NDArray[np.float32], tmp_path: Path
) -> None:
    """ONNX Runtime is given the files that links lead to; OpenVINO opens files itself, and refuses."""
    store = tmp_path / "store"
    store.mkdir()
    for path in copy.folder.glob("*.data"):
        path.rename(store / path.name)
        path.symlink_to(store / path.name)
    linked = Bundle(copy.folder)
    answer = open_peer(linked, "graph", ONE_THREAD).run(pixels)
    assert (answer.argmax(axis=1) == full.argmax(axis=1)).all()
    with pytest.raises(BundleError, match=r"reads no weights through links, .*; copy what they lead to: cp -rL "):
        check_peer(linked, "openvino")


@pytest.mark.parametrize("name", OPENED)
def test_a_peer_answers_as_the_chain_does(
    opened: dict[Baseline, Variant[NDArray[np.float32]]],
    pixels: NDArray[np.uint8],
    full: NDArray[np.float32],
    name: Baseline,
) -> None:
    """The same label for each garment, alone or together; probabilities differ by what INT8 differs from FP32.

    OpenVINO has no exact kernels where products saturate: there its answers are wrong, which the report says.
    """
    variant = opened[name]
    outcome = variant.read(variant.run(pixels))
    assert outcome.probabilities.shape == full.shape
    np.testing.assert_allclose(outcome.probabilities.sum(axis=1), 1, atol=1e-4)
    if name != "openvino" or not int8_products_saturate():
        assert outcome.probabilities.argmax(axis=1).tolist() == full.argmax(axis=1).tolist()
        np.testing.assert_allclose(outcome.probabilities, full, atol={"graph": 1e-3}.get(name, 0.1))
    alone = variant.run(pixels[:1])
    np.testing.assert_allclose(variant.read(alone).probabilities[0], outcome.probabilities[0], atol=0.05)
    assert outcome.exit_block.tolist() == [12] * 8
    assert not outcome.early.any()


def test_torch_and_the_float_graph_are_the_same_function(
    opened: dict[Baseline, Variant[NDArray[np.float32]]], pixels: NDArray[np.uint8]
) -> None:
    """Weights taken back out of fp32.onnx are the weights that went in: equal to the rounding of float32 sums."""
    np.testing.assert_allclose(opened["torch"].run(pixels), opened["fp32"].run(pixels), atol=1e-5)


@pytest.mark.parametrize("name", OPENED)
def test_a_peer_says_how_it_was_run(opened: dict[Baseline, Variant[NDArray[np.float32]]], name: Baseline) -> None:
    """With one thread, as it was told, and a version."""
    peer = opened[name].peer
    assert isinstance(peer, Peer)
    assert (peer.name, peer.threads) == (name, 1)
    assert peer.version[0].isdigit()
    assert peer.options
    if peer.engine == "ONNX Runtime":
        assert peer.options["session.force_spinning_stop"] == "1"


def test_openvino_s_trial_is_told(opened: dict[Baseline, Variant[NDArray[np.float32]]]) -> None:
    """The settings that OpenVINO ended with, and which of them a trial chose."""
    peer = opened["openvino"].peer
    assert peer is not None
    assert {"PERFORMANCE_HINT", "INFERENCE_PRECISION_HINT", "kept by a trial"} <= set(peer.options)
    assert (peer.options["PERFORMANCE_HINT"], peer.options["NUM_STREAMS"]) == ("LATENCY", "1")


def test_what_a_peer_gave_is_not_written_over(
    opened: dict[Baseline, Variant[NDArray[np.float32]]], pixels: NDArray[np.uint8]
) -> None:
    """Answers are read after the rounds; engines and buffers are used again in between."""
    for variant in opened.values():
        first = variant.run(pixels[:1])
        before = first.copy()
        variant.run(pixels[1:2])
        np.testing.assert_array_equal(first, before)


def test_a_setting_is_kept_only_when_it_is_clearly_faster() -> None:
    """By more than the noise of few runs."""
    now_ns = 0

    def takes(elapsed_ns: int) -> None:
        nonlocal now_ns
        now_ns += elapsed_ns

    def faster(first_ns: int, second_ns: int) -> bool:
        return peer_openvino.is_faster(lambda: takes(first_ns), lambda: takes(second_ns), clock_ns=lambda: now_ns)

    assert faster(980, 1000)
    assert not faster(995, 1000)
    assert not faster(1000, 980)


def test_pixels_are_normalised_as_the_preprocessing_says(pixels: NDArray[np.uint8]) -> None:
    """``(pixel / 255 - mean) / std`` by colour, planes first, to the rounding of float32."""
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    wanted = ((pixels / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    preprocessing = Preprocessing(
        image_size=28, resize_mode="shortest", interpolation="bicubic", mean=mean, std=std, fill_color=0
    )
    got = Normalizer(preprocessing)(pixels)
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_a_missing_baseline_names_the_export_that_writes_it(copy: Bundle) -> None:
    """And it is not among those that are there; torch's weights are the float graph's."""
    assert available_baselines(copy) == ("graph",)
    for name, missing in (("static", "static"), ("dynamic", "dynamic"), ("fp32", "fp32"), ("torch", "fp32")):
        said = rf"no {missing} baseline at .*lraee-export reference -o copy\.lraee --baselines"
        with pytest.raises(BundleError, match=said):
            check_peer(copy, name)  # type: ignore[arg-type]  # the names are those of baselines


@pytest.mark.parametrize(("name", "command"), [("openvino", r"lraee\[openvino\]"), ("torch", r"lraee\[export\]")])
def test_a_missing_package_names_its_install_command(
    copy: Bundle, monkeypatch: pytest.MonkeyPatch, name: Baseline, command: str
) -> None:
    """Before anything is measured."""
    monkeypatch.setattr(peers, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=rf"the {name} row needs .*not installed here: pip install '{command}'"):
        check_peer(copy, name)


def test_a_file_that_exact_products_cannot_load_says_to_write_it_again(
    copy: Bundle, shared_constant: onnx.ModelProto, pixels: NDArray[np.uint8]
) -> None:
    """Earlier versions of lraee-export wrote such files; where no product saturates they load."""
    path = baseline_path(copy, "static")
    path.parent.mkdir()
    onnx.save(shared_constant, path)
    if not int8_products_saturate():
        open_peer(copy, "static", ONE_THREAD)
        return
    said = r"static\.onnx shares a constant .*with lraee-export --overwrite: lraee-export reference -o copy\.lraee"
    with pytest.raises(BundleError, match=said):
        open_running_peer(copy, "static", ONE_THREAD, pixels)


def test_what_exact_products_cannot_load_is_known_by_the_words_of_onnx_runtime(
    copy: Bundle, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no product saturates; another failure keeps its own words."""
    met = ["static.onnx: Attempt to replace the existing tensor c", "static.onnx: the graph is empty"]

    def refuse(*_: object, **__: object) -> None:
        raise BundleError(met[0])

    monkeypatch.setattr(peers, "open_peer", refuse)
    said = r"^static\.onnx shares a constant .*session\.x64quantprecision; .*: lraee-export reference -o copy\.lraee"
    with pytest.raises(BundleError, match=said):
        open_running_peer(copy, "static", ONE_THREAD, pixels)
    met.pop(0)
    with pytest.raises(BundleError, match=r"^static\.onnx: the graph is empty$"):
        open_running_peer(copy, "static", ONE_THREAD, pixels)


def test_a_first_run_that_fails_is_one_error(
    copy: Bundle, shared_constant: onnx.ModelProto, pixels: NDArray[np.uint8]
) -> None:
    """The graph loads, but takes no images: found before anything is timed."""
    path = baseline_path(copy, "dynamic")
    path.parent.mkdir()
    library_defaults.separate_constants(shared_constant.graph)
    onnx.save(shared_constant, path)
    with pytest.raises(BundleError, match="its first run failed: "):
        open_running_peer(copy, "dynamic", ONE_THREAD, pixels)


def test_everything_beside_the_bundle_is_a_row_by_default(with_baselines: Bundle) -> None:
    """Engines that need more than the base installation are not."""
    assert available_baselines(with_baselines) == ("graph", "fp32", "static", "dynamic")


def test_baselines_lie_beside_the_bundle(copy: Bundle) -> None:
    """`copy.lraee` has `copy.baselines`."""
    assert baseline_path(copy, "fp32") == copy.folder.resolve().parent / "copy.baselines" / "fp32.onnx"


def test_a_baseline_whose_data_lies_elsewhere_is_refused(copy: Bundle) -> None:
    """ONNX Runtime would open any path that a graph names."""
    path = baseline_path(copy, "fp32")
    path.parent.mkdir()
    # model { graph { initializer { external_data { key: "location" value: "../x.data" } } } }
    entry = b"\x0a\x08location\x12\x09../x.data"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(BundleError, match=r"external data is at '\.\./x\.data', wanted a file in its own folder"):
        open_peer(copy, "fp32", ONE_THREAD)
