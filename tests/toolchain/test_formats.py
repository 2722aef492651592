"""Every format of weights that is read can be exported, and its bundle gives the embeddings of the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import lraee
from lraee_exporters.loading.open_clip_models import load_model
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.export import export

CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model() -> Any:
    """A small open_clip model, every parameter random."""
    generator = torch.Generator().manual_seed(0)
    made = open_clip.CLIP(**CONFIG).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return made


@pytest.fixture
def write(
    model: Any, tmp_path: Path, save_torchscript: Callable[..., None], to_hugging_face: Callable[..., Any]
) -> Callable[[str], tuple[str, str | None]]:
    """Write the model in one format; gives what to call MODEL and --pretrained."""

    def make(kind: str) -> tuple[str, str | None]:
        folder = tmp_path / "small"
        folder.mkdir()
        state = model.state_dict()
        if kind.startswith("transformers"):
            config, tensors = to_hugging_face(CONFIG, model)
            (folder / "config.json").write_text(json.dumps(config))
            if kind.endswith("safetensors"):
                save_file(tensors, folder / "model.safetensors")
            else:
                torch.save(tensors, folder / "pytorch_model.bin")
            return str(folder), None
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
        if kind == "open_clip folder":
            torch.save(state, folder / "open_clip_pytorch_model.bin")
            return str(folder), None
        path = tmp_path / f"weights.{kind.rpartition('.')[2]}"
        if kind == "TorchScript.pt":
            save_torchscript({name: tensor.half() for name, tensor in state.items()}, path)
        elif kind == ".safetensors":
            save_file(state, path)
        elif kind == "training.pt":
            torch.save({"epoch": 1, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
        else:
            torch.save(state, path)
        return str(folder), str(path)

    return make


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages of all formats: they depend on the weights, so a format that is read wrong finds none of another's."""
    return tmp_path_factory.mktemp("formats")


FORMATS = (".safetensors", ".pt", ".bin", ".pth", "training.pt", "TorchScript.pt", "open_clip folder")
FORMATS += ("transformers safetensors", "transformers bin")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # deprecated, but it writes what OpenAI wrote
@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_exports_and_runs(
    kind: str, write: Callable[..., Any], model: Any, work: Path, tmp_path: Path
) -> None:
    """Tolerance: float32, and for the archive the rounding of its fp16 weights."""
    name, pretrained = write(kind)
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    config = ExportConfig(
        model=name,
        pretrained=pretrained,
        out=tmp_path / "x.lraee",
        labels=str(labels),
        exits="none",
        precision="fp32",
        work=work,
    )
    bundle = lraee.load(export(config).bundle, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    answers = bundle.run_pixels(pixels)
    preprocessing = bundle.manifest.preprocessing
    images = (pixels / 255 - preprocessing.mean) / preprocessing.std
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    expected = torch.nn.functional.normalize(model.encode_image(batch), dim=-1).numpy()
    np.testing.assert_allclose(answers.embedding, expected, atol=2e-3 if kind == "TorchScript.pt" else 1e-5)
    text = model.encode_text(load_model(name, pretrained=pretrained).tokenizer(["a photo of a cat."]), normalize=True)
    np.testing.assert_allclose(bundle.bundle.label_embeddings[0], text[0].numpy(), atol=2e-3)
