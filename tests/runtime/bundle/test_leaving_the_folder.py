"""A link may lead out of a bundle if the hash is right; a path inside a graph never leads to another file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import BundleError

FILES = sorted(path.name for path in (Path(__file__).parents[1] / "golden" / "format_1.lraee").iterdir())


def use(folder: Path) -> None:
    """Load a bundle and make every session, as a program would that never calls `verify`."""
    lraee.load(folder).warm()


def move_behind_links(folder: Path, elsewhere: Path, *names: str) -> None:
    """Leave links to files, each in its own folder, as caches keep them by their hashes."""
    for name in names:
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        real = elsewhere / digest[:2] / digest
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(content)
        (folder / name).unlink()
        (folder / name).symlink_to(real)


def hugging_face_cache(bundle: Path, root: Path) -> Path:
    """The files of a bundle as ``huggingface_hub`` keeps them: links in a snapshot to blobs, named by their hashes."""
    snapshot, blobs = root / "snapshots" / "0123abc", root / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for path in bundle.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blobs / digest)
        (snapshot / path.name).symlink_to(f"../../blobs/{digest}")
    return snapshot


LINKED = {
    "all": FILES,
    "weights": [name for name in FILES if name.endswith(".data")],
    "graphs": [name for name in FILES if name.endswith(".onnx")],
    "labels": ["labels.npy", "labels.json"],
}
PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


@pytest.fixture(scope="module")
def wanted(golden) -> lraee.Prediction:
    """Give the answers of the golden bundle."""
    return lraee.load(golden).classify(PIXELS, policy=lraee.Full())


@pytest.mark.parametrize("memory", ["normal", "low"])
def test_a_bundle_in_a_hugging_face_cache_is_used_like_any_other(golden, tmp_path, wanted, memory):
    """Every file, the manifest too, is a link out of the folder, and has the hash that it must have."""
    snapshot = hugging_face_cache(golden, tmp_path / "models--someone--clip")
    assert find_bundle(snapshot) == snapshot
    model = lraee.load(snapshot, verify="all", memory=memory)
    assert (model.classify(PIXELS, policy=lraee.Full()).embedding == wanted.embedding).all()
    model.warm()


@pytest.mark.parametrize("kind", LINKED)
def test_a_link_may_lead_anywhere_if_the_hash_is_right(forged, tmp_path, wanted, kind):
    """Wherever a cache keeps which files: ONNX Runtime never sees a link."""
    move_behind_links(forged.folder, tmp_path / "store", *LINKED[kind])
    model = lraee.load(forged.folder, verify="all")
    assert (model.classify(PIXELS, policy=lraee.Full()).embedding == wanted.embedding).all()
    model.warm()


@pytest.mark.parametrize("check", [use, lambda folder: lraee.load(folder, verify="all")], ids=["use", "verify"])
@pytest.mark.parametrize("name", ["stem.onnx", "block_01.data", "labels.npy", "labels.json"])
def test_what_a_link_leads_to_is_refused_if_its_hash_is_wrong(forged, tmp_path, name, check):
    """By the name in the bundle, not by that of the file somewhere."""
    move_behind_links(forged.folder, tmp_path / "store", *FILES)
    real = (forged.folder / name).resolve()
    content = bytearray(real.read_bytes())
    content[len(content) // 2] ^= 1
    real.write_bytes(content)
    with pytest.raises(BundleError, match=rf"^{name} has SHA-256 "):
        check(forged.folder)


def test_a_link_is_followed_once(forged, tmp_path, wanted):
    """When it leads elsewhere after loading, the file that was found first is hashed and used."""
    move_behind_links(forged.folder, tmp_path / "store", *FILES)
    model = lraee.load(forged.folder)
    for name in ("tail.onnx", "tail.data"):
        (forged.folder / name).unlink()
        (forged.folder / name).symlink_to(tmp_path / "nowhere")
    assert (model.classify(PIXELS, policy=lraee.Full()).embedding == wanted.embedding).all()


def test_a_link_that_leads_nowhere_is_said_with_where_it_leads(forged, tmp_path):
    """A cache looks like this once its blobs are deleted."""
    (forged.folder / "stem.data").unlink()
    (forged.folder / "stem.data").symlink_to(tmp_path / "cleared")
    with pytest.raises(BundleError, match=r"^stem\.data is missing .* it is a link to .*cleared, which is not there"):
        lraee.load(forged.folder)


def test_a_bundle_may_be_reached_by_a_link(forged, tmp_path):
    """As may a link inside the folder."""
    (forged.folder / "stem.data").rename(forged.folder / "weights")
    (forged.folder / "stem.data").symlink_to("weights")
    (tmp_path / "link").symlink_to(forged.folder)
    use(tmp_path / "link")


def in_initializer(model: onnx.ModelProto, location: str) -> None:
    """Weights that the graph itself reads."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location


def in_subgraph(model: onnx.ModelProto, location: str) -> None:
    """Weights may lie in a branch of a branch, under a condition that may never come true."""
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    branch = helper.make_graph([], "inner", [], [], [tensor])
    for depth in range(2):
        node = helper.make_node("If", ["condition"], [f"branch_{depth}"], then_branch=branch, else_branch=branch)
        branch = helper.make_graph([node], f"branch_{depth}", [], [])
    model.graph.node.append(node)


@pytest.mark.parametrize("location", ["../stem.data", "/etc/hostname", "block_02.data"])
def test_links_do_not_let_external_data_out(forged, tmp_path, location):
    """Paths inside graphs are refused as ever."""
    model = onnx.load(str(forged.folder / "block_01.onnx"), load_external_data=False)
    in_initializer(model, location)
    forged.replace("block_01.onnx", model.SerializeToString())
    move_behind_links(forged.folder, tmp_path / "store", *FILES)
    with pytest.raises(BundleError, match=r"^block_01\.onnx: external data is at "):
        use(forged.folder)


@pytest.mark.parametrize("check", [use, lambda folder: Bundle(folder).verify()], ids=["use", "verify"])
@pytest.mark.parametrize("put", [in_initializer, in_subgraph])
@pytest.mark.parametrize(
    "location",
    [
        "../stem.data",
        "/etc/hostname",
        "./block_01.data",
        "sub/block_01.data",
        "block_02.data",
        "",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
def test_external_data_elsewhere_is_refused_before_a_session_is_made(forged, monkeypatch, check, put, location):
    """Although every hash is right: a part reads its own weight file and nothing else."""
    made: list[str] = []
    make_session = lraee.engine.part_sessions.make_session
    monkeypatch.setattr(
        lraee.engine.part_sessions,
        "make_session",
        lambda path, *rest, **more: made.append(path.name) or make_session(path, *rest, **more),
    )
    model = onnx.load(str(forged.folder / "block_01.onnx"), load_external_data=False)
    put(model, location)
    forged.replace("block_01.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=r"^block_01\.onnx: external data is at ") as caught:
        check(forged.folder)
    assert repr(location) in str(caught.value)
    assert "block_01.onnx" not in made


def shared_graph(forged, location: str) -> None:
    """Add ``graph.onnx``, a part over the weights of other parts, whose data is at `location`."""
    model = onnx.load(str(forged.folder / "block_01.onnx"), load_external_data=False)
    in_initializer(model, location)
    manifest = forged.manifest
    manifest["parts"].append({**manifest["parts"][1], "name": "graph", "graph": "graph.onnx", "data": None})
    manifest["files"].append({"name": "graph.onnx", "size_bytes": 0, "sha256": ""})
    forged.manifest = manifest
    forged.replace("graph.onnx", model.SerializeToString())


def test_a_part_without_weights_of_its_own_reads_those_of_other_parts_only(forged):
    """The whole tower as one graph shares the weight files."""
    shared_graph(forged, "block_02.data")
    bundle = Bundle(forged.folder)
    bundle.verify()
    assert bundle.checked_part(bundle.manifest.part("graph")).name == "graph.onnx"


def test_a_part_without_weights_of_its_own_cannot_leave_the_folder(forged):
    """Nor read files that hold no weights."""
    shared_graph(forged, "labels.npy")
    bundle = Bundle(forged.folder)
    for check in (bundle.verify, lambda: bundle.checked_part(bundle.manifest.part("graph"))):
        with pytest.raises(BundleError, match=r"^graph\.onnx: external data is at 'labels\.npy'"):
            check()
