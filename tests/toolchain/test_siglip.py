"""A tower without a class token, trained with SigLIP's loss, goes all the way: exits, gates, INT8, sigmoids."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import lraee
from lraee.errors import BundleError, ExportError, PolicyError
from lraee.policies import Entropy, ExitAt, Full
from lraee_benchmarks.rows.baselines import check_peer
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.export import export
from lraee_toolchain.parts.build import build_float
from lraee_toolchain.parts.runner import Chain
from lraee_toolchain.quantization.dynamic import build_dynamic

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "timm_model_name": "vit_base_patch16_siglip_224",
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 32,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 500,
        "hf_tokenizer_name": "a-tokenizer/that-is-not-here",
        "width": 32,
        "heads": 2,
        "layers": 1,
        "pool_type": "last",
        "no_causal_mask": True,
        "proj_bias": True,
    },
}
SMALL = {"depth": 3, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """timm's SigLIP tower, made small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", functools.partial(timm.create_model, **SMALL))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration, and two labels."""
    made = tmp_path_factory.mktemp("siglip")
    (made / "labels.txt").write_text("cat\ndog\nowl\n")
    (made / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    return made


def config_of(folder: Path, name: str, **changes: Any) -> ExportConfig:
    """An export of random weights with one exit."""
    options: dict[str, Any] = {
        "model": str(folder),
        "pretrained": "random:3",
        "out": folder / f"{name}.lraee",
        "work": folder / "work",
        "labels": str(folder / "labels.txt"),
        "exits": (2,),
        "text": "none",
        "heads": HeadTraining(epochs=1),
    }
    return ExportConfig(**(options | changes))


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    """What torch computes."""
    return load_model(str(folder), pretrained="random:3")


@pytest.fixture(scope="module", params=["fp32", "naive", "strong"])
def bundle(request: pytest.FixtureRequest, folder: Path) -> lraee.Model:
    """At every precision of a bundle."""
    changes = {"precision": "fp32"} if request.param == "fp32" else {"quantizer": request.param}
    return lraee.load(export(config_of(folder, request.param, **changes)).bundle, threads=1)


@pytest.fixture
def pixels() -> Any:
    """Four images."""
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def expected(model: LoadedModel, pixels: Any) -> tuple[Any, Any]:
    """Unit embeddings by torch."""
    preprocessing = model.tower.preprocessing
    images = (pixels / 255 - preprocessing.mean) / preprocessing.std
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    return model.torch_model.encode_image(batch, normalize=True).numpy(), float(model.torch_model.logit_bias)


def test_full_depth_is_open_clips_embedding_and_sigmoid(bundle: lraee.Model, model: LoadedModel, pixels: Any) -> None:
    """FP32 within rounding, INT8 within 10 degrees; the sigmoid is that of the loss, with its scale and bias."""
    answers = bundle.run_pixels(pixels, policy=Full())
    embedding, logit_bias = expected(model, pixels)
    cosine = (answers.embedding * embedding).sum(axis=1)
    assert cosine.min() > (1 - 1e-6 if bundle.manifest.precision == "fp32" else np.cos(np.radians(10)))
    manifest = bundle.manifest
    assert (manifest.tower.pooling, manifest.tower.tokens, manifest.probabilities) == ("attention", 16, "sigmoid")
    assert manifest.logit_bias == pytest.approx(logit_bias)
    logits = manifest.logit_scale * answers.embedding @ bundle.bundle.label_embeddings.T + logit_bias
    np.testing.assert_allclose(answers.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-3)
    assert (answers.probabilities.sum(axis=1) < 0.5).all()


def test_an_exit_judges_the_softmax_and_answers_sigmoids(bundle: lraee.Model, pixels: Any) -> None:
    """Head and gate read the mean of all tokens, since none is a class token."""
    (exit,) = bundle.manifest.exits
    assert (exit.block, exit.reads) == (2, "patch_mean")
    tokens = bundle.parts.stem(pixels)
    for number in (1, 2):
        tokens = bundle.parts.block(number, tokens)
    verdict = bundle.parts.exit(2, tokens, np.arange(4))
    cosine = verdict.embedding @ bundle.bundle.label_embeddings.T
    logits = bundle.manifest.logit_scale * cosine
    shares = np.exp(logits / exit.temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(verdict.features[:, 0], shares.max(axis=1), rtol=1e-4)
    np.testing.assert_allclose(verdict.probabilities, 1 / (1 + np.exp(-logits - bundle.manifest.logit_bias)), rtol=1e-3)
    variance = ((tokens - tokens.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(verdict.features[:, 2], variance, rtol=1e-3)
    answers = bundle.run_pixels(pixels, policy=ExitAt(2))
    assert (answers.exit_block == 2).all()


def test_predictions_carry_the_sigmoid(bundle: lraee.Model, pixels: Any) -> None:
    """The score of a picture that shows none of the labels is small, whichever is best."""
    prediction = bundle.classify(pixels[0], policy=Full())
    assert 0 < prediction.score == prediction.top[0][1] < 0.5
    with pytest.raises(PolicyError, match="a sigmoid for each label"):
        bundle.classify(pixels[0], policy=Entropy(0.5))


def test_dynamic_int8_runs_the_pool(model: LoadedModel, pixels: Any, tmp_path: Path) -> None:
    """For comparison with other precisions; its chain answers with the softmax, from which exits learn."""
    stages = {}
    for name in ("float", "dynamic"):
        (tmp_path / name).mkdir()
    build_float(model.tower, tmp_path / "float")
    build_dynamic(tmp_path / "float", tmp_path / "dynamic")
    labels = np.eye(32, 3, dtype=np.float32)
    for name in ("float", "dynamic"):
        chain = Chain(tmp_path / name, model.tower.depth, labels, 10.0, sigmoid=True, threads=1)
        *_, tokens = chain.after_blocks(pixels)
        embedding, probabilities = chain.tail(tokens)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        stages[name] = embedding
    assert (stages["float"] * stages["dynamic"]).sum(axis=1).min() > np.cos(np.radians(10))


def test_the_torch_peers_are_refused(bundle: lraee.Model) -> None:
    """They rebuild open_clip's own ViT, which has no attention pool."""
    for name in ("torch", "torch-compiled"):
        with pytest.raises(BundleError, match=f"the {name} row rebuilds .* this tower has attention pooling and gelu"):
            check_peer(bundle.bundle, name)  # type: ignore[arg-type]  # both are baselines


def test_what_needs_a_class_token_is_refused(folder: Path) -> None:
    """Before any image is read, with the way out."""
    for changes in ({"reads": "cls"}, {"reads": "both"}):
        with pytest.raises(ExportError, match=r"needs a class token, which the tower of .* does not have"):
            export(config_of(folder, "refused", **changes))
    assert not (folder / "refused.lraee").exists()
