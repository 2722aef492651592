"""A loaded bundle: one answer whatever the source, the batch, the thread, and what else it has been asked."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lraee
from lraee.bundle.manifest import block_names
from lraee.errors import BundleError, ImageError, LabelsError, PolicyError
from lraee.labels.matrix import unit_labels
from lraee.ort.sessions import make_session
from lraee_calibration_data import fashion_mnist_test, open_dataset

POLICIES = [lraee.Full(), lraee.Adaptive(), lraee.ExitAt(5)]

PROBABILITY_TOLERANCE = 1e-4
"""Activation ranges are fixed at export, so an image does not depend on its neighbours; only the order of float sums
in kernels that split a batch over threads may differ, by far less than one of the 256 levels in almost all cases."""


def same(left: lraee.Prediction, right: lraee.Prediction) -> bool:
    """Whether two predictions say the same but for rounding."""
    exact = (left.label, left.index, left.exit_block, left.early, left.flops) == (
        right.label, right.index, right.exit_block, right.early, right.flops
    )  # fmt: skip
    close = abs(left.score - right.score) < PROBABILITY_TOLERANCE
    return exact and close and float(left.embedding @ right.embedding) > 1 - PROBABILITY_TOLERANCE


@pytest.fixture(scope="module")
def other() -> lraee.Model:
    """Load another model, for tests that change it."""
    return lraee.load("reference", threads=1)


def test_path_bytes_picture_and_array_give_the_same_answer(model, photos, tmp_path):
    """Exactly: the pixels are the same."""
    path, buffer = tmp_path / "photo.png", io.BytesIO()
    Image.fromarray(photos[0]).save(path)
    Image.fromarray(photos[0]).save(buffer, "PNG")
    wanted = model.classify(photos[0])
    for source in (path, str(path), buffer.getvalue(), Image.open(path)):
        got = model.classify(source)
        assert got.top == wanted.top
        assert got.exit_block == wanted.exit_block
        assert np.array_equal(got.embedding, wanted.embedding)


def turned_and_upright(picture: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A PNG that lies on its side and says so in its EXIF, and the picture as it should be seen."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    return buffer.getvalue(), np.rot90(picture, -1)


def test_exif_orientation_is_a_choice_at_load(model, photos):
    """Off by default, as open_clip has it; once chosen it holds for every way of asking."""
    turning = lraee.load("reference", threads=2, reading=lraee.Reading(exif_orientation=True))
    file, upright = turned_and_upright(photos[1])
    assert same(model.classify(file), model.classify(photos[1]))
    wanted = model.classify(upright)
    assert not same(model.classify(photos[1]), wanted)
    assert same(turning.classify(file), wanted)
    assert same(turning.classify_batch([file])[0], wanted)
    assert same(next(turning.classify_stream([file], policy=None)), wanted)
    assert np.allclose(turning.embed([file]), model.embed([upright]), atol=1e-5)


def test_a_limit_of_pixels_is_a_choice_at_load(photos):
    """Refused before it is decoded, with the setting's name."""
    small = lraee.load("reference", threads=1, reading=lraee.Reading(max_pixels=28 * 28 - 1))
    file, _ = turned_and_upright(photos[0])
    for ask in (small.classify, lambda image: small.embed([image]), lambda image: list(small.classify_stream([image]))):
        with pytest.raises(ImageError, match=r"28 x 28 pixels, wanted at most 783 \(max_pixels\)"):
            ask(file)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("batch_size", [5, 32])
def test_a_batch_answers_as_its_images_one_by_one(model, photos, policy, batch_size):
    """Labels and exit blocks equal, embeddings up to float rounding; the order is that of the images."""
    alone = [model.classify(photo, policy=policy) for photo in photos]
    together = model.classify_batch(photos, policy=policy, batch_size=batch_size)
    assert len(together) == len(photos)
    assert all(map(same, alone, together))


def test_the_adaptive_policy_uses_several_depths(model, photos):
    """Otherwise the tests here would prove little."""
    blocks = {prediction.exit_block for prediction in model.classify_batch(photos)}
    assert len(blocks) > 2


def test_a_prediction_is_consistent_with_itself(model, photos):
    """Its score is that of its label, its list is sorted, its embedding has unit length."""
    for prediction in model.classify_batch(photos[:8], top=3):
        assert prediction.top[0] == (prediction.label, prediction.score)
        assert model.labels[prediction.index] == prediction.label
        assert [score for _, score in prediction.top] == sorted((s for _, s in prediction.top), reverse=True)
        assert len(prediction.top) == 3
        assert prediction.embedding.shape == (128,)
        assert np.linalg.norm(prediction.embedding) == pytest.approx(1, abs=1e-5)
        assert prediction.early == (prediction.gate is not None)
    assert len(model.classify(photos[0], top=100).top) == len(model.labels)


def test_probabilities_add_up_to_one(model, photos):
    """They do so at every depth."""
    for policy in POLICIES:
        answers = model.run_pixels(np.stack(photos), policy=policy)
        assert answers.probabilities.sum(axis=1) == pytest.approx(np.ones(len(photos)), abs=1e-5)


def test_flops_are_those_of_the_parts_that_ran(model, photos):
    """Stem, blocks, visited exits count, and the tail for images that ran to the end; each with its labels."""
    manifest, labels = model.manifest, len(model.labels)
    cost = {part.name: part.flops + part.flops_per_label * labels for part in manifest.parts}
    visited = [t.block for p in manifest.operating_points if p.name == manifest.default_point for t in p.thresholds]
    for prediction in model.classify_batch(photos):
        depth = prediction.exit_block
        parts = ["stem", *block_names(depth), *(f"exit_{block:02d}" for block in visited if block <= depth)]
        parts += [] if prediction.early else ["tail"]
        assert prediction.flops == sum(cost[part] for part in parts)
    assert model.classify(photos[0], policy=lraee.Full()).flops == manifest.full_flops == cost["graph"]


def test_flops_of_a_run_are_those_of_its_predictions(model, photos):
    """Counted image by image and part by part alike."""
    ran: list[tuple[str, int]] = []
    answers = model.run_pixels(np.stack(photos), on_part=lambda name, images: ran.append((name, images)))
    flops = model.flops_of_run(answers)
    assert flops.dtype == np.int64
    assert flops.tolist() == [prediction.flops for prediction in model.classify_batch(photos, batch_size=32)]
    assert flops.sum() == sum(model.manifest.flops_of(name, len(model.labels)) * images for name, images in ran)


@pytest.mark.parametrize("block", [5, 11])
def test_exit_at_takes_everybody_out_there(model, photos, block):
    """Early, with the gate's value, though it decided nothing."""
    for prediction in model.classify_batch(photos[:4], policy=lraee.ExitAt(block)):
        assert prediction.exit_block == block
        assert prediction.early
        assert 0 <= prediction.gate <= 1


def test_a_policy_that_the_bundle_cannot_follow_is_refused(model, photos):
    """At load or at the call."""
    exits = ", ".join(str(exit.block) for exit in model.manifest.exits)
    with pytest.raises(PolicyError, match=f"no exit after block 1; this bundle has {exits}"):
        model.classify(photos[0], policy=lraee.ExitAt(1))
    with pytest.raises(PolicyError, match="no operating point 'slow'"):
        lraee.load("reference", policy=lraee.Adaptive("slow"))


def test_the_policy_given_at_load_is_the_default(photos):
    """And the bundle's default point otherwise."""
    assert lraee.load("reference").policy == lraee.Adaptive()
    assert lraee.load("reference", policy=lraee.ExitAt(5)).classify(photos[0]).exit_block == 5


def test_full_depth_equals_the_tower_as_one_graph(model, photos):
    """Exact: `graph.onnx` has the same nodes over the same weights, and no fusion crosses the border of a part."""
    bundle = model.bundle
    session = make_session(bundle.checked_part(bundle.manifest.part("graph")), model.settings)
    feed = {
        "pixels": np.stack(photos),
        "label_matrix": np.ascontiguousarray(bundle.label_embeddings.T),
        "logit_scale": np.array(bundle.manifest.logit_scale, np.float32),
    }
    embedding, probabilities = session.run(["embedding", "probabilities"], feed)
    answers = model.run_pixels(np.stack(photos), policy=lraee.Full())
    assert np.array_equal(answers.embedding, embedding)
    assert np.array_equal(answers.probabilities, probabilities)


def test_eight_threads_get_the_answers_of_one(photos):
    """From a fresh model, so that they also make its sessions together."""
    fresh = lraee.load("reference", threads=1)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(fresh.classify, photos * 2))
    alone = [fresh.classify(photo) for photo in photos]
    assert all(map(same, together, alone * 2))


def test_labels_that_change_in_another_thread_are_seen_whole_or_not_at_all(golden):
    """A label always comes from the set whose probabilities were computed."""
    model = lraee.load(golden, threads=1)
    image = np.full((16, 16, 3), 99, np.uint8)
    rows = np.eye(16, dtype=np.float32)
    sets = {count: tuple(f"{count}:{number}" for number in range(count)) for count in (2, 16)}
    model.set_label_embeddings(sets[2], rows[:2])

    def change() -> None:
        for count in (2, 16) * 50:
            model.set_label_embeddings(sets[count], rows[:count])

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        while not changing.done():
            prediction = model.classify(image, policy=lraee.Full(), top=16)
            assert tuple(sorted(label for label, _ in prediction.top)) in {tuple(sorted(s)) for s in sets.values()}
        changing.result()


def test_sessions_are_made_when_they_are_first_reached(photos, monkeypatch):
    """An image that leaves after block 5 needs neither later blocks nor the tail."""
    made: list[str] = []
    monkeypatch.setattr(
        lraee.engine.part_sessions,
        "make_session",
        lambda path, to, **more: made.append(path.stem) or make_session(path, to, **more),
    )
    fresh = lraee.load("reference", threads=1)
    assert made == []
    fresh.classify(photos[0], policy=lraee.ExitAt(5))
    assert made == ["stem", *block_names(5), "exit_05"]
    fresh.classify(photos[1], policy=lraee.ExitAt(5))
    assert len(made) == 7
    fresh.warm()
    exits = [exit.part for exit in fresh.manifest.exits]
    blocks = [name for name in made if name.startswith("block")]
    assert sorted(blocks) == [*block_names(11), "block_12_class"]
    assert sorted(made) == sorted(["stem", *blocks, "tail", *exits])


def test_embeddings_are_those_of_full_depth_unless_a_policy_is_given(model, photos):
    """A gate judges labels, and an embedding alone has none."""
    full = model.run_pixels(np.stack(photos[:8]), policy=lraee.Full())
    early = model.run_pixels(np.stack(photos[:8]), policy=lraee.ExitAt(5))
    assert np.array_equal(model.embed(photos[:8]), full.embedding)
    assert np.array_equal(model.embed(photos[:8], policy=lraee.ExitAt(5)), early.embedding)
    assert model.embed([]).shape == (0, 128)
    assert model.classify_batch([]) == []


def test_images_may_come_from_a_generator(model, photos):
    """They are read as they are needed."""
    answers = model.classify_batch((photo for photo in photos[:3]), batch_size=2)
    assert len(answers) == 3


def test_other_labels_change_the_answers_and_not_the_embeddings(other, photos):
    """The exported labels in reverse give the same names by other indices."""
    names, rows = other.labels, other.bundle.label_embeddings
    before = other.classify_batch(photos[:8], policy=lraee.Full())
    other.set_label_embeddings(names[::-1], rows[::-1] * 7)  # rows of any length
    after = other.classify_batch(photos[:8], policy=lraee.Full())
    assert other.labels == names[::-1]
    for old, new in zip(before, after, strict=True):
        assert new.label == old.label
        assert new.index == len(names) - 1 - old.index
        assert new.score == pytest.approx(old.score, abs=1e-5)
        assert np.array_equal(new.embedding, old.embedding)


def test_fewer_labels_cost_fewer_flops(other, photos):
    """The product with the label embeddings is counted for the labels there are."""
    other.set_label_embeddings(["left", "right"], np.eye(2, 128, dtype=np.float32))
    prediction = other.classify(photos[0], policy=lraee.Full())
    assert prediction.label in {"left", "right"}
    assert prediction.flops == other.manifest.full_flops - (other.manifest.labels.count - 2) * 2 * 128


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (["a", "b"], np.ones((3, 128)), r"have shape \(3, 128\), wanted \(2, 128\) for 2 names"),
        (["a", "b"], np.ones((2, 64)), r"have shape \(2, 64\), wanted \(2, 128\)"),
        (["a", "b"], np.ones(128), r"have shape \(128,\)"),
        (["a"], np.ones((1, 128)), "met 1 labels, 1 different; wanted at least two"),
        ([], np.ones((0, 128)), "met 0 labels"),
        (["a", "a"], np.ones((2, 128)), "met 2 labels, 1 different; wanted at least two, all different"),
        (["a", "b"], np.zeros((2, 128)), "is zero or not finite"),
        (["a", "b"], np.full((2, 128), np.nan), "is zero or not finite"),
        (["a", "b"], np.full((2, 128), np.inf), "is zero or not finite"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_and_change_nothing(other, names, rows, message):
    """The model keeps the labels from before."""
    before = other.labels
    with pytest.raises(LabelsError, match=message):
        other.set_label_embeddings(names, rows)
    assert other.labels == before


@pytest.mark.parametrize("count", [2, 64, 65, 130])
def test_label_embeddings_become_unit_columns(count):
    """Their number does not matter."""
    rows = np.random.default_rng(0).standard_normal((count, 16)).astype(np.float32)
    labels = unit_labels([str(number) for number in range(count)], rows, 16)
    np.testing.assert_allclose(labels.matrix, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T, rtol=1e-6)
    assert labels.matrix.flags.c_contiguous


def test_label_embeddings_of_any_finite_length_are_taken(other, photos):
    """Squares of large numbers do not fit into float32, and need not."""
    other.set_label_embeddings(["a", "b"], np.eye(2, 128, dtype=np.float32) * np.float32([[1e30], [1e-30]]))
    large = other.classify(photos[0], policy=lraee.Full())
    other.set_label_embeddings(["a", "b"], np.eye(2, 128, dtype=np.float32))
    assert other.classify(photos[0], policy=lraee.Full()).top == large.top


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 28, 28, 3), np.uint8),
        np.zeros((28, 28, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((1, 3, 28, 28), np.uint8),
        np.zeros((1, 28, 28, 3), np.float32),
    ],
    ids=["empty", "no batch", "size", "channels first", "float"],
)
def test_pixels_of_another_shape_or_type_are_refused(model, pixels):
    """Before ONNX Runtime would say it less clearly."""
    with pytest.raises(ImageError, match=r"wanted uint8 \(batch, 28, 28, 3\)"):
        model.run_pixels(pixels)


def test_a_batch_size_below_one_is_refused(model, photos):
    """Such a batch cannot exist."""
    with pytest.raises(ImageError, match="batch_size is 0, wanted at least 1"):
        model.classify_batch(photos[:1], batch_size=0)


def test_verify_all_finds_at_load_what_would_be_found_at_use(forged):
    """In a part that is seldom reached."""
    forged.damage("tail.data")
    late = lraee.load(forged.folder, threads=1)
    image = np.zeros((16, 16, 3), np.uint8)
    assert late.classify(image, policy=lraee.ExitAt(1)).exit_block == 1
    with pytest.raises(BundleError, match=r"^tail\.data has SHA-256"):
        late.classify(image, policy=lraee.Full())
    with pytest.raises(BundleError, match=r"^tail\.data has SHA-256"):
        lraee.load(forged.folder, verify="all")


def test_the_shipped_bundle_is_whole():
    """Every file has the hash that its manifest says, and the folder holds nothing else."""
    model = lraee.load("reference", verify="all")
    folder: Path = model.bundle.folder
    listed = {entry.name for entry in model.manifest.files} | {"manifest.json"}
    assert {path.name for path in folder.iterdir()} == listed


def test_the_shipped_bundle_knows_its_clothes(model):
    """Top-1 over 200 images of the shipped test set; it has about 90 % over all of them."""
    dataset = open_dataset(fashion_mnist_test())
    spread = np.linspace(0, len(dataset) - 1, 200).astype(int)
    predictions = model.classify_batch(dataset.read_bytes(int(index)) for index in spread)
    right = [p.label == dataset.samples[index].label for p, index in zip(predictions, spread, strict=True)]
    assert np.mean(right) > 0.8
