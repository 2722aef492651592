"""Images of every mode, format and oddity are read as open_clip reads them, but for the exceptions that are listed."""

import io
import runpy
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import ImageError, ImageWarning
from lraee.images.preprocess import normalize, pixels
from lraee.images.read import Pixels
from lraee.ort.sessions import SessionSettings, make_session

ODD = runpy.run_path(str(Path(__file__).parents[1] / "odd_images.py"))
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "photos.md"

ONE_LEVEL = 1
"""What the issue allows. All are equal today: the same Pillow does the same steps in the same order."""

FAILURES_OF_PILLOW = (OSError, SyntaxError, ValueError, TypeError, ZeroDivisionError)
"""What open_clip's transform raises of images that it cannot read."""


class Read(NamedTuple):
    """One image of the list, read by both."""

    image: Any
    ours: Pixels | ImageError
    theirs: Pixels | Exception
    turned: bool
    """Whether this Pillow tells another size before decoding than after: old ones do so of TIFFs that are turned."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Load the reference, with its float export."""
    return Bundle(find_bundle("reference"))


@pytest.fixture(scope="module")
def open_clip_pixels() -> Callable[[Image.Image], Pixels]:
    """open_clip's own transform at the reference's size, without its normalisation."""
    transform = pytest.importorskip("open_clip").image_transform(28, False)
    steps = transform.transforms[:-1]

    def run(image: Image.Image) -> Pixels:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's palettes
            for step in steps:
                image = step(image)
        return (image.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)

    return run


@pytest.fixture(scope="module")
def both(bundle: Bundle, open_clip_pixels: Callable[[Image.Image], Pixels], photos: list[Pixels]) -> list[Read]:
    """All images, read by this project, without a warning of Pillow's, and by open_clip."""
    found = []
    for image in ODD["odd_images"]([Image.fromarray(photo) for photo in photos[:12]]):
        turned = False
        ours: Pixels | ImageError
        theirs: Pixels | Exception
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ImageWarning)
                ours = pixels(fresh(image.source, opened=False), bundle.manifest.preprocessing, name=image.name)
        except ImageError as error:
            ours = error
        try:
            picture = fresh(image.source, opened=True)
            before = picture.size
            theirs = open_clip_pixels(picture)
            turned = picture.size != before
        except FAILURES_OF_PILLOW as error:
            theirs = error
        found.append(Read(image, ours, theirs, turned))
    return found


def fresh(source: Any, *, opened: bool) -> Any:
    """The source as it is passed in; `opened` as a Pillow image."""
    if callable(source):
        return source()
    return Image.open(io.BytesIO(source)) if opened else source


def apart(one: Any, other: Any) -> int:
    """Levels by which two differ at most; 256 if one of them is not a picture."""
    if isinstance(one, Exception) or isinstance(other, Exception):
        return 256
    return int(np.abs(one.astype(int) - other).max())


def test_there_are_200_images_of_different_names(both: list[Read]) -> None:
    """Most of them both can read."""
    assert len({read.image.name for read in both}) == len(both) >= 200
    assert Counter(read.image.how for read in both)[ODD["SAME"]] >= 200


def test_pixels_are_open_clips_within_one_level(both: list[Read]) -> None:
    """This holds for every image that is not an exception."""
    wrong = {
        read.image.name: apart(read.ours, read.theirs)
        for read in both
        if read.image.how == ODD["SAME"] and not read.turned and apart(read.ours, read.theirs) > ONE_LEVEL
    }
    assert wrong == {}


def test_what_open_clip_misreads_shows_what_is_in_the_file(both: list[Read], bundle: Bundle) -> None:
    """Grey of 16 bits is scaled, the entries of a palette are not mixed; open_clip gives something else, or nothing."""
    kinds = ODD["OURS_DIFFERS"] | ODD["OURS_ALONE"]
    for read in both:
        if read.image.how in kinds:
            wanted = pixels(read.image.meant, bundle.manifest.preprocessing)
            assert apart(read.ours, wanted) <= ONE_LEVEL, read.image.name
            assert apart(read.theirs, wanted) > 2 * ONE_LEVEL, f"{read.image.name}: is not an exception any more"
        if read.image.how in ODD["OURS_ALONE"]:
            assert isinstance(read.theirs, Exception), f"{read.image.name}: open_clip reads it now"


def test_what_is_refused_is_named(both: list[Read]) -> None:
    """Damaged files, which open_clip refuses as well, and numbers that do not say which value is white."""
    for read in both:
        if read.image.how in {ODD["NEITHER"]} | ODD["OURS_REFUSES"]:
            assert isinstance(read.ours, ImageError), read.image.name
            assert str(read.ours).startswith(read.image.name)
            assert isinstance(read.theirs, Exception) == (read.image.how == ODD["NEITHER"]), read.image.name
        else:
            assert not isinstance(read.ours, ImageError), read.ours


def test_a_float_export_gives_the_labels_of_torch(both: list[Read], bundle: Bundle) -> None:
    """At full depth, of every image that both read alike."""
    torch = pytest.importorskip("torch")
    from lraee_exporters.loading.open_clip_models import load_model

    alike = [read for read in both if read.image.how == ODD["SAME"] and not read.turned]
    ours = np.stack([read.ours for read in alike])  # type: ignore[arg-type] # none is an error, as is tested above
    theirs = np.stack([read.theirs for read in alike])  # type: ignore[arg-type]
    session = make_session(bundle.folder.with_name("reference.baselines") / "fp32.onnx", SessionSettings(threads=2))
    feed = {"pixels": ours, "label_matrix": np.ascontiguousarray(bundle.label_embeddings.T)}
    scale = np.array(bundle.manifest.logit_scale, np.float32)
    probabilities = session.run(["probabilities"], {**feed, "logit_scale": scale})[0]
    with torch.no_grad():
        images = torch.from_numpy(normalize(theirs, bundle.manifest.preprocessing))
        embeddings = load_model("reference").torch_model.encode_image(images, normalize=True).numpy()
    wanted = (embeddings @ bundle.label_embeddings.T).argmax(axis=1)
    wrong = [read.image.name for read, a, b in zip(alike, probabilities.argmax(axis=1), wanted, strict=True) if a != b]
    assert wrong == []
    assert len(set(wanted)) > 5  # otherwise this would prove little


def test_every_exception_stands_in_the_documentation(both: list[Read]) -> None:
    """In one list, which has a line for each of them."""
    text = DOCUMENT.read_text("utf-8")
    listed = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    exceptions = {read.image.how for read in both} - {ODD["SAME"], ODD["NEITHER"]}
    assert exceptions == ODD["OURS_DIFFERS"] | ODD["OURS_ALONE"] | ODD["OURS_REFUSES"]
    assert exceptions <= set(listed)
