"""The JavaScript runtime gives the answers of this one, on the same images, texts and bundles."""

from __future__ import annotations

import dataclasses
import html.entities
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from javascript_package import PACKAGE, ROOT, Installed
from numpy.typing import NDArray
from PIL import Image

import lraee
from lraee.bundle.folder import SHIPPED, Bundle, LabelFile
from lraee.bundle.manifest import LabelsInfo, Manifest, ModelInfo, TowerInfo
from lraee.bundle.preprocessing import Preprocessing
from lraee.bundle.strict_json import OPTIONAL
from lraee.images.preprocess import pixels as preprocess
from lraee.labels.tokenizer import Tokenizer
from lraee.policies.spec import parse_policy
from lraee_calibration_data import fashion_mnist_test, imagenet_labels, open_dataset, photos

GOLDEN = ROOT / "tests" / "runtime" / "golden"

NEAR = 0.03
"""How far from its threshold a gate may be where the two runtimes let an image leave at other exits."""


def written(images: Sequence[NDArray[np.uint8]], path: Path) -> dict[str, Any]:
    """Write images of any size, one after the other, and describe them for asked.mjs."""
    path.write_bytes(b"".join(image.tobytes() for image in images))
    return {"path": str(path), "sizes": [image.shape[:2] for image in images], "channels": images[0].shape[2]}


def test_its_own_tests_pass(npm_package: Installed) -> None:
    """With Node's runner: formats, refusals, policies, the exact kernel, and WebAssembly."""
    npm_package.run("--test", "--test-concurrency=2", *sorted(map(str, (npm_package.home / "test").glob("*.test.js"))))


def test_a_program_with_types_compiles(npm_package: Installed) -> None:
    """Against index.d.ts, in strict mode."""
    npm_package.run("node_modules/typescript/bin/tsc", "--noEmit", "-p", "test")


def test_it_answers_as_python_on_test_images(npm_package: Installed, tmp_path: Path) -> None:
    """Label and exit on at least 99.7 %; where they differ a gate is near its threshold. Embeddings agree."""
    dataset = open_dataset(fashion_mnist_test())
    chosen = np.random.default_rng(0).permutation(len(dataset.samples))[:300]
    images = [dataset.read(int(index)) for index in chosen]
    check_agreement(npm_package, SHIPPED / "reference.lraee", images, ["adaptive=balanced"], tmp_path)


def test_it_answers_as_python_on_photos(npm_package: Installed, tmp_path: Path) -> None:
    """Of their own size, which both resize."""
    dataset = open_dataset(photos())
    images = [dataset.read(index) for index in range(0, len(dataset.samples), 6)]
    check_agreement(npm_package, SHIPPED / "photo-clip.lraee", images, ["adaptive=balanced", "full"], tmp_path)


@pytest.mark.parametrize("format", [1, 2, 3, 4])
def test_it_answers_as_python_at_every_point_and_exit(npm_package: Installed, tmp_path: Path, format: int) -> None:
    """On the golden bundle of each released format, under merging schedules too."""
    folder = GOLDEN / f"format_{format}.lraee"
    manifest = Bundle(folder).manifest
    policies = ["full", *(f"adaptive={point.name}" for point in manifest.operating_points)]
    policies += [f"exit={exit.block}" for exit in manifest.exits]
    policies += [f"full={schedule.name}" for schedule in manifest.schedules]
    size = manifest.preprocessing.image_size
    images = list(np.random.default_rng(format).integers(0, 256, (12, size + 9, size + 4, 3), np.uint8))
    check_agreement(npm_package, folder, images, policies, tmp_path)


def check_agreement(
    npm_package: Installed, bundle: Path, images: list[NDArray[np.uint8]], policies: list[str], folder: Path
) -> None:
    """Compare answers on images, one at a time."""
    request = {"bundle": str(bundle), "images": written(images, folder / "images"), "policies": policies}
    model = lraee.load(bundle, threads=1)
    chosen = {word: parse_policy(word.replace("full=", "full@")) for word in policies}
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(npm_package.ask, "classify", request)
        ours = {word: [model.classify(image, policy=policy) for image in images] for word, policy in chosen.items()}
    theirs = asked.result()
    for word in policies:
        others = 0
        for image, wanted, met in zip(images, ours[word], theirs[word], strict=True):
            if (met["exitBlock"], met["index"]) != (wanted.exit_block, wanted.index):
                others += 1
                assert is_near_a_threshold(model, image, word), f"{word}: {met['exitBlock']}, {met['index']}"
                continue
            assert met["flops"] == wanted.flops
            assert float(np.dot(met["embedding"], wanted.embedding)) >= 0.999
        assert others <= 0.003 * len(images), f"{word}: {others} of {len(images)} differ"


def is_near_a_threshold(model: lraee.Model, image: NDArray[np.uint8], word: str) -> bool:
    """Tell whether a gate of the operating point lies near its threshold for this image."""
    name = word.partition("=")[2]
    point = next(point for point in model.manifest.operating_points if point.name == name)
    gates = ((one, model.classify(image, policy=lraee.ExitAt(one.block)).gate) for one in point.thresholds)
    return any(abs(gate - one.value) <= NEAR for one, gate in gates if gate is not None)


SIZES = [(1, 1), (7, 300), (300, 7), (33, 32), (32, 33), (31, 57), (200, 101), (640, 9), (64, 64), (97, 450)]


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_pixels_are_those_of_python(
    npm_package: Installed,
    tmp_path: Path,
    mode: Literal["shortest", "squash", "longest"],
    interpolation: Literal["bicubic", "bilinear", "nearest"],
) -> None:
    """Of odd sizes, RGB and with alpha, as Pillow resizes pictures of these modes: to one level."""
    draw = np.random.default_rng(1)
    wanted = Preprocessing(
        image_size=32, resize_mode=mode, interpolation=interpolation, mean=(0,) * 3, std=(1,) * 3, fill_color=114
    )
    described = dataclasses.asdict(wanted)
    cases = []
    for channels in (3, 4):
        images = [draw.integers(0, 256, (*size, channels), np.uint8) for size in SIZES]
        cases.append({"images": written(images, tmp_path / f"{channels}"), "preprocessing": described})
    for case, channels in zip(npm_package.ask("preprocess", {"cases": cases}), (3, 4), strict=True):
        given = np.fromfile(tmp_path / f"{channels}", np.uint8)
        for digits, (height, width) in zip(case, SIZES, strict=True):
            image, given = (
                given[: height * width * channels].reshape(height, width, channels),
                given[height * width * channels :],
            )
            met = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(32, 32, 3).astype(int)
            own = preprocess(image if channels == 3 else Image.fromarray(image), wanted)
            assert np.abs(met - own).max() <= 1, (channels, height, width)


def test_texts_become_the_tokens_of_python(npm_package: Installed) -> None:
    """All prompts of ImageNet's classes, and of 500 difficult texts all but mixtures with broken encodings."""
    merges = Bundle(SHIPPED / "reference.lraee").merges("merges.txt")
    prompts = [f"a photo of a {name}." for name in imagenet_labels()]
    difficult = json.loads((ROOT / "tests" / "exporters" / "difficult_texts.json").read_text("utf-8"))
    tokenizer = Tokenizer(merges)
    met = npm_package.ask("tokens", {"merges": merges, "texts": [*prompts, *difficult]})
    equal = [ids == tokenizer.encode(text) for ids, text in zip(met, [*prompts, *difficult], strict=True)]
    assert all(equal[: len(prompts)])
    assert sum(equal[len(prompts) :]) >= 485


def test_labels_are_embedded_as_in_python(npm_package: Installed) -> None:
    """By the text tower, as means over the templates."""
    names = ["a boot", "Café au lait", "something that people wear on their heads", "12 socks"]
    model = lraee.load("reference", threads=1)
    model.set_labels(names)
    met = np.array(npm_package.ask("labels", {"bundle": str(SHIPPED / "reference.lraee"), "names": names}))
    met /= np.linalg.norm(met, axis=1, keepdims=True)
    assert np.abs(met.T - model.parts.labels.matrix).max() < 1e-4


def test_keys_and_constants_are_those_of_python(npm_package: Installed) -> None:
    """So that a key that is added here is not forgotten there."""
    met = npm_package.ask("constants", {})
    kinds = {"model": ModelInfo, "tower": TowerInfo, "preprocessing": Preprocessing, "labels": LabelsInfo}
    found = [(met["manifest"], Manifest), (met["labels"], LabelFile)]
    for keys, kind in [*found, *((met["parts"][name], kind) for name, kind in kinds.items())]:
        fields = dataclasses.fields(kind)
        assert keys["fields"] == [field.name for field in fields]
        assert keys["optional"] == [field.name for field in fields if field.metadata.get(OPTIONAL)]
    assert met["entities"] == html.entities.html5
    assert bytes.fromhex(met["probe"]) == probe()


def probe() -> bytes:
    """``y = x w`` with x uint8 (4, 64) and w int8 (64, 32), all 127, and zero points of 0."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {"w": np.full((64, 32), 127, np.int8), "xz": np.array(0, np.uint8), "wz": np.array(0, np.int8)}
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", *constants], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [4, 32])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def test_the_lock_file_names_the_public_registry_alone() -> None:
    """Whatever registry wrote it."""
    packages = json.loads((PACKAGE / "package-lock.json").read_text("utf-8"))["packages"]
    places = [entry["resolved"] for name, entry in packages.items() if name]
    assert places
    assert all(place.startswith("https://registry.npmjs.org/") for place in places)


def test_no_file_is_too_long_and_the_package_brings_nothing_along() -> None:
    """No dependencies, no build step, no library, and the same version as the Python package."""
    described = json.loads((PACKAGE / "package.json").read_text("utf-8"))
    assert "dependencies" not in described
    assert described["version"] == lraee.__version__
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "node_modules" not in path.parts]
    assert {path.suffix for path in files} <= {".js", ".json", ".md", ".ts", ".html", ".css", ""}
    for path in files:
        if path.suffix in (".js", ".ts", ".html", ".css"):
            assert len(path.read_text("utf-8").splitlines()) <= 350, path.name
