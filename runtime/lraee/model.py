"""The runtime's face: load a bundle, classify images, embed them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle, find_bundle
from lraee.bundle.manifest import Manifest, block_names
from lraee.checks import check_choice, check_count, check_threads, is_count
from lraee.engine.orchestrator import Answers, joined, run
from lraee.engine.part_sessions import Sessions
from lraee.engine.parts import Parts
from lraee.engine.stream import in_order, run_stream
from lraee.errors import ImageError, LabelsError, PolicyError, SettingsError
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import ImageSource
from lraee.images.several import OnError, batches, check_on_error, read_batch, read_stream, several
from lraee.labels.label_set import LabelSet
from lraee.labels.matrix import Labels, check_different, label_names, unit_labels
from lraee.ort.sessions import SessionSettings
from lraee.ort.version import check_global_pool
from lraee.policies import Adaptive, Full, Policy, Route
from lraee.policies.base import bind, is_anytime
from lraee.policies.part_costs import PartCosts
from lraee.prediction import Prediction
from lraee.reading import PLAIN_READING, Reading
from lraee.saved_model import SavedModel

if TYPE_CHECKING:
    from lraee.engine.text_tower import TextTower


def load(
    bundle: str | Path,
    *,
    threads: int | None = None,
    verify: Literal["parts", "all"] = "parts",
    thread_pool: Literal["session", "global"] = "session",
    memory: Literal["normal", "low"] = "normal",
    preload: bool = False,
    policy: Policy | None = None,
    reading: Reading = PLAIN_READING,
) -> Model:
    """Open a bundle.

    Args:
        bundle: folder written by ``lraee-export``, or ``reference`` for the one that is shipped, unless a bundle of
            that name lies in the current folder. Links in it may lead anywhere: files are known by their hashes.
        threads: that run one operator, the caller among them; None takes one for each core that the process may use,
            or 1 where blocks are small: see `lraee.ort.threads.default_threads`. Where a limit of the system is too
            narrow for those of all sessions, they get fewer, with a `ThreadsWarning`; `Model.threads` says how many.
        verify: ``parts`` checks a part's hash before it is first used, ``all`` checks everything now.
        thread_pool: see `lraee.ort.sessions.SessionSettings`.
        memory: see `lraee.ort.sessions.SessionSettings`.
        preload: begin to make all sessions in the background, so that the first images find those of late blocks ready;
            otherwise a session is made when an image first reaches its part. See also `Model.warm`.
        policy: used when a call names none; None takes the bundle's default operating point, or full depth when it
            has no exits.
        reading: how images become pixels: EXIF orientation, limits, who resizes; by default as open_clip does.

    Raises:
        BundleError: the bundle is damaged, incomplete, newer than this code or than the installed ONNX Runtime, or
            unsafe.
        SettingsError: a setting is unknown, of another type, or out of its range, such as threads without end, or
            there is no room for the thread that preloads.
        PolicyError: the bundle lacks what the policy asks for, or it is no policy.
    """
    check_threads(threads)
    check_choice("verify", verify, ("parts", "all"))
    check_choice("thread_pool", thread_pool, ("session", "global"))
    if thread_pool == "global":
        check_global_pool()
    check_choice("memory", memory, ("normal", "low"))
    if not isinstance(reading, Reading):
        raise SettingsError(f"reading is a {type(reading).__name__}, wanted lraee.Reading(...)")
    opened = Bundle(find_bundle(bundle))
    if verify == "all":
        opened.verify()
    model = Model(opened, SessionSettings(threads=threads, thread_pool=thread_pool, memory=memory), policy, reading)
    if preload:
        model.preload()
    return model


class Model:
    """A loaded bundle.

    May be used from several threads, and after a fork of the process: see `lraee.ort.forking`. May be pickled,
    copied and handed to a spawned process: see `lraee.saved_model`.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: SessionSettings,
        policy: Policy | None = None,
        reading: Reading = PLAIN_READING,
    ) -> None:
        self.bundle = bundle
        self.settings = settings
        self.reading = reading
        self._sessions = Sessions(bundle, settings)
        self._costs = PartCosts()
        self._text: TextTower | None = None  # made when first needed: its tokenizer takes longest to import and read
        self._exported_labels = Labels.of(bundle.labels.names, bundle.label_embeddings)
        self._set_labels(self._exported_labels)
        default: Policy = Adaptive() if bundle.manifest.default_point is not None else Full()
        self.policy: Policy = policy if policy is not None else default
        bind(self.policy, bundle.manifest)

    def __reduce__(self) -> tuple[Callable[[SavedModel], Model], tuple[SavedModel]]:
        labels = self._parts.labels
        saved = SavedModel(
            bundle=self.bundle,
            settings=self.settings,
            policy=self.policy,
            reading=self.reading,
            labels=None if labels is self._exported_labels else labels,
        )
        return _reopened, (saved,)

    def __repr__(self) -> str:
        return f"<lraee.Model {self.bundle.folder.name}: threads {self.threads}, {self.thread_total} to start>"

    @property
    def threads(self) -> int:
        """Threads that run one operator, the caller among them: those asked for, or fewer where a limit is narrower."""
        return self._sessions.threads

    @property
    def thread_total(self) -> int:
        """Threads that all sessions of the model start, beside the caller: ``threads - 1`` for each part."""
        return self._sessions.thread_total

    @property
    def session_settings(self) -> SessionSettings:
        """Settings of the model's sessions: `settings`, with the number of threads that they get."""
        return self._sessions.settings

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of `Answers.probabilities`."""
        return self._parts.labels.names

    @property
    def parts(self) -> Parts:
        """Stem, blocks, exits and tail as functions, for programs that run a loop of their own."""
        return self._parts

    def set_labels(self, names: Sequence[str], templates: Sequence[str] | None = None) -> None:
        """Classify among other labels from now on; calls that run already finish with those they began with.

        Gates and thresholds stay as they were exported. Fewer or coarser labels make gates surer, many labels of like
        meaning make them unsure; then images run deeper than they need to.

        Args:
            names: at least two different labels.
            templates: prompts with ``{}`` for the name, which are averaged; None takes the bundle's.

        Raises:
            LabelsError: the bundle has no text tower, fewer than two labels, a blank or repeated one, two that are one
                to the text tower, or a template without exactly one ``{}``.
        """
        if isinstance(templates, str) or not isinstance(templates, Iterable | None):
            raise LabelsError(f"templates is {short(templates)}, wanted a list such as ['a photo of a {{}}.']")
        chosen = self.bundle.labels.templates if templates is None else tuple(templates)
        labels = LabelSet(names=label_names(names), templates=chosen)
        check_different(labels.names)
        self.set_label_embeddings(labels.names, self._text_tower().embed_labels(labels))

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of texts as they are, without a template: (texts, embed_dim) float32 of unit length.

        Raises:
            LabelsError: the bundle has no text tower, or what is given is no text.
        """
        if not isinstance(texts, Iterable) or isinstance(texts, bytes):
            raise LabelsError(f"texts is a {type(texts).__name__}, wanted a list of str")
        return self._text_tower().embed([texts] if isinstance(texts, str) else list(texts))

    def _text_tower(self) -> TextTower:
        if self._text is None:
            from lraee.engine.text_tower import TextTower

            self._text = TextTower(self.bundle, self._sessions)
        return self._text

    def set_label_embeddings(self, names: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Classify among other labels, whose text embeddings you have.

        Args:
            names: at least two different labels.
            embeddings: (labels, embed_dim); rows are scaled to unit length.

        Raises:
            LabelsError: the shapes disagree, fewer than two labels, one that is no text, blank or repeated, a row
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
            policy: who decides where the image leaves; None takes the model's.
            top: how many labels `Prediction.top` lists.

        Raises:
            ImageError: the image cannot be read.
            PolicyError: the bundle lacks what the policy asks for.
        """
        check_count("top", top)
        parts = self._parts
        route = self._route(
            policy if policy is not None else self.policy
        )  # before reading: a deadline counts from here
        answers = run(parts, self._read(image)[None], route)
        return self._prediction(answers, 0, parts.labels, top, 0)

    def classify_batch(
        self,
        images: Iterable[ImageSource],
        *,
        policy: Policy | None = None,
        top: int = 5,
        batch_size: int = 8,
        on_error: OnError | None = None,
    ) -> list[Prediction]:
        """Classify images together; each leaves at its own depth and the rest is compacted.

        Args:
            images: as in `classify`.
            policy: as in `classify`.
            top: as in `classify`.
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
        chosen = policy if policy is not None else self.policy
        predictions: list[Prediction] = []
        parts = self._parts
        for begin, batch in batches(images, batch_size):
            route = self._route(chosen)
            places, pixels = read_batch(self._read, batch, begin, on_error)
            answers = run(parts, pixels, route) if places else None
            if answers is not None:
                predictions += [
                    self._prediction(answers, row, parts.labels, top, place) for row, place in enumerate(places)
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
            ordered: give answers in the order of the images; otherwise as soon as they are there, see
                `Prediction.position`.
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
        chosen = self._without_deadline(policy, batch_size, max_lag)
        parts = self._parts
        missing: set[int] = set()
        answers = run_stream(
            parts,
            read_stream(self._read, several(images), on_error, missing),
            lambda: chosen.bind(self.manifest),
            batch_size=batch_size,
            max_lag=max_lag,
        )
        named = ((place, self._prediction(one, 0, parts.labels, top, place)) for place, one in answers)
        return in_order(named, missing) if ordered else (prediction for _, prediction in named)

    def embed(
        self, images: Iterable[ImageSource], *, policy: Policy | None = None, batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embeddings (images, embed_dim) float32 of unit length, for `lraee.search` or anything else.

        At full depth unless a policy is given: a gate judges labels, and an embedding alone has none. With one, gates
        judge by the model's labels; `embed_answers` also says where each image left.
        """
        answers = self.embed_answers(images, policy=policy if policy is not None else Full(), batch_size=batch_size)
        return answers.embedding if answers is not None else np.empty((0, self.manifest.tower.embed_dim), np.float32)

    def embed_answers(
        self, images: Iterable[ImageSource], *, policy: Policy | None = None, batch_size: int = 8
    ) -> Answers | None:
        """Embeddings with the block where each image left, its gate and its probabilities; None for no images.

        Args:
            images: as in `classify`.
            policy: as in `classify`.
            batch_size: images that run together.

        Raises:
            ImageError: an image cannot be read: `ImageError.position` says which.
            PolicyError: as in `classify`.
        """
        chosen = policy if policy is not None else self.policy
        parts = self._parts
        found: list[Answers] = []
        for begin, batch in batches(images, batch_size):
            route = self._route(chosen)
            found.append(run(parts, read_batch(self._read, batch, begin, None)[1], route))
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
        self._check_pixels(pixels)
        chosen = policy if policy is not None else self.policy
        return run(self._parts, pixels, self._route(chosen), on_part=on_part)

    def stream_pixels(
        self, pixels: NDArray[np.uint8], *, policy: Policy | None = None, batch_size: int = 16, max_lag: int = 1024
    ) -> Answers:
        """Run preprocessed pixels as `classify_stream` does and give arrays in their order.

        Args:
            pixels: as in `run_pixels`; any number of images.
            policy: as in `classify_stream`.
            batch_size: as in `classify_stream`.
            max_lag: as in `classify_stream`.
        """
        self._check_pixels(pixels)
        chosen = self._without_deadline(policy, batch_size, max_lag)
        found = run_stream(
            self._parts, pixels, lambda: chosen.bind(self.manifest), batch_size=batch_size, max_lag=max_lag
        )
        return joined([answers for _, answers in sorted(found, key=lambda item: item[0])])

    def flops_of_run(self, answers: Answers) -> NDArray[np.int64]:
        """FLOPs of each image of a run, (batch,) int64: the parts that ran for it, added up."""
        label_count = answers.probabilities.shape[1]
        return np.array([self._flops(answers, row, label_count) for row in range(len(answers.exit_block))], np.int64)

    def _check_pixels(self, pixels: NDArray[np.uint8]) -> None:
        size = self.manifest.preprocessing.image_size
        if not isinstance(pixels, np.ndarray):
            raise ImageError(f"pixels are a {type(pixels).__name__}, wanted a uint8 array (batch, {size}, {size}, 3)")
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3) or not len(pixels):
            raise ImageError(f"pixels are {pixels.dtype} {pixels.shape}, wanted uint8 (batch, {size}, {size}, 3)")

    def _without_deadline(self, policy: Policy | None, batch_size: int, max_lag: int) -> Policy:
        """The policy of a stream."""
        chosen = policy if policy is not None else self.policy
        if is_anytime(bind(chosen, self.manifest)):
            raise PolicyError("a stream has no common start for a deadline; use classify or classify_batch")
        check_count("max_lag", max_lag, ImageError)
        if not is_count(batch_size, 1, max_lag):
            raise ImageError(f"batch_size is {batch_size}, wanted 1 to max_lag, which is {max_lag}")
        return chosen

    def _flops(self, answers: Answers, row: int, label_count: int) -> int:
        names = ["stem", *block_names(int(answers.blocks_run[row]))]
        names += [f"exit_{block:02d}" for block in answers.visited[row]]
        names += [] if answers.early[row] else ["tail"]
        return sum(self.manifest.flops_of(name, label_count) for name in names)

    def _route(self, policy: Policy) -> Route:
        """The policy bound to this bundle, with what is known here of the costs of parts."""
        route = bind(policy, self.manifest)
        if is_anytime(route):
            route.lends(self._costs)
        return route

    def _read(self, image: ImageSource) -> NDArray[np.uint8]:
        return preprocess(image, self.manifest.preprocessing, reading=self.reading)

    def _prediction(self, answers: Answers, row: int, labels: Labels, top: int, position: int) -> Prediction:
        probabilities = answers.probabilities[row]
        best = np.argsort(-probabilities, kind="stable")[:top]
        index = int(best[0])
        early = bool(answers.early[row])
        return Prediction(
            label=labels.names[index],
            score=float(probabilities[index]),
            top=tuple((labels.names[i], float(probabilities[i])) for i in best),
            index=index,
            exit_block=int(answers.exit_block[row]),
            early=early,
            gate=float(answers.gate[row]) if early else None,
            flops=self._flops(answers, row, len(labels.names)),
            embedding=answers.embedding[row],
            position=position,
        )


def _reopened(saved: SavedModel) -> Model:
    """The model that was pickled or copied, with sessions of its own."""
    saved.check()
    model = Model(saved.bundle, saved.settings, saved.policy, saved.reading)
    if saved.labels is not None:
        model._set_labels(saved.labels)
    return model
