"""The manifest survives writing and reading, and says by key what contradicts itself."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.folder import Bundle, find_bundle
from lraee.bundle.manifest import FORMAT, Manifest, block_names, oldest_format
from lraee.bundle.manifest_file import parse_manifest, read_manifest, write_manifest
from lraee.bundle.strict_json import encode
from lraee.errors import BundleError, PolicyError
from lraee.policies import Entropy

TEXT = (Path(__file__).parents[1] / "golden" / "format_1.lraee" / "manifest.json").read_text("utf-8")
RAW: dict[str, Any] = json.loads(TEXT)

TEXT_INFO = {"tokenizer": "labels.json", "merges": "labels.json", "context_length": 16, "precision": "fp16"}
"""A text tower as the manifest has it; the golden bundle has none."""


def changed(path: str, value: Any) -> str:
    """The golden manifest with one value replaced; `path` such as ``parts.0.graph``."""
    raw = copy.deepcopy(RAW)
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    target: Any = raw
    for key in parents:
        target = target[key]
    target[last] = value
    return json.dumps(raw)


@pytest.mark.parametrize("name", ["golden", "reference"])
def test_writing_and_reading_gives_the_same(name, golden):
    """Of both bundles there are, to the byte."""
    folder = golden if name == "golden" else find_bundle(name)
    manifest = read_manifest(folder)
    assert write_manifest(manifest) == (folder / "manifest.json").read_text("utf-8")
    assert parse_manifest(write_manifest(manifest)) == manifest


def test_a_value_that_json_does_not_have_is_not_written():
    """NaN would be written as a word that is not JSON."""
    manifest = dataclasses.replace(parse_manifest(TEXT), logit_scale=float("nan"))
    with pytest.raises(BundleError, match=r"^manifest\.json: logit_scale is nan"):
        write_manifest(manifest)


def test_only_heads_that_read_all_tokens_need_format_2():
    """Versions that know format 1 alone go on reading every other bundle."""
    manifest = parse_manifest(TEXT)
    assert manifest.format == oldest_format(manifest.exits) == 1
    for reads in ("attention", "local"):
        exits = tuple(dataclasses.replace(exit, reads=reads) for exit in manifest.exits)
        assert oldest_format(exits) == 2
        newer = dataclasses.replace(manifest, format=2, exits=exits)
        assert parse_manifest(write_manifest(newer)) == newer


def test_only_products_that_cannot_saturate_need_format_4():
    """They run in the fast kernel on every CPU, which older versions would not know."""
    manifest = parse_manifest(TEXT)
    assert manifest.quantization is not None
    assert manifest.saturates
    quantization = dataclasses.replace(manifest.quantization, scheme="static-qdq-u8s8-unsaturated")
    assert oldest_format(manifest.exits, (), quantization) == 4
    newer = dataclasses.replace(manifest, format=4, quantization=quantization)
    assert parse_manifest(write_manifest(newer)) == newer
    assert not newer.saturates
    with pytest.raises(
        BundleError, match=r"quantization\.scheme is 'static-qdq-u8s8-unsaturated', which is not in format 3"
    ):
        write_manifest(dataclasses.replace(newer, format=3))
    assert not dataclasses.replace(manifest, precision="fp32", quantization=None).saturates


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", FORMAT + 1, f"format is {FORMAT + 1}, this version of lraee reads 1 to {FORMAT}; update lraee"),
        ("format", 0, "format is 0"),
        ("format", "1", "format is '1', wanted a number"),
        ("format", True, "format is True, wanted a number"),
        ("format", float("nan"), "format is nan, wanted a number"),
        ("surprise", 1, "unknown key 'surprise'"),
        ("tower.depth", 2, "tower has the unknown key 'depth'"),
        ("tower.blocks", "2", "tower.blocks is '2'"),
        ("tower.blocks", 0, "tower.blocks is 0, wanted at least 1"),
        ("tower.patch_size", 0, "tower.patch_size is 0, wanted at least 1"),
        ("tower.tokens", 0, "tower.tokens is 0, wanted at least 1"),
        ("tower.embed_dim", 0, "tower.embed_dim is 0, wanted at least 1"),
        ("tower.blocks", 10**12, "tower.blocks is 1000000000000, but there are 5 parts"),
        ("tower.blocks", 3, "parts lacks 'block_03'"),
        ("tower.activation", "relu", "tower.activation is 'relu', wanted one of 'gelu', 'quick_gelu'"),
        ("preprocessing.image_size", 0, "preprocessing: image_size is 0; wanted at least 1 pixel"),
        ("preprocessing.std", [1, 0, 1], "preprocessing: std is"),
        ("preprocessing.std", [1, 1], "preprocessing.std has 2 entries, wanted 3"),
        ("preprocessing.fill_color", 256, "preprocessing: fill_color is 256"),
        ("preprocessing.resize_mode", "crop", "preprocessing.resize_mode is 'crop'"),
        ("onnxruntime", "new", "onnxruntime is 'new', wanted a version as '1.17'"),
        ("onnxruntime", "1.17; rm", "onnxruntime is '1.17; rm', wanted a version as '1.17'"),
        ("onnxruntime", 1.17, "onnxruntime is 1.17 (float), wanted str"),
        ("logit_scale", float("nan"), "logit_scale is nan, wanted a finite number"),
        ("logit_scale", float("inf"), "logit_scale is inf, wanted a finite number"),
        ("logit_scale", 0, "logit_scale is 0.0, wanted above 0"),
        ("logit_bias", float("-inf"), "logit_bias is -inf, wanted a finite number"),
        ("parts.0.flops", -1, "parts.stem.flops is -1, wanted at least 0"),
        ("parts.0.graph", "other.onnx", "parts.stem.graph is 'other.onnx', which is not among files"),
        ("parts.0.graph", "stem.data", "parts.stem.graph is 'stem.data', wanted a name in .onnx"),
        ("parts.0.graph", "stemonnx", "parts.stem.graph is 'stemonnx', wanted a name in .onnx"),
        ("parts.0.data", "other.data", "parts.stem.data is 'other.data', which is not among files"),
        ("parts.0.name", "tail", "parts has one name twice"),
        ("parts.0.operators", {"Add": 1.5}, "parts[0].operators.Add is 1.5"),
        ("exits.0.block", 3, "exits are after blocks [3]"),
        ("exits.0.block", 2, "part after block 2 is 'exit_01', wanted exit_NN"),
        ("exits.0.block", 0, "exits are after blocks [0], wanted rising numbers"),
        ("exits", RAW["exits"] * 2, "exits are after blocks [1, 1], wanted rising numbers"),
        ("parts", [part for part in RAW["parts"] if part["name"] != "exit_01"], "parts lacks 'exit_01'"),
        ("exits.0.reads", "attention", "exits: the head after block 1 reads 'attention', which is not in format 1"),
        ("exits.0.reads", "local", "reads 'local', which is not in format 1, wanted format 2"),
        ("exits.0.reads", "tokens", "exits[0].reads is 'tokens', wanted one of"),
        ("exits.0.part", "tail", "part after block 1 is 'tail', wanted exit_NN"),
        ("exits.0.temperature", -1.0, "exits: temperature after block 1 is -1.0, wanted above 0"),
        ("exits.0.gate.weights", [1.0, 2.0], "exits[0].gate.weights has 2 entries, wanted 3"),
        ("exits.0.gate.bias", float("nan"), "exits[0].gate.bias is nan, wanted a finite number"),
        ("exits", [], "operating_points.balanced.thresholds names block 1, which has no exit"),
        ("operating_points.1.name", "balanced", "operating_points has one name twice"),
        ("operating_points.0.thresholds.0.value", float("inf"), "operating_points[0].thresholds[0].value is inf"),
        ("operating_points.1.thresholds.0.per_class", [0.5], "by_class.thresholds: per_class has 1 values"),
        (
            "operating_points.1.thresholds.0.per_class",
            [0.5, float("nan"), 0.5],
            "operating_points[1].thresholds[0].per_class[1] is nan",
        ),
        (
            "operating_points.0.thresholds",
            [RAW["operating_points"][0]["thresholds"][0]] * 2,
            "balanced.thresholds names one block twice: [1, 1]",
        ),
        ("default_point", "fast", "default_point is 'fast', wanted one of"),
        ("labels.count", 1, "labels.count is 1, wanted at least 2"),
        ("labels.names", "names.json", "labels.names is 'names.json', which is not among files"),
        ("text", "text.onnx", "text is 'text.onnx'"),
        ("text", {**TEXT_INFO, "merges": "m.txt"}, "text.merges is 'm.txt', which is not among files"),
        ("text", {**TEXT_INFO, "context_length": 1}, "text.context_length is 1, wanted at least 2"),
        ("text", {**TEXT_INFO, "precision": "int4"}, "text.precision is 'int4', wanted one of 'fp32', 'fp16', 'int8'"),
        ("text", TEXT_INFO, "parts lacks 'text'"),
        ("files.0.name", "../block_01.data", "files has '../block_01.data', wanted a plain name"),
        ("files.0.name", "/etc/passwd", "files has '/etc/passwd', wanted a plain name"),
        ("files.0.name", "sub/block_01.data", "files has 'sub/block_01.data', wanted a plain name"),
        ("files.0.name", "..\\block_01.data", "wanted a plain name"),
        ("files.0.name", "..", "files has '..', wanted a plain name"),
        ("files.0.name", "", "files has '', wanted a plain name"),
        ("files.0.name", "manifest.json", "files has 'manifest.json', wanted a plain name"),
        ("files.0.name", "a\0b", "wanted a plain name"),
        ("files.0.name", "\ud800", "wanted a plain name"),
        ("files.0.name", "a" * 256, "wanted a plain name"),
        ("files.0.name", RAW["files"][1]["name"], "files names one file twice"),
        ("files.0.size_bytes", 1.5, "files[0].size_bytes is 1.5"),
        ("provenance", {"seed": 0}, "provenance.seed is 0 (int), wanted str"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(path, value, message):
    """Whatever the kind of mistake: type, range, contradiction, or a path out of the folder."""
    with pytest.raises(BundleError) as caught:
        parse_manifest(changed(path, value))
    assert str(caught.value).startswith("manifest.json")
    assert message in str(caught.value)


def keys_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key and list position."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from keys_of(item, (*path, key))


def test_random_weights_are_known_by_the_beginning_of_their_source():
    """A seed may follow the word."""
    weights = ("random", "random:7", "openai", "file:random.pt")
    found = [parse_manifest(changed("model.weights", name)).model.is_random for name in weights]
    assert found == [True, True, False, False]


KEYS = list(keys_of(RAW))
FREE = ("provenance", "operators", "choices")
"""Objects whose keys are data."""


def parent_of(raw: Any, path: tuple[Any, ...]) -> Any:
    """The object or list that holds the last key of `path`."""
    for key in path[:-1]:
        raw = raw[key]
    return raw


def test_every_key_is_needed():
    """A manifest that lacks any of its keys is refused with the key's name."""
    needed = [path for path in KEYS if isinstance(path[-1], str) and (len(path) == 1 or path[-2] not in FREE)]
    assert len(needed) > 100
    for path in needed:
        raw = copy.deepcopy(RAW)
        del parent_of(raw, path)[path[-1]]
        with pytest.raises(BundleError, match=r"manifest\.json.*" + path[-1]):
            parse_manifest(json.dumps(raw))


def test_no_object_takes_an_unknown_key():
    """Objects whose keys are data are the exception."""
    objects = [path for path in KEYS if path[-1] not in FREE and isinstance(parent_of(RAW, path)[path[-1]], dict)]
    for path in objects:
        raw = copy.deepcopy(RAW)
        parent_of(raw, path)[path[-1]]["surprise"] = 1
        with pytest.raises(BundleError, match=r"manifest\.json.* has the unknown key 'surprise'"):
            parse_manifest(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "no JSON", TEXT[:-100], "[]", "null", "3", TEXT.replace('"format": 1', '"f": 1')])
def test_what_is_no_manifest_is_refused(text):
    """Named as the file it is."""
    with pytest.raises(BundleError, match=r"^manifest\.json"):
        parse_manifest(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["..", "a/b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
bare = st.sampled_from(KEYS)
mutations = st.tuples(bare, st.just("replace"), json_values) | st.tuples(bare, st.just("copy"), bare)
mutations |= st.tuples(bare, st.just("delete"), st.none())


def mutate(path: tuple[Any, ...], kind: str, value: Any) -> Any:
    """The golden manifest with one value replaced, deleted, or taken from elsewhere in it."""
    raw = copy.deepcopy(RAW)
    parent = parent_of(raw, path)
    if kind == "delete":
        del parent[path[-1]]
    else:
        parent[path[-1]] = value if kind == "replace" else parent_of(copy.deepcopy(RAW), value)[value[-1]]
    return raw


@settings(max_examples=200, deadline=None)
@given(mutation=mutations)
def test_any_change_is_read_whole_or_refused(tmp_path_factory, golden, mutation):
    """What is read says what was written; what is refused is refused by `BundleError`, also when opened as a bundle."""
    raw = mutate(*mutation)
    try:
        manifest = parse_manifest(json.dumps(raw))
    except BundleError as error:
        assert str(error).startswith("manifest.json")  # noqa: PT017 - an error is one of two right answers
        return
    points = [{"schedule": None, **point} for point in raw["operating_points"]]
    defaults = {"probabilities": "softmax", "onnxruntime": None, "schedules": []}
    assert encode(manifest) == {**defaults, **raw, "operating_points": points}
    folder = tmp_path_factory.getbasetemp() / "mutated.lraee"
    folder.mkdir(exist_ok=True)
    for path in golden.iterdir():
        target = folder / path.name
        if not target.exists():
            target.write_bytes(path.read_bytes())
    (folder / "manifest.json").write_text(json.dumps(raw), "utf-8")
    with contextlib.suppress(BundleError):
        bundle = Bundle(folder)
        bundle.verify()
        assert len(bundle.labels.names) == len(bundle.label_embeddings)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, len(TEXT) - 1), character=st.characters())
def test_any_damaged_character_gives_a_manifest_or_a_bundle_error(position, character):
    """No other error is raised."""
    try:
        manifest = parse_manifest(TEXT[:position] + character + TEXT[position + 1 :])
    except BundleError:
        return
    assert isinstance(manifest, Manifest)


def test_full_flops_are_those_of_the_parts_without_exits():
    """Stem, blocks and tail, with the tail's cost for each label."""
    manifest = parse_manifest(TEXT)
    parts = {part.name: part for part in manifest.parts}
    wanted = sum(parts[name].flops for name in ("stem", *block_names(2), "tail")) + 3 * parts["tail"].flops_per_label
    assert manifest.full_flops == wanted
    assert manifest.exit_after(1) == manifest.exits[0]
    assert manifest.exit_after(2) is None


def test_probabilities_are_a_softmax_unless_the_manifest_says_sigmoid(golden: Path) -> None:
    """Bundles from before the key was there have none, and sigmoids need the bias of SigLIP's loss."""
    raw = json.loads((golden / "manifest.json").read_text("utf-8"))
    assert "probabilities" not in raw
    assert parse_manifest(json.dumps(raw)).probabilities == "softmax"
    sigmoid = parse_manifest(json.dumps({**raw, "probabilities": "sigmoid", "logit_bias": -10.0}))
    assert json.loads(write_manifest(sigmoid))["probabilities"] == "sigmoid"
    with pytest.raises(BundleError, match="probabilities are 'sigmoid', which needs a number as logit_bias"):
        parse_manifest(json.dumps({**raw, "probabilities": "sigmoid", "logit_bias": None}))
    with pytest.raises(PolicyError, match="a sigmoid for each label"):
        Entropy(0.5).bind(sigmoid)
