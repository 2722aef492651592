"""open_clip's float32 image tower, run by torch, eagerly or compiled.

Its weights are read from the bundle's ``fp32.onnx`` and put into open_clip's own class. In that graph the normalisation
of pixels is folded into the patch kernel, and what is added after it into one constant; the tower keeps it so, which
spares torch a step and changes no GEMM.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.errors import BundleError
from lraee.images.read import Pixels
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.rows.float_input import LabelSimilarity
from lraee_benchmarks.rows.onnxruntime_row import Probabilities

FloatArray = NDArray[np.float32]


def open_torch(
    path: Path, bundle: Bundle, threads: int, *, batch: int = 1, compiled: bool = False
) -> tuple[Probabilities, Peer]:
    """Build the tower; also sets the number of torch's threads in this process.

    Args:
        path: ``fp32.onnx``, checked.
        bundle: gives shapes and labels.
        threads: inside one operator.
        batch: images that will run together; a compiled tower is compiled for them here.
        compiled: by ``torch.compile`` at its defaults.

    Raises:
        BundleError: torch cannot compile the tower here.
    """
    import torch

    torch.set_num_threads(threads)
    visual = _load_tower(path, bundle)
    similarity = LabelSimilarity(bundle)
    tower: Callable[[Any], Any] = torch.compile(visual) if compiled else visual

    def run(pixels: Pixels) -> FloatArray:
        with torch.inference_mode():
            image = (
                torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
            )
            embedding: FloatArray = torch.nn.functional.normalize(tower(image), dim=-1).numpy()
        return similarity(embedding)

    if compiled:
        size = bundle.manifest.preprocessing.image_size
        try:
            run(np.zeros((batch, size, size, 3), np.uint8))
        except Exception as error:  # torch's compilers have no common error
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise BundleError(
                f"torch.compile cannot compile the tower here: {first[0]}; "
                f"{advice(tempfile.gettempdir(), str(Path(torch.__file__).parent))}, or leave torch-compiled out of "
                "--baselines"
            ) from error
    peer = Peer(
        name="torch-compiled" if compiled else "torch",
        engine="torch",
        version=version("torch"),
        precision="float32",
        threads=torch.get_num_threads(),
        takes="float32 pixels, normalisation in the weights",
        options={
            "tower": f"open_clip {version('open_clip_torch')}",
            "mode": f"{'torch.compile, inductor' if compiled else 'eager'}, inference_mode",
            "weights": path.name,
        },
    )
    return run, peer


def _load_tower(path: Path, bundle: Bundle) -> Any:
    """Make open_clip's class with the weights of ``fp32.onnx``, ready to run."""
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    if "tail/projection_bias" in weights:
        raise BundleError(
            "the torch row rebuilds open_clip's own ViT, whose projection has no bias; leave out the torch baseline"
        )
    epsilons = {node.output[0]: node.attribute for node in graph.node if node.op_type == "LayerNormalization"}
    visual = _tower(bundle, with_norm_pre="stem/norm_pre" in epsilons)
    visual.load_state_dict({name: torch.from_numpy(array) for name, array in _state(weights, bundle).items()})
    for name, attributes in epsilons.items():
        epsilon = next(attribute.f for attribute in attributes if attribute.name == "epsilon")
        _norm(visual, name).eps = epsilon
    return visual.eval().requires_grad_(False)


def _tower(bundle: Bundle, *, with_norm_pre: bool) -> Any:
    """Make open_clip's class with the bundle's shape."""
    import torch
    from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

    tower = bundle.manifest.tower
    return VisionTransformer(
        image_size=bundle.manifest.preprocessing.image_size,
        patch_size=tower.patch_size,
        width=tower.width,
        layers=tower.blocks,
        heads=tower.heads,
        mlp_ratio=tower.mlp_width / tower.width,
        output_dim=tower.embed_dim,
        no_ln_pre=not with_norm_pre,
        act_layer=QuickGELU if tower.activation == "quick_gelu" else torch.nn.GELU,
        norm_layer=LayerNorm,
    )


def _state(weights: Mapping[str, NDArray[Any]], bundle: Bundle) -> dict[str, FloatArray]:
    """Make open_clip's state from the graph's constants; a bias of zeros is not in the graph."""
    tower = bundle.manifest.tower
    side, width = tower.patch_size, tower.width

    def bias(name: str, size: int) -> FloatArray:
        return np.array(weights.get(f"{name}_bias", np.zeros(size, np.float32)))

    def norm(target: str, name: str) -> dict[str, FloatArray]:
        return {f"{target}.weight": np.array(weights[f"{name}_weight"]), f"{target}.bias": bias(name, width)}

    kernel = weights["stem/patches_weight"].T.reshape(width, side, side, 3).transpose(0, 3, 1, 2)
    state = {
        "conv1.weight": np.ascontiguousarray(kernel),
        "class_embedding": np.zeros(width, np.float32),  # it is in the positions
        "positional_embedding": np.array(weights["stem/positions"]),
        "proj": np.array(weights["tail/projection_weight"]),
        **norm("ln_post", "tail/norm_post"),
    }
    if "stem/norm_pre_weight" in weights:
        state |= norm("ln_pre", "stem/norm_pre")
    for index in range(tower.blocks):
        part, target = f"block_{index + 1:02d}", f"transformer.resblocks.{index}"
        three = [f"{part}/{name}" for name in ("query", "key", "value")]
        state[f"{target}.attn.in_proj_weight"] = np.concatenate([weights[f"{name}_weight"].T for name in three])
        state[f"{target}.attn.in_proj_bias"] = np.concatenate([bias(name, width) for name in three])
        for module, name in (("attn.out_proj", "out"), ("mlp.c_fc", "fc1"), ("mlp.c_proj", "fc2")):
            matrix = np.ascontiguousarray(weights[f"{part}/{name}_weight"].T)
            state[f"{target}.{module}.weight"] = matrix
            state[f"{target}.{module}.bias"] = bias(f"{part}/{name}", len(matrix))
        state |= norm(f"{target}.ln_1", f"{part}/norm_1") | norm(f"{target}.ln_2", f"{part}/norm_2")
    return state


def _norm(visual: Any, name: str) -> Any:
    """Find the module of a LayerNormalization by the name of its value."""
    part, _, value = name.partition("/")
    if part in {"stem", "tail"}:
        return {"norm_pre": visual.ln_pre, "norm_post": visual.ln_post}[value]
    block = visual.transformer.resblocks[int(part.removeprefix("block_")) - 1]
    return {"norm_1": block.ln_1, "norm_2": block.ln_2}[value]


def advice(temporary: str, package: str) -> str:
    """Say what may help where torch cannot compile; its command for the C++ compiler ends a path at the first blank.

    >>> advice("/tmp/my files", "/opt/torch")
    'set TMPDIR to a folder without a blank in its path, which torch cannot handle in /tmp/my files'

    Args:
        temporary: the folder of temporary files.
        package: the folder of torch.
    """
    if " " in temporary:
        return f"set TMPDIR to a folder without a blank in its path, which torch cannot handle in {temporary}"
    if " " in package:
        return f"install torch below a folder without a blank in its path, which torch cannot handle in {package}"
    return "install a C++ compiler and Python's headers"
