"""Heads learn, are reproducible, and are simulated exactly as their ONNX part will answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lraee.bundle.manifest import GateInfo
from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.exit import POOLED_INPUTS, ExitWeights, HeadInput, TokenShape, build_exit
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.gates import gate_features, gate_values
from lraee_toolchain.early_exit.heads import (
    LEAST_STEPS,
    Lesson,
    fit_temperature,
    head_embeddings,
    head_input,
    images_of,
    label_logits,
    one_pass,
    quantize_head,
    softmax,
    train_heads,
)
from lraee_toolchain.early_exit.task import Costs, ExitTask, Head, Material

WIDTH, TOKENS, EMBED, CLASSES, SCALE = 16, 10, 8, 4, 10.0


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32."""
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def labels() -> np.ndarray:
    """(CLASSES, EMBED) unit text embeddings."""
    return unit(np.random.default_rng(0).normal(size=(CLASSES, EMBED)))


def problem(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, Teacher]:
    """Tokens (count, TOKENS, WIDTH) around a centre for each class, the classes, and a teacher that knows them."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(CLASSES, WIDTH))
    classes = generator.integers(0, CLASSES, count)
    tokens = (centres[classes][:, None] + generator.normal(size=(count, TOKENS, WIDTH))).astype(np.float32)
    embedding = unit(labels()[classes] + 0.05 * generator.normal(size=(count, EMBED)))
    return tokens, classes, Teacher(embedding, softmax(label_logits(embedding, labels(), SCALE)))


def features_of(tokens: np.ndarray) -> Features:
    """What would be cached for a tower of one block that gives these tokens."""
    patches = tokens[:, 1:]
    variance = np.square(patches - patches.mean(axis=1, keepdims=True)).sum(axis=2).mean(axis=1)
    none = np.zeros((len(tokens), 1), np.float32)
    return Features(patches.mean(axis=1)[:, None], tokens[:, :1].copy(), variance[:, None], none, none)


def train(
    tokens: np.ndarray,
    classes: np.ndarray | None,
    teacher: Teacher,
    *,
    reads: HeadInput = "patch_mean",
    epochs: int = 10,
    seed: int = 0,
) -> Head:
    """The head of one exit."""
    features = features_of(tokens)
    options = HeadTraining(epochs=epochs, batch_size=64)
    task = ExitTask(
        labels=labels(),
        logit_scale=SCALE,
        costs=Costs(stem=0, block=0, last=0, exits={}, tail=0, depth=1),
        config=ExportConfig(model="reference", out=Path("unused.lraee"), heads=options),
        seed=seed,
    )
    material = Material(features=features, teacher=teacher, classes=classes)
    (head,) = train_heads(task, material, [1], reads=reads)
    return head


def accuracy(head: Head, tokens: np.ndarray, classes: np.ndarray) -> float:
    """Of the head on tokens."""
    embeddings = head_embeddings(head, head_input(features_of(tokens), 1, head.reads))
    return float(((embeddings @ labels().T).argmax(axis=1) == classes).mean())


@pytest.mark.parametrize("reads", POOLED_INPUTS)
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "label-free"])
def test_a_head_learns_from_labels_or_from_the_teacher_alone(reads: HeadInput, labelled: bool) -> None:
    """On images it has not seen; chance is 25 %, and one class token is noisier than the mean of nine patches."""
    tokens, classes, teacher = problem(600, seed=2)
    head = train(tokens, classes if labelled else None, teacher, reads=reads)
    unseen, truth, _ = problem(300, seed=3)
    assert accuracy(head, unseen, truth) > (0.6 if reads == "cls" else 0.95)
    shape = (WIDTH, 2 * WIDTH if reads == "both" else WIDTH)
    assert head.fc1.weight.shape == shape
    assert head.fc2.weight.shape == (EMBED, WIDTH)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_labels_have_their_share_of_what_heads_learn(share: float) -> None:
    """The loss is the weighted mean of both; a share of 0 learns what heads without labels do."""
    tokens, classes, teacher = problem(64, seed=4)
    options = HeadTraining(label_smoothing=0.0, label_share=share)
    task = ExitTask(
        labels=labels(),
        logit_scale=SCALE,
        costs=Costs(stem=0, block=0, last=0, exits={}, tail=0, depth=1),
        config=ExportConfig(model="reference", out=Path("unused.lraee"), heads=options),
    )
    material = Material(features=features_of(tokens), teacher=teacher, classes=classes)
    rows, embeddings = torch.arange(64), torch.from_numpy(unit(np.random.default_rng(5).normal(size=(2, 64, EMBED))))
    chances = softmax(SCALE * embeddings.numpy() @ labels().T)
    of_labels = -np.log(chances[:, np.arange(64), classes]).mean()
    of_teacher = -(teacher.probabilities * np.log(chances)).sum(-1).mean()
    turned = 1 - (embeddings.numpy() * teacher.embedding).sum(-1).mean()
    found = float(Lesson(task, material).loss(embeddings, rows)) / 2
    assert found == pytest.approx(share * of_labels + (1 - share) * of_teacher + turned, rel=1e-4)
    if share == 0:
        without = float(Lesson(task, replace(material, classes=None)).loss(embeddings, rows)) / 2
        assert found == pytest.approx(without, rel=1e-6)


def test_the_same_seed_gives_the_same_head_and_another_seed_another() -> None:
    """Bit for bit: two exports must give equal bundles."""
    tokens, classes, teacher = problem(200, seed=4)
    one, again, other = (train(tokens, classes, teacher, epochs=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.fc1.weight, again.fc1.weight)
    np.testing.assert_array_equal(one.fc2.bias, again.fc2.bias)
    assert not np.array_equal(one.fc1.weight, other.fc1.weight)


@pytest.mark.parametrize("epochs", [1, 5, LEAST_STEPS // 2, LEAST_STEPS])
def test_very_short_trainings_run(epochs: int) -> None:
    """One step an epoch; ten steps in all once divided by zero in the learning rate's schedule."""
    tokens, classes, teacher = problem(30, seed=5)
    assert np.isfinite(train(tokens, classes, teacher, epochs=epochs).fc1.weight).all()


@pytest.mark.parametrize("reads", POOLED_INPUTS)
@pytest.mark.parametrize("int8", [True, False], ids=["int8", "float"])
def test_a_simulated_exit_answers_as_its_part_does(reads: HeadInput, int8: bool, tmp_path: Path) -> None:
    """Thresholds are chosen on simulated answers, so they must be those of the device.

    Tolerance: float32 rounding; in INT8 a value between two levels may now and then round the other way.
    """
    tokens, classes, teacher = problem(300, seed=6)
    head = train(tokens, classes, teacher, reads=reads, epochs=3)
    inputs = head_input(features_of(tokens), 1, reads)
    head = quantize_head(head, [inputs]) if int8 else head
    gate = GateInfo(weights=(1.5, 0.5, -0.1), bias=0.3)
    weights = ExitWeights(
        reads=reads,
        norm=head.norm,
        fc1=head.fc1,
        fc2=head.fc2,
        logit_bias=None,
        temperature=1.4,
        gate_weights=gate.weights,
        gate_bias=gate.bias,
    )
    graph, file = build_exit(weights, TokenShape(count=TOKENS, width=WIDTH), name="exit_01")
    file.save(tmp_path)
    session = make_session(graph.save(tmp_path), SessionSettings(threads=1))
    names = ["embedding", "probabilities", "features", "gate"]
    given = {"tokens": tokens, "label_matrix": labels().T.copy(), "logit_scale": np.array(SCALE, np.float32)}
    answers = dict(zip(names, session.run(names, given), strict=True))

    embeddings = head_embeddings(head, inputs)
    probabilities = softmax(label_logits(embeddings, labels(), SCALE) / np.float32(1.4))
    values = gate_features(probabilities, features_of(tokens).variance[:, 0])
    for name, simulated in (
        ("embedding", embeddings),
        ("probabilities", probabilities),
        ("features", values),
        ("gate", gate_values(gate, values)),
    ):
        error = np.abs(answers[name] - simulated)
        assert np.median(error) < 1e-5, name
        assert error.max() < (0.02 if int8 else 5e-5), name
    assert (np.abs(answers["embedding"] - embeddings).max(axis=1) < 1e-5).mean() > 0.97


def test_an_int8_head_is_close_to_its_float_head() -> None:
    """And answers as well."""
    tokens, classes, teacher = problem(600, seed=7)
    head = train(tokens, classes, teacher)
    int8 = quantize_head(head, [head_input(features_of(tokens), 1, "patch_mean")])
    unseen, truth, _ = problem(300, seed=8)
    inputs = head_input(features_of(unseen), 1, "patch_mean")
    assert (head_embeddings(head, inputs) * head_embeddings(int8, inputs)).sum(axis=1).min() > 0.99
    assert accuracy(int8, unseen, truth) > accuracy(head, unseen, truth) - 0.02


@pytest.mark.parametrize("truth", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(truth: float) -> None:
    """Logits times the truth, labels drawn at temperature 1."""
    generator = np.random.default_rng(9)
    logits = generator.normal(0, 2, (20_000, 5)).astype(np.float32)
    chosen = (softmax(logits).cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1).clip(0, 4)
    target = np.eye(5, dtype=np.float32)[chosen]
    assert fit_temperature((logits * truth).astype(np.float32), target) == pytest.approx(truth, rel=0.05)


def test_softmax_and_temperature_survive_large_logits() -> None:
    """A logit scale of 100 overflows an unshifted exponential in float32."""
    logits = np.array([[100.0, -100.0], [0.0, 90.0]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0], [0, 1]], atol=1e-6)
    assert np.isfinite(fit_temperature(logits, np.eye(2, dtype=np.float32)))


def test_a_pass_reads_one_form_of_every_image() -> None:
    """Drawn at random, so that all forms are read in the end; without forms the order is that of the generator."""
    tokens, classes, teacher = problem(40, seed=3)
    once = Material(features=features_of(tokens), teacher=teacher, classes=classes)
    plain = torch.cat([*one_pass(once, 16, torch.Generator().manual_seed(1))])
    assert plain.tolist() == torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    thrice = replace(once.joined(once).joined(once), forms=3)
    generator = torch.Generator().manual_seed(1)
    passes = [[*one_pass(thrice, 16, generator)] for _ in range(20)]
    assert images_of(thrice) == 40
    assert [len(batch) for batch in passes[0]] == [16, 16, 8]
    rows = np.array([torch.cat(batches).numpy() for batches in passes])
    assert all(sorted(row % 40) == list(range(40)) for row in rows)
    assert set((rows // 40).flat) == {0, 1, 2}
