"""Export a tower as a user would without lraee: by ``torch.onnx.export`` and ONNX Runtime's own quantizers.

Nothing is tuned here. `trace` takes torch's default exporter and opset, `quantize_by_default` ONNX Runtime's own
preparation and then ``quantize_static`` (QDQ, minimum and maximum, one scale a tensor) or ``quantize_dynamic`` with
every setting as the library has it. Both quantized graphs take what the traced tower takes: float32
(batch, 3, size, size), normalised; they give the unit embedding (batch, embed_dim). What differs from the library's
defaults is written down in `Recipe`, which goes into ``baselines.json``.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import MissingExtraError
from lraee.install import install_command
from lraee_exporters.graphs.builder import INLINE_BYTES

Quantizer = Literal["static", "dynamic"]

CALIBRATION_BATCH = 8
"""Images that run together while ranges are found; minimum and maximum do not depend on it."""

SAMPLE_BATCH = 2
"""Images of the example that is traced; with one, torch would fix the batch to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Describes how one baseline was made."""

    tool: str
    """Function of the library, such as ``onnxruntime.quantization.quantize_static``."""
    versions: dict[str, str]
    """Of the packages that had a part in it."""
    options: dict[str, str]
    """What was set."""
    defaults: dict[str, str]
    """What was left as the library has it, as far as it decides what comes out."""
    input: str
    """What the graph takes."""


class _VisualTower(torch.nn.Module):
    """open_clip's image tower with the embedding scaled to unit length."""

    def __init__(self, visual: torch.nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, 3, size, size) float32 to (batch, embed_dim) float32."""
        return torch.nn.functional.normalize(self.visual(image), dim=-1)


def trace(torch_model: Any, image_size: int, folder: Path) -> Recipe:
    """Write ``traced.onnx``, `image` to `embedding`, with torch's default exporter and a symbolic batch.

    Args:
        torch_model: open_clip's model in float32.
        image_size: of the tower, in pixels.
        folder: where the file goes.

    Raises:
        MissingExtraError: torch's exporter needs onnxscript.
    """
    if find_spec("onnxscript") is None:
        raise MissingExtraError(f"torch.onnx.export needs onnxscript: {install_command('export')}")
    example = torch.zeros(SAMPLE_BATCH, 3, image_size, image_size)
    with _quiet():
        torch.onnx.export(
            _VisualTower(torch_model.visual).eval(),
            (example,),
            folder / "traced.onnx",
            input_names=["image"],
            output_names=["embedding"],
            dynamic_shapes={"image": {0: torch.export.Dim.DYNAMIC}},  # torch 2.9 finds a named one bounded
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    opset = next(entry.version for entry in onnx.load(folder / "traced.onnx").opset_import if not entry.domain)
    return Recipe(
        tool="torch.onnx.export",
        versions={name: version(name) for name in ("torch", "onnxscript", "onnx", "open_clip_torch")},
        options={"dynamo": "True", "dynamic_shapes": "batch"},
        defaults={"opset_version": str(opset)},
        input="float32 (batch, 3, size, size), normalised",
    )


def quantize_by_default(
    quantizer: Quantizer, traced: Path, pixels: NDArray[np.uint8], preprocessing: Preprocessing, folder: Path
) -> Recipe:
    """Write ``static.onnx`` or ``dynamic.onnx`` with its weights in a ``.data`` file next to it.

    Args:
        quantizer: which of ONNX Runtime's two functions.
        traced: the file that `trace` wrote.
        pixels: (images, size, size, 3) uint8 calibration images, for ``static``; may be memory-mapped.
        preprocessing: how pixels are normalised.
        folder: where the files go.
    """
    options: dict[str, str] = {"quant_pre_process": "skip_symbolic_shape"}
    with tempfile.TemporaryDirectory(dir=folder) as temporary, _quiet():
        prepared, quantized = (Path(temporary) / name for name in ("prepared.onnx", "quantized.onnx"))
        # The symbolic inference, a step of the preparation, fails on torch's graph; onnx's own inference is run.
        quant_pre_process(traced, prepared, skip_symbolic_shape=True)
        if quantizer == "static":
            reader = _CalibrationReader(pixels, preprocessing)
            quantize_static(prepared, quantized, reader, use_external_data_format=True)
            options["calibration images"] = str(len(pixels))
        else:
            quantize_dynamic(prepared, quantized, use_external_data_format=True)
        model = onnx.load(quantized)
    if separate_constants(model.graph):
        options["quantized constants"] = "a copy for each use"
    for node in model.graph.node:
        del node.metadata_props[:]  # torch's stack traces: a megabyte, and folders of the machine
    onnx.save_model(
        model,
        folder / f"{quantizer}.onnx",
        save_as_external_data=True,
        location=f"{quantizer}.data",
        size_threshold=INLINE_BYTES,
    )
    return Recipe(
        tool=f"onnxruntime.quantization.quantize_{quantizer}",
        versions={name: version(name) for name in ("onnxruntime", "onnx", "torch", "onnxscript")},
        options=options,
        defaults=_defaults(quantize_static if quantizer == "static" else quantize_dynamic),
        input="float32 (batch, 3, size, size), normalised",
    )


def separate_constants(graph: onnx.GraphProto) -> int:
    """Give every use of a dequantized constant a DequantizeLinear, values and a zero point of its own.

    A number that several nodes share (a scale of attention, say) is one int8 tensor in the graph of `quantize_static`.
    With ``session.x64quantprecision``, which a CPU without VNNI needs for exact GEMMs, ONNX Runtime (1.32) turns it
    into uint8 once for each use, under one name, and then cannot load the graph. What is computed stays the same.

    Returns:
        How many uses got a copy.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = defaultdict(list)
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers[name].append((node, place))
    nodes: list[onnx.NodeProto] = []
    used: set[str] = set()
    copies = 0
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        uses = [node]
        for number, (reader, place) in enumerate(readers[node.output[0]][1:], start=1):
            use = onnx.NodeProto()
            use.CopyFrom(node)
            use.name, use.output[0] = f"{node.name}_use_{number}", f"{node.output[0]}_use_{number}"
            reader.input[place] = use.output[0]
            uses.append(use)
        nodes += uses[1:]
        for use in uses:
            shared = [place for place in (0, 2) if place < len(use.input) and use.input[place] in used]
            for place in shared:
                tensor = graph.initializer.add()
                tensor.CopyFrom(constants[use.input[place]])
                tensor.name = f"{tensor.name}_{use.output[0]}"
                use.input[place] = tensor.name
            copies += bool(shared)
            used |= {name for name in (use.input[0], *use.input[2:]) if name in constants}
    del graph.node[:]
    graph.node.extend(nodes)
    return copies


def _defaults(quantize: Callable[..., None]) -> dict[str, str]:
    """Read the defaults of the settings that decide on numbers from the function itself."""
    names = ("quant_format", "activation_type", "weight_type", "per_channel", "reduce_range", "calibrate_method")
    parameters = inspect.signature(quantize).parameters
    return {name: str(parameters[name].default) for name in names if name in parameters}


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Normalised images, a few at a time: with minimum and maximum only two numbers a tensor are kept of each batch."""

    def __init__(self, pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> None:
        self._batches = self._normalised(pixels, preprocessing)

    @staticmethod
    def _normalised(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Iterator[dict[str, Any]]:
        mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
        for start in range(0, len(pixels), CALIBRATION_BATCH):
            batch = pixels[start : start + CALIBRATION_BATCH].astype(np.float32) / np.float32(255)
            yield {"image": np.ascontiguousarray(((batch - mean) / std).transpose(0, 3, 1, 2))}

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None at the end."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' hints for their own users off the terminal; errors are raised, not printed."""
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)
