"""The sentences and cells that all forms of a report share."""

from __future__ import annotations

from collections.abc import Sequence

from lraee_benchmarks.results.conditions import BundleSummary, ColdStart, Device, Peer, Stability
from lraee_benchmarks.results.model import BY_IMAGE, Accuracy, Floor, Interval, PartTime, Ratio, Report, Row, RowKind


def device_line(device: Device) -> str:
    """Describe board or CPU, cores, 8-bit features and versions."""
    memory = f", {device.memory_bytes / 1e9:.1f} GB" if device.memory_bytes is not None else ""
    int8 = ", ".join(device.int8_features) or "none"
    versions = f"ONNX Runtime {device.onnxruntime}, lraee {device.lraee}, Python {device.python}"
    return f"{device.model} ({device.machine}), {device.cores} cores{memory}, INT8 features: {int8}; {versions}"


def bundle_line(bundle: BundleSummary) -> str:
    """Describe model, weights, precision and size."""
    how = f" ({bundle.quantizer})" if bundle.quantizer is not None else ""
    return (
        f"{bundle.name}: {bundle.model}, weights {bundle.weights}, {bundle.precision}{how}, {bundle.blocks} blocks, "
        f"{bundle.labels} labels, {bundle.size_bytes / 1e6:.2f} MB, {bundle.full_flops / 1e6:,.2f} MFLOPs an image "
        "(multiply-add = 2, matrix products)"
    )


def method_line(report: Report) -> str:
    """Say what is repeated, how often and on which images."""
    settings = report.settings
    return (
        f"{settings.scenario}, threads {settings.threads} ({settings.thread_pool} pool), batch {settings.batch}, "
        f"{settings.warmup_rounds} warm-up rounds, {settings.rounds} rounds over {settings.images} images "
        f"({settings.image_source}) in {settings.launches} launch(es); every round runs every row, in changing order"
        f"{_ISOLATED if settings.isolated else ''}"
    )


_ISOLATED = (
    ", each in a process of its own on the same cores, after one run that is not timed; the next row waits until its "
    "threads are idle"
)


def head_lines(report: Report) -> list[str]:
    """What stands above the tables, but for the stability."""
    lines = [
        f"Device: {device_line(report.device)}",
        f"Bundle: {bundle_line(report.bundle)}",
        f"Method: {method_line(report)}",
        kinds_line(report),
        preprocessing_line(report),
    ]
    return lines if report.cold_start is None else [*lines, cold_start_line(report.cold_start)]


def details(report: Report) -> list[tuple[str, list[str]]]:
    """Title and lines of whatever else was measured."""
    found = [
        ("Latency in ms by the block after which an image leaves", depth_lines(report)),
        ("Deadlines", lateness_lines(report)),
        ("Energy", energy_lines(report)),
        ("Lower bounds", floor_lines(report.floor) if report.floor is not None else []),
        ("Parts", part_lines(report.parts) if report.parts else []),
    ]
    return [(title, lines) for title, lines in found if lines]


def peer_line(peer: Peer) -> str:
    """Say which engine ran a row, and how it was set."""
    options = "; ".join(f"{name} {value}" for name, value in peer.options.items())
    return (
        f"{peer.name}: {peer.engine} {peer.version}, {peer.precision}, threads {peer.threads}, takes {peer.takes}; "
        f"{options}"
    )


def ratio_text(ratio: Ratio) -> str:
    """Write a ratio of medians and its interval.

    >>> ratio_text(Ratio(value=0.831, interval=Interval(low=0.82, high=0.84)))
    '0.83 [0.82, 0.84]'
    """
    return f"{ratio.value:.2f} [{ratio.interval.low:.2f}, {ratio.interval.high:.2f}]"


RATIO_TITLE = "Full chain over each row, ratio of medians with a paired 95% interval; below 1 the chain is faster"


def ratios(report: Report) -> list[tuple[str, str]]:
    """Give ``chain / ROW`` and the ratio for every row but the full chain itself."""
    return [(f"chain / {row.name}", ratio_text(row.chain_ratio)) for row in report.rows if row.kind != "full"]


def floor_lines(floor: Floor) -> list[str]:
    """State the lower bounds, and how far the chain is from them."""
    size = f"{floor.weight_bytes / 1e6:.2f} MB"
    return [
        f"Lower bound by computation: the tower's {floor.products} GEMMs alone, with {size} of weights, take "
        f"{floor.gemm.p50_ms:.2f} ms ({interval_text(floor.gemm.p50_interval_ms, '{:.2f}')}); "
        f"chain / GEMMs {ratio_text(floor.chain_to_gemm)}",
        f"Lower bound by memory: reading {size} once takes {floor.read.p50_ms:.2f} ms "
        f"({interval_text(floor.read.p50_interval_ms, '{:.2f}')}), {floor.read_bytes_per_second / 1e9:.1f} GB/s; "
        f"chain / read {ratio_text(floor.chain_to_read)}",
    ]


def part_lines(parts: Sequence[PartTime]) -> list[str]:
    """Give every part with its time and its share; blocks as their range."""
    blocks = [part for part in parts if part.part.startswith("block")]
    others = [part for part in parts if part not in blocks]
    words = [f"{part.part} {part.p50_ms:.3f} ms ({part.share_of_full:.2%})" for part in others]
    if blocks:
        times = sorted(part.p50_ms for part in blocks)
        words.insert(1, f"blocks {times[0]:.3f} to {times[-1]:.3f} ms")
    return [f"In a run that visits every exit, in % of a run to the end that visits none: {', '.join(words)}"]


def preprocessing_line(report: Report) -> str:
    """Give the time of decoding and resizing, which no row contains."""
    times = report.preprocessing
    if times is None:
        return "Decoding and resizing were not measured: Pillow is not installed, and the images came decoded"
    return (
        f"Decoding and resizing, which no row contains: p50 {times.p50_ms:.2f} ms (decoding {times.decode_p50_ms:.2f}, "
        f"resizing {times.resize_p50_ms:.2f}), p90 {times.p90_ms:.2f} ms an image ({times.images} images)"
    )


def stability_line(stability: Stability) -> str:
    """Say whether anything disturbed the measurement."""
    verdict = "stable" if stability.stable else f"UNSTABLE: {'; '.join(stability.reasons)}"
    clock = ""
    if stability.lowest_mhz is not None and stability.highest_mhz is not None:
        clock = f", clock {stability.lowest_mhz:.0f} to {stability.highest_mhz:.0f} MHz"
    return (
        f"Device over {stability.seconds:.0f} s: {verdict} (other processes "
        f"{optional(stability.others_share, '{:.1%}')}, hypervisor {optional(stability.steal_share, '{:.1%}')}, drift "
        f"{optional(stability.drift, '{:.2f}')}{clock})"
    )


def depth_lines(report: Report) -> list[str]:
    """Give latency by depth, for rows whose images leave at different depths."""
    return [
        f"{row.name}: share-weighted {row.share_weighted_ms:.2f} ms (mean {row.latency.mean_ms:.2f}, p99 "
        f"{row.latency.p99_ms:.2f}); by depth "
        + ", ".join(f"{exit.block}: {optional(exit.p50_ms, '{:.2f}')}" for exit in row.exit_shares)
        for row in report.rows
        if row.kind in BY_IMAGE and row.share_weighted_ms is not None
    ]


def lateness_lines(report: Report) -> list[str]:
    """Say how rows with a deadline met it."""
    return [
        f"{row.name}: {row.lateness.late:.1%} of the calls late, p99 of the overshoot {row.lateness.p99_ms:.2f} ms, "
        f"most {row.lateness.most_ms:.2f} ms"
        for row in report.rows
        if row.lateness is not None
    ]


def energy_lines(report: Report) -> list[str]:
    """Give the energy of an image, where there was a meter."""
    return [
        f"{row.name}: {1000 * row.energy.joules_per_image:.1f} mJ an image, {row.energy.watts:.2f} W "
        f"({row.energy.source}; idle {row.energy.idle_watts:.2f} W, contained)"
        for row in report.rows
        if row.energy is not None
    ]


def cold_start_line(cold: ColdStart) -> str:
    """Give the time to the first answer, and memory."""
    private = f", private {cold.private_bytes / 1e6:.0f} MB" if cold.private_bytes is not None else ""
    return (
        f"Fresh process, median of {cold.processes}: first answer after {cold.to_first_answer_ms:.0f} ms "
        f"(import {cold.import_ms:.0f}, load {cold.load_ms:.0f}, first image {cold.first_image_ms:.0f}); "
        f"memory RSS {cold.rss_bytes / 1e6:.0f} MB, peak {cold.peak_rss_bytes / 1e6:.0f} MB{private}"
    )


KIND_TEXTS: dict[RowKind, str] = {
    "adaptive": "learned gates decide where each image leaves (LRA-EE)",
    "exit": "every image leaves after the same block",
    "confidence": "one threshold on the largest probability decides",
    "entropy": "one threshold on the entropy decides (BranchyNet)",
    "patience": "images leave once consecutive exits agree (PABEE)",
    "replay": "images leave in given shares, whatever they show",
    "deadline": "a batch leaves when the time is up",
    "full": "all blocks run one by one",
    "merged": "all blocks run one by one, and similar tokens are merged on the way",
    "graph": "the same tower runs as one graph",
    "fp32": "the float tower runs as one graph",
    "static": "torch's export, quantized by the defaults of quantize_static",
    "dynamic": "torch's export, quantized by the defaults of quantize_dynamic",
    "openvino": "OpenVINO compiles the bundle's graph",
    "torch": "torch runs open_clip's float tower eagerly",
    "torch-compiled": "torch.compile compiles open_clip's float tower",
}
"""What each kind of row does, in the order in which `kinds_line` says it."""


def kinds_line(report: Report) -> str:
    """Explain each kind of row in this report once."""
    there = {row.kind for row in report.rows}
    return "Rows: " + "; ".join(f"{kind}: {text}" for kind, text in KIND_TEXTS.items() if kind in there)


def exits_text(row: Row) -> str:
    """Give shares of the images by block, such as ``8: 31%, 12: 69%``."""
    return ", ".join(f"{exit.block}: {exit.share:.0%}" for exit in row.exit_shares)


def accuracy_text(accuracy: Accuracy) -> list[str]:
    """Give top-1 and the difference to full depth in points, each with its interval."""
    points = Interval(low=100 * accuracy.difference_interval.low, high=100 * accuracy.difference_interval.high)
    return [
        f"{accuracy.top1:.1%} ({interval_text(accuracy.interval, '{:.1%}')})",
        f"{100 * accuracy.difference:+.1f} ({interval_text(points, '{:+.1f}')})",
    ]


def interval_text(interval: Interval, form: str) -> str:
    """Write both ends in one format.

    >>> interval_text(Interval(low=-0.5, high=1.0), "{:.1f}")
    '-0.5 to 1.0'
    """
    return f"{form.format(interval.low)} to {form.format(interval.high)}"


def signed_percent(share: float) -> str:
    """Write one decimal, and no minus before a zero.

    >>> signed_percent(-0.0001), signed_percent(0.1344)
    ('0.0%', '13.4%')
    """
    return f"{round(share, 3) + 0.0:.1%}"


def optional(value: float | None, form: str) -> str:
    """Write the number, or a dash."""
    return "-" if value is None else form.format(value)
