"""Say what a reader of the report must not miss, above all where early exit does not pay.

Each rule is one function from the report to its sentences, so that the rules can be read and tested one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from lraee_benchmarks.results.model import BY_IMAGE, Report, Row
from lraee_benchmarks.rows.baselines import WITH_OWN_THREADS, Baseline

SMALL_SAMPLE = 100
"""With fewer different images, exit shares are a rough estimate."""

QUIET_LOAD = 0.5
"""An idle machine stays below."""

HOT_CELSIUS = 80.0
"""From here on a Raspberry Pi slows down."""


def make_notes(report: Report) -> tuple[str, ...]:
    """Collect all notes, in the order of the rules below."""
    rules = (
        _random_weights,
        _early_exit,
        _against_cuts,
        _chain_against_graph,
        _against_float,
        _saturation,
        _spinning_pool,
        _sample_size,
        _conditions,
    )
    return tuple(note for rule in rules for note in rule(report))


def disturbance_notes(peers: Sequence[Baseline], *, isolated: bool, busy_rows: Collection[str]) -> tuple[str, ...]:
    """Say what rows may have done to each other.

    Args:
        peers: the baselines that ran.
        isolated: whether each row had a process of its own.
        busy_rows: rows whose threads were still spinning when another row was timed.
    """
    notes = []
    loud = [name for name in peers if name in WITH_OWN_THREADS]
    if loud and not isolated:
        notes.append(
            f"{', '.join(loud)} brought threads of their own into one process with the other rows, which may have "
            "disturbed all of them; measure with --isolate."
        )
    if busy_rows:
        notes.append(f"Threads of {', '.join(sorted(busy_rows))} were still spinning while other rows were timed.")
    return tuple(notes)


def failure_notes(failed: Mapping[str, str]) -> tuple[str, ...]:
    """Say which rows could not run here, and why.

    Args:
        failed: reasons by the names of baselines.
    """
    return tuple(f"The {name} row could not run here: {reason.rstrip('.')}." for name, reason in failed.items())


def _random_weights(report: Report) -> Iterator[str]:
    if report.bundle.weights.startswith("random"):
        yield "The weights are random: full depth and exits show speed, but where images leave means nothing."


def _early_exit(report: Report) -> Iterator[str]:
    idle = [row.name for row in report.rows if row.kind in BY_IMAGE and row.flops_saved <= 0]
    if idle:
        yield f"{', '.join(idle)} saves no FLOPs on these images."
    rows = [row for row in report.rows if row.kind in (*BY_IMAGE, "exit", "merged") and row.name not in idle]
    for row in rows:
        if row.latency_saved_interval.high < 0:
            cost = "finding and merging tokens costs" if row.kind == "merged" else "its exits and the chain cost"
            yield (
                f"{row.name} is slower than full depth ({report.reference}) by {-row.latency_saved:.1%}: "
                f"it saves {row.flops_saved:.1%} of the FLOPs, less than {cost}."
            )
    unclear = [row.name for row in rows if row.latency_saved_interval.low <= 0 <= row.latency_saved_interval.high]
    if unclear:
        yield f"Whether {', '.join(unclear)} is faster than full depth ({report.reference}) is within the noise."


def _against_cuts(report: Report) -> Iterator[str]:
    """A tower cut after one exit is a smaller static model: early exit must beat it."""
    cuts = [row for row in report.rows if row.kind == "exit"]
    for row in report.rows:
        if row.kind not in BY_IMAGE or row.accuracy is None:
            continue
        better = [
            cut.name
            for cut in cuts
            if cut.accuracy is not None
            and cut.accuracy.top1 >= row.accuracy.top1
            and cut.latency.mean_ms <= row.latency.mean_ms
        ]
        if better:
            yield f"{row.name} does not beat cutting the tower: {better[0]} is as accurate and as fast."


def _chain_against_graph(report: Report) -> Iterator[str]:
    chain, graph = report.row("full"), report.row("graph")
    if chain is None or graph is None:
        yield "Without the graph baseline, what running part by part costs is not in this report."
        return
    cost = chain.latency.mean_ms / graph.latency.mean_ms - 1
    how = "longer" if cost >= 0 else "less"
    yield f"At full depth the parts one by one take {abs(cost):.1%} {how} than one graph."


def _against_float(report: Report) -> Iterator[str]:
    float_row = report.row("fp32")
    full = report.row(report.reference)
    if float_row is None or full is None or report.bundle.precision != "int8":
        return
    ratio = float_row.latency.mean_ms / full.latency.mean_ms
    verdict = "as fast as" if 0.995 <= ratio < 1.005 else f"{ratio:.2f} times as fast as"
    features = "" if report.device.int8_features or ratio >= 1 else "; this CPU has no 8-bit dot product"
    advice = "" if ratio >= 0.995 else "; INT8 does not pay here, take what lraee-export --precision fp32 gives"
    yield f"INT8 full depth ({full.name}) is {verdict} FP32{features}{advice}."


def _saturation(report: Report) -> Iterator[str]:
    """Where sums of uint8 x int8 overflow, an exact kernel costs time and a wrong answer costs none."""
    exact = any(peer.options.get("session.x64quantprecision") == "1" for peer in report.peers)
    engines = {peer.engine for peer in report.peers if peer.precision.startswith("int8")}
    if not exact or not engines:
        return
    yield (
        "On this CPU, without VNNI or AMX, 8-bit GEMMs saturate: the rows of ONNX Runtime run its exact "
        "kernels (session.x64quantprecision), which are slower than its default."
    )
    if "OpenVINO" in engines:
        yield ("OpenVINO has no such kernels: its GEMMs saturate here, and the openvino row times wrong answers.")


def _spinning_pool(report: Report) -> Iterator[str]:
    if report.settings.thread_pool == "global" and report.settings.threads > 1:
        yield (
            "The rows of ONNX Runtime shared a process-wide pool whose threads spin while they wait; those of "
            "lraee.load sleep by default (--thread-pool session measures them)."
        )


def _sample_size(report: Report) -> Iterator[str]:
    if report.settings.images < SMALL_SAMPLE:
        yield (
            f"Only {report.settings.images} different images: exit shares, FLOPs saved and latency saved are rough; "
            "give more --images or --repeats."
        )


def _conditions(report: Report) -> Iterator[str]:
    device = report.device
    if not report.stability.stable:
        yield f"The device was not left alone: {'; '.join(report.stability.reasons)}. Do not trust this run; repeat it."
    load = device.load_average
    if load is not None and load > QUIET_LOAD and load + report.settings.threads > device.cores:
        yield f"The CPU was busy in the minute before (load average {load:.1f}); other programs may have disturbed it."
    if device.governor in {"powersave", "ondemand", "schedutil", "conservative"}:
        yield f"The CPU's frequency governor is {device.governor}; with performance the latencies vary less."
    if device.celsius_after is not None and device.celsius_after >= HOT_CELSIUS:
        yield f"The CPU was at {device.celsius_after:.0f} °C at the end and may have slowed down; cool it."
    tails = [row.name for row in report.rows if _has_long_tail(row)]
    if tails:
        yield f"p99 is more than twice p50 for {', '.join(tails)}; something else used the CPU, or it slowed down."


def _has_long_tail(row: Row) -> bool:
    """Say whether calls were disturbed; where images leave at different depths, latencies spread by design."""
    return row.kind not in BY_IMAGE and row.latency.p99_ms > 2 * row.latency.p50_ms
