"""Google's own SigLIP weights, `.npz` files of big_vision, become the model whose arrays they hold."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from lraee.errors import TowerError
from lraee_exporters.loading.open_clip_models import load_model

Write = Callable[..., Path]

SIGLIP: dict[str, Any] = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}
    | {"image_size": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    | {"pool_type": "last", "no_causal_mask": True, "proj_bias": True},
}


def save_big_vision(model: Any, path: Path) -> None:
    """Write a small SigLIP as Google's big_vision does: JAX's layouts, one array for all blocks of a tower."""
    arrays: dict[str, Any] = {"params/b": model.logit_bias.reshape(1), "params/t": model.logit_scale.reshape(1)}

    def attention(where: str, joined: Any, out: Any, heads: int, query: Any = None) -> dict[str, Any]:
        weights = list(joined.weight.chunk(3 if query is None else 2))
        biases = list(joined.bias.chunk(3 if query is None else 2))
        if query is not None:
            weights, biases = [query.weight, *weights], [query.bias, *biases]
        found = {}
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            found[f"{where}/{name}/kernel"] = weight.T.reshape(weight.shape[1], heads, -1)
            found[f"{where}/{name}/bias"] = bias.reshape(heads, -1)
        found[f"{where}/out/kernel"] = out.weight.T.reshape(heads, -1, out.weight.shape[0])
        return found | {f"{where}/out/bias": out.bias}

    def norm(where: str, module: Any) -> dict[str, Any]:
        return {f"{where}/scale": module.weight, f"{where}/bias": module.bias}

    def dense(where: str, *modules: Any) -> dict[str, Any]:
        pairs = [(f"{where}/MlpBlock_0/Dense_{index}", module) for index, module in enumerate(modules)]
        return {
            f"{name}/{kind}": value for name, m in pairs for kind, value in (("kernel", m.weight.T), ("bias", m.bias))
        }

    def stack(where: str, blocks: list[dict[str, Any]]) -> None:
        for name in blocks[0]:
            arrays[f"{where}/encoderblock/{name}"] = torch.stack([block[name] for block in blocks])

    trunk, text = model.visual.trunk, model.text
    mha = "MultiHeadDotProductAttention_0"
    stack(
        "params/img/Transformer",
        [
            attention(mha, block.attn.qkv, block.attn.proj, block.attn.num_heads)
            | norm("LayerNorm_0", block.norm1)
            | norm("LayerNorm_1", block.norm2)
            | dense(".", block.mlp.fc1, block.mlp.fc2)
            for block in trunk.blocks
        ],
    )
    for block in text.transformer.resblocks:
        block.attn.weight, block.attn.bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    stack(
        "params/txt/Encoder_0",
        [
            attention(mha, block.attn, block.attn.out_proj, 2)
            | norm("LayerNorm_0", block.ln_1)
            | norm("LayerNorm_1", block.ln_2)
            | dense(".", block.mlp.c_fc, block.mlp.c_proj)
            for block in text.transformer.resblocks
        ],
    )
    pool, head = trunk.attn_pool, "params/img/MAPHead_0"
    arrays |= attention(f"{head}/{mha}", pool.kv, pool.proj, pool.num_heads, query=pool.q)
    arrays |= norm(f"{head}/LayerNorm_0", pool.norm) | dense(head, pool.mlp.fc1, pool.mlp.fc2)
    arrays |= norm("params/img/Transformer/encoder_norm", trunk.norm)
    arrays |= norm("params/txt/Encoder_0/encoder_norm", text.ln_final)
    arrays |= {
        f"{head}/probe": pool.latent,
        "params/img/embedding/kernel": trunk.patch_embed.proj.weight.permute(2, 3, 1, 0),
        "params/img/embedding/bias": trunk.patch_embed.proj.bias,
        "params/img/pos_embedding": trunk.pos_embed,
        "params/txt/Embed_0/embedding": text.token_embedding.weight,
        "params/txt/pos_embedding": text.positional_embedding[None],
        "params/txt/head/kernel": text.text_projection.weight.T,
        "params/txt/head/bias": text.text_projection.bias,
    }
    named = {name.replace("/./", "/"): value.detach().numpy() for name, value in arrays.items()}
    np.savez(path, **named)


def test_googles_siglip_weights_are_read_without_pickles(
    tmp_path: Path, write_model_folder: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every array arrives where it belongs; an object array, another grid and another architecture are refused."""
    small = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, **small))
    folder = str(write_model_folder(SIGLIP))
    random = load_model(folder, pretrained="random:5")
    path = tmp_path / "siglip.npz"
    save_big_vision(random.torch_model, path)
    loaded = load_model(folder, pretrained=str(path))
    expected = random.torch_model.state_dict()
    for name, value in loaded.torch_model.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert replace(loaded.tower, weights="random").fingerprint() == random.tower.fingerprint()
    assert (loaded.tower.pooling, loaded.tower.has_class_token) == ("attention", False)
    arrays = dict(np.load(path))
    np.savez(tmp_path / "grid.npz", **{**arrays, "params/img/pos_embedding": np.zeros((1, 4, 32), np.float32)})
    np.savez(tmp_path / "harmful.npz", **{**arrays, "params/img/pos_embedding": np.array([Path("an object")])})
    (tmp_path / "noise.npz").write_bytes(b"no archive")
    del arrays["params/t"]
    np.savez(tmp_path / "missing.npz", **arrays)
    for name in ("grid", "harmful", "noise", "missing"):
        with pytest.raises(TowerError, match=rf"{name}\.npz"):
            load_model(folder, pretrained=str(tmp_path / f"{name}.npz"))
