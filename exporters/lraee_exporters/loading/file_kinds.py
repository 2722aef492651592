"""Tells by its first bytes what a checkpoint file is, whatever its name says, and names other files.

Downloads that fail often leave a file: a web page, a pointer of Git LFS, an empty or a cut file. Each is said
in one line. Nothing here runs or unpickles anything: a pickle is only searched for the names it refers to.
"""

import codecs
import io
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lraee.errors import TowerError
from lraee_exporters.loading.torchscript import is_torchscript
from lraee_exporters.one_line import one_line, some

FileKind: TypeAlias = Literal["safetensors", "torch", "torchscript", "npz", "index"]

INDEX_SUFFIX = ".index.json"
"""End of the name of the file that says in which shard each tensor lies."""

HEAD_BYTES = 1024
"""How much of a file is looked at."""

ARCHIVE_ERRORS = (OSError, RuntimeError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What zipfile raises for archives that are damaged, encrypted or packed as it cannot unpack."""

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights; fetch them with: git lfs pull"),
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"\x89HDF", "an HDF5 file of Keras"),
    (b"\x93NUMPY", "one NumPy array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
"""Beginnings of files that are not checkpoints, and what each is."""

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch before 1.6 began its files."""

_WANTED = "Wanted: a .safetensors file, or a .pt, .pth or .bin file with the tensors of a state dict"

SAVE_TENSORS = "torch.save(model.state_dict(), FILE)"
"""What a user does where a model was trained."""

_BUILTINS = ("builtins.", "__builtin__.")

_TENSOR_MODULES = ("torch._utils", "torch.storage", "collections", "torch._tensor", "torch.serialization")
"""Modules that a pickle of plain tensors refers to."""


def file_kind(path: Path) -> FileKind:
    """Tell how a checkpoint file is to be read.

    Args:
        path: a file.

    Raises:
        TowerError: it cannot be opened, or is not a checkpoint; the message says what.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if path.name.endswith(INDEX_SUFFIX):
            return "index"
        if head.startswith(b"PK\x03\x04"):
            return _zip_kind(path)
    except OSError as error:
        raise refusal(path, f"cannot be read ({error.strerror}); check that it is a file and may be read") from error
    if head[4:9] == b"\0\0\0\0{":  # the length of its header, which is below 4 GiB, and the header, which is JSON
        return "safetensors"
    what = _no_checkpoint(path, head)
    if not what:
        return "torch"
    raise refusal(path, f"is {what}. {_WANTED}; download or save it again")


def refusal(path: Path, what: str) -> TowerError:
    """Make the error that refuses a checkpoint, as one line that begins with the file's name."""
    return TowerError(f"{one_line(path.name, 80)} {one_line(what, 400)}.")


def pickle_refusal(path: Path) -> TowerError:
    """Say why torch's weights-only unpickler did not open a file, and never how to open it in spite of that."""
    foreign = sorted(name for name in _pickled_names(path) if not name.startswith(_TENSOR_MODULES))
    foreign = [name for name in foreign if not (name.startswith("torch.") and name.count(".") == 1)]
    if any(name.startswith("torch.nn.") and not name.startswith("torch.nn.parameter") for name in foreign):
        own = [name for name in foreign if not name.startswith(("torch.", *_BUILTINS))] or foreign
        what = f"is a whole pickled model (of {some(own, 1)}), which only running its code could open"
    elif foreign:
        what = f"pickles Python objects beside its tensors ({some(foreign, 2)}), which only running code could open"
    else:
        what = "is damaged: it begins like a checkpoint of torch and does not end like one"
        return refusal(path, f"{what}. Download or save it again")
    return refusal(path, f"{what}. Wanted: tensors alone. Save them where it was made: {SAVE_TENSORS}")


def _zip_kind(path: Path) -> FileKind:
    """Tell the kinds of zip apart: torch's, TorchScript's, NumPy's, or any other."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if is_torchscript(path):
            return "torchscript"
    except ARCHIVE_ERRORS as error:
        raise refusal(path, "is a zip archive that is cut short or damaged. Download or save it again") from error
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise refusal(path, f"is a zip archive not written by torch (it holds {some(names, 2) or 'nothing'}). {_WANTED}")


def _no_checkpoint(path: Path, head: bytes) -> str:
    """Name what a file is that no reader here opens; empty for a pickle that torch may have written."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return "empty"
    for start, what in _STARTS:
        if text.startswith(start):
            return what
    if text[:1] == b"<":
        return "a web page or XML, perhaps the error page of a download"
    if text[:1] in (b"{", b"["):
        return "JSON text"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if (head[:1] == b"\x08" and head[1:2] <= b"\x20" and path.suffix == ".onnx") or b"\x12\x07pytorch" in head[:32]:
        return "an ONNX model, which is a result here and not a source of weights"
    if head.startswith(b"\x80"):
        return "" if head.startswith(_LEGACY_TORCH) else _python_pickle(path)
    if _is_text(head):
        return f"text that begins with '{one_line(text[:60].decode('utf-8', 'replace'), 40)}'"
    return f"of an unknown kind: it begins with the bytes {head[:8].hex(' ')}"


def _is_text(head: bytes) -> bool:
    """Tell whether bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)


def _python_pickle(path: Path) -> str:
    """Say what a pickle is that torch.save did not write."""
    names = sorted(_pickled_names(path))
    return "a pickle of Python, which torch.save did not write" + (f" (it names {some(names, 2)})" if names else "")


def _pickled_names(path: Path) -> set[str]:
    """Collect the dotted names that a file's pickles refer to; they are read, never resolved."""
    names: set[str] = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in (name for name in archive.namelist() if name.endswith("data.pkl")):
                    names.update(_names_of(io.BytesIO(archive.read(entry))))
        else:
            with path.open("rb") as file:
                names.update(_names_of(file))
    except ARCHIVE_ERRORS:  # what was found until then is enough for a message
        return names
    return names


def _names_of(stream: Any) -> Iterator[str]:
    """Walk the operations of the pickles that follow each other in a stream, until one is damaged or none follows."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    try:
        while True:
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name == "GLOBAL":
                    yield ".".join(str(argument).split(" "))
                elif operation.name == "STACK_GLOBAL" and len(strings) > 1:
                    yield ".".join(strings[-2:])
                elif operation.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT") and strings:
                    memo[len(memo) if argument is None else argument] = strings[-1]
                elif operation.name in ("BINGET", "LONG_BINGET"):
                    strings.append(memo.get(int(argument or 0), ""))
                elif isinstance(argument, str):
                    strings.append(argument)
                elif operation.name == "MEMOIZE":
                    memo[len(memo)] = ""
    except (ValueError, EOFError, LookupError, MemoryError, OverflowError):
        return
