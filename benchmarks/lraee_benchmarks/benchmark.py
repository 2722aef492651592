"""One measurement from beginning to end; `cli` and other programs call `run_benchmark`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from lraee.manifest import Manifest
from lraee.model import Model, load
from lraee.sessions import SessionSettings, use_global_thread_pool
from lraee_benchmarks.accuracy import answers_right, check_accuracy_possible, summarize_accuracy
from lraee_benchmarks.cold_start import measure_cold_start
from lraee_benchmarks.device import describe_device, temperature
from lraee_benchmarks.notes import make_notes
from lraee_benchmarks.results import SCHEMA, Accuracy, BundleSummary, Report, Settings
from lraee_benchmarks.sample import default_source, load_sample, open_source, summarize_preprocessing
from lraee_benchmarks.summary import collect, find_reference, summarize_row
from lraee_benchmarks.timing import Plan, interleave
from lraee_benchmarks.variants import Baseline, Variant, available_baselines, baseline_variant, chain_variants
from lraee_calibration_data import label_rows

OnProgress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """What to measure, and how."""

    bundle: str
    """A bundle's folder, or ``reference``."""
    images: str | None = None
    """Folder, zip, or the name of shipped images; None takes those that suit the bundle."""
    image_count: int = 256
    """Images held in memory; rounds go through them in turn."""
    threads: int | None = None
    """Cores used inside one operator; None takes all."""
    thread_pool: Literal["session", "global"] = "session"
    """``global`` may be chosen once in a process, before any session is made; it is the command's default."""
    batch: int = 1
    policies: tuple[str, ...] = ()
    """Specs of the chain's rows besides full depth; none takes every operating point and every exit."""
    baselines: tuple[Baseline, ...] | None = None
    """None takes those that are there."""
    accuracy: str | None = None
    """Labelled, as `images`; None measures no accuracy."""
    repeats: int | None = None
    """Measured rounds; None goes by `min_seconds`."""
    min_seconds: float = 20.0
    warmup_rounds: int = 5
    cold_starts: int = 5
    """Fresh processes; 0 measures no cold start."""
    seed: int = 0


def run_benchmark(config: BenchmarkConfig, *, on_progress: OnProgress | None = None) -> Report:
    """Measure a bundle.

    Raises:
        LraeeError: the bundle is damaged, a baseline, exit or operating point is not there, images cannot be read,
            or accuracy is asked for where it means nothing. All of that is found before anything is timed.
    """
    report_progress = on_progress or _ignore
    device = describe_device()
    settings = SessionSettings(threads=config.threads, thread_pool=config.thread_pool)
    if config.thread_pool == "global":
        use_global_thread_pool(settings.thread_count)
    model = load(config.bundle, threads=config.threads, thread_pool=config.thread_pool)
    if config.accuracy is not None:
        check_accuracy_possible(model.manifest)
        label_rows(open_source(config.accuracy), model.labels)
    variants = _variants(config, model, settings)

    report_progress("images", 0.0)
    source = config.images if config.images is not None else default_source(model.manifest.model)
    sample = load_sample(
        source, model.manifest.preprocessing, count=config.image_count, batch=config.batch, seed=config.seed
    )
    report_progress("images", 1.0)
    accuracies = _accuracies(config, model, variants, report_progress)
    cold_start = None
    if config.cold_starts:
        cold_start = measure_cold_start(
            model.bundle.folder,
            sample.first_image,
            settings,
            processes=config.cold_starts,
            on_progress=lambda share: report_progress("cold starts", share),
        )
    model.warm()
    plan = Plan(
        warmup_rounds=config.warmup_rounds, rounds=config.repeats, min_seconds=config.min_seconds, seed=config.seed
    )
    measured = interleave(variants, sample.batches, plan, on_progress=lambda share: report_progress("rounds", share))
    device = dataclasses.replace(device, celsius_after=temperature())

    inputs = collect(variants, measured)
    reference = find_reference(inputs)
    report = Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        bundle=summarize_bundle(model),
        settings=Settings(
            command=command_line(config),
            threads=settings.thread_count,
            thread_pool=config.thread_pool,
            batch=config.batch,
            warmup_rounds=config.warmup_rounds,
            rounds=len(measured.samples_ms),
            images=len(np.unique(measured.batch_of_round)) * config.batch,
            image_source=sample.source,
            seed=config.seed,
        ),
        preprocessing=summarize_preprocessing(sample.preprocessing_ms),
        cold_start=cold_start,
        reference=reference.variant.name,
        accuracy_source=config.accuracy,
        rows=tuple(
            summarize_row(
                item,
                reference,
                full_flops=model.manifest.full_flops,
                accuracy=accuracies.get(item.variant.name),
                seed=config.seed,
            )
            for item in inputs
        ),
        notes=(),
    )
    return dataclasses.replace(report, notes=make_notes(report))


def summarize_bundle(model: Model) -> BundleSummary:
    """What a report says of the bundle."""
    manifest: Manifest = model.manifest
    return BundleSummary(
        name=model.bundle.folder.resolve().name,
        model=manifest.model.id,
        weights=manifest.model.weights,
        fingerprint=manifest.model.fingerprint,
        precision=manifest.precision,
        quantizer=manifest.quantization.quantizer if manifest.quantization is not None else None,
        blocks=manifest.tower.blocks,
        labels=manifest.labels.count,
        size_bytes=sum(entry.size_bytes for entry in manifest.files),
        full_flops=manifest.full_flops,
    )


def command_line(config: BenchmarkConfig) -> str:
    """The command that repeats a measurement: the pool, and every option that is not at its default.

    >>> command_line(BenchmarkConfig(bundle="reference", threads=4, policies=("full",)))
    'lraee-bench reference --threads 4 --thread-pool session --policy full'
    """
    words = ["lraee-bench", config.bundle]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        is_default = value == field.default and field.name != "thread_pool"
        if field.name in {"bundle", "policies", "baselines"} or is_default:
            continue
        words += [f"--{_OPTION_NAMES.get(field.name, field.name).replace('_', '-')}", str(value)]
    for spec in config.policies:
        words += ["--policy", spec]
    if config.baselines is not None:
        words += ["--baselines", ",".join(config.baselines) or "none"]
    return shlex.join(words)


_OPTION_NAMES = {"warmup_rounds": "warmup"}


def _variants(config: BenchmarkConfig, model: Model, settings: SessionSettings) -> list[Variant[Any]]:
    """The chain's rows, then the baselines."""
    baselines = config.baselines if config.baselines is not None else available_baselines(model.bundle)
    single = [baseline_variant(model.bundle, baseline, settings) for baseline in baselines]
    return [*chain_variants(model, config.policies), *single]


def _accuracies(
    config: BenchmarkConfig, model: Model, variants: list[Variant[Any]], report_progress: OnProgress
) -> dict[str, Accuracy]:
    """Accuracy of each row by its name; empty when it was not asked for."""
    if config.accuracy is None:
        return {}
    right = answers_right(
        variants,
        open_source(config.accuracy),
        model.manifest,
        model.labels,
        on_progress=lambda share: report_progress("accuracy", share),
    )
    names = [variant.name for variant in variants]
    full = right[:, names.index("full")]
    return {name: summarize_accuracy(right[:, index], full, seed=config.seed) for index, name in enumerate(names)}


def _ignore(stage: str, share: float) -> None:
    """Nobody watches."""
