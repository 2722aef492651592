"""What the exporters' tests share: small open_clip models in a folder, random towers, and a way to run a part."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lraee.bundle.preprocessing import Preprocessing
from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.tower import Activation, Attention, Block, FloatArray, LayerNorm, Linear, Mlp, Tower
from lraee_toolchain import cli

SMALL_CONFIG: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 24, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""Three blocks, 4 heads, 9 patches; the text tower keeps CLIP's vocabulary and is otherwise tiny."""


@pytest.fixture
def small_config() -> dict[str, Any]:
    """A model_cfg that a test may change."""
    return copy.deepcopy(SMALL_CONFIG)


@pytest.fixture
def build_model() -> Callable[[dict[str, Any]], Any]:
    """Build an open_clip CLIP in eval mode whose every parameter is random, LayerNorms and biases too."""

    def build(config: dict[str, Any]) -> Any:
        generator = torch.Generator().manual_seed(0)
        model = open_clip.CLIP(**copy.deepcopy(config)).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
        return model

    return build


@pytest.fixture
def write_model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write open_clip_config.json and, for a model, its weights."""

    def write(config: dict[str, Any], model: Any = None, preprocess: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "small-clip"
        folder.mkdir(exist_ok=True)
        content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
        (folder / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
        if model is not None:
            save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return write


@pytest.fixture
def register_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, Any]], None]:
    """Register an architecture under a name for one test; open_clip's registry is put back afterwards."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))

    def register(name: str, config: dict[str, Any]) -> None:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(path)

    return register


@pytest.fixture
def state(
    small_config: dict[str, Any],
    build_model: Callable[[dict[str, Any]], Any],
    register_architecture: Callable[[str, dict[str, Any]], None],
) -> dict[str, torch.Tensor]:
    """Weights of a small CLIP, whose architecture has the name small-vit."""
    register_architecture("small-vit", small_config)
    weights: dict[str, torch.Tensor] = build_model(small_config).state_dict()
    return weights


@pytest.fixture(scope="session")
def make_tower() -> Callable[..., Tower]:
    """Build a tower whose every array is random, LayerNorms and biases too, so that leaving one out is seen."""

    def build(
        *,
        width: int = 32,
        heads: int = 4,
        depth: int = 2,
        patch_size: int = 8,
        image_size: int = 24,
        embed_dim: int = 12,
        activation: Activation = "gelu",
        norm_pre: bool = True,
        patch_bias: bool = False,
        logit_bias: float | None = None,
        seed: int = 0,
    ) -> Tower:
        generator = np.random.default_rng(seed)

        def normal(*shape: int, scale: float) -> FloatArray:
            return (generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)

        def norm() -> LayerNorm:
            return LayerNorm(weight=1 + normal(width, scale=0.2), bias=normal(width, scale=0.2), epsilon=1e-5)

        def linear(size_in: int, size_out: int) -> Linear:
            return Linear(weight=normal(size_out, size_in, scale=size_in**-0.5), bias=normal(size_out, scale=0.2))

        def block() -> Block:
            query, key, value, out = (linear(width, width) for _ in range(4))
            return Block(
                norm_1=norm(),
                attention=Attention(query=query, key=key, value=value, out=out, heads=heads),
                norm_2=norm(),
                mlp=Mlp(fc1=linear(width, 4 * width), fc2=linear(4 * width, width)),
            )

        patch_area = 3 * patch_size**2
        return Tower(
            model_id="small",
            weights="random",
            architecture="small",
            activation=activation,
            patch_kernel=normal(width, 3, patch_size, patch_size, scale=patch_area**-0.5),
            patch_bias=normal(width, scale=0.3) if patch_bias else None,
            class_embedding=normal(width, scale=0.5),
            positions=normal((image_size // patch_size) ** 2 + 1, width, scale=0.5),
            norm_pre=norm() if norm_pre else None,
            blocks=tuple(block() for _ in range(depth)),
            norm_post=norm(),
            projection=normal(width, embed_dim, scale=width**-0.5),
            pooling="cls",
            preprocessing=Preprocessing(
                image_size=image_size,
                resize_mode="shortest",
                interpolation="bicubic",
                mean=(0.48145466, 0.4578275, 0.40821073),
                std=(0.26862954, 0.26130258, 0.27577711),
            ),
            logit_scale=20.0,
            logit_bias=logit_bias,
        )

    return build


@pytest.fixture
def run_part(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Save a part as an export does and run it with ONNX Runtime; gives every output by name."""

    def run(part: tuple[GraphBuilder, WeightFile], **inputs: Any) -> dict[str, Any]:
        graph, file = part
        file.save(tmp_path)
        session = make_session(graph.save(tmp_path), SessionSettings(threads=1))
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


@pytest.fixture(scope="session")
def labels_input() -> Callable[..., dict[str, Any]]:
    """Make the two label inputs of exits and tail: unit columns and a logit scale."""

    def make(embed_dim: int = 12, count: int = 5, scale: float = 20.0) -> dict[str, Any]:
        matrix = np.random.default_rng(7).standard_normal((embed_dim, count)).astype(np.float32)
        return {"label_matrix": matrix / np.linalg.norm(matrix, axis=0), "logit_scale": np.array(scale, np.float32)}

    return make


@pytest.fixture
def refusal_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `lraee-export` in this process and give the one line with which it refuses.

    The line has no control characters, names no way to run code from a file, and is short; nothing is written.
    """

    def run(*arguments: object) -> str:
        out = tmp_path / "out" / "never.lraee"
        monkeypatch.setattr(sys, "argv", ["lraee-export", *map(str, arguments), "-o", str(out)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        printed = capsys.readouterr()
        loading, line = printed.err.rstrip("\n").split("\n")
        assert (exit_info.value.code, printed.out, loading) == (1, "", "load the model")
        assert line.startswith("lraee-export: ")
        assert line.isprintable(), ascii(line)
        assert "weights_only" not in line
        assert len(line.replace(str(tmp_path), "FOLDER")) <= 450, line
        assert not list(out.parent.glob("never*"))
        return line.removeprefix("lraee-export: ")

    return run
