"""What was measured of speed, of whole towers and on other CPUs, as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from records import BENCHMARKS, Record, evidence, percent, points, read, table

SIZE_B32 = "xeon-avx512-vnni-amx-2cores-reference-b32"


TINY = "xeon-avx512-vnni-amx-2cores-reference"
"""Reports of lraee-bench in benchmarks/results, by name."""


WORDS = {
    "full": "`full`: all blocks, one by one",
    "graph": "`graph`: the same blocks as one graph",
    "fp32": "`fp32`: the float model as one graph",
}
"""What rows of lraee-bench are called in a document; the others keep their names."""


def bench(name: str) -> Record:
    """A report of `lraee-bench --json` in benchmarks/results."""
    return read(BENCHMARKS / "results" / f"{name}.json")


def early_exit_at_b32() -> str:
    """The README's table: what early exit saves on a tower of the size of ViT-B/32, and what it costs in accuracy."""
    return bench_table(SIZE_B32, ("adaptive=balanced", "full", "graph"))


def bench_table(name: str, rows: Sequence[str] | None = None) -> str:
    """Rows of one report of lraee-bench, by default all, and a line that says how they were measured."""
    report = bench(name)
    by_name = {row["name"]: row for row in report["rows"]}
    lines, images = [], 0
    for wanted in rows or by_name:
        row = by_name[wanted]
        accuracy = row["accuracy"]
        images = accuracy["images"] if accuracy else images
        kept = "" if not accuracy or row["name"] == report["reference"] else _paired(accuracy)
        interval = row["latency_saved_interval"]
        saved = f"{percent(row['latency_saved'])} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
        lines.append(
            [
                WORDS.get(row["name"], f"`{row['name']}`"),
                f"{row['latency']['p50_ms']:.2f}",
                f"{row['latency']['p99_ms']:.2f}",
                percent(row["flops_saved"]) if abs(row["flops_saved"]) >= 0.0005 else "",
                "" if row["name"] == report["reference"] else saved,
                percent(accuracy["top1"]) if accuracy else "",
                kept,
            ]
        )
    head = ["row", "p50 ms", "p99 ms", "FLOPs saved", "latency saved", "top-1", "points to `full`"]
    if not images:
        head, lines = head[:-2], [line[:-2] for line in lines]
    return f"{table(head, lines)}\n\n{bench_conditions(report, images)}"


def bench_conditions(report: Record, images: int) -> str:
    """The circumstances of a report in one line of small print."""
    device, settings = report["device"], report["settings"]
    counted = f", top-1 on {images:,} images" if images else ""
    return (
        f"*{device['model']} ({', '.join(device['int8_features'])}), {device['cores']} cores; "
        f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}, batch {settings['batch']}, "
        f"{settings['rounds']:,} interleaved rounds in {settings['launches']} launches{counted}; "
        f"ONNX Runtime {device['onnxruntime']}, {report['created'][:10]}. In brackets: 95 % intervals.*"
    )


def honest_reading() -> str:
    """The README's paragraph below its table."""
    ablations = evidence()["ablations"]
    rival = next(row["at_match"] for row in ablations["methods"]["rows"] if row["method"] == "confidence_shared")
    return (
        "The model is a small CLIP for ten kinds of clothing, widened to the exact size of ViT-B/32. Accuracy and "
        "exits are real, and every block costs what one of ViT-B/32 costs. No OpenAI or LAION checkpoint was measured, "
        "because neither weights nor ImageNet are shipped. The learned gate is no better than one threshold on "
        f"the largest probability, which is at {points(rival['difference_to_lra_ee'])} points to it over "
        f"{ablations['seeds']} seeds and {ablations['images']:,} images. INT8 loses almost nothing on this model, so "
        "there is nothing to rescue. All tables: [results](docs/results.md)."
    )


def speed_ratio_table() -> str:
    """Time of the chain of blocks over other ways to run a ViT-B/32 of random weights."""
    record = read(next(path for path in sorted(BENCHMARKS.glob("*/*-2cores.json"))))
    ratios: dict[str, dict[str, Record]] = {}
    for name, ratio in record["ratios"].items():
        where, _, what = name.partition(": ")
        ratios.setdefault(what, {})[where.partition(", ")[2].replace("1 threads", "1 thread")] = ratio
    settings = list(next(iter(ratios.values())))
    words = {
        "chain / fp32": "FP32, ONNX Runtime",
        "chain / static": "static INT8 with ONNX Runtime's own quantizer",
        "chain / openvino": "OpenVINO, the same INT8 graph",
        "chain / graph": "the same blocks as one graph",
    }
    words |= {name: "its bare INT8 GEMMs" for name in ratios if name.startswith("chain / bare")}
    lines = [[words[name], *(_ratio(ratios[name][where]) for where in settings)] for name in words]
    return (
        f"{table(['chain of blocks over', *settings], lines)}\n\n*{record['model']}, 2 cores, a process for each row.*"
    )


def towers_table() -> str:
    """Whole towers with random weights: size, time and parity with torch."""
    record = read(next(path for path in sorted(BENCHMARKS.rglob("towers.json"))))
    lines = []
    for row in record["rows"]:
        done = row["exported"]
        lines.append(
            [
                done["model"],
                f"{row['depth']} x {row['width']}, {row['tokens']}",
                f"{row['pooling']}, {row['probabilities']}",
                f"{row['gflops']:.1f}",
                f"{row['int8_megabytes']:.0f}",
                f"{done['seconds']:.0f}",
                f"{done['worst_error']:.1e}, {done['worst_cosine']:.7f}",
                f"{row['ms']['1']:.1f}",
                f"{row['ms']['2']:.1f}",
            ]
        )
    head = ["model", "blocks x width, tokens", "pooling", "GFLOPs", "INT8 MB", "export s", "parity: error, cosine"]
    text = table([*head, "ms, 1 thread", "ms, 2 threads"], lines, left=3)
    return f"{text}\n\n*{record['device']['model']}, batch 1, full depth, medians of 30 runs.*"


def emulated_table() -> str:
    """Answers of emulated CPUs against those of the recording machine."""
    runs = read(BENCHMARKS / "emulate" / "recorded.json")["runs"]
    lines = [
        [
            f"`{run['bundle'].partition(',')[0].replace(' with', '` with', 1)}`".replace("tokens`", "tokens"),
            run["core"].replace("products saturate", "saturating kernels, which lraee never uses"),
            f"`{run['policy']}`",
            str(run["images"]),
            str(run["equal_labels"]),
            str(run["equal_exits"]),
            f"{run['least_cosine']:.5f}",
            f"{run['largest_gate_difference']:.1e}",
        ]
        for run in runs
    ]
    head = ["bundle", "CPU", "policy", "images", "labels equal", "exits equal", "least cosine", "gates, most"]
    return table(head, lines, left=3)


def _paired(accuracy: Record) -> str:
    interval = accuracy["difference_interval"]
    return f"{100 * accuracy['difference']:+z.1f} ({100 * interval['low']:+z.1f} to {100 * interval['high']:+z.1f})"


def _ratio(ratio: Record) -> str:
    text = f"{ratio['value']:.2f}"
    return f"**{text}**" if ratio["low"] > 1 else text
