"""A loaded bundle: it classifies images, embeds them, and changes its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.bundle.manifest import Manifest
from lraee.checks import check_count
from lraee.engine.orchestrator import Answers, joined, run
from lraee.engine.part_sessions import Sessions
from lraee.engine.parts import Parts
from lraee.engine.stream import check_stream_settings, in_order, run_stream
from lraee.errors import PolicyError
from lraee.images.preprocess import check_preprocessed
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import ImageSource
from lraee.images.several import OnError, batches, check_on_error, read_batch, read_stream, several
from lraee.labels.matrix import Labels, label_set_of, unit_labels
from lraee.ort.sessions import SessionSettings
from lraee.policies import Adaptive, Full, Policy, Route
from lraee.policies.base import bind, is_anytime
from lraee.policies.part_costs import PartCosts
from lraee.prediction import Prediction, flops_of_row, prediction_of
from lraee.reading import PLAIN_READING, Reading
from lraee.saved_model import SavedModel

if TYPE_CHECKING:
    from lraee.engine.text_tower import TextTower


class Model:
    """Classifies and embeds images with a loaded bundle.

    May be used from several threads, and after a fork of the process: see `lraee.ort.forking`. May be pickled,
    copied and handed to a spawned process: see `lraee.saved_model`.
    """

    def __init__(
        self, bundle: Bundle, settings: SessionSettings, policy: Policy | None = None, reading: Reading = PLAIN_READING
    ) -> None:
        self.bundle = bundle
        self.settings = settings
        self.reading = reading
        self._sessions = Sessions(bundle, settings)
        self._costs = PartCosts()
        self._text: TextTower | None = None  # made when first needed: its tokenizer takes longest to import and read
        self._exported_labels = Labels.of(bundle.labels.names, bundle.label_embeddings)
        self._set_labels(self._exported_labels)
        default = Adaptive() if bundle.manifest.default_point is not None else Full()
        self.policy: Policy = policy if policy is not None else default
        bind(self.policy, bundle.manifest)

    def __reduce__(self) -> tuple[Callable[[SavedModel], Model], tuple[SavedModel]]:
        own = None if self._parts.labels is self._exported_labels else self._parts.labels
        settings, policy, reading = self.settings, self.policy, self.reading
        saved = SavedModel(bundle=self.bundle, settings=settings, policy=policy, reading=reading, labels=own)
        return _reopened, (saved,)

    def __repr__(self) -> str:
        return f"<lraee.Model {self.bundle.place.name}: threads {self.threads}, {self.thread_total} to start>"

    @property
    def threads(self) -> int:
        """Threads that run one operator, the caller included: those asked for, or fewer where a limit is narrower."""
        return self._sessions.threads

    @property
    def thread_total(self) -> int:
        """Threads that all sessions of the model start, without the caller: ``threads - 1`` for each part."""
        return self._sessions.thread_total

    @property
    def session_settings(self) -> SessionSettings:
        """Settings of the model's sessions: `settings`, with the number of threads that they get."""
        return self._sessions.settings

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle: its model, parts, exits and operating points."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of `Answers.probabilities`."""
        return self._parts.labels.names

    @property
    def parts(self) -> Parts:
        """Stem, blocks, exits and tail as functions, for programs with their own loop."""
        return self._parts

    def set_labels(self, names: Sequence[str], templates: Sequence[str] | None = None) -> None:
        """Classify among other labels from now on; calls that run already finish with those they began with.

        Gates and thresholds stay as exported: fewer or coarser labels raise gates, many of similar meaning lower them.

        Args:
            names: at least two different labels.
            templates: prompts with ``{}`` for the name, which are averaged; None takes the bundle's.

        Raises:
            LabelsError: the bundle has no text tower, fewer than two labels, a blank or repeated one, two that are one
                to the text tower, or a template without exactly one ``{}``.
        """
        self._set_labels(self.embed_labels(names, templates))

    def embed_labels(self, names: Sequence[str], templates: Sequence[str] | None = None) -> Labels:
        """Embed labels for `Parts.with_labels`, without changing the model's; arguments and errors as `set_labels`."""
        labels = label_set_of(names, self.bundle.labels.templates if templates is None else templates)
        return unit_labels(labels.names, self._text_tower().embed_labels(labels), self.manifest.tower.embed_dim)

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as they are, without a template: (texts, embed_dim) float32 of unit length.

        Raises:
            LabelsError: the bundle has no text tower, or what is given is not a text.
        """
        return self._text_tower().embed(texts)

    def _text_tower(self) -> TextTower:
        if self._text is None:
            from lraee.engine.text_tower import TextTower

            self._text = TextTower(self.bundle, self._sessions)
        return self._text

    def set_label_embeddings(self, names: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Classify among other labels, whose text embeddings are given.

        Args:
            names: at least two different labels.
            embeddings: (labels, embed_dim); rows are scaled to unit length.

        Raises:
            LabelsError: the shapes disagree, fewer than two labels, one that is not a text, blank or repeated, a row
                without direction, or two rows that are equal up to rounding.
        """
        self._set_labels(unit_labels(names, embeddings, self.manifest.tower.embed_dim))

    def _set_labels(self, labels: Labels) -> None:
        self._parts = Parts(self.bundle, self._sessions, labels)  # one assignment: other threads see all or nothing

    def warm(self) -> None:
        """Make all sessions now instead of when an image first reaches them."""
        self._sessions.warm()

    def preload(self) -> None:
        """Begin to make all sessions in a thread in the background; it ends with the last one.

        An error in a part is raised where an image reaches the part, as without preloading.
        """
        self._sessions.preload()

    def classify(self, image: ImageSource, *, policy: Policy | None = None, top: int = 5) -> Prediction:
        """Classify one image.

        Args:
            image: path, bytes, PIL image, or uint8 RGB array (height, width, 3).
            policy: decides after which block the image leaves; None takes the model's.
            top: how many labels `Prediction.top` lists.

        Raises:
            ImageError: the image cannot be read.
            PolicyError: the bundle lacks what the policy asks for.
        """
        check_count("top", top)
        parts = self._parts
        route = self._route(policy)  # before reading: a deadline counts from here
        answers = run(parts.for_route(route), self._read(image)[None], route)
        return prediction_of(answers, 0, self.manifest, parts.labels, top=top)

    def classify_batch(
        self,
        images: Iterable[ImageSource],
        *,
        policy: Policy | None = None,
        top: int = 5,
        batch_size: int = 8,
        on_error: OnError | None = None,
    ) -> list[Prediction]:
        """Classify images in batches; each image leaves at its own depth, and the others are compacted.

        Args:
            images, policy, top: as in `classify`.
            batch_size: images that run together.
            on_error: is called with an `ImageError` for each image that cannot be read; `ImageError.position` says
                which. The image then has no prediction, and `Prediction.position` tells where the others belong. What
                it raises ends the call. None raises at the first such image, and all answers are lost.

        Raises:
            ImageError: an image cannot be read and there is no `on_error`; or a batch size below 1.
            PolicyError: as in `classify`.
        """
        check_count("top", top)
        check_on_error(on_error)
        predictions: list[Prediction] = []
        parts = self._parts
        for begin, batch in batches(images, batch_size):
            route = self._route(policy)
            places, pixels = read_batch(self._read, batch, begin, on_error)
            if places:
                answers = run(parts.for_route(route), pixels, route)
                predictions += [
                    prediction_of(answers, row, self.manifest, parts.labels, top=top, position=place)
                    for row, place in enumerate(places)
                ]
        return predictions

    def classify_stream(
        self,
        images: Iterable[ImageSource],
        *,
        policy: Policy | None = None,
        top: int = 5,
        batch_size: int = 8,
        ordered: bool = True,
        max_lag: int = 1024,
        on_error: OnError | None = None,
    ) -> Iterator[Prediction]:
        """Classify a long or endless stream in full batches: images that leave are replaced by the next ones.

        The answers are those of `classify`, up to float rounding. Images are read as they are needed. How much is held
        in memory is bounded; see `lraee.engine.stream.run_stream`.

        Args:
            images: as in `classify`; an iterable that is read once.
            policy: as in `classify`, without a deadline: images of a stream have no common start.
            top: as in `classify`.
            batch_size: images that run together.
            ordered: give answers in the order of the images; otherwise as they come, see `Prediction.position`.
            max_lag: how many images may be read from an image on before it is answered. Less makes the answers of deep
                images come sooner, and late blocks run emptier.
            on_error: as in `classify_batch`; called when the turn of the image comes. None ends the stream at the
                first image that cannot be read, and answers not yet given are lost.

        Raises:
            ImageError: an image cannot be read, when its turn comes, and there is no `on_error`. A batch size below 1,
                or a lag below the batch size.
            PolicyError: as in `classify`, or the policy has a deadline.
        """
        check_count("top", top)
        check_on_error(on_error)
        bound = self._without_deadline(policy, batch_size, max_lag)
        parts, manifest, missing = self._parts.for_route(bound()), self.manifest, set[int]()
        pixels = read_stream(self._read, several(images), on_error, missing)
        answers = run_stream(parts, pixels, bound, batch_size=batch_size, max_lag=max_lag)
        named = (
            (place, prediction_of(one, 0, manifest, parts.labels, top=top, position=place)) for place, one in answers
        )
        return in_order(named, missing) if ordered else (prediction for _, prediction in named)

    def embed(
        self, images: Iterable[ImageSource], *, policy: Policy | None = None, batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embed images, (images, embed_dim) float32 of unit length, for `lraee.search` or anything else.

        At full depth unless a policy is given: a gate judges labels, and an embedding alone has none. With one, gates
        judge by the model's labels; `embed_answers` also says where each image left.
        """
        answers = self.embed_answers(images, policy=policy if policy is not None else Full(), batch_size=batch_size)
        return answers.embedding if answers is not None else np.empty((0, self.manifest.tower.embed_dim), np.float32)

    def embed_answers(
        self, images: Iterable[ImageSource], *, policy: Policy | None = None, batch_size: int = 8
    ) -> Answers | None:
        """Embed images, and tell after which block each left, its gate and probabilities; None for no images.

        Args:
            images: as in `classify`.
            policy: as in `classify`.
            batch_size: images that run together.

        Raises:
            ImageError: an image cannot be read: `ImageError.position` says which.
            PolicyError: as in `classify`.
        """
        parts = self._parts
        found: list[Answers] = []
        for begin, batch in batches(images, batch_size):
            route = self._route(policy)
            found.append(run(parts.for_route(route), read_batch(self._read, batch, begin, None)[1], route))
        return joined(found) if found else None

    def run_pixels(
        self,
        pixels: NDArray[np.uint8],
        *,
        policy: Policy | None = None,
        on_part: Callable[[str, int], None] | None = None,
    ) -> Answers:
        """Run preprocessed pixels as one batch and give arrays instead of predictions.

        Args:
            pixels: (batch, image_size, image_size, 3) uint8 RGB, as `lraee.images.preprocess.pixels` gives them.
            policy: as in `classify`.
            on_part: called after each part with its name and the number of images it ran for.
        """
        check_preprocessed(pixels, self.manifest.preprocessing)
        route = self._route(policy)
        return run(self._parts.for_route(route), pixels, route, on_part=on_part)

    def stream_pixels(
        self, pixels: NDArray[np.uint8], *, policy: Policy | None = None, batch_size: int = 16, max_lag: int = 1024
    ) -> Answers:
        """Run preprocessed pixels as `classify_stream` does and give arrays in their order.

        Args:
            pixels: as in `run_pixels`; any number of images.
            policy, batch_size, max_lag: as in `classify_stream`.
        """
        check_preprocessed(pixels, self.manifest.preprocessing)
        bound = self._without_deadline(policy, batch_size, max_lag)
        found = run_stream(self._parts.for_route(bound()), pixels, bound, batch_size=batch_size, max_lag=max_lag)
        return joined([answers for _, answers in sorted(found, key=lambda item: item[0])])

    def flops_of_run(self, answers: Answers) -> NDArray[np.int64]:
        """FLOPs of each image of a run, (batch,) int64: the parts that ran for it, added up."""
        return np.array([flops_of_row(answers, row, self.manifest) for row in range(len(answers.early))], np.int64)

    def _without_deadline(self, policy: Policy | None, batch_size: int, max_lag: int) -> Callable[[], Route]:
        """Check the settings of a stream, and give what binds its policy to each image."""
        chosen = policy if policy is not None else self.policy
        if is_anytime(bind(chosen, self.manifest)):
            raise PolicyError("a stream has no common start for a deadline; use classify or classify_batch")
        check_stream_settings(batch_size, max_lag)
        return lambda: chosen.bind(self.manifest)

    def _route(self, policy: Policy | None) -> Route:
        """Bind a policy, by default the model's, to this bundle; a deadline learns what parts cost here."""
        route = bind(policy if policy is not None else self.policy, self.manifest)
        if is_anytime(route):
            route.lends(self._costs)
        return route

    def _read(self, image: ImageSource) -> NDArray[np.uint8]:
        return preprocess(image, self.manifest.preprocessing, reading=self.reading)


def _reopened(saved: SavedModel) -> Model:
    """Open the model that was pickled or copied, with sessions of its own."""
    saved.check()
    model = Model(saved.bundle, saved.settings, saved.policy, saved.reading)
    if saved.labels is not None:
        model._set_labels(saved.labels)
    return model
