"""An ONNX Runtime that is too old for a bundle is told so in one line, with both versions and what to install."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from typer.testing import CliRunner

import lraee
from lraee import loading
from lraee.bundle.folder import find_bundle
from lraee.bundle.manifest_file import read_manifest, write_manifest
from lraee.cli import app
from lraee.errors import BundleError, SettingsError
from lraee.ort import sessions
from lraee.ort.version import UNNAMED, check_global_pool, check_onnxruntime, load_failure

ROOT = Path(__file__).resolve().parents[3]

TOO_NEW = {
    "1.16.3": (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from stem.onnx failed:/onnxruntime_src/onnxruntime/core/graph/"
        "model.cc:149 onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&, const "
        "IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) "
        "Unsupported model IR version: 10, max supported IR version: 9\n",
        "version 10 of the ONNX format",
    ),
    "1.20.1": (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from stem.onnx failed:/onnxruntime_src/onnxruntime/core/graph/"
        "model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const "
        "std::unordered_map<std::__cxx11::basic_string<char>, int>&, const onnxruntime::logging::Logger&, bool, const "
        "string&, int) ONNX Runtime only *guarantees* support for models stamped with official released onnx opset "
        "versions. Opset 23 is under development and support for this is limited. The operator schemas and or other "
        "functionality may change before next ONNX release and in this case ONNX Runtime will not guarantee backward "
        "compatibility. Current official support for domain ai.onnx is till opset 21.\n",
        "operator set 23",
    ),
    "1.23.2": (
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for QuantizeLinear(23) node with "
        "name 'norm_1_input_levels'",
        "QuantizeLinear(23)",
    ),
    "1.24.4": (
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for LpNormalization(22) node with "
        "name 'unit'",
        "LpNormalization(22)",
    ),
}
"""What releases say of the golden bundle, which has operators of set 23, and what they lack."""


def naming(version: str, forged: Any) -> Path:
    """A copy of the golden bundle that names a release."""
    manifest = dataclasses.replace(read_manifest(forged.folder), onnxruntime=version)
    (forged.folder / "manifest.json").write_text(write_manifest(manifest), "utf-8")
    return Path(forged.folder)


@pytest.fixture
def newer(forged: Any) -> Path:
    """A bundle for a release that does not exist."""
    return naming("999.5", forged)


def test_an_older_onnx_runtime_is_told_both_versions_and_what_to_install(newer: Path) -> None:
    """When the model is loaded, before any part is opened."""
    installed = re.escape(f"{ort.__version__} is installed; pip install 'onnxruntime>=999.5'")
    with pytest.raises(BundleError, match=rf"^the bundle needs ONNX Runtime 999\.5 or newer, {installed}$"):
        lraee.load(newer)


def test_the_command_line_says_it_in_one_line(newer: Path) -> None:
    """Nothing else is printed, and `info` still shows what is wanted."""
    refused = CliRunner().invoke(app, ["classify", str(newer), "never-read.jpg"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert " ".join(refused.stderr.split()).startswith("error: the bundle needs ONNX Runtime 999.5 or newer, ")
    assert "999.5 or newer" in CliRunner().invoke(app, ["info", str(newer)]).stdout


def test_the_installed_release_and_older_ones_are_enough(forged: Any) -> None:
    """Numbers are compared as numbers: 1.9 is before 1.17."""
    major, minor = ort.__version__.split(".")[:2]
    lraee.load(naming(f"{major}.{minor}", forged))
    check_onnxruntime("1.17", "1.17.0")
    check_onnxruntime("1.17", "1.32.0.dev20260101")
    check_onnxruntime(None, "1.0")
    with pytest.raises(BundleError, match=r"needs ONNX Runtime 1\.17 or newer, 1\.9\.0 is installed"):
        check_onnxruntime("1.17", "1.9.0")


@pytest.mark.parametrize("installed", TOO_NEW)
def test_a_graph_that_is_too_new_for_an_old_release_is_one_line(installed: str) -> None:
    """Of bundles that name no release; the messages are those of real releases."""
    message, lacks = TOO_NEW[installed]
    line = load_failure("stem.onnx", message, installed)
    assert line == (
        f"stem.onnx: ONNX Runtime {installed} lacks {lacks}; bundles that name no version need {UNNAMED} or newer: "
        f"pip install 'onnxruntime>={UNNAMED}'"
    )


def test_other_failures_keep_the_words_of_onnx_runtime() -> None:
    """A newer release would not load such a file either."""
    for installed, message in (("1.20.1", "Protobuf parsing failed."), ("1.32.0", TOO_NEW["1.24.4"][0])):
        assert (
            load_failure("a.onnx", message, installed) == f"a.onnx: ONNX Runtime {installed} cannot load it: {message}"
        )


def test_a_bundle_that_names_no_release_has_a_manifest_as_before(golden: Path) -> None:
    """Older versions of lraee refuse keys that they do not know."""
    manifest = read_manifest(golden)
    assert manifest.onnxruntime is None
    assert '"onnxruntime":' not in write_manifest(dataclasses.replace(manifest, provenance={}))


def test_the_process_wide_pool_is_refused_where_python_cannot_set_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `load` and by what sets it, before anything is made."""
    with pytest.raises(SettingsError, match=r"needs ONNX Runtime 1\.23 or newer, 1\.22\.1 is installed; pip install"):
        check_global_pool("1.22.1")
    check_global_pool("1.23.0")

    def refuse() -> None:
        check_global_pool("1.19.2")

    monkeypatch.setattr(loading, "check_global_pool", refuse)
    monkeypatch.setattr(sessions, "check_global_pool", refuse)
    with pytest.raises(SettingsError, match="take the thread pool 'session'"):
        lraee.load("reference", thread_pool="global")
    with pytest.raises(SettingsError, match="take the thread pool 'session'"):
        sessions.use_global_thread_pool(2)


def test_the_lowest_onnx_runtime_that_installs_runs_the_shipped_bundle() -> None:
    """`pyproject.toml` allows none that is older than what the bundle names."""
    named = read_manifest(find_bundle("reference")).onnxruntime
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    (lowest,) = (entry.removeprefix("onnxruntime>=") for entry in dependencies if entry.startswith("onnxruntime"))
    assert named == "1.17"
    check_onnxruntime(named, lowest)
