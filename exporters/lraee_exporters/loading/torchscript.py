"""Reads the weights of a TorchScript archive, as OpenAI published CLIP, without running anything from it.

`torch.jit.load` would compile the archive's code, can be made to run foreign code by a crafted file (its documentation
says so), and is deprecated. The weights need none of that: an archive is a zip in which `data.pkl` pickles a tree of
modules and `data/N` holds raw storages. The unpickler below knows tensors, plain containers and modules as bags of
attributes, and refuses every other name.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
"""Element type of each kind of storage that a CLIP archive may hold."""


class _Module:
    """Holds the attributes of a pickled module, without its code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive rather than a pickled state dict."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Read every tensor of an archive under its dotted name, parameters and plain tensor attributes alike.

    Raises:
        pickle.UnpicklingError: The archive holds more than modules, tensors and plain containers.
    """
    with zipfile.ZipFile(path) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).rpartition("/")[0]
        try:
            root = _Unpickler(archive, folder).load()
        except (TypeError, ValueError, AttributeError, LookupError, EOFError) as error:  # what pickle's docs warn of
            raise pickle.UnpicklingError(f"the archive is damaged ({type(error).__name__}: {error})") from error
    return dict(_tensors("", root))


def _tensors(prefix: str, module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Walk the modules below one module."""
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError(f"a {type(module).__name__} stands where a module was expected")
    for name, value in module.attributes.items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(f"{prefix}{name}.", value)


def _rebuild_tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """Make a tensor of a storage; torch refuses a view that leaves it."""
    return storage.as_strided(tuple(size), tuple(stride), offset)


class _Unpickler(pickle.Unpickler):
    """Unpickles modules and tensors of one archive; every other global is refused."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        """Translate a global name, or refuse it."""
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, _: value
        raise pickle.UnpicklingError(f"the archive refers to {module}.{name}, which is not part of a module's weights")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """Read one storage, given ("storage", dtype, key, device, element count)."""
        _, dtype, key, *_ = pid
        try:
            raw = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
        except KeyError as error:
            raise pickle.UnpicklingError(f"the storage {key} is missing") from error
        return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
