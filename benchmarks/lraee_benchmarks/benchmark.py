"""One measurement from beginning to end; `cli` and other programs call `run_benchmark`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from lraee.bundle.manifest import Manifest
from lraee.errors import DataError
from lraee.labels.label_file import read_label_file
from lraee.loading import load
from lraee.model import Model
from lraee_benchmarks.analysis.accuracy import check_accuracy_possible, summarize_accuracy
from lraee_benchmarks.analysis.notes import disturbance_notes, failure_notes, make_notes
from lraee_benchmarks.analysis.summary import (
    RowInput,
    collect,
    find_full,
    find_full_depths,
    summarize_floor,
    summarize_row,
)
from lraee_benchmarks.config import BenchmarkConfig, command_line
from lraee_benchmarks.device.cold_start import measure_cold_start
from lraee_benchmarks.device.description import describe_device, temperature
from lraee_benchmarks.device.energy import find_meter, has_meter, measure_energy
from lraee_benchmarks.device.stability import StabilityWatch
from lraee_benchmarks.images import (
    Sample,
    default_source,
    load_sample,
    open_source,
    passed_over_notes,
    skipped_notes,
    summarize_preprocessing,
)
from lraee_benchmarks.output_files import write_file
from lraee_benchmarks.planning import plan_rows
from lraee_benchmarks.results.model import (
    SCHEMA,
    Accuracy,
    BundleSummary,
    Energy,
    Floor,
    PartTime,
    Report,
    Settings,
)
from lraee_benchmarks.rows.answers import LabelledSource, check_labels
from lraee_benchmarks.rows.baseline_files import checked_baseline
from lraee_benchmarks.rows.baselines import WITH_OWN_THREADS
from lraee_benchmarks.running.in_process import Rows
from lraee_benchmarks.running.launches import Launched, LaunchPlan, measure_in_launches, opened_rows, set_pool
from lraee_benchmarks.running.part_times import measure_parts
from lraee_benchmarks.running.rounds import MIN_ROUNDS, Measured, Plan, interleave
from lraee_benchmarks.running.trace import trace_text

OFFLINE_ROUNDS = 5
"""Measured at least, each of all images."""

OnProgress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""


def run_benchmark(config: BenchmarkConfig, *, on_progress: OnProgress | None = None) -> Report:
    """Measure a bundle.

    Raises:
        LraeeError: the bundle is damaged, a baseline, exit or operating point is not there, images cannot be read,
            or accuracy is asked for where it means nothing. All of that is found before anything is timed.
    """
    report_progress = on_progress or _ignore
    device = describe_device()
    model = load(config.bundle, threads=config.threads, thread_pool=config.thread_pool)
    settings = model.session_settings
    labelled = _labelled(config)
    if labelled is not None:
        check_accuracy_possible(model.manifest)
        check_labels(labelled, model.labels)
    row_plan = plan_rows(config, model)
    offline = config.scenario == "offline"
    isolated = config.isolate if config.isolate is not None else bool({*row_plan.peers} & {*WITH_OWN_THREADS})

    report_progress("images", 0.0)
    source = config.images if config.images is not None else default_source(model.manifest.model)
    sample = load_sample(
        source,
        model.manifest.preprocessing,
        count=config.image_count,
        batch=config.batch,
        seed=config.seed,
        unreadable=config.unreadable,
    )
    if offline:
        sample = dataclasses.replace(sample, batches=(np.concatenate(sample.batches),))
    report_progress("images", 1.0)
    cold_start = None
    if config.cold_starts:
        cold_start = measure_cold_start(
            model.bundle.folder,
            sample.first_image,
            settings,
            processes=config.cold_starts,
            on_progress=lambda share: report_progress("cold starts", share),
        )
    plan = Plan(
        warmup_rounds=1 if offline else config.warmup_rounds,
        rounds=None if config.repeats is None else -(-config.repeats // config.launches),
        min_seconds=config.min_seconds / config.launches,
        seed=config.seed,
        min_rounds=-(-(OFFLINE_ROUNDS if offline else MIN_ROUNDS) // config.launches),
    )
    watch = StabilityWatch()

    def after_round(share: float) -> None:
        watch.look()
        report_progress("rounds", share)

    launched: Launched | None = None
    if config.launches > 1:
        launch = LaunchPlan(
            bundle=str(model.bundle.folder.resolve()),
            threads=settings.thread_count,
            thread_pool=config.thread_pool,
            isolated=isolated,
            rows=row_plan,
            plan=plan,
        )
        launched = measure_in_launches(launch, sample, config.launches, after_round)
        stability_so_far = watch.verdict(launched.measured.samples_ms[:, row_plan.chain.index("full")])
    accuracies: dict[str, Accuracy] = {}
    energies: dict[str, Energy] = {}
    data_notes: tuple[str, ...] = ()
    if launched is None or config.accuracy is not None or (config.energy and not isolated and has_meter()):
        with opened_rows(
            row_plan, model, sample, isolated=isolated, on_share=lambda share: report_progress("processes", share)
        ) as rows:
            accuracies, data_notes = _accuracies(config, labelled, rows, report_progress)
            if launched is None:
                measured = interleave(rows.measures, len(sample.batches), plan, on_progress=after_round)
                launched = Launched(
                    names=rows.names,
                    peers=tuple(rows.peers),
                    restless=frozenset(rows.restless),
                    failed=rows.failed,
                    outcomes=rows.outcomes(),
                    measured=measured,
                )
            energies = _energies(config, rows, sample, isolated=isolated)
    measured = launched.measured
    inputs = collect(launched.names, launched.outcomes, measured)
    ran = [name for name in row_plan.peers if name not in launched.failed]
    disturbed = disturbance_notes(ran, isolated=isolated, restless=launched.restless)
    device = dataclasses.replace(device, celsius_after=temperature())

    full_depths, full = find_full_depths(inputs), find_full(inputs)
    stability = stability_so_far if config.launches > 1 else watch.verdict(full.samples_ms)
    report = Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        bundle=summarize_bundle(model),
        settings=Settings(
            command=command_line(config),
            threads=settings.thread_count,
            thread_pool=config.thread_pool,
            isolated=isolated,
            launches=config.launches,
            scenario=config.scenario,
            batch=config.batch,
            images_per_sample=len(sample.batches[0]),
            warmup_rounds=plan.warmup_rounds,
            rounds=len(measured.samples_ms),
            images=len(np.unique(measured.batch_of_round)) * len(sample.batches[0]),
            image_source=sample.source,
            seed=config.seed,
        ),
        stability=stability,
        preprocessing=summarize_preprocessing(sample.preprocessing_ms),
        cold_start=cold_start,
        reference=full_depths[0].name,
        accuracy_source=config.accuracy,
        rows=tuple(
            summarize_row(
                item,
                full_depths,
                full,
                full_flops=model.manifest.full_flops,
                accuracy=accuracies.get(item.name),
                energy=energies.get(item.name),
                seed=config.seed,
            )
            for item in inputs
        ),
        peers=launched.peers,
        floor=_floor(config, model, full, measured),
        parts=_parts(config, model, sample),
        notes=(),
    )
    if config.trace is not None:
        set_pool(model)
        write_file(config.trace, trace_text(model, row_plan.chain, sample.batches, sample.first_image))
    told = (*failure_notes(launched.failed), *make_notes(report), *disturbed, *sample.notes, *data_notes)
    return dataclasses.replace(report, notes=told)


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


def _energies(config: BenchmarkConfig, rows: Rows, sample: Sample, *, isolated: bool) -> dict[str, Energy]:
    """Energy of each row by its name; empty where the device has no meter, or a row has a process of its own."""
    meter = find_meter() if config.energy and not isolated else None
    if meter is None:
        return {}
    try:
        names = [name for name, _ in rows.names]
        return measure_energy(names, rows.measures[: len(names)], len(sample.batches), len(sample.batches[0]), meter)
    finally:
        meter.close()


def _parts(config: BenchmarkConfig, model: Model, sample: Sample) -> tuple[PartTime, ...]:
    """Times of the parts, if they were asked for; in this process."""
    if not config.parts:
        return ()
    set_pool(model)
    model.warm()
    return measure_parts(model, sample.batches)


def _labelled(config: BenchmarkConfig) -> LabelledSource | None:
    """The images that accuracy is measured on, if it is."""
    if config.accuracy is None:
        if config.labels is not None:
            raise DataError("--labels maps folders of labelled images to labels; give the images with --accuracy")
        return None
    folders = () if config.labels is None else read_label_file(config.labels).folders
    return LabelledSource(source=config.accuracy, unreadable=config.unreadable, folders=folders)


def _accuracies(
    config: BenchmarkConfig, labelled: LabelledSource | None, rows: Rows, report_progress: OnProgress
) -> tuple[dict[str, Accuracy], tuple[str, ...]]:
    """Accuracy of each row by its name, and what of the images was not read; both empty when it was not asked for."""
    if labelled is None:
        return {}, ()
    right, skipped = rows.right(labelled, lambda share: report_progress("accuracy", share))
    names = [name for name, _ in rows.names]
    full = right[:, names.index("full")]
    found = {name: summarize_accuracy(right[:, index], full, seed=config.seed) for index, name in enumerate(names)}
    passed_over = (
        () if labelled.source == config.images else passed_over_notes(labelled.source, open_source(labelled.source))
    )
    return found, (*passed_over, *skipped_notes(labelled.source, skipped))


def _floor(config: BenchmarkConfig, model: Model, full: RowInput, measured: Measured) -> Floor | None:
    """The last two columns, if they were asked for."""
    if not config.floor:
        return None
    gemm_ms, read_ms = measured.samples_ms[:, -2], measured.samples_ms[:, -1]
    path = checked_baseline(model.bundle, "floor")
    products = 6 * model.manifest.tower.blocks + 2
    return summarize_floor(
        full.samples_ms, gemm_ms, read_ms, path, products=products, seed=config.seed, launches=measured.launches
    )


def _ignore(stage: str, share: float) -> None:
    """Nobody watches."""
