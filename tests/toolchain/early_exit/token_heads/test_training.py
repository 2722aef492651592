"""Heads that read all tokens learn from them, alike from every source, and are simulated as their part answers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lraee.bundle.manifest import GateInfo
from lraee.errors import ExportError
from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.exit import HEAD_INPUTS, TOKEN_INPUTS, HeadInput, TokenShape, build_exit
from lraee_exporters.graphs.pooling.token_pool import QUERIES
from lraee_exporters.int8.linear import QuantizedLinear
from lraee_exporters.tower import Linear
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.exits import TrainedExit, answers_of, best_exits, score, train_exits
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.heads import first_layer, label_logits, softmax
from lraee_toolchain.early_exit.task import Costs, ExitTask, Head, Material
from lraee_toolchain.early_exit.token_heads.bottleneck import add_bottlenecks
from lraee_toolchain.early_exit.token_heads.sources import HalfTokens, Rows, normed_tokens
from lraee_toolchain.early_exit.token_heads.training import (
    embed_tokens,
    quantize_token_heads,
    reads_of,
    train_token_heads,
)

WIDTH, PATCHES, EMBED, CLASSES, SCALE, DEPTH = 16, 9, 8, 4, 10.0, 3
COSTS = Costs(
    stem=1,
    block=100,
    last=100,
    exits={reads: 1 + place for place, reads in enumerate(HEAD_INPUTS)},
    tail=1,
    depth=DEPTH,
)


class Held:
    """Tokens in memory, (blocks, images, tokens, width); counts how often they are read."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.normed = normed_tokens(tokens)
        self.passes = 0

    def __len__(self) -> int:
        return self.normed.shape[1]

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfTokens]:
        """Read the rows of each block."""
        self.passes += 0 in rows
        for block in blocks:
            yield HalfTokens(self.normed[block - 1, rows])


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32."""
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def labels() -> np.ndarray:
    """(CLASSES, EMBED) unit text embeddings."""
    return unit(np.random.default_rng(0).normal(size=(CLASSES, EMBED)))


def material(tokens: np.ndarray, classes: np.ndarray, *, class_token: bool = True, seed: int = 5) -> Material:
    """What is cached of tokens (images, tokens, width) that are the same after every block."""
    patches = tokens[:, int(class_token) :]
    mean = patches.mean(axis=1)
    variance = np.square(patches - mean[:, None]).sum(axis=2).mean(axis=1)
    embedding = unit(labels()[classes] + 0.05 * np.random.default_rng(seed).normal(size=(len(classes), EMBED)))
    answers = softmax(label_logits(embedding, labels(), SCALE))
    features = Features(
        np.stack([mean] * DEPTH, axis=1),
        np.stack([tokens[:, 0]] * DEPTH, axis=1) if class_token else None,
        np.stack([variance] * DEPTH, axis=1),
        embedding,
        answers,
        tokens=Held(np.stack([tokens] * DEPTH)),
    )
    return Material(features=features, teacher=Teacher(embedding, answers), classes=classes)


def one_patch_tells(count: int, seed: int, *, class_token: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Images where one patch, anywhere, shows the class, and shows itself by a channel; the others show other classes.

    Each class is shown by as many patches on average, so that their mean tells nothing.
    """
    generator = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(1).normal(size=(CLASSES, WIDTH))
    classes = generator.integers(0, CLASSES, count)
    shown = generator.integers(0, CLASSES, (count, PATCHES))
    where = generator.integers(0, PATCHES, count)
    shown[np.arange(count), where] = classes
    tokens = centres[shown] + 0.3 * generator.normal(size=(count, PATCHES, WIDTH))
    tokens[:, :, 0] = -2
    tokens[np.arange(count), where, 0] = 6
    first = generator.normal(size=(count, 1, WIDTH))
    return np.concatenate([first, tokens] if class_token else [tokens], axis=1).astype(np.float32), classes


def neighbours_tell(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of two patches that are bright in half the channels; the class is how the second lies from the first."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, CLASSES, count)
    tokens = np.tile(np.where(np.arange(WIDTH) % 2, 1.0, -1.0), (count, 5, 5, 1))
    tokens[..., : WIDTH // 2] = 0
    for image, label in enumerate(classes):
        row, column = generator.integers(0, 4), generator.integers(1, 3)
        down, right = [(0, 1), (1, 0), (1, 1), (0, 2)][label]
        tokens[image, row, column, : WIDTH // 2] = tokens[image, row + down, column + right, : WIDTH // 2] = 3
    tokens += 0.1 * generator.normal(size=tokens.shape)
    first = generator.normal(size=(count, 1, WIDTH))
    return np.concatenate([first, tokens.reshape(count, 25, WIDTH)], axis=1).astype(np.float32), classes


def task_of(
    *, epochs: int = 20, int8: bool = True, seed: int = 0, rank: int | None = None, **options: object
) -> ExitTask:
    """Four labels and exits after any block."""
    training = HeadTraining(epochs=epochs, batch_size=64, learning_rate=5e-3, rank=rank)
    config = ExportConfig(model="reference", out=Path("unused.lraee"), heads=training, **options)
    return ExitTask(labels=labels(), logit_scale=SCALE, costs=COSTS, config=config, int8=int8, seed=seed)


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "label-free"])
def test_attention_finds_the_patch_that_tells_where_mean_and_class_token_cannot(labelled: bool) -> None:
    """On images it has not seen; chance is 25 %, and the mean holds a ninth of what tells."""
    heads, gating = (material(*one_patch_tells(count, seed)) for count, seed in ((1500, 2), (500, 3)))
    heads = heads if labelled else replace(heads, classes=None)
    looking, mean, both = (
        train_exits(task_of(), heads, gating, (2,), reads=reads)[0] for reads in ("attention", "patch_mean", "both")
    )
    assert looking.accuracy > 0.95
    assert max(mean.accuracy, both.accuracy) < 0.75
    assert looking.head.pool is not None
    assert looking.head.pool.queries.shape == (WIDTH, QUERIES)


def test_the_local_head_tells_what_only_neighbours_tell() -> None:
    """Which patch lies beside which is the same to a query without positions."""
    heads, gating = (material(*neighbours_tell(count, seed)) for count, seed in ((1500, 6), (500, 7)))
    local, attention = (
        train_exits(task_of(), heads, gating, (1,), reads=reads)[0].accuracy for reads in ("local", "attention")
    )
    assert local > 0.9
    assert attention < 0.5


@pytest.mark.parametrize("reads", TOKEN_INPUTS)
def test_the_same_seed_gives_the_same_head_and_another_seed_another(reads: HeadInput) -> None:
    """Bit for bit; and an exit's head does not depend on the others that are trained with it."""
    given = material(*one_patch_tells(200, 4))
    one, again, other = (
        train_token_heads(task_of(epochs=2, seed=seed), given, blocks, reads=reads)[0]
        for seed, blocks in ((0, (1,)), (0, (1, 3)), (1, (1,)))
    )
    assert one.pool is not None
    assert again.pool is not None
    assert other.pool is not None
    np.testing.assert_array_equal(one.pool.queries, again.pool.queries)
    np.testing.assert_array_equal(one.fc1.weight, again.fc1.weight)
    assert not np.array_equal(one.pool.queries, other.pool.queries)


@pytest.mark.parametrize("class_token", [True, False], ids=["class-token", "patches-only"])
@pytest.mark.parametrize(("reads", "rank"), [("attention", None), ("local", None), ("attention", 5)])
@pytest.mark.parametrize("int8", [True, False], ids=["int8", "float"])
def test_a_simulated_exit_answers_as_its_part_does(
    reads: HeadInput, rank: int | None, int8: bool, class_token: bool, tmp_path: Path
) -> None:
    """Thresholds are chosen on simulated answers, so they must be those of the device.

    Tolerance: cached tokens are rounded to FP16; in INT8 a value between two levels may now and then round the other
    way.
    """
    tokens, classes = one_patch_tells(300, 8, class_token=class_token)
    given = material(tokens, classes, class_token=class_token)
    task = task_of(epochs=3, int8=int8, rank=rank)
    (trained,) = train_exits(task, given, given, (2,), reads=reads)
    assert isinstance(trained.head.fc1, QuantizedLinear) == int8
    assert (trained.head.bottleneck is None) == (rank is None)
    trained = replace(trained, gate=GateInfo(weights=(1.5, 0.5, -0.1), bias=0.3))
    graph, file = build_exit(
        trained.weights(None), TokenShape(count=tokens.shape[1], width=WIDTH, class_token=class_token), name="exit_02"
    )
    file.save(tmp_path)
    session = make_session(graph.save(tmp_path), SessionSettings(threads=1))
    matrix = {"label_matrix": labels().T.copy(), "logit_scale": np.array(SCALE, np.float32)}
    simulated = answers_of(task, trained, given.features)
    embedding = given.features.answers[trained.head]
    for batch in (1, 2, 8, 300):
        names = ["embedding", "probabilities", "gate"]
        answers = dict(zip(names, session.run(names, {"tokens": tokens[:batch], **matrix}), strict=True))
        for name, wanted in (
            ("embedding", embedding), ("probabilities", simulated.probabilities), ("gate", simulated.gate)
        ):  # fmt: skip
            error = np.abs(answers[name] - wanted[:batch])
            assert error.max() < (0.05 if int8 else 5e-3), (name, batch)
            assert batch < 8 or np.median(error) < 1e-3, (name, batch)
    assert (answers["probabilities"].argmax(axis=1) == simulated.probabilities.argmax(axis=1)).mean() > 0.99


def test_ranges_of_quantized_heads_hold_all_images_and_answers_stay_close() -> None:
    """The ranges are those of the whole split, whatever the batches."""
    given = material(*one_patch_tells(700, 9))
    task = task_of(epochs=10, int8=False)
    heads = train_token_heads(task, given, (1, 3), reads="attention")
    int8 = quantize_token_heads(heads, given.features, (1, 3))
    embed_tokens([*heads, *int8], given.features, [1, 3, 1, 3])
    for exact, rounded in zip(heads, int8, strict=True):
        cosine = (given.features.answers[exact] * given.features.answers[rounded]).sum(axis=1)
        assert cosine.min() > 0.98
        assert isinstance(rounded.fc1, QuantizedLinear)
    some = Material(
        features=given.features.rows(np.arange(700)[::-1].copy()), teacher=given.teacher, classes=given.classes
    )
    again = quantize_token_heads(heads, some.features, (1, 3))
    for one, other in zip(int8, again, strict=True):
        assert isinstance(one.fc1, QuantizedLinear)
        assert isinstance(other.fc1, QuantizedLinear)
        assert one.fc1.input_scale == pytest.approx(other.fc1.input_scale, rel=1e-5)


def outputs(head: Head, given: Material, block: int) -> np.ndarray:
    """What the activation of a head reads of all images."""
    return np.concatenate([first_layer(head, read) for _, _, read in reads_of([head], given.features, [block])])


def test_a_bottleneck_keeps_the_first_layer_as_well_as_any_of_its_rank() -> None:
    """What it loses is the variance of the smallest principal components; at full rank nothing is replaced."""
    given = material(*one_patch_tells(400, 14))
    heads = train_token_heads(task_of(epochs=3), given, (1, 3), reads="attention")
    for rank in (3, 10):
        narrowed = add_bottlenecks(heads, given.features, (1, 3), rank=rank)
        for exact, narrow, block in zip(heads, narrowed, (1, 3), strict=True):
            assert isinstance(narrow.bottleneck, Linear)
            assert isinstance(narrow.fc1, Linear)
            assert narrow.bottleneck.weight.shape == (rank, len(exact.norm.weight))
            assert narrow.fc1.weight.shape == (WIDTH, rank)
            wanted, got = outputs(exact, given, block), outputs(narrow, given, block)
            spread = np.linalg.svd(wanted - wanted.mean(axis=0), compute_uv=False)
            assert np.square(got - wanted).sum() == pytest.approx(np.square(spread[rank:]).sum(), rel=1e-3)
            through = got @ narrow.fc1.weight  # its channels are turned, so that none is much wider than the others
            assert through.std(axis=0).max() < 3 * through.std(axis=0).min()
    assert add_bottlenecks(heads, given.features, (1, 3), rank=WIDTH) == heads


def test_a_first_layer_that_learned_at_low_rank_is_divided_without_loss() -> None:
    """Where heads learn with the rank that they are asked for, nothing is cut off afterwards."""
    given = material(*one_patch_tells(400, 14))
    heads = train_token_heads(task_of(epochs=3, rank=3), given, (1, 3), reads="attention")
    narrowed = add_bottlenecks(heads, given.features, (1, 3), rank=3)
    for whole, narrow, block in zip(heads, narrowed, (1, 3), strict=True):
        assert isinstance(whole.fc1, Linear)
        assert np.linalg.matrix_rank(whole.fc1.weight, rtol=1e-4) == 3
        np.testing.assert_allclose(outputs(narrow, given, block), outputs(whole, given, block), atol=1e-4)


def test_the_tokens_of_a_split_are_read_once_for_all_exits() -> None:
    """However often these are scored; a head that is gone is forgotten."""
    heads, gating = (material(*one_patch_tells(200, seed)) for seed in (10, 11))
    held = gating.features.tokens
    assert isinstance(held, Held)
    trained = train_exits(task_of(epochs=1), heads, gating, (1, 2, 3), reads="attention")
    assert held.passes == 1
    first = score(task_of(), trained, gating)
    assert held.passes == 1
    np.testing.assert_array_equal(first.gate, score(task_of(), trained, gating).gate)
    assert len(gating.features.answers) == 3
    del trained
    assert len(gating.features.answers) == 0


def test_auto_takes_the_most_accurate_head_and_the_cheapest_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all five kinds where the tokens are at hand, else of those that need none."""
    monkeypatch.setattr("lraee_toolchain.early_exit.exits.ROOM", -1.0)  # whatever can be gained
    heads, gating = (material(*one_patch_tells(count, seed)) for count, seed in ((1500, 2), (500, 3)))
    (best,) = best_exits(task_of(), heads, gating, (2,))
    by_kind = {reads: train_exits(task_of(), heads, gating, (2,), reads=reads)[0] for reads in HEAD_INPUTS}
    most = max(trained.accuracy for trained in by_kind.values())
    assert best.accuracy == most
    assert best.head.reads == next(reads for reads in HEAD_INPUTS if by_kind[reads].accuracy == most)
    assert best.head.reads in TOKEN_INPUTS
    without = replace(heads, features=replace(heads.features, tokens=None))
    (other,) = best_exits(task_of(), without, gating, (2,))
    assert other.head.reads not in TOKEN_INPUTS


def test_heads_that_were_chosen_before_are_the_only_ones_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block its own kind; a block that nothing was chosen for takes the first kind."""
    heads, gating = (material(*one_patch_tells(60, seed)) for seed in (12, 13))
    tried: list[tuple[HeadInput, list[int]]] = []

    def train(
        task: ExitTask, heads: Material, gating: Material, blocks: Sequence[int], *, reads: HeadInput, **_: object
    ) -> list[TrainedExit]:
        tried.append((reads, list(blocks)))
        return train_exits(task, heads, gating, blocks, reads=reads)

    monkeypatch.setattr("lraee_toolchain.early_exit.exits.train_exits", train)
    task = replace(task_of(epochs=1), kinds={1: "attention", 2: "both"})
    best = best_exits(task, heads, gating, (1, 2, 3))
    assert [(exit.block, exit.head.reads) for exit in best] == [(1, "attention"), (2, "both"), (3, "patch_mean")]
    assert tried == [("patch_mean", [3]), ("both", [2]), ("attention", [1])]


def tries(
    accuracies: dict[HeadInput, dict[int, float]], monkeypatch: pytest.MonkeyPatch, **options: object
) -> tuple[dict[HeadInput, list[int]], list[HeadInput], list[int]]:
    """Which blocks each kind of head is tried after, what is taken, and the epochs told; full depth is always right.

    Heads learn for one epoch, and their accuracy on the gating split is replaced by the one given for kind and block.
    """
    heads, gating = (material(*one_patch_tells(60, seed)) for seed in (12, 13))
    tried: dict[HeadInput, list[int]] = {}
    told: list[int] = []

    def train(
        task: ExitTask, heads: Material, gating: Material, blocks: Sequence[int], *, reads: HeadInput, **_: object
    ) -> list[TrainedExit]:
        tried[reads] = list(blocks)
        trained = train_exits(task, heads, gating, blocks, reads=reads, advance=told.append)
        return [replace(one, accuracy=accuracies[reads][one.block]) for one in trained]

    monkeypatch.setattr("lraee_toolchain.early_exit.exits.train_exits", train)
    assert gating.good(gating.features.probabilities).all()
    best = best_exits(task_of(epochs=1, **options), heads, gating, (1, 2, 3), advance=told.append)
    assert [exit.block for exit in best] == [1, 2, 3]
    return tried, [exit.head.reads for exit in best], told


def test_auto_tries_heads_that_read_tokens_only_where_they_can_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention where the best pooled head is more than a point below full depth; local in the first third of these."""
    accuracies: dict[HeadInput, dict[int, float]] = {
        "patch_mean": {1: 0.5, 2: 0.6, 3: 0.7},
        "cls": {1: 0.4, 2: 0.5, 3: 0.995},
        "both": {1: 0.6, 2: 0.7, 3: 0.8},
        "attention": {1: 0.8, 2: 0.65},
        "local": {1: 0.7},
    }
    tried, taken, told = tries(accuracies, monkeypatch)
    everywhere = [1, 2, 3]
    assert tried == {
        "patch_mean": everywhere, "cls": everywhere, "both": everywhere, "attention": [1, 2], "local": [1]
    }  # fmt: skip
    assert taken == ["attention", "both", "cls"]
    assert sum(told) == 5  # one epoch for each kind


@pytest.mark.parametrize(
    ("attention", "kinds"), [(0.992, ["patch_mean", "cls", "both", "attention"]), (0.98, list(HEAD_INPUTS))]
)
def test_auto_leaves_out_kinds_that_cannot_gain_anywhere(
    attention: float, kinds: list[HeadInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where attention has come within a point of full depth, local is not tried; the progress still ends."""
    pooled = {1: 0.97, 2: 0.995, 3: 0.995}
    accuracies: dict[HeadInput, dict[int, float]] = dict.fromkeys(("patch_mean", "cls", "both"), pooled)
    accuracies |= {"attention": {1: attention}, "local": {1: 0.99}}
    tried, _, told = tries(accuracies, monkeypatch)
    assert list(tried) == kinds
    assert sum(told) == 5


def test_heads_that_are_asked_for_by_name_are_trained_after_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing can be gained."""
    perfect: dict[HeadInput, dict[int, float]] = {reads: {1: 1.0, 2: 1.0, 3: 1.0} for reads in HEAD_INPUTS}
    for reads in TOKEN_INPUTS:
        tried, taken, _ = tries(perfect, monkeypatch, reads=reads)
        assert tried == {reads: [1, 2, 3]}
        assert taken == [reads] * 3


def test_of_equally_accurate_heads_the_cheaper_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was tried first."""
    heads, gating = (material(*one_patch_tells(60, seed)) for seed in (12, 13))
    prices = dict(COSTS.exits) | {"attention": 0}

    def equal(*arguments: object, reads: HeadInput, **options: object) -> list[TrainedExit]:
        (trained,) = train_exits(task_of(epochs=1), heads, gating, (1,), reads=reads)
        return [replace(trained, accuracy=0.5)]

    monkeypatch.setattr("lraee_toolchain.early_exit.exits.train_exits", equal)
    for costs, wanted in ((COSTS, "patch_mean"), (replace(COSTS, exits=prices), "attention")):
        (best,) = best_exits(replace(task_of(), costs=costs), heads, gating, (1,))
        assert best.head.reads == wanted


def test_each_exit_pays_for_what_its_head_reads() -> None:
    """FLOPs of a visit, in the order of the exits."""
    heads, gating = (material(*one_patch_tells(60, seed)) for seed in (12, 13))
    task = task_of(epochs=1)
    exits = [train_exits(task, heads, gating, (n,), reads=r)[0] for n, r in enumerate(HEAD_INPUTS[-3:], start=1)]
    assert score(task, exits, gating).visit_flops.tolist() == [COSTS.exits[reads] for reads in HEAD_INPUTS[-3:]]


def test_heads_that_read_tokens_refuse_features_without_them() -> None:
    """What to do is clear to whoever extracts features."""
    given = material(*one_patch_tells(60, 12))
    without = replace(given, features=replace(given.features, tokens=None))
    with pytest.raises(ExportError, match="need features that were extracted with them"):
        train_token_heads(task_of(epochs=1), without, (1,), reads="attention")


def test_head_is_a_key_that_does_not_keep_itself() -> None:
    """Cached answers are found by identity."""
    given = material(*one_patch_tells(60, 12))
    one, other = (train_token_heads(task_of(epochs=1), given, (1,), reads="local")[0] for _ in range(2))
    assert isinstance(one, Head)
    embed_tokens([one], given.features, [1])
    assert one in given.features.answers
    assert other not in given.features.answers
