"""Parity with torch is proved from the image file on, and every usual mistake of an exporter breaks the proof.

Two models: the shipped `reference` (12 trained blocks at 28 px) and two random blocks of ViT-B/32's shape at 224 px.
Both see the shipped photos, which are in colour and of odd sizes, so that channels and crops matter.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ParityError
from lraee.images.preprocess import pixels as preprocess
from lraee.ort.sessions import SessionSettings, make_session
from lraee_calibration_data import photos
from lraee_exporters import parity
from lraee_exporters.graphs.block import BlockForm, build_block, float_block
from lraee_exporters.graphs.stem import build_stem
from lraee_exporters.graphs.tail import build_tail, float_tail
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.parity import MIN_IMAGES, check_parity, compare_stage, torch_stages
from lraee_exporters.tower import Block, LayerNorm, Linear, Tower
from lraee_exporters.widen import to_open_clip

Pixels = npt.NDArray[np.uint8]
Reader = Callable[[Image.Image], Pixels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model under test, as torch runs it."""

    tower: Tower
    torch_model: Any
    transform: Any


@pytest.fixture(scope="module", params=["reference", "vit-b-32"])
def subject(request: pytest.FixtureRequest, make_tower: Callable[..., Tower]) -> Subject:
    """The shipped model, and two random blocks of full size."""
    reference = load_model("reference")
    if request.param == "reference":
        return Subject(tower=reference.tower, torch_model=reference.torch_model, transform=reference.transform)
    embed_dim = reference.tower.embed_dim
    tower = make_tower(width=768, heads=12, depth=2, patch_size=32, image_size=224, embed_dim=4 * embed_dim)
    settings = PreprocessCfg(size=224, mean=tower.preprocessing.mean, std=tower.preprocessing.std)
    transform = image_transform_v2(settings, is_train=False)
    return Subject(tower=tower, torch_model=to_open_clip(tower, reference.torch_model), transform=transform)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Shipped photos, made small so that resizing them is quick; most are not square."""
    chosen = []
    for path in sorted(photos().glob("*.jpg"))[::8][:12]:
        with Image.open(path) as image:
            chosen.append(image.convert("RGB").reduce(max(1, min(image.size) // 250)))
    # at this ratio the crop's offset ends in one half for both models, and rounds up
    chosen[::2] = [ImageOps.fit(image, (352, 250)) for image in chosen[::2]]
    assert sum(image.width != image.height for image in chosen) >= 8
    return chosen


@pytest.fixture(scope="module", autouse=True)
def _torch_once() -> Iterator[None]:
    """Torch answers on one thread and the same images once, since only the exported side changes."""
    answers: dict[tuple[int, bytes], list[npt.NDArray[np.float32]]] = {}

    def remembered(model: Any, batch: torch.Tensor) -> list[npt.NDArray[np.float32]]:
        key = (id(model), batch.numpy().tobytes())
        if key not in answers:
            answers[key] = torch_stages(model, batch)
        return answers[key]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "torch_stages", remembered)
        yield
    torch.set_num_threads(threads)


def stages_of(tower: Tower, folder: Path) -> Callable[[Pixels], list[Any]]:
    """Build the float parts of a tower and run them stage by stage."""
    parts = [build_stem(tower, quantized=False)]
    for number, block in enumerate(tower.blocks, start=1):
        parts.append(
            build_block(float_block(block, tower.activation), BlockForm(token_count=tower.tokens), number=number)
        )
    parts.append(build_tail(float_tail(tower), width=tower.width, embed_dim=tower.embed_dim, token_count=tower.tokens))
    sessions = []
    for graph, file in parts:
        file.save(folder)
        sessions.append(make_session(graph.save(folder), SessionSettings(threads=1)))
    labels = {"label_matrix": np.eye(tower.embed_dim, 2, dtype=np.float32), "logit_scale": np.array(1, np.float32)}

    def run(pixels: Pixels) -> list[Any]:
        stages = sessions[0].run(["tokens_out"], {"pixels": pixels})
        for session in sessions[1:-1]:
            stages += session.run(["tokens_out"], {"tokens": stages[-1]})
        return stages + sessions[-1].run(["embedding"], {"tokens": stages[-1], **labels})

    return run


def reader(preprocessing: Preprocessing) -> Reader:
    """Give this project's own preprocessing."""
    return lambda image: preprocess(image, preprocessing)


def check(
    subject: Subject, images: list[Image.Image], folder: Path, *, tower: Tower | None = None, read: Reader | None = None
) -> Any:
    """Compare an exported tower, perhaps a wrong one, and a way to read images, perhaps wrong, with torch."""
    exported = stages_of(tower or subject.tower, folder)
    read = read or reader(subject.tower.preprocessing)
    return check_parity(exported, subject.torch_model, subject.transform, read, images)


def test_a_right_export_agrees_at_every_stage(subject: Subject, images: list[Image.Image], tmp_path: Path) -> None:
    """With a margin of five to the bound on errors, so that another CPU passes too."""
    stages = check(subject, images, tmp_path)
    names = ["stem", *(f"block_{n:02d}" for n in range(1, subject.tower.depth + 1)), "embedding"]
    assert [stage.name for stage in stages] == names
    assert min(stage.cosine for stage in stages) > 0.999999
    assert max(stage.error for stage in stages) < 2e-4


def swap_channels(read: Reader) -> Reader:
    """Convert RGB to BGR."""
    return lambda image: np.ascontiguousarray(read(image)[..., ::-1])


def shift_crop(read: Reader) -> Reader:
    """The crop one pixel to the right of where it belongs; the last column is repeated."""
    return lambda image: np.ascontiguousarray(np.concatenate([read(image)[:, 1:], read(image)[:, -1:]], axis=1))


def floor_crop(preprocessing: Preprocessing) -> Reader:
    """A crop at ``(size - crop) // 2`` instead of ``round((size - crop) / 2)``."""
    size = preprocessing.image_size

    def read(image: Image.Image) -> Pixels:
        width, height = (
            (size, int(size * image.height / image.width))
            if image.width <= image.height
            else (int(size * image.width / image.height), size)
        )
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        top, left = (height - size) // 2, (width - size) // 2
        return np.asarray(resized.crop((left, top, left + size, top + size)))

    return read


def bilinear(preprocessing: Preprocessing) -> Reader:
    """Another filter than the one the model was trained with."""
    return reader(replace(preprocessing, interpolation="bilinear"))


READERS: dict[str, Callable[[Preprocessing], Reader]] = {
    "channels swapped": lambda preprocessing: swap_channels(reader(preprocessing)),
    "crop a pixel off": lambda preprocessing: shift_crop(reader(preprocessing)),
    "crop rounded down": floor_crop,
    "another interpolation": bilinear,
}


@pytest.mark.parametrize("mistake", READERS)
def test_images_read_wrongly_break_parity(
    mistake: str, subject: Subject, images: list[Image.Image], tmp_path: Path
) -> None:
    """Already at the stem, where the message points to."""
    with pytest.raises(ParityError, match="the exported stem differs from torch"):
        check(subject, images, tmp_path, read=READERS[mistake](subject.tower.preprocessing))


def change_block(tower: Tower, number: int, change: Callable[[Block], Block]) -> Tower:
    """The tower with one block (from 1) changed."""
    blocks = list(tower.blocks)
    blocks[number - 1] = change(blocks[number - 1])
    return replace(tower, blocks=tuple(blocks))


def swap_query_and_key(block: Block) -> Block:
    """What a wrong order in the packed projection would do."""
    attention = block.attention
    return replace(block, attention=replace(attention, query=attention.key, key=attention.query))


TOWERS: dict[str, tuple[str, Callable[[Tower], Tower]]] = {
    "wrong activation": ("block_01", lambda tower: replace(tower, activation="quick_gelu")),
    "no positions": ("stem", lambda tower: replace(tower, positions=np.zeros_like(tower.positions))),
    "no class token": ("stem", lambda tower: replace(tower, class_embedding=np.zeros_like(tower.class_embedding))),
    "positions off by a row": ("stem", lambda tower: replace(tower, positions=np.roll(tower.positions, 1, axis=0))),
    "query and key swapped": ("block_02", lambda tower: change_block(tower, 2, swap_query_and_key)),
    "blocks swapped": ("block_01", lambda tower: replace(tower, blocks=(*tower.blocks[1::-1], *tower.blocks[2:]))),
    "one head too few": (
        "block_01",
        lambda tower: replace(
            tower,
            blocks=tuple(
                replace(b, attention=replace(b.attention, heads=b.attention.heads // 2)) for b in tower.blocks
            ),
        ),
    ),
    "another epsilon": (
        "block_01",
        lambda tower: change_block(tower, 1, lambda b: replace(b, norm_1=replace(b.norm_1, epsilon=1e-1))),
    ),
    "no norm before block 1": ("stem", lambda tower: replace(tower, norm_pre=None)),
    "projection transposed": (
        "embedding",
        lambda tower: replace(tower, projection=np.ascontiguousarray(tower.projection[::-1])),
    ),
}


@pytest.mark.parametrize("mistake", TOWERS)
def test_weights_taken_over_wrongly_break_parity_at_their_stage(
    mistake: str, subject: Subject, images: list[Image.Image], tmp_path: Path
) -> None:
    """The first stage that differs is named."""
    stage, change = TOWERS[mistake]
    with pytest.raises(ParityError, match=f"the exported {stage} differs from torch"):
        check(subject, images, tmp_path, tower=change(subject.tower))


def without_bias(layer: Any) -> Any:
    """A linear layer or LayerNorm without its bias."""
    assert isinstance(layer, Linear | LayerNorm)
    return replace(layer, bias=np.zeros_like(layer.bias))


@pytest.mark.parametrize("name", ["norm_1", "query", "value", "out", "norm_2", "fc1", "fc2"])
def test_a_dropped_bias_breaks_parity(name: str, subject: Subject, images: list[Image.Image], tmp_path: Path) -> None:
    """Of every layer but the keys: ``q . (k + b)`` adds the same to a whole row of the softmax, which ignores it."""

    def change(block: Block) -> Block:
        if name in ("norm_1", "norm_2"):
            return replace(block, **{name: without_bias(getattr(block, name))})
        if name in ("fc1", "fc2"):
            return replace(block, mlp=replace(block.mlp, **{name: without_bias(getattr(block.mlp, name))}))
        attention = replace(block.attention, **{name: without_bias(getattr(block.attention, name))})
        return replace(block, attention=attention)

    with pytest.raises(ParityError, match="the exported block_02 differs from torch"):
        check(subject, images, tmp_path, tower=change_block(subject.tower, 2, change))


def test_the_measure_sees_through_what_all_images_share() -> None:
    """Embeddings of one model are nearly alike; a plain cosine would call a swapped pair the same."""
    generator = np.random.default_rng(0)
    shared = 100 * generator.normal(size=(1, 50))
    truth = (shared + generator.normal(size=(10, 50))).astype(np.float32)
    right = compare_stage("x", truth + np.float32(1e-5), truth)
    assert right.holds
    swapped = compare_stage("x", truth[::-1].copy(), truth)
    plain = (truth * truth[::-1]).sum(1) / np.linalg.norm(truth, axis=1) / np.linalg.norm(truth[::-1], axis=1)
    assert plain.min() > 0.999
    assert swapped.cosine < 0.9
    assert not swapped.holds


def test_a_stage_that_is_not_finite_or_never_varies_does_not_hold() -> None:
    """NaN compares as neither larger nor smaller, and images that look alike prove nothing."""
    truth = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    broken = truth.copy()
    broken[3, 2] = np.nan
    assert not compare_stage("x", broken, truth).holds
    assert not compare_stage("x", np.ones((10, 5), np.float32), np.ones((10, 5), np.float32)).holds


def test_parity_on_few_images_is_refused(subject: Subject, images: list[Image.Image], tmp_path: Path) -> None:
    """Their spread would be too small to measure against."""
    with pytest.raises(ParityError, match=f"on {MIN_IMAGES - 1} images, wanted at least {MIN_IMAGES}"):
        check(subject, images[: MIN_IMAGES - 1], tmp_path)
