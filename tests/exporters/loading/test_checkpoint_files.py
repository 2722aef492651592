"""A file that is not a checkpoint is named for what it is, in one line, and nothing from it is run or passed on."""

import argparse
import gzip
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lraee.errors import TowerError
from lraee_exporters.loading.file_kinds import file_kind
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.one_line import one_line

Build = Callable[[dict[str, Any]], Any]
Refusal = Callable[..., str]
State = dict[str, torch.Tensor]

PAGE = b"\n<!DOCTYPE html>\n<html><head><title>\x1b[31mNot found</title></head></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 598641023\n"


def zipped(**members: bytes) -> bytes:
    """A zip archive with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def array() -> bytes:
    """One NumPy array as numpy.save writes it."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "page.pt": (PAGE, "is a web page"),
    "page.safetensors": (PAGE, "is a web page"),
    "pointer.bin": (POINTER, "is a pointer of Git LFS, not the weights; fetch them with: git lfs pull"),
    "pointer.safetensors": (POINTER, "is a pointer of Git LFS"),
    "error.pt": (b'{"error": "Repository not found"}', "is JSON text"),
    "empty.pt": (b"", "is empty"),
    "empty.safetensors": (b"", "is empty"),
    "note.pt": (b"Access to model is restricted.\r\n", "is text that begins with 'Access to model is restricted.'"),
    "photos.pt": (zipped(cat=b"meow"), r"is a zip archive not written by torch \(it holds cat\)"),
    "cut-zip.pt": (zipped(cat=b"meow")[:40], "is a zip archive that is cut short or damaged"),
    "model.onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x80", "is an ONNX model"),
    "packed.pt": (gzip.compress(b"weights"), "is a gzip archive; unpack it first"),
    "array.pt": (array(), "is one NumPy array"),
    "keras.bin": (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file of Keras"),
    "llama.bin": (b"GGUF\x03\0\0\0" + bytes(40), "is a GGUF file"),
    "pickle.pt": (pickle.dumps({"a": np.float64(1)}), r"is a pickle of Python, .* \(it names numpy"),
    "noise.pth": (bytes(range(200, 256)), "is of an unknown kind: it begins with the bytes c8 c9"),
}
"""Content of a file, and what is said of it."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_checkpoint_is_named_for_what_it_is(
    name: str, tmp_path: Path, state: State, refusal_of: Refusal
) -> None:
    """It is said at once, without asking for --activation first."""
    content, what = FILES[name]
    (tmp_path / name).write_bytes(content)
    line = refusal_of("small-vit", "--pretrained", tmp_path / name)
    assert line.startswith(f"{name} ")
    assert re.search(what, line), line


class Harmful:
    """An object whose unpickling would call a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_whole_pickled_model_is_refused_without_advice_to_unpickle_it(
    zipped: bool, tmp_path: Path, state: State, small_config: dict[str, Any], refusal_of: Refusal
) -> None:
    """torch's message tells how to run the file's code, in colours and over many lines; none of it is passed on."""
    path = tmp_path / "whole.pt"
    torch.save(open_clip.CLIP(**small_config), path, _use_new_zipfile_serialization=zipped)
    line = refusal_of("small-vit", "--pretrained", path, "--activation", "gelu")
    assert "is a whole pickled model (of open_clip" in line
    assert line.endswith("Save them where it was made: torch.save(model.state_dict(), FILE).")
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, path, _use_new_zipfile_serialization=zipped)
    line = refusal_of("small-vit", "--pretrained", path, "--activation", "gelu")
    assert "pickles Python objects beside its tensors (argparse.Namespace)" in line
    torch.save({"state_dict": state, "x": Harmful()}, path, _use_new_zipfile_serialization=zipped)
    line = refusal_of("small-vit", "--pretrained", path, "--activation", "gelu")
    assert "pickles Python objects beside its tensors (builtins.print)" in line or "(__builtin__.print)" in line


def test_a_checkpoint_is_known_by_its_content_and_not_by_its_suffix(tmp_path: Path, state: State) -> None:
    """A state dict called .safetensors, and safetensors called .bin, are what they are."""
    torch.save(state, tmp_path / "torch.safetensors")
    save_file(state, tmp_path / "safe.bin")
    assert file_kind(tmp_path / "torch.safetensors") == "torch"
    assert file_kind(tmp_path / "safe.bin") == "safetensors"
    for name in ("torch.safetensors", "safe.bin"):
        tower = load_model("small-vit", pretrained=str(tmp_path / name), activation="gelu").tower
        assert (tower.projection == state["visual.proj"].numpy()).all()


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_a_download_that_was_cut_is_called_damaged(
    kept: float, tmp_path: Path, state: State, refusal_of: Refusal
) -> None:
    """In each format, wherever it was cut."""
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.safetensors")
    for path in sorted(tmp_path.glob("?.*")):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        line = refusal_of("small-vit", "--pretrained", path, "--activation", "gelu")
        assert "damaged" in line
        assert "again" in line


QUANTIZED = {
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int64": torch.int64,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "bool": torch.bool,
    "complex64": torch.complex64,
}


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_a_tensor_that_is_no_floating_point_number_is_refused_by_name(
    dtype: str, tmp_path: Path, state: State, refusal_of: Refusal
) -> None:
    """Copied as it is, a quantized weight would be a number without its scale."""
    state["visual.proj"] = torch.ones_like(state["visual.proj"]).to(QUANTIZED[dtype])
    torch.save(state, tmp_path / "odd.pt")
    line = refusal_of("small-vit", "--pretrained", tmp_path / "odd.pt", "--activation", "gelu")
    assert f"has the tensor visual.proj, which is {dtype}; wanted float16" in line


def test_tensors_without_values_or_with_others_than_numbers_are_refused_by_name(
    tmp_path: Path, state: State, refusal_of: Refusal
) -> None:
    """Meta tensors, sparse ones, NaN, infinity, and float64 beyond float32; in the text tower too."""
    proj = state["visual.proj"]
    nan, infinite = (torch.full_like(proj, value) for value in (float("nan"), float("inf")))
    cases = [
        ("visual.proj", torch.empty_like(proj, device="meta"), "has a shape and no values"),
        ("visual.proj", proj.to_sparse(), "which is sparse_coo"),
        ("visual.proj", nan, "has NaN or infinity in the tensor visual.proj"),
        ("visual.proj", infinite.half(), "has NaN or infinity in the tensor visual.proj"),
        ("visual.proj", proj.double() * 1e60, "has NaN or infinity in the tensor visual.proj"),
        ("token_embedding.weight", state["token_embedding.weight"] * float("nan"), "the tensor token_embedding.weight"),
    ]
    for name, value, what in cases:
        torch.save({**state, name: value}, tmp_path / "odd.pt")
        assert what in refusal_of("small-vit", "--pretrained", tmp_path / "odd.pt", "--activation", "gelu")


def test_float64_strided_shared_and_cuda_tensors_are_read(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their values are those of plain tensors; a file from a GPU needs none."""
    expected = load_state(state, tmp_path / "plain.pt")
    assert (
        load_state({name: value.double() for name, value in state.items()}, tmp_path / "double.pt") == expected
    ).all()
    transposed = {**state, "visual.proj": state["visual.proj"].T.contiguous().T}
    assert (load_state(transposed, tmp_path / "strided.pt") == expected).all()
    base = torch.cat([state["visual.proj"], state["visual.proj"]])
    assert (load_state({**state, "visual.proj": base[: len(base) // 2]}, tmp_path / "shared.pt") == expected).all()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    assert (load_state(state, tmp_path / "cuda.pt") == expected).all()


def test_a_tensor_that_safetensors_saved_once_for_two_names_is_read_under_both(tmp_path: Path, state: State) -> None:
    """safetensors.torch.save_model writes into the header which name a removed one shares its memory with."""
    state["visual.ln_post.bias"] = state["visual.ln_pre.bias"]
    kept = {name: value for name, value in state.items() if name != "visual.ln_post.bias"}
    save_file(kept, tmp_path / "tied.safetensors", metadata={"visual.ln_post.bias": "visual.ln_pre.bias"})
    tower = load_model("small-vit", pretrained=str(tmp_path / "tied.safetensors"), activation="gelu").tower
    assert (tower.norm_post.bias == state["visual.ln_pre.bias"].numpy()).all()


def load_state(state: State, path: Path) -> np.ndarray:
    """Save a state dict, load the file, and give the tower's projection."""
    torch.save(state, path)
    projection = load_model("small-vit", pretrained=str(path), activation="gelu").tower.projection
    assert projection is not None
    return projection


def test_text_from_a_file_cannot_colour_break_or_fill_the_line() -> None:
    """Escape sequences, carriage returns, bells and bidirectional marks are taken out; what is long is cut."""
    assert one_line("a\x1b[1;31mb\x1b[0m\r\n\tc\x07\u202e\x1b]0;title\x07d\x1bc") == "ab c d"
    assert one_line("x" * 500, 100) == "x" * 99 + "…"


def test_the_error_itself_is_one_printable_line(tmp_path: Path, state: State, small_config: dict[str, Any]) -> None:
    """A program that calls the library prints it too; names of files and the words of torch come from elsewhere."""
    evil = tmp_path / "\x1b[31mred\n.pt"
    contents: list[Any] = [
        open_clip.CLIP(**small_config),
        {**state, "visual.\x1b[31m\nred": torch.zeros(1)},
        {**state, "visual.proj": torch.zeros(2)},
        {"\x1b[31m\nepoch": 3},
    ]
    for content in (PAGE, b"note \x1b[31m", b"", *contents):
        if isinstance(content, bytes):
            evil.write_bytes(content)
        else:
            torch.save(content, evil)
        with pytest.raises(TowerError) as refusal:
            load_model("small-vit", pretrained=str(evil), activation="gelu")
        line = str(refusal.value)
        assert line.startswith("red .pt ")
        assert line.isprintable(), ascii(line)
        assert "weights_only" not in line


def test_names_of_tensors_cannot_colour_the_message(tmp_path: Path, state: State, refusal_of: Refusal) -> None:
    """A name is text from elsewhere."""
    torch.save({**state, "visual.\x1b[31m\nred" + "d" * 300: torch.zeros(1)}, tmp_path / "red.pt")
    line = refusal_of("small-vit", "--pretrained", tmp_path / "red.pt", "--activation", "gelu")
    assert "missing in the architecture: visual. red" in line
