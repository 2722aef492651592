"""What tests of several layers share.

An empty folder to run in, one export, checkpoints in the layouts that others write, and a graph as others quantize.

What only some fixtures need is imported by them: the runtime's tests load neither the toolchain nor onnx.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lraee_calibration_data import fashion_mnist_pool

if TYPE_CHECKING:
    import onnx

    from lraee_toolchain.config.options import ExportConfig
    from lraee_toolchain.export import ExportResult


def pick_images(source: Path, target: Path, *, step: int, start: int = 0) -> Path:
    """Write every `step`-th image of a zip into another."""
    with zipfile.ZipFile(source) as pool, zipfile.ZipFile(target, "w") as few:
        names = sorted(name for name in pool.namelist() if name.endswith(".png"))
        for name in names[start::step]:
            few.writestr(name, pool.read(name))
    return target


SHARED_EXPORTS = {"exported", "exported_with_baselines", "with_tables", "with_baselines"}
"""Fixtures of a session that take long: where tests run in several processes, one of them makes these."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep in one process what shares an export or the JavaScript package, and else the tests of a file.

    Where tests run in several processes (``pytest --numprocesses auto``).
    """
    used = set(getattr(item, "fixturenames", ()))
    group = (
        "shared exports" if used & SHARED_EXPORTS else "javascript" if "npm_package" in used else item.path.as_posix()
    )
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def picked() -> Callable[..., Path]:
    """`pick_images` for tests with images of their own."""
    return pick_images


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 labelled images of the shipped pool, 24 of each class."""
    return pick_images(fashion_mnist_pool(), tmp_path_factory.mktemp("few") / "few.zip", step=25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export and what it was told."""

    config: ExportConfig
    result: ExportResult


@pytest.fixture(scope="session")
def small_config(few_images: Path) -> Callable[..., ExportConfig]:
    """A configuration that takes seconds: few images, two exits, two epochs."""
    from lraee_toolchain.config.learning import HeadTraining
    from lraee_toolchain.config.options import ExportConfig

    def make(out: Path, **changes: object) -> ExportConfig:
        options: dict[str, object] = {
            "model": "reference",
            "out": out,
            "train": few_images,
            "exits": (4, 8),
            "reads": "patch_mean",
            "heads": HeadTraining(epochs=2),
            "max_accuracy_drop": 20.0,
        }
        return ExportConfig(**(options | changes))  # type: ignore[arg-type]  # names are the test's own

    return make


@pytest.fixture(scope="session")
def exported(small_config: Callable[..., ExportConfig], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One export of the reference, whose stages are kept for tests that change a late option."""
    from lraee_toolchain.export import export

    folder = tmp_path_factory.mktemp("exported")
    config = small_config(folder / "small.lraee", work=folder / "work")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small products are quicker on one thread when cores are shared
    try:
        return Exported(config=config, result=export(config))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def exported_with_baselines(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The same once more, with baselines."""
    from lraee_toolchain.export import export

    out = tmp_path_factory.mktemp("baselines") / "small.lraee"
    return export(replace(exported.config, out=out, baselines=True))


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder that all tests run in, so that none depends on the name, place or content of the checkout."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("working")
    os.chdir(folder)
    yield folder
    os.chdir(before)
    written = sorted(path.name for path in folder.iterdir())
    assert not written, f"a test wrote {written} into the folder that it ran in; give it tmp_path"


@pytest.fixture
def shared_root() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are not, nor is a TMPDIR in somebody's home."""
    open_to_all = [
        folder
        for folder in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))
        if folder.is_dir() and all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))
    ]
    if not open_to_all:
        pytest.skip("no folder for temporary files that every user may enter")
    root = Path(tempfile.mkdtemp(dir=open_to_all[0]))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def save_torchscript() -> Callable[[dict[str, torch.Tensor], Path], None]:
    """Write a state dict as a TorchScript archive with OpenAI's three extra numbers, as OpenAI published CLIP."""

    def save(state: dict[str, torch.Tensor], path: Path) -> None:
        root = torch.nn.Module()
        for name, tensor in state.items():
            *parents, leaf = name.split(".")
            node = root
            for parent in parents:
                if not hasattr(node, parent):
                    node.add_module(parent, torch.nn.Module())
                node = getattr(node, parent)
            node.register_parameter(leaf, torch.nn.Parameter(tensor.clone()))
        for name in ("input_resolution", "context_length", "vocab_size"):
            root.register_buffer(name, torch.tensor(24))
        torch.jit.script(root).save(str(path))  # type: ignore[no-untyped-call]  # torch's lack

    return save


@pytest.fixture(scope="session")
def to_hugging_face() -> Callable[..., tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Give `config.json` and the tensors that transformers' CLIPModel would save for an open_clip model."""

    def convert(config: dict[str, Any], model: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        text, vision = config["text_cfg"], config["vision_cfg"]
        settings = {
            "model_type": "clip",
            "projection_dim": config["embed_dim"],
            "text_config": {
                "hidden_size": text["width"],
                "intermediate_size": 4 * text["width"],
                "num_hidden_layers": text["layers"],
                "num_attention_heads": text["heads"],
                "max_position_embeddings": text["context_length"],
            },
            "vision_config": {
                "hidden_size": vision["width"],
                "intermediate_size": 4 * vision["width"],
                "num_hidden_layers": vision["layers"],
                "num_attention_heads": vision["width"] // vision["head_width"],
                "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
            },
        }
        visual = model.visual
        state = {
            "logit_scale": model.logit_scale,
            "text_projection.weight": model.text_projection.T,
            "visual_projection.weight": visual.proj.T,
            "text_model.embeddings.token_embedding.weight": model.token_embedding.weight,
            "text_model.embeddings.position_embedding.weight": model.positional_embedding,
            "text_model.embeddings.position_ids": torch.arange(text["context_length"])[None],
            "vision_model.embeddings.class_embedding": visual.class_embedding,
            "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
            "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        }
        pairs = [("vision_model.pre_layrnorm", visual.ln_pre), ("vision_model.post_layernorm", visual.ln_post)]
        pairs.append(("text_model.final_layer_norm", model.ln_final))
        for tower, transformer in (("text_model", model.transformer), ("vision_model", visual.transformer)):
            for index, block in enumerate(transformer.resblocks):
                layer = f"{tower}.encoder.layers.{index}"
                pairs += [(f"{layer}.layer_norm1", block.ln_1), (f"{layer}.layer_norm2", block.ln_2)]
                pairs += [(f"{layer}.mlp.fc1", block.mlp.c_fc), (f"{layer}.mlp.fc2", block.mlp.c_proj)]
                pairs.append((f"{layer}.self_attn.out_proj", block.attn.out_proj))
                for kind in ("weight", "bias"):
                    three = getattr(block.attn, f"in_proj_{kind}").chunk(3)
                    for name, part in zip("qkv", three, strict=True):
                        state[f"{layer}.self_attn.{name}_proj.{kind}"] = part
        for name, module in pairs:
            state[f"{name}.weight"], state[f"{name}.bias"] = module.weight, module.bias
        return settings, {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}

    return convert


@pytest.fixture
def shared_constant() -> onnx.ModelProto:
    """``y = x * c + c`` with one int8 constant for both, as `quantize_static` writes it; x is float32 (n, 2)."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("DequantizeLinear", ["c_levels", "c_scale", "c_zero"], ["c"], name="c_dequantized"),
        helper.make_node("Mul", ["x", "c"], ["product"]),
        helper.make_node("Add", ["product", "c"], ["y"]),
    ]
    constants = {"c_levels": np.array([127], np.int8), "c_scale": np.float32(0.01), "c_zero": np.int8(0)}
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
