"""Of several images the bad ones are named by place and name, and the others are answered where this is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lraee
from lraee.engine.stream import in_order
from lraee.errors import ImageError, SettingsError
from lraee.images.read import Pixels

BAD = b"damaged"


@pytest.fixture(scope="module")
def model(golden: Path) -> lraee.Model:
    """The tiny bundle: which image got which answer is all that matters here."""
    return lraee.load(golden, threads=1)


def mixed(photos: list[Pixels], bad: set[int]) -> list[Any]:
    """The photos, with something damaged in some places."""
    return [BAD if place in bad else photo for place, photo in enumerate(photos)]


def test_a_bad_image_is_named_by_its_place_and_its_name(model: lraee.Model, photos: list[Pixels]) -> None:
    """In every call that takes several; the places count from 0 as those of predictions do."""
    images = [*photos[:10], "missing.png", *photos[10:]]
    for call in (
        model.classify_batch,
        model.embed,
        model.embed_answers,
        lambda all_: list(model.classify_stream(all_)),
    ):
        with pytest.raises(ImageError, match=r"^images\[10\]: missing\.png: there is no such file") as raised:
            call(images)
        assert raised.value.position == 10
    with pytest.raises(ImageError, match=r"^missing\.png: there") as raised:
        model.classify("missing.png")
    assert raised.value.position is None


@pytest.mark.parametrize("bad", [{3}, {0, 1, 2, 3}, {0}, {31}, {4, 5, 6, 7, 30, 31}, set(range(32)), set()], ids=str)
def test_the_others_are_answered_where_it_is_asked_for(model: lraee.Model, photos: list[Pixels], bad: set[int]) -> None:
    """With the places that they have in the call, in a batch and in a stream, whatever is missing where."""
    images = mixed(photos, bad)
    wanted = {place: model.classify(photo) for place, photo in enumerate(photos) if place not in bad}

    def batch(on_error: Callable[[ImageError], Any]) -> list[lraee.Prediction]:
        return model.classify_batch(images, batch_size=4, on_error=on_error)

    def stream(on_error: Callable[[ImageError], Any]) -> list[lraee.Prediction]:
        return list(model.classify_stream(iter(images), batch_size=4, max_lag=8, on_error=on_error))

    for call in (batch, stream):
        errors: list[ImageError] = []
        predictions = call(errors.append)
        assert [prediction.position for prediction in predictions] == list(wanted)
        for prediction in predictions:
            alone = wanted[prediction.position]
            assert prediction.exit_block == alone.exit_block
            assert np.allclose(prediction.embedding, alone.embedding, atol=1e-5)
        assert [error.position for error in errors] == sorted(bad)
        assert all(str(error).startswith(f"images[{error.position}]: an image of 7 bytes") for error in errors)


def test_answers_as_they_come_have_their_places_too(model: lraee.Model, photos: list[Pixels]) -> None:
    """They have them without order as well."""
    bad = {0, 9, 17}
    errors: list[ImageError] = []
    stream = model.classify_stream(mixed(photos, bad), batch_size=5, ordered=False, on_error=errors.append)
    assert {prediction.position for prediction in stream} == set(range(32)) - bad
    assert {error.position for error in errors} == bad


def test_a_stream_of_bad_images_reads_no_further_than_its_lag(model: lraee.Model, photos: list[Pixels]) -> None:
    """It does not hold more either: an endless input works."""
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            assert read < 500, "nothing was answered"
            yield BAD if read % 3 else photos[read % 32]

    errors: list[ImageError] = []
    answers = model.classify_stream(endless(), batch_size=4, max_lag=16, on_error=errors.append)
    for _ in range(20):
        place = next(answers).position
        assert place % 3 == 2
        assert read - place <= 16
    assert [error.position for error in errors] == [place for place in range(read) if place % 3 != 2]


def test_what_is_raised_for_an_image_ends_the_call(model: lraee.Model, photos: list[Pixels]) -> None:
    """The error is not wrapped."""

    class EnoughError(Exception):
        pass

    def stop(error: ImageError) -> None:
        raise EnoughError(error.position)

    for call in (model.classify_batch, lambda images, on_error: list(model.classify_stream(images, on_error=on_error))):
        with pytest.raises(EnoughError, match="5") as raised:
            call(mixed(photos, {5}), on_error=stop)
        assert raised.value.__context__ is None


def test_errors_of_the_input_itself_are_not_taken_for_bad_images(model: lraee.Model, photos: list[Pixels]) -> None:
    """A camera that fails is another matter."""

    def camera() -> Iterator[Pixels]:
        yield photos[0]
        raise OSError("unplugged")

    for call in (model.classify_batch, lambda images, on_error: list(model.classify_stream(images, on_error=on_error))):
        with pytest.raises(OSError, match="unplugged"):
            call(camera(), on_error=print)


@pytest.mark.parametrize("on_error", ["skip", "raise", [], 3])
def test_on_error_is_a_function(model: lraee.Model, on_error: Any) -> None:
    """Refused at the call, with what to give."""
    for call in (model.classify_batch, model.classify_stream):
        with pytest.raises(SettingsError, match=r"on_error is a \w+, wanted a function .*errors\.append"):
            call([], on_error=on_error)


def test_threads_that_share_a_model_get_their_own_errors(model: lraee.Model, photos: list[Pixels]) -> None:
    """Each call knows its own places."""

    def work(number: int) -> tuple[list[int], list[int | None]]:
        errors: list[ImageError] = []
        bad = {place for place in range(32) if place % 5 == number % 5}
        call = model.classify_batch if number % 2 else model.classify_stream
        there = [prediction.position for prediction in call(mixed(photos, bad), batch_size=4, on_error=errors.append)]
        return there, [error.position for error in errors]

    with ThreadPoolExecutor(4) as pool:
        for number, (there, missing) in enumerate(pool.map(work, range(8))):
            assert missing == [place for place in range(32) if place % 5 == number % 5]
            assert sorted([*there, *missing]) == list(range(32))


def test_an_image_that_is_too_large_is_one_of_the_bad_ones(photos: list[Pixels]) -> None:
    """And says which setting would let it pass."""
    small = lraee.load("reference", threads=1, reading=lraee.Reading(max_pixels=1000))
    buffer = io.BytesIO()
    Image.new("RGB", (50, 50)).save(buffer, "PNG")
    errors: list[ImageError] = []
    assert len(small.classify_batch([photos[0], buffer.getvalue()], on_error=errors.append)) == 1
    assert (errors[0].position, errors[0].setting) == (1, "max_pixels")


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(12)), st.sets(st.integers(0, 14)))
def test_answers_are_put_in_order_around_those_that_are_missing(order: list[int], missing: set[int]) -> None:
    """Whatever is missing, nothing is held back for it."""
    there = [place for place in order if place not in missing]
    assert list(in_order(((place, place) for place in there), set(missing))) == sorted(there)


def test_places_that_were_passed_are_forgotten() -> None:
    """A stream may be endless, and half of it bad."""
    missing: set[int] = set()

    def answers() -> Iterator[tuple[int, int]]:
        for place in range(1, 2001, 2):
            missing.add(place - 1)
            yield place, place

    seen = [len(missing) for _ in in_order(answers(), missing)]
    assert len(seen) == 1000
    assert max(seen) <= 1


def test_pixels_and_photos_may_be_mixed(model: lraee.Model, photos: list[Pixels]) -> None:
    """Arrays of any layout in memory; others are bad images like any other."""
    turned = np.asfortranarray(photos[1])
    errors: list[ImageError] = []
    mirrored = np.ascontiguousarray(photos[2][:, ::-1])[:, ::-1]
    images = [photos[0], turned, mirrored, photos[0].astype(float) / 255, photos[0].transpose(2, 0, 1)]
    predictions = model.classify_batch(images, on_error=errors.append)
    for prediction, photo in zip(predictions, photos[:3], strict=True):
        assert np.allclose(prediction.embedding, model.classify(photo).embedding, atol=1e-5)
    assert [error.position for error in errors] == [3, 4]
