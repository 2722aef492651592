"""Pickles and copies of a model answer as the model did when they were made, in any process, or refuse to."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

import lraee
from lraee.bundle.folder import Bundle
from lraee.errors import BundleError, SettingsError
from lraee.ort.sessions import SessionSettings
from lraee.policies import Confidence, Entropy, Patience, Policy, Replay

PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
NAMES = ("one", "two", "three", "four")


def changed(golden: Path) -> lraee.Model:
    """A model with settings, labels, policy and reading that are not the defaults."""
    model = lraee.load(
        golden, threads=1, memory="low", policy=lraee.ExitAt(1), reading=lraee.Reading(max_pixels=1000, resize="numpy")
    )
    rows = np.random.default_rng(0).normal(size=(4, model.manifest.tower.embed_dim)).astype(np.float32)
    model.set_label_embeddings(NAMES, rows)
    return model


def check_same(one: lraee.Model, other: lraee.Model) -> None:
    """Settings, and answers to the last bit."""
    assert one.labels == other.labels == NAMES
    assert (one.policy, one.reading, one.settings) == (other.policy, other.reading, other.settings)
    mine, its = one.classify(PIXELS), other.classify(PIXELS)
    assert (mine.top, mine.exit_block, mine.flops) == (its.top, its.exit_block, its.flops)
    assert (mine.embedding == its.embedding).all()


@pytest.mark.parametrize("how", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, copy.copy])
def test_a_copy_answers_as_the_model_did(golden, how):
    """And goes its own way from then on."""
    model = changed(golden)
    other = how(model)
    check_same(model, other)
    other.set_label_embeddings(["a", "b"], np.eye(2, model.manifest.tower.embed_dim, dtype=np.float32))
    assert model.labels == NAMES


def test_a_model_can_be_handed_to_a_spawned_process(golden):
    """The copy makes its own sessions and gives the same answer."""
    model = changed(golden)
    # What runs there is the library's: a new process cannot import this test. A pool that loses a process would hang.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        prediction = pool.submit(lraee.Model.classify, model, PIXELS).result(timeout=120)
        labels = pool.submit(attrgetter("labels"), model).result(timeout=120)
    wanted = model.classify(PIXELS)
    assert (prediction.top, labels) == (wanted.top, NAMES)
    assert (prediction.embedding == wanted.embedding).all()


def test_labels_of_the_bundle_are_not_in_the_pickle(golden):
    """Nor are weights: a pickle is a path, a hash and settings."""
    assert len(pickle.dumps(lraee.load("reference"))) < 1000
    assert pickle.loads(pickle.dumps(lraee.load(golden))).labels == lraee.load(golden).labels


def test_a_bundle_that_changed_since_is_refused(golden, tmp_path):
    """By the hash of its manifest, which holds the hashes of all files; before any other error."""
    folder = Path(shutil.copytree(golden, tmp_path / "x.lraee"))
    saved = pickle.dumps(lraee.load(folder))
    text = (folder / "manifest.json").read_text("utf-8")
    for other in (json.dumps(json.loads(text) | {"logit_scale": 50.0}), "{}"):
        (folder / "manifest.json").write_text(other, "utf-8")
        with pytest.raises(BundleError, match=rf"^the bundle {folder} has changed since .*; load it again"):
            pickle.loads(saved)
    (folder / "manifest.json").write_text(text, "utf-8")
    pickle.loads(saved)
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match=r"x\.lraee"):
        pickle.loads(saved)


def test_a_relative_path_means_the_folder_that_was_loaded(golden, tmp_path, monkeypatch):
    """Wherever the process that unpickles works; a shipped bundle is found by its name, wherever it is installed."""
    monkeypatch.chdir(golden.parent)
    saved = pickle.dumps([lraee.load(golden.name), lraee.load("reference")])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference").symlink_to(golden)
    shipped = Path(shutil.copytree(lraee.bundle.folder.SHIPPED, tmp_path / "installed elsewhere"))
    monkeypatch.setattr(lraee.bundle.folder, "SHIPPED", shipped)
    first, second = pickle.loads(saved)
    assert first.bundle.folder == golden
    assert second.bundle.folder == shipped / "reference.lraee"


POLICIES: list[Policy] = [
    lraee.Adaptive(),
    lraee.Adaptive(thresholds={1: 0.5}),
    lraee.Full(),
    lraee.ExitAt(1),
    lraee.Deadline(40, lraee.Adaptive()),
    Confidence(0.5),
    Entropy(0.5),
    Patience(2),
    Replay({1: 0.1}),
]


@pytest.mark.parametrize("thing", [*POLICIES, lraee.Reading(max_pixels=5), SessionSettings(threads=3)], ids=repr)
def test_what_a_model_is_told_can_be_pickled_and_copied(thing):
    """On its own too, as part of a program's own settings."""
    assert pickle.loads(pickle.dumps(thing)) == copy.deepcopy(thing) == thing


def test_a_prediction_can_be_pickled_and_copied(golden):
    """Worker processes send predictions back."""
    prediction = lraee.load(golden).classify(PIXELS)
    for other in (pickle.loads(pickle.dumps(prediction)), copy.deepcopy(prediction)):
        assert other.top == prediction.top
        assert (other.embedding == prediction.embedding).all()


def test_a_bundle_is_pickled_by_path_and_hash(golden):
    """With nothing of what was read from it."""
    bundle = Bundle(golden)
    assert bundle.label_embeddings.size
    assert len(pickle.dumps(bundle)) < 300
    assert pickle.loads(pickle.dumps(bundle)).manifest == bundle.manifest


def test_more_threads_than_this_machine_can_run_are_refused(golden, monkeypatch):
    """When the model comes from a larger machine."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    saved = pickle.dumps(lraee.load(golden, threads=200))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(SettingsError, match="threads is 200, wanted a whole number from 1 to 8"):
        pickle.loads(saved)


def test_a_pool_for_the_process_that_is_not_there_is_said(golden):
    """A pickle holds that the model shall use it; the process that opens it has to set it up."""
    model = pickle.loads(pickle.dumps(lraee.load(golden, thread_pool="global")))
    with pytest.raises(
        SettingsError, match=r"no such pool; call lraee\.ort\.sessions\.use_global_thread_pool\(threads\)"
    ):
        model.classify(PIXELS)
