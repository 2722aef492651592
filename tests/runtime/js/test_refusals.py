"""What Python refuses of changed archives and folders, the JavaScript runtime refuses too."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from javascript_package import ROOT, Installed

import lraee
from lraee.bundle.archive import write_archive
from lraee.bundle.folder import Bundle

GOLDEN = ROOT / "tests" / "runtime" / "golden"

COUNT = 500
"""Changed bundles: half of them archives."""

Json = dict[str, Any]


def changed_bytes(archive: bytes, draw: random.Random) -> bytes:
    """Change an archive below its entries: a bit, a byte, a piece, or a number of its directory."""
    content = bytearray(archive)
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(b"PK\x05\x06"))
    first = content.index(b"PK\x01\x02")
    kind = draw.choice(["bit", "directory", "directory", "local", "cut", "grow", "zero", "end"])
    if kind == "cut":
        return bytes(content[: draw.randrange(len(content))])
    if kind == "grow":
        at = draw.randrange(len(content))
        return bytes(content[:at] + draw.randbytes(draw.randint(1, 40)) + content[at:])
    if kind == "zero":
        at = draw.randrange(len(content) - 64)
        content[at : at + draw.randint(1, 64)] = bytes(draw.randint(1, 64))
        return bytes(content)
    ranges = {"bit": (0, len(content)), "directory": (first, len(content)), "local": (0, 3000)}
    ranges["end"] = (directory, len(content))
    at = draw.randrange(*ranges[kind])
    content[at] = content[at] ^ 1 << draw.randrange(8) if draw.random() < 0.5 else draw.randrange(256)
    return bytes(content)


ODD_VALUES: list[Any] = [None, True, -1, 0, 1, 2.5, 1e400, 2**70, "", "x", "../x", "stem.onnx", [], [1], {}, {"a": 1}]


def change_json(value: Any, draw: random.Random) -> Any:
    """Change one value anywhere inside: replace, remove, add, repeat or swap it."""
    inner = [key for key, item in entries_of(value) if isinstance(item, dict | list) and item]
    if inner and draw.random() < 0.8:
        key = draw.choice(inner)
        value[key] = change_json(value[key], draw)
        return value
    keys = [key for key, _ in entries_of(value)]
    key, kind = draw.choice(keys), draw.choice(["replace", "replace", "remove", "add", "swap", "nudge"])
    if kind == "remove":
        del value[key]
    elif kind == "add" and isinstance(value, dict):
        value[draw.choice(["spin", "__proto__", "constructor", "name"])] = draw.choice(ODD_VALUES)
    elif kind == "add":
        value.append(value[key])
    elif kind == "swap":
        other = draw.choice(keys)
        value[key], value[other] = value[other], value[key]
    elif kind == "nudge" and isinstance(value[key], int | float):
        value[key] += draw.choice([-1, 1, 0.5, 1000])
    else:
        value[key] = draw.choice(ODD_VALUES)
    return value


def entries_of(value: Any) -> list[tuple[Any, Any]]:
    """Keys or positions of an object or list, with what is there."""
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value))


def change_text(text: str, draw: random.Random) -> str:
    """Change the text of a manifest: repeat a key, or put something between its characters."""
    at = draw.randrange(len(text))
    if draw.random() < 0.3:
        key = draw.choice([word for word in ('"format"', '"width"', '"sha256"', '"name"') if word in text])
        return text.replace(key, f"{key}: 1, {key}", 1)
    piece = draw.choice(["", "\x00", "\\", '"', "\ufeff", "NaN", ",", "{", "]", "1", ".", "e5", "\t", "\\ud800"])
    return text[:at] + piece + text[at + draw.randint(0, 2) :]


def change_folder(folder: Path, draw: random.Random) -> None:
    """Change a bundle folder; half of the time what its manifest says of the file is set right."""
    path = folder / "manifest.json"
    names = sorted(file.name for file in folder.iterdir() if file.name != "manifest.json")
    kind = draw.choice(["json", "json", "json", "text", "file", "labels", "array", "location", "missing"])
    if kind == "json":
        path.write_text(json.dumps(change_json(json.loads(path.read_text("utf-8")), draw)), "utf-8")
    elif kind == "text":
        path.write_text(change_text(path.read_text("utf-8"), draw), "utf-8")
    elif kind == "missing":
        (folder / draw.choice(names)).unlink()
    elif kind == "file":
        spoil(folder / draw.choice([name for name in names if name.endswith(".data")]), draw)
    else:
        target, change = CHANGES[kind]
        name = draw.choice([name for name in names if name.endswith(target)])
        (folder / name).write_bytes(change((folder / name).read_bytes(), draw))
        if draw.random() < 0.8:
            set_right(folder, name)


def spoil(path: Path, draw: random.Random) -> None:
    """Change a byte of a file, or its length."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content) if draw.random() < 0.7 else bytes(content[:-1]))


def change_labels(content: bytes, draw: random.Random) -> bytes:
    """Change labels.json."""
    return json.dumps(change_json(json.loads(content), draw)).encode()


def change_array(content: bytes, draw: random.Random) -> bytes:
    """Change labels.npy: its header, a number, or its length."""
    array = bytearray(content)
    kind = draw.choice(["header", "header", "number", "cut", "grow"])
    if kind == "header":
        array[draw.randrange(128)] = draw.choice(b" 0123,(){}'\n\x00<>f")
    elif kind == "number":
        number = draw.choice([0.0, 1e30, float("nan"), -1.0, 0.3])
        array[128 + 4 * draw.randrange((len(array) - 128) // 4) :][:4] = b""
        array += struct.pack("<f", number)
    return bytes(array[:-4] if kind == "cut" else array + b"abcd" if kind == "grow" else array)


def change_location(content: bytes, draw: random.Random) -> bytes:
    """Change where a graph keeps its weights, to a name of the same length."""
    at = content.find(b".data")
    if at < 0:
        return content
    start = max(content.rfind(b"\x12", 0, at) + 2, at - 8)
    name = content[start : at + 5]
    other = draw.choice(
        [b"../" + b"x" * len(name), b"/etc/passwd" + b"x" * len(name), b"tail.data" + b"\x00" * len(name)]
    )
    return content.replace(name, other[: len(name)])


CHANGES: dict[str, tuple[str, Callable[[bytes, random.Random], bytes]]] = {
    "labels": ("labels.json", change_labels),
    "array": (".npy", change_array),
    "location": (".onnx", change_location),
}


def set_right(folder: Path, name: str) -> None:
    """Write the size and hash of a file into the manifest."""
    path, content = folder / "manifest.json", (folder / name).read_bytes()
    manifest = json.loads(path.read_text("utf-8"))
    (entry,) = (entry for entry in manifest["files"] if entry["name"] == name)
    entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest), "utf-8")


def change_entries(archive: Path, draw: random.Random) -> bytes:
    """Change the entries of an archive: names, modes, compression, which there are."""
    with zipfile.ZipFile(archive) as source:
        entries = [(info, source.read(info)) for info in source.infolist()]
    info, content = draw.choice(entries)
    kind = draw.choice(["name", "mode", "deflate", "twice", "remove", "content", "around", "extra"])
    if kind == "name":
        info.filename = draw.choice(["../x", "/x", "a/b", "x\\y", "stem.onnx", "manifest.json", "x/manifest.json", "é"])
    elif kind == "mode":
        info.external_attr = draw.choice([0o120777, 0o40755, 0o100644, 0o10644]) << 16
    elif kind == "deflate":
        for other, _ in entries:
            other.compress_type = zipfile.ZIP_DEFLATED if draw.random() < 0.8 else zipfile.ZIP_BZIP2
    elif kind == "twice":
        entries.append((zipfile.ZipInfo(info.filename), content))
    elif kind == "remove":
        entries.remove((info, content))
    elif kind == "content":
        entries[entries.index((info, content))] = (info, content[: draw.randrange(len(content))])
    elif kind == "extra":
        info.extra = draw.randbytes(draw.randint(1, 12))
    else:
        for other, _ in entries if draw.random() < 0.5 else entries[1:]:
            other.filename = f"around/{other.filename}"
    with zipfile.ZipFile(archive.with_suffix(".new"), "w") as target:
        for info, content in entries:
            target.writestr(info, content)
    return archive.with_suffix(".new").read_bytes()


def changed_bundles(folder: Path) -> list[Path]:
    """Write the changed bundles of one seed; the seed is the number in a name."""
    whole = folder / "whole.zip"
    bundle = Bundle(GOLDEN / "format_2.lraee")
    write_archive(bundle.folder, bundle.manifest, whole)
    paths = []
    for seed in range(COUNT):
        draw = random.Random(seed)
        if seed % 2:
            paths.append(folder / f"{seed}.zip")
            change = draw.random() < 0.4
            paths[-1].write_bytes(change_entries(whole, draw) if change else changed_bytes(whole.read_bytes(), draw))
        else:
            paths.append(folder / f"{seed}.lraee")
            shutil.copytree(GOLDEN / f"format_{draw.choice([1, 3])}.lraee", paths[-1])
            change_folder(paths[-1], draw)
    return paths


def refusal(path: Path) -> str | None:
    """What Python says against a bundle; None where it classifies an image with it."""
    try:
        model = lraee.load(path, verify="all", threads=1)
        size = model.manifest.preprocessing.image_size
        image = np.zeros((size, size, 3), np.uint8)
        model.classify(image, policy=lraee.Full())
        model.classify(image)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_changed_bundles_that_python_refuses_are_refused(npm_package: Installed, tmp_path: Path) -> None:
    """Of 500; most are refused, and nearly all that Python takes are taken."""
    paths = changed_bundles(tmp_path)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(npm_package.ask, "refuse", {"bundles": [str(path) for path in paths]})
        own = [refusal(path) for path in paths]
    theirs = asked.result()
    missed = [f"{path.name}: {said}" for path, said, met in zip(paths, own, theirs, strict=True) if said and not met]
    assert not missed, "\n".join(missed)
    wrong = [met for met in theirs if met is not None and not met.startswith(("BundleError", "PolicyError"))]
    assert not wrong, "\n".join(wrong)
    stricter = [f"{path.name}: {met}" for path, said, met in zip(paths, own, theirs, strict=True) if met and not said]
    assert len(stricter) <= 0.05 * COUNT, "\n".join(stricter)
    assert sum(said is not None for said in own) > 0.6 * COUNT
