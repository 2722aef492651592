"""Ask ONNX Runtime which operators it really runs for a part, and hold that against what was declared."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort

from lraee.errors import ExportError

_InvalidProtobuf = ort.capi.onnxruntime_pybind11_state.InvalidProtobuf


def optimized_operators(path: Path) -> dict[str, int]:
    """Operators of a part after ONNX Runtime's optimization, by name.

    Args:
        path: an .onnx file with its data beside it.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 4  # it warns that the written file suits this machine only, which is meant
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _InvalidProtobuf as error:
            if "serialization failed" in str(error):  # all that it says of a file that cannot be written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
            raise
        graph = onnx.load(str(target), load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node))


def check_operators(path: Path, declared: Mapping[str, int]) -> None:
    """Fail unless a part optimizes to exactly the declared operators.

    Raises:
        ExportError: an operator is missing, left over, or did not fuse.
    """
    found = optimized_operators(path)
    if found != dict(declared):
        difference = {
            name: (declared.get(name, 0), found.get(name, 0))
            for name in sorted({*declared, *found})
            if declared.get(name, 0) != found.get(name, 0)
        }
        raise ExportError(
            f"{path.name} does not optimize to the declared operators under ONNX Runtime {ort.__version__}; "
            f"(declared, found): {difference}; use a release that lraee was tested with"
        )
