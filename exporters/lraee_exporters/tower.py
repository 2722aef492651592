"""Describes an image tower as plain float32 arrays, free of any framework.

Everything after loading (building ONNX, quantizing, widening, counting FLOPs) reads this description and never
torch, so that it can be checked with numpy alone and no library's module names leak into the graphs.

The function it describes is the pre-LN ViT of *Learning Transferable Visual Models From Natural Language
Supervision* (Radford et al., arXiv 2103.00020): patches and a class token, positions, an optional LayerNorm, `depth`
blocks `x += attention(norm_1(x)); x += mlp(norm_2(x))`, then the LayerNorm of the class token times a projection.
Or that of *Sigmoid Loss for Language Image Pre-Training* (SigLIP; Zhai et al., arXiv 2303.15343): without a class
token, and with a learned query that attends over all tokens at the end.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import TowerError

FloatArray: TypeAlias = npt.NDArray[np.float32]
Activation: TypeAlias = Literal["gelu", "quick_gelu", "gelu_tanh"]
Pooling: TypeAlias = Literal["cls", "attention"]


def _check(name: str, array: FloatArray, shape: tuple[int, ...]) -> None:
    """Refuse an array that is not float32, not of `shape`, or not finite."""
    if array.dtype != np.float32 or array.shape != shape:
        raise TowerError(
            f"{name}: met {array.dtype} {array.shape}, wanted float32 {shape}; convert or check the checkpoint."
        )
    if not np.isfinite(array).all():
        raise TowerError(f"{name}: the array holds NaN or infinity; the checkpoint is damaged or overflowed in fp16.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerNorm:
    """Computes `(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last axis."""

    weight: FloatArray
    """Gain, float32 (width,)."""
    bias: FloatArray
    """float32 (width,)."""
    epsilon: float
    """Added to the biased variance; 1e-5 in CLIP."""

    def __post_init__(self) -> None:
        """Check the shapes of weights and biases."""
        _check("LayerNorm.weight", self.weight, (self.weight.size,))
        _check("LayerNorm.bias", self.bias, self.weight.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """Computes `x @ weight.T + bias` over the last axis."""

    weight: FloatArray
    """float32 (out, in), torch's layout."""
    bias: FloatArray
    """float32 (out,)."""

    def __post_init__(self) -> None:
        """Check the shapes of weights and biases."""
        if self.weight.ndim != 2:
            raise TowerError(f"Linear.weight: met {self.weight.ndim} axes, wanted 2 (out, in).")
        _check("Linear.weight", self.weight, self.weight.shape)
        _check("Linear.bias", self.bias, self.weight.shape[:1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attention:
    """Computes `out(softmax(q @ k.T / sqrt(width / heads)) @ v)` per head; no mask."""

    query: Linear
    """(width, width); rows of one head are contiguous."""
    key: Linear
    """(width, width)."""
    value: Linear
    """(width, width)."""
    out: Linear
    """(width, width); its columns follow the heads."""
    heads: int
    """Number of heads; divides the width."""

    def __post_init__(self) -> None:
        """Check shapes and that the heads divide the width."""
        width = self.query.weight.shape[0]
        for name in ("query", "key", "value", "out"):
            _check(f"Attention.{name}.weight", getattr(self, name).weight, (width, width))
        if self.heads < 1 or width % self.heads:
            raise TowerError(f"Attention.heads: met {self.heads}, wanted a divisor of the width {width}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mlp:
    """Computes `fc2(activation(fc1(x)))`, the MLP of a block."""

    fc1: Linear
    """(mlp_width, width)."""
    fc2: Linear
    """(width, mlp_width)."""

    def __post_init__(self) -> None:
        """Check that the second layer undoes the first one's shape."""
        _check("Mlp.fc2.weight", self.fc2.weight, self.fc1.weight.shape[::-1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Holds one residual block: `x += attention(norm_1(x)); x += mlp(norm_2(x))`."""

    norm_1: LayerNorm
    """Before the attention, (width,)."""
    attention: Attention
    """Multi-head self-attention."""
    norm_2: LayerNorm
    """Before the MLP, (width,)."""
    mlp: Mlp
    """Two linear layers around the tower's activation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionPool:
    """Computes `x = out(one query's attention over all tokens); x + mlp(norm(x))`, the head of SigLIP's towers."""

    query: FloatArray
    """float32 (width,), the learned query after its own projection, since it is the same for every image."""
    key: Linear
    """(width, width); rows of one head are contiguous."""
    value: Linear
    """(width, width)."""
    out: Linear
    """(width, width)."""
    norm: LayerNorm
    """Before the MLP, (width,)."""
    mlp: Mlp
    """Two linear layers around the tower's activation."""
    heads: int
    """Number of heads; divides the width."""

    def __post_init__(self) -> None:
        """Check shapes and that the heads divide the width."""
        width = self.query.size
        _check("AttentionPool.query", self.query, (width,))
        for name in ("key", "value", "out"):
            _check(f"AttentionPool.{name}.weight", getattr(self, name).weight, (width, width))
        _check("AttentionPool.norm.weight", self.norm.weight, (width,))
        _check("AttentionPool.mlp.fc2.weight", self.mlp.fc2.weight, (width, self.mlp.fc1.weight.shape[0]))
        if self.heads < 1 or width % self.heads:
            raise TowerError(f"AttentionPool.heads: met {self.heads}, wanted a divisor of the width {width}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tower:
    """Holds a CLIP image tower: pixels to an embedding that is not yet of unit length."""

    model_id: str
    """What the user asked for, e.g. `ViT-B-32` or `reference`; of a folder its name, so that no bundle holds a path."""
    weights: str
    """Where they came from: `reference`, `random`, a pretrained tag such as `laion2b_s34b_b79k`, or `file:NAME`."""
    architecture: str
    """open_clip's name of the architecture, or the folder's name for a local configuration."""
    activation: Activation
    """`gelu` (exact, with erf), `quick_gelu` (`x * sigmoid(1.702 * x)`) or `gelu_tanh` (GELU's approximation)."""
    patch_kernel: FloatArray
    """float32 (width, 3, patch_size, patch_size); applied with stride patch_size to normalised RGB."""
    patch_bias: FloatArray | None
    """float32 (width,), or None as in CLIP."""
    class_embedding: FloatArray | None
    """float32 (width,); token 0 before the positions are added. None when all tokens are patches."""
    positions: FloatArray
    """float32 (tokens, width); row 0 belongs to the class token if there is one, the rest run over the patch grid row
    by row."""
    norm_pre: LayerNorm | None
    """After the positions and before block 1, or None."""
    blocks: tuple[Block, ...]
    """The residual blocks in order; block 1 of the documentation is `blocks[0]`."""
    norm_post: LayerNorm
    """On the class token, or with `attention` on all tokens, after the last block."""
    projection: FloatArray | None
    """float32 (width, embed_dim), applied to what was pooled; None when that is the embedding."""
    pooling: Pooling
    """What becomes the embedding: the class token (`cls`), or what `attention_pool` makes of all tokens."""
    preprocessing: Preprocessing
    """How an image becomes the tower's input."""
    logit_scale: float
    """Factor on the cosine before the softmax; already exponentiated (100 for most CLIPs)."""
    logit_bias: float | None
    """Added to the scaled cosine of a tower that was trained with SigLIP's sigmoid loss, else None."""
    attention_pool: AttentionPool | None = None
    """With the pooling `attention`, else None."""
    projection_bias: FloatArray | None = None
    """float32 (embed_dim,), added after the projection, or None as in CLIP."""

    def __post_init__(self) -> None:
        """Check that all shapes agree with each other and with the image size."""
        if self.patch_kernel.ndim != 4 or not self.blocks:
            raise TowerError(
                f"Tower: met a patch kernel of {self.patch_kernel.ndim} axes and {len(self.blocks)} blocks, "
                "wanted 4 axes (width, 3, patch, patch) and at least one block."
            )
        width, patch = self.width, self.patch_size
        if self.image_size % patch:
            raise TowerError(f"Tower: the image size {self.image_size} is not a multiple of the patch size {patch}.")
        _check("Tower.patch_kernel", self.patch_kernel, (width, 3, patch, patch))
        if self.patch_bias is not None:
            _check("Tower.patch_bias", self.patch_bias, (width,))
        if self.class_embedding is not None:
            _check("Tower.class_embedding", self.class_embedding, (width,))
        _check("Tower.positions", self.positions, (self.grid**2 + self.has_class_token, width))
        if self.projection is not None:
            _check("Tower.projection", self.projection, (width, self.embed_dim))
        if self.projection_bias is not None:
            _check("Tower.projection_bias", self.projection_bias, (self.embed_dim,))
        self._check_pooling()
        for number, block in enumerate(self.blocks, start=1):
            where, mlp_width = f"Tower.blocks, block {number}", self.mlp_width
            _check(f"{where}, norm_1.weight", block.norm_1.weight, (width,))
            _check(f"{where}, attention.query.weight", block.attention.query.weight, (width, width))
            _check(f"{where}, norm_2.weight", block.norm_2.weight, (width,))
            _check(f"{where}, mlp.fc1.weight", block.mlp.fc1.weight, (mlp_width, width))
            if block.attention.heads != self.heads:
                raise TowerError(f"{where}: met {block.attention.heads} heads, wanted {self.heads} as in block 1.")
        for norm in (self.norm_pre, self.norm_post):
            if norm is not None:
                _check("Tower.norm_pre/norm_post.weight", norm.weight, (width,))

    def _check_pooling(self) -> None:
        """Check that the tower has what its pooling needs."""
        if (self.pooling == "cls") != self.has_class_token or (self.pooling == "attention") != bool(
            self.attention_pool
        ):
            raise TowerError(
                f"Tower: met the pooling {self.pooling} {'with' if self.has_class_token else 'without'} a class token "
                f"and {'with' if self.attention_pool else 'without'} an attention pool; wanted `cls` with the first "
                "alone or `attention` with the second alone."
            )
        if self.attention_pool is not None:
            _check("Tower.attention_pool.query", self.attention_pool.query, (self.width,))
        if self.projection is None and self.projection_bias is not None:
            raise TowerError("Tower: met a projection bias without a projection.")

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is the class token and not a patch."""
        return self.class_embedding is not None

    @property
    def width(self) -> int:
        """The channels of a token."""
        return int(self.patch_kernel.shape[0])

    @property
    def heads(self) -> int:
        """The number of attention heads of each block."""
        return self.blocks[0].attention.heads

    @property
    def tokens(self) -> int:
        """The number of tokens: patches, and the class token if there is one."""
        return int(self.positions.shape[0])

    @property
    def patches(self) -> int:
        """The number of patch tokens, `grid ** 2`."""
        return self.grid**2

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.patch_kernel.shape[-1])

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.preprocessing.image_size

    @property
    def embed_dim(self) -> int:
        """The length of the embedding."""
        return self.width if self.projection is None else int(self.projection.shape[-1])

    @property
    def mlp_width(self) -> int:
        """Channels between the two layers of the MLP."""
        return int(self.blocks[0].mlp.fc1.weight.shape[0])

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of every array and setting: equal exactly for equal towers.

        Covers names too (`model_id`, `weights`), since they end up in the bundle.
        """
        digest = hashlib.sha256()
        for path, value in _leaves("tower", self):
            if isinstance(value, np.ndarray):
                digest.update(f"{path}:{value.dtype.str}:{value.shape}\n".encode())
                digest.update(np.ascontiguousarray(value).data)
            else:
                digest.update(f"{path}={json.dumps(value)}\n".encode())
        return digest.hexdigest()


def _leaves(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Walk dataclasses and tuples of them in field order, yielding (path, array or plain value).

    A field that was added later and is not used is skipped, so that the fingerprints of older bundles hold.
    """
    if is_dataclass(node):
        for field in fields(node):
            if field.default is None and getattr(node, field.name) is None:
                continue
            yield from _leaves(f"{path}.{field.name}", getattr(node, field.name))
    elif isinstance(node, tuple) and node and is_dataclass(node[0]):
        for index, item in enumerate(node, start=1):
            yield from _leaves(f"{path}[{index}]", item)
    else:
        yield path, node
