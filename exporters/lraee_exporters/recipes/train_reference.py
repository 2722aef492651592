"""Train the reference CLIP from scratch on Fashion-MNIST.

Source:   images and labels of Xiao, Rasul and Vollgraf, *Fashion-MNIST*, arXiv 1708.07747 (MIT); the four idx files lie
          in DATA (Debian package dataset-fashion-mnist, or torchvision.datasets.FashionMNIST). Token dropping as in
          Li et al., *FLIP*, arXiv 2212.00794.
Cost:     50 minutes on 2 CPU cores by default; the shipped weights took 42 minutes (23.4 epochs, torch 2.14.1).
Expected: about 90 % top-1 on the pool and on the test images; as recorded for the shipped weights, 90.27 and 90.58 %.
Command:  python -m lraee_exporters.recipes.train_reference DATA OUT [--minutes 50]

The image tower is a plain open_clip ViT with 12 pre-LN blocks and 7 x 7 patches, the token layout of ViT-B/32 at 224 px
(49 patches and [CLS]). The trunk sees 50,000 of the 60,000 training images; the other 10,000 (the last 1,000 of each
class in file order) are the pool for exit heads, gates and calibration, since a gate trained on images that the trunk
has seen would be over-confident.

The schedule follows the clock, so a faster machine trains more epochs in the same minutes and ends at other weights.
"""

import argparse
import copy
import gzip
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import PatchDropout
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from lraee_exporters.reference_labels import NAMES, PARTITIONS, SYNONYMS, TEMPLATES

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 28, "layers": 12, "width": 128, "head_width": 32, "patch_size": 4},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
"""open_clip's `model_cfg` of the reference."""

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD

Images = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Holds the settings of one training run."""

    data: Path
    """Folder with the four gzipped idx files."""
    out: Path
    """Folder for the configuration and the weights."""
    minutes: float
    """Wall-clock time of the training."""
    seed: int
    """Seed of weights, order and augmentation."""
    batch: int = 128
    """Images in each step."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate: 500 steps of warm-up, then a cosine over the minutes."""


def read_idx(path: Path) -> Images:
    """Read one gzipped idx file of unsigned bytes into uint8 (items,) or (items, rows, columns)."""
    raw = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes.astype(int)).copy()


def read_split(data: Path, split: str) -> tuple[Images, Classes]:
    """Read images uint8 (items, 28, 28) and classes int64 (items,) of `train` or `t10k`."""
    labels = read_idx(data / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return read_idx(data / f"{split}-images-idx3-ubyte.gz"), labels


def split_pool(labels: Classes, per_class: int = 1000) -> tuple[Classes, Classes]:
    """Indices of the trunk's images and of the pool (the last `per_class` images of each class)."""
    pool = np.concatenate([np.flatnonzero(labels == number)[-per_class:] for number in range(10)])
    return np.setdiff1d(np.arange(len(labels)), pool), np.sort(pool)


def to_float(images: Images) -> torch.Tensor:
    """Convert (batch, 28, 28) uint8 to (batch, 3, 28, 28) float32 in 0..1."""
    return torch.from_numpy(images).unsqueeze(1).float().div(255).repeat(1, 3, 1, 1)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Apply CLIP's mean and standard deviation; shape (batch, 3, 28, 28) stays."""
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def augment(images: torch.Tensor) -> torch.Tensor:
    """Augment by shift, scale, aspect, small rotation, mirror and gain; (batch, 3, 28, 28) in 0..1."""
    count = images.shape[0]
    scale = torch.empty(count).uniform_(0.85, 1.15)
    aspect = torch.empty(count).uniform_(0.92, 1.08)
    angle = torch.empty(count).uniform_(-0.15, 0.15)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    shift_x, shift_y = torch.empty(count).uniform_(-0.12, 0.12), torch.empty(count).uniform_(-0.12, 0.12)
    first_row = torch.stack([scale * aspect * cos * mirror, -scale * sin, shift_x], 1)
    second_row = torch.stack([scale * sin * mirror, scale / aspect * cos, shift_y], 1)
    grid = F.affine_grid(torch.stack([first_row, second_row], 1), list(images.shape), align_corners=False)
    gain = torch.empty(count, 1, 1, 1).uniform_(0.7, 1.3)
    return (F.grid_sample(images, grid, align_corners=False) * gain).clamp(0, 1)


def tokenize_captions() -> dict[str, torch.Tensor]:
    """Tokens int64 (16,) of every caption that the training can draw."""
    tokenizer = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    sets = [*SYNONYMS, *(words for partition in PARTITIONS for words, _ in partition)]
    captions = dict.fromkeys(template.format(word) for words in sets for word in words for template in TEMPLATES)
    return {caption: tokenizer([caption])[0] for caption in captions}


def draw_captions() -> tuple[list[str], torch.Tensor]:
    """Draw a caption for each class, then one for each group of a random partition, with each class's group (10,)."""
    partition = random.choice(PARTITIONS)
    words = [names[0] if random.random() < 0.6 else random.choice(names) for names in SYNONYMS]
    words += [random.choice(names) for names, _ in partition]
    group_of = [next(i for i, (_, members) in enumerate(partition) if number in members) for number in range(10)]
    return [random.choice(TEMPLATES).format(word) for word in words], torch.tensor(group_of)


def loss_of(model: Any, images: torch.Tensor, classes: torch.Tensor, token_of: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy over the ten classes plus 0.3 times that over the groups of a partition."""
    captions, group_of = draw_captions()
    with sdpa_kernel([SDPBackend.MATH]), torch.autocast("cpu", torch.bfloat16):  # flash's backward is slow on CPU
        image = F.normalize(model.visual(images), dim=-1)
        text = model.encode_text(torch.stack([token_of[caption] for caption in captions]), normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * image.float() @ text.float().T
    by_class = F.cross_entropy(logits[:, :10], classes, label_smoothing=0.05)
    return by_class + 0.3 * F.cross_entropy(logits[:, 10:], group_of[classes], label_smoothing=0.05)


@torch.no_grad()
def measure_accuracy(model: Any, images: Images, labels: Classes, token_of: dict[str, torch.Tensor]) -> float:
    """Measure zero-shot top-1 accuracy, 0..1, with the mean of the first five prompts."""
    rows = []
    for name in NAMES:
        tokens = torch.stack([token_of[template.format(name)] for template in TEMPLATES[:5]])
        rows.append(F.normalize(model.encode_text(tokens, normalize=True).mean(0), dim=0))
    right = 0
    for start in range(0, len(labels), 500):
        pixels = normalize(to_float(images[start : start + 500]))
        guesses = (model.encode_image(pixels, normalize=True) @ torch.stack(rows).T).argmax(1).numpy()
        right += int((guesses == labels[start : start + 500]).sum())
    return right / len(labels)


def build_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Make AdamW with weight decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def train(recipe: Recipe) -> Any:
    """Train and return the exponential moving average of the weights."""
    images, labels = read_split(recipe.data, "train")
    trunk, pool = split_pool(labels)
    held = np.random.default_rng(0).permutation(pool)[:2000]
    token_of = tokenize_captions()
    model: Any = open_clip.CLIP(**CONFIG, output_dict=False)
    model.visual.patch_dropout = PatchDropout(0.5)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = build_optimizer(model, recipe.learning_rate)
    generator = np.random.default_rng(recipe.seed)
    order, cursor, step, start, reported = generator.permutation(trunk), 0, 0, time.time(), 0.0
    while (progress := (time.time() - start) / (recipe.minutes * 60)) < 1:
        model.visual.patch_dropout.prob = 0.5 if progress < 0.65 else 0.0
        model.train()
        cosine = 0.5 * (1 + math.cos(math.pi * progress)) * 0.99 + 0.01
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1, (step + 1) / 500) * cosine
        if cursor + recipe.batch > len(order):
            order, cursor = generator.permutation(trunk), 0
        chosen = order[cursor : cursor + recipe.batch]
        cursor += recipe.batch
        loss = loss_of(model, normalize(augment(to_float(images[chosen]))), torch.from_numpy(labels[chosen]), token_of)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives backward no types
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        if time.time() - reported > 240:
            reported = time.time()
            accuracy = measure_accuracy(average, images[held], labels[held], token_of)
            epochs = step * recipe.batch / len(trunk)
            print(f"{progress:4.0%}, {epochs:.2f} epochs, loss {loss.item():.3f}, pool {accuracy:.4f}", flush=True)
    return average


def save(model: Any, out: Path) -> None:
    """Write fp16 weights and the configuration; token rows that no caption used are zeroed, so that they compress."""
    used = torch.unique(torch.cat(list(tokenize_captions().values())))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    unused = torch.ones(state["token_embedding.weight"].shape[0], dtype=torch.bool)
    unused[used] = False
    state["token_embedding.weight"][unused] = 0
    out.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in state.items()}, out / "open_clip_model.safetensors")
    settings = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (out / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train, save, and print the accuracy of the fp16 weights on pool and test images."""
    parser = argparse.ArgumentParser(description="Train the reference CLIP from scratch on Fashion-MNIST.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    recipe = Recipe(**vars(parser.parse_args()))
    random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(2)
    model = train(recipe)
    save(model, recipe.out)
    token_of, half = tokenize_captions(), copy.deepcopy(model)
    half.load_state_dict({key: value.half().float() for key, value in model.state_dict().items()})
    images, labels = read_split(recipe.data, "train")
    _, pool = split_pool(labels)
    print(f"pool {measure_accuracy(half, images[pool], labels[pool], token_of):.4f}")
    print(f"test {measure_accuracy(half, *read_split(recipe.data, 't10k'), token_of):.4f}")


if __name__ == "__main__":
    main()
