"""One measurement from beginning to end; `cli` and other programs call `run_benchmark`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from lraee.commands.output_files import write_file
from lraee.errors import DataError
from lraee.labels.label_file import read_label_file
from lraee.loading import load
from lraee.model import Model
from lraee_benchmarks.analysis.accuracy import check_accuracy_possible, summarize_accuracy
from lraee_benchmarks.analysis.notes import disturbance_notes, failure_notes, make_notes
from lraee_benchmarks.analysis.summary import (
    collect,
    find_full,
    find_full_depths,
    summarize_bundle,
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
from lraee_benchmarks.planning import plan_rows
from lraee_benchmarks.results.conditions import ColdStart, Device, Settings, Stability
from lraee_benchmarks.results.model import SCHEMA, Accuracy, Energy, PartTime, Report
from lraee_benchmarks.rows.answers import LabelledSource, check_labels
from lraee_benchmarks.rows.baseline_files import checked_baseline
from lraee_benchmarks.rows.baselines import WITH_OWN_THREADS
from lraee_benchmarks.running.in_process import RowPlan, Rows
from lraee_benchmarks.running.launches import (
    Launch,
    MeasuredRows,
    measure_in_launches,
    measure_rows,
    opened_rows,
    set_pool,
)
from lraee_benchmarks.running.part_times import measure_parts
from lraee_benchmarks.running.rounds import MIN_ROUNDS, Measured, Plan
from lraee_benchmarks.running.trace import trace_text

OFFLINE_ROUNDS = 5
"""Rounds of the offline scenario at least, each of all images."""

OnProgress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A measurement of which everything has been checked."""

    config: BenchmarkConfig
    model: Model
    labelled: LabelledSource | None
    """Images that accuracy is measured on, if it is."""
    rows: RowPlan
    isolated: bool
    sample: Sample
    plan: Plan
    progress: OnProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What was measured of the rows."""

    rows: MeasuredRows
    stability: Stability
    accuracies: Mapping[str, Accuracy]
    """By row; empty where it was not asked for."""
    energies: Mapping[str, Energy]
    """By row; empty where it was not measured."""
    data_notes: tuple[str, ...]
    """What of the labelled images was not read."""


def run_benchmark(config: BenchmarkConfig, *, on_progress: OnProgress | None = None) -> Report:
    """Measure a bundle.

    Raises:
        LraeeError: the bundle is damaged, a baseline, exit or operating point is missing, images cannot be read, or
            accuracy is asked for where it means nothing. All of that is found before anything is timed.
    """
    device = describe_device()
    task = _prepare(config, on_progress or _ignore)
    cold_start = _cold_start(task)
    found = _measure(task)
    device = dataclasses.replace(device, celsius_after=temperature())
    report = _summarize(task, found, device, cold_start)
    if config.trace is not None:
        set_pool(task.model)
        write_file(config.trace, trace_text(task.model, task.rows.chain, task.sample.batches, task.sample.first_image))
    ran = [name for name in task.rows.peers if name not in found.rows.failed]
    notes = (
        *failure_notes(found.rows.failed),
        *make_notes(report),
        *disturbance_notes(ran, isolated=task.isolated, busy_rows=found.rows.busy_rows),
        *task.sample.notes,
        *found.data_notes,
    )
    return dataclasses.replace(report, notes=notes)


def _prepare(config: BenchmarkConfig, progress: OnProgress) -> _Task:
    """Load and check the bundle, choose the rows, read the images."""
    model = load(config.bundle, threads=config.threads, thread_pool=config.thread_pool)
    labelled = _labelled(config)
    if labelled is not None:
        check_accuracy_possible(model.manifest)
        check_labels(labelled, model.labels)
    rows = plan_rows(config, model)
    progress("images", 0.0)
    sample = load_sample(
        config.images if config.images is not None else default_source(model.manifest.model),
        model.manifest.preprocessing,
        count=config.image_count,
        batch=config.batch,
        seed=config.seed,
        unreadable=config.unreadable,
    )
    offline = config.scenario == "offline"
    if offline:
        sample = dataclasses.replace(sample, batches=(np.concatenate(sample.batches),))
    progress("images", 1.0)
    plan = Plan(
        warmup_rounds=1 if offline else config.warmup_rounds,
        rounds=None if config.repeats is None else -(-config.repeats // config.launches),
        min_seconds=config.min_seconds / config.launches,
        seed=config.seed,
        min_rounds=-(-(OFFLINE_ROUNDS if offline else MIN_ROUNDS) // config.launches),
    )
    isolated = config.isolate if config.isolate is not None else bool({*rows.peers} & {*WITH_OWN_THREADS})
    return _Task(
        config=config,
        model=model,
        labelled=labelled,
        rows=rows,
        isolated=isolated,
        sample=sample,
        plan=plan,
        progress=progress,
    )


def _cold_start(task: _Task) -> ColdStart | None:
    """Fresh processes, if any were asked for."""
    if not task.config.cold_starts:
        return None
    return measure_cold_start(
        task.model.bundle.place,
        task.sample.first_image,
        task.model.session_settings,
        processes=task.config.cold_starts,
        on_progress=lambda share: task.progress("cold starts", share),
    )


def _measure(task: _Task) -> _Found:
    """Run the rounds, in launches or here, and whatever else needs open rows."""
    config, batches = task.config, task.sample.batches
    watch = StabilityWatch()

    def after_round(share: float) -> None:
        watch.look()
        task.progress("rounds", share)

    def stability_of(rows: MeasuredRows) -> Stability:
        return watch.verdict(rows.measured.samples_ms[:, rows.names.index(("full", "full"))])

    measured: MeasuredRows | None = None
    stability: Stability | None = None
    if config.launches > 1:
        measured = measure_in_launches(_launch(task), batches, config.launches, after_round)
        stability = stability_of(measured)
    accuracies: dict[str, Accuracy] = {}
    energies: dict[str, Energy] = {}
    data_notes: tuple[str, ...] = ()
    if measured is None or task.labelled is not None or (config.energy and not task.isolated and has_meter()):
        with opened_rows(
            task.rows,
            task.model,
            batches,
            isolated=task.isolated,
            on_share=lambda share: task.progress("processes", share),
        ) as rows:
            accuracies, data_notes = _accuracies(task, rows)
            if measured is None:
                measured = measure_rows(rows, batches, task.plan, on_progress=after_round)
            energies = _energies(task, rows)
    return _Found(
        rows=measured,
        stability=stability or stability_of(measured),  # once workers have ended, so that their time is known
        accuracies=accuracies,
        energies=energies,
        data_notes=data_notes,
    )


def _launch(task: _Task) -> Launch:
    settings = task.model.session_settings
    return Launch(
        bundle=task.model.bundle.place,
        threads=settings.thread_count,
        thread_pool=settings.thread_pool,
        isolated=task.isolated,
        rows=task.rows,
        plan=task.plan,
    )


def _summarize(task: _Task, found: _Found, device: Device, cold_start: ColdStart | None) -> Report:
    """Everything as a report, without its notes."""
    config, model, measured = task.config, task.model, found.rows.measured
    inputs = collect(found.rows.names, found.rows.outcomes, measured)
    full_depths = find_full_depths(inputs)
    floor = None
    if config.floor:
        path, products = checked_baseline(model.bundle, "floor"), 6 * model.manifest.tower.blocks + 2
        floor = summarize_floor(find_full(inputs), measured, path, products=products, seed=config.seed)
    return Report(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        bundle=summarize_bundle(model),
        settings=_settings(task, measured),
        stability=found.stability,
        preprocessing=summarize_preprocessing(task.sample.preprocessing_ms),
        cold_start=cold_start,
        reference=full_depths[0].name,
        accuracy_source=config.accuracy,
        rows=tuple(
            summarize_row(
                item,
                full_depths,
                full_flops=model.manifest.full_flops,
                accuracy=found.accuracies.get(item.name),
                energy=found.energies.get(item.name),
                seed=config.seed,
            )
            for item in inputs
        ),
        peers=tuple(found.rows.peers),
        floor=floor,
        parts=_parts(task),
        notes=(),
    )


def _settings(task: _Task, measured: Measured) -> Settings:
    config, batches = task.config, task.sample.batches
    settings = task.model.session_settings
    return Settings(
        command=command_line(config),
        threads=settings.thread_count,
        thread_pool=config.thread_pool,
        isolated=task.isolated,
        launches=config.launches,
        scenario=config.scenario,
        batch=config.batch,
        images_per_sample=len(batches[0]),
        warmup_rounds=task.plan.warmup_rounds,
        rounds=len(measured.samples_ms),
        images=len(np.unique(measured.batch_of_round)) * len(batches[0]),
        image_source=task.sample.source,
        seed=config.seed,
    )


def _energies(task: _Task, rows: Rows) -> dict[str, Energy]:
    """Energy of each row by its name; empty where the device has no meter, or a row has a process of its own."""
    meter = find_meter() if task.config.energy and not task.isolated else None
    if meter is None:
        return {}
    try:
        measures = {name: measure for (name, _), measure in zip(rows.names, rows.measures, strict=False)}
        return measure_energy(measures, task.sample.batches, meter)
    finally:
        meter.close()


def _parts(task: _Task) -> tuple[PartTime, ...]:
    """Times of the parts, if they were asked for; in this process."""
    if not task.config.parts:
        return ()
    set_pool(task.model)
    task.model.warm()
    return measure_parts(task.model, task.sample.batches)


def _labelled(config: BenchmarkConfig) -> LabelledSource | None:
    """The images that accuracy is measured on, if it is."""
    if config.accuracy is None:
        if config.labels is not None:
            raise DataError("--labels maps folders of labelled images to labels; give the images with --accuracy")
        return None
    folders = () if config.labels is None else read_label_file(config.labels).folders
    return LabelledSource(source=config.accuracy, unreadable=config.unreadable, folders=folders)


def _accuracies(task: _Task, rows: Rows) -> tuple[dict[str, Accuracy], tuple[str, ...]]:
    """Accuracy of each row by its name, and what of the images was not read; both empty when it was not asked for."""
    labelled, seed = task.labelled, task.config.seed
    if labelled is None:
        return {}, ()
    right, skipped = rows.right(labelled, lambda share: task.progress("accuracy", share))
    full = right[:, rows.names.index(("full", "full"))]
    found = {name: summarize_accuracy(right[:, index], full, seed=seed) for index, (name, _) in enumerate(rows.names)}
    passed_over = (
        ()
        if labelled.source == task.config.images
        else passed_over_notes(labelled.source, open_source(labelled.source))
    )
    return found, (*passed_over, *skipped_notes(labelled.source, skipped))


def _ignore(stage: str, share: float) -> None:
    """Discard progress."""
