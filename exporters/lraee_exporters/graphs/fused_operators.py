"""Asks ONNX Runtime which operators it really runs for a part, and compares them with those declared."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort

from lraee.errors import BundleError, ExportError
from lraee.ort.sessions import SessionSettings, make_session, session_options

LAYOUT_OPERATORS = ("ReorderInput", "ReorderOutput")
"""Operators that give convolutions the layout that suits this CPU; other CPUs have none, or others."""

_InvalidProtobuf = ort.capi.onnxruntime_pybind11_state.InvalidProtobuf


def optimized_operators(path: Path) -> dict[str, int]:
    """Count the operators of a part after ONNX Runtime's optimization, by name.

    They are those of the sessions that run it: with the exact kernels where INT8 GEMMs saturate on this CPU.

    Args:
        path: an .onnx file, with its data in the same folder.

    Raises:
        BundleError: ONNX Runtime cannot load it.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        settings = SessionSettings(threads=1)
        options = session_options(settings)
        options.optimized_model_filepath = str(target)
        options.intra_op_num_threads = 1  # nothing runs, and threads that a limit of the system refuses hang it
        options.log_severity_level = 4  # it warns that the written file suits this machine only, which is meant
        try:
            make_session(path, settings, options=options)
        except BundleError as error:
            if isinstance(error.__cause__, _InvalidProtobuf) and "serialization failed" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error  # all that it says of it
            raise
        graph = onnx.load(str(target), load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node if node.op_type not in LAYOUT_OPERATORS))


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
