"""Images to measure with: a fixed choice, whole batches, nothing that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError
from lraee_benchmarks.images import files_instead, load_sample, open_source, summarize_preprocessing

WANTED = Preprocessing(
    image_size=8, resize_mode="shortest", interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Seven images of one grey level each: 0, 10, ... 60."""
    for level in range(0, 70, 10):
        Image.new("RGB", (12, 9), (level,) * 3).save(tmp_path / f"{level:02d}.png")
    return str(tmp_path)


def levels(batches: tuple[np.ndarray, ...]) -> list[int]:
    """The grey level of each image."""
    return [int(image[0, 0, 0]) for batch in batches for image in batch]


def test_one_seed_chooses_the_same_images(folder: str) -> None:
    """And each at most once."""
    first = load_sample(folder, WANTED, count=5, batch=1, seed=3)
    again = load_sample(folder, WANTED, count=5, batch=1, seed=3)
    assert levels(first.batches) == levels(again.batches)
    assert len(set(levels(first.batches))) == 5


def test_images_are_rounded_down_to_whole_batches(folder: str) -> None:
    """Seven images make three batches of two."""
    sample = load_sample(folder, WANTED, count=100, batch=2, seed=0)
    assert [batch.shape for batch in sample.batches] == [(2, 8, 8, 3)] * 3
    assert len(sample.preprocessing_ms) == 6


def test_a_batch_is_filled_even_when_fewer_images_were_asked_for(folder: str) -> None:
    """--batch goes before --image-count."""
    assert [len(batch) for batch in load_sample(folder, WANTED, count=2, batch=4, seed=0).batches] == [4]


def test_too_few_images_for_a_batch_are_refused(folder: str) -> None:
    """The message has both numbers."""
    with pytest.raises(DataError, match="has 7 images, a batch has 8"):
        load_sample(folder, WANTED, count=8, batch=8, seed=0)


def test_first_image_is_encoded_as_it_is_stored(folder: str) -> None:
    """A fresh process decodes it itself."""
    sample = load_sample(folder, WANTED, count=1, batch=1, seed=0)
    stored = (Path(folder) / f"{levels(sample.batches)[0]:02d}.png").read_bytes()
    assert sample.first_image == stored


def test_images_that_cannot_be_read_make_room_for_others_and_are_named(folder: str) -> None:
    """Refused by default, with the option that skips them; whole batches of what is left; the rest is counted."""
    (Path(folder) / "05.png").write_bytes(b"no")
    (Path(folder) / "06.heic").write_bytes(b"no")
    (Path(folder) / "notes.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"; remove the file$"):
        load_sample(folder, WANTED, count=100, batch=1, seed=0)
    sample = load_sample(folder, WANTED, count=9, batch=3, seed=0, unreadable="skip")
    assert [len(batch) for batch in sample.batches] == [3, 3]
    assert len(set(levels(sample.batches))) == 6
    passed_over, skipped = sample.notes
    assert passed_over == f"Passed over in {folder}, since they are not images: 1 .txt."
    assert skipped.startswith(f"Of {folder}, 2 images cannot be read and are left out: ")
    assert "06.heic" in skipped
    assert "reads no HEIF" in skipped
    with pytest.raises(DataError, match=r"has 7 images that can be read, a batch has 8; give more images .*05\.png"):
        load_sample(folder, WANTED, count=8, batch=8, seed=0, unreadable="skip")


def test_nothing_is_said_of_shipped_images(folder: str) -> None:
    """Their licences are no images, and no mistake."""
    assert load_sample("photos", WANTED, count=1, batch=1, seed=0).notes == ()


def test_shipped_images_have_names() -> None:
    """Labelled garments, and photos."""
    assert len(open_source("fashion-mnist").labels) == 10
    assert len(open_source("photos")) > 90


def test_a_folder_of_a_shipped_name_goes_first(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone's own folder `photos` is not passed over."""
    Path(folder).rename(Path(folder).parent / "photos")
    monkeypatch.chdir(Path(folder).parent)
    assert len(open_source("photos")) == 7
    assert (
        files_instead("photos") == f"photos is taken to be {Path('photos').absolute()}, not the shipped images of "
        "that name"
    )  # which the command says
    assert files_instead("fashion-mnist") is files_instead("elsewhere") is files_instead(None) is None


def test_a_source_that_is_not_there_is_refused() -> None:
    """It is named."""
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_source("nowhere")


def test_preprocessing_times_as_quantiles() -> None:
    """Of 0 to 10 ms, of which a quarter is decoding."""
    times = summarize_preprocessing(np.arange(11.0)[:, None] * [0.25, 0.75])
    assert (times.decode_p50_ms, times.resize_p50_ms) == (1.25, 3.75)
    assert (times.images, times.p50_ms, times.p90_ms, times.mean_ms) == (11, 5.0, 9.0, 5.0)
