"""Measure what it costs that bundles keep to an old operator set: their blocks against the same with `Attention`.

    python benchmarks/experiments/operator_sets.py BUNDLE [--threads 1,2] [--batch 1,8]
        [--launches 5] [--seconds 20] [--clock cpu]

Of every block of the bundle a second form is written: the same weights and the same quantization, but ONNX's own
`Attention`, which came with operator set 23 and needs ONNX Runtime 1.25, where the bundle has MatMul and Softmax;
``--other MultiHeadAttention`` takes ONNX Runtime's. Both chains of blocks run in turn, in several processes one after
the other. For each number of threads and each batch the script prints the ratio of the medians, bundle to the other
form, with the interval of the next run, and how far the last tokens differ. Where other programs want the cores too,
``--clock cpu`` counts the time that the process had one. Needs ``onnx``, which comes with ``lraee[export]``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lraee.bundle.folder import Bundle, find_bundle
from lraee.bundle.manifest import TowerInfo, block_names
from lraee.errors import BundleError, LraeeError
from lraee.ort.sessions import SessionSettings, make_session
from lraee_benchmarks.analysis.intervals import ratio_interval
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_benchmarks.running.rounds import Plan, interleave, timed

OPSETS = {"Attention": ("", 23), "MultiHeadAttention": ("com.microsoft", 20)}
"""The other forms: domain of the operator, and the operator set of the graph."""

CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}

WARMUP = 3


def with_attention(model: Any, tower: TowerInfo, operator: str) -> None:
    """Put `operator` where `lraee_exporters.graphs.attention` has MatMul and Softmax, in an INT8 block.

    Args:
        model: the block, an ``onnx.ModelProto``, which is changed.
        tower: its shape.
        operator: one of `OPSETS`.
    """
    from onnx import helper, numpy_helper

    graph, (domain, opset) = model.graph, OPSETS[operator]
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name.startswith("shape_")}
    heads = {"num_heads": tower.heads} if domain else {"q_num_heads": tower.heads, "kv_num_heads": tower.heads}
    split = ["query_split", "key_split", "value_split"]
    gone = {"tokens_flat", "norm_1_by_token", "norm_1_by_token_flat", "attention_by_row", "attention_flat"}
    gone |= {
        f"attention_{name}" for name in ("query_heads", "key_heads", "value_heads", "products", "logits", "weights")
    }
    nodes = [helper.make_node("Reshape", ["tokens", "rows"], ["tokens_flat"])]
    for node in graph.node:
        if node.name == "attention":
            nodes.append(helper.make_node(operator, split, ["attention"], domain=domain, **heads))
            nodes.append(helper.make_node("Reshape", ["attention", "rows"], ["attention_rows"]))
        elif node.name not in gone:
            nodes.append(node)
        if node.name in split:
            node.input[1] = "row_by_image" if shapes[node.input[1]][0] == 1 else "tokens_by_image"
    read = {  # by reader: what it reads instead of its first input
        "norm_1": "tokens_flat",
        "norm_1_input_dequantized": "norm_1_input_levels",
        "out_input_levels": "attention_rows",
        "out_input_dequantized": "out_input_levels",
    }
    for node in nodes:
        node.input[0] = read.get(node.name, node.input[0])
    added = {"rows": (-1,), "row_by_image": (-1, 1), "tokens_by_image": (-1, tower.tokens)}
    for name, shape in added.items():
        graph.initializer.append(numpy_helper.from_array(np.array([*shape, tower.width], np.int64), name))
    del graph.node[:], model.opset_import[:]
    graph.node.extend(nodes)
    model.opset_import.extend([helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10


def write_forms(bundle: Bundle, folder: Path, operator: str) -> None:
    """Write ``bundle_NN.onnx`` and ``other_NN.onnx`` for every block, over one copy of its weights.

    Raises:
        BundleError: the bundle is not INT8, or its blocks are of an older lraee, with `Attention` in them.
    """
    import onnx

    manifest = bundle.manifest
    for number, name in enumerate(block_names(manifest.tower.blocks), start=1):
        part = manifest.part(name)
        if "QGemm" not in part.operators or "Attention" in part.operators:
            raise BundleError(
                f"{part.graph} is no INT8 block of MatMul and Softmax; wanted one, export the bundle again"
            )
        path = bundle.checked_part(part)
        shutil.copyfile(path, folder / f"bundle_{number:02d}.onnx")
        shutil.copyfile(bundle.folder / str(part.data), folder / str(part.data))
        model = onnx.load(path, load_external_data=False)
        with_attention(model, manifest.tower, operator)
        (folder / f"other_{number:02d}.onnx").write_bytes(model.SerializeToString())


def launch(folder: Path, threads: int, shape: tuple[int, ...], seconds: float, clock: str) -> dict[str, Any]:
    """Run both chains in turn.

    Args:
        folder: that `write_forms` filled.
        threads: of every session.
        shape: of the tokens, (batch, tokens, width).
        seconds: for how long, as a clock on the wall has it.
        clock: one of `CLOCKS`.

    Returns:
        Milliseconds of each round under ``bundle`` and ``other``, and under ``difference`` the largest of any token,
        as a share of the largest token.
    """
    tokens = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    settings = SessionSettings(threads=threads)
    chains = {
        form: [make_session(path, settings) for path in sorted(folder.glob(f"{form}_??.onnx"))]
        for form in ("bundle", "other")
    }

    def run(form: str) -> Any:
        values = tokens
        for session in chains[form]:
            values = session.run(["tokens_out"], {"tokens": values})[0]
        return values

    own, other = map(run, chains)
    plan = Plan(warmup_rounds=WARMUP, rounds=None, min_seconds=seconds, min_rounds=1, seed=0)
    measures = [timed(lambda _, form=form: run(form), CLOCKS[clock]) for form in chains]  # type: ignore[misc]
    times = dict(zip(chains, interleave(measures, 1, plan).samples_ms.T.tolist(), strict=True))
    return {**times, "difference": float(np.abs(own - other).max() / np.abs(other).max())}


def measure(folder: Path, threads: int, shape: tuple[int, ...], options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table: all launches of one number of threads and one batch."""
    row: dict[str, Any] = {"threads": threads, "batch": shape[0]}
    given = [str(folder), str(threads), json.dumps(shape), str(options.seconds), options.clock]
    found = []
    for _ in range(options.launches):
        done = subprocess.run([sys.executable, __file__, "--one", *given], check=True, stdout=subprocess.PIPE)
        found.append(json.loads(done.stdout))
    own, other = (np.concatenate([times[form] for times in found]) for form in ("bundle", "other"))
    launches = np.repeat(np.arange(len(found)), [len(times["bundle"]) for times in found])
    interval = ratio_interval(own, other, seed=0, launches=launches)
    row |= {"bundle_ms": float(np.median(own)), "other_ms": float(np.median(other)), "rounds": len(own)}
    row |= {"ratio": row["bundle_ms"] / row["other_ms"], "low": interval.low, "high": interval.high}
    return row | {"difference": max(times["difference"] for times in found)}


def main() -> None:
    """Write both forms, measure them and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--other", choices=OPSETS, default="Attention")
    parser.add_argument("--threads", default="1,2", help="with commas")
    parser.add_argument("--batch", default="1,8", help="with commas")
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each launch")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundle = Bundle(find_bundle(options.bundle))
        write_forms(bundle, Path(name), options.other)
        tower, rows, lines = bundle.manifest.tower, [], []
        device = device_line(describe_device())
        print(f"{device}; {bundle.manifest.model.id}, {tower.blocks} blocks, {options.clock} time\n")
        for batch in map(int, options.batch.split(",")):
            for threads in map(int, options.threads.split(",")):
                row = measure(Path(name), threads, (batch, tower.tokens, tower.width), options)
                rows.append(row)
                numbers = (f"{row['bundle_ms']:.2f}", f"{row['other_ms']:.2f}", f"{row['ratio']:.3f}")
                interval = f"{row['low']:.3f} to {row['high']:.3f}"
                lines.append([str(threads), str(batch), *numbers, interval, f"{row['difference']:.1e}"])
    header = ("threads", "batch", "bundle ms", f"{options.other} ms", "ratio", "interval", "tokens differ by")
    print(Table(header=header, rows=lines, words=()).to_markdown())
    if options.json is not None:
        recorded = {"device": device, "model": bundle.manifest.model.id, "other": options.other, "rows": rows}
        options.json.write_text(json.dumps(recorded | {"clock": options.clock}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        folder, threads, shape, seconds, clock = sys.argv[2:]
        print(json.dumps(launch(Path(folder), int(threads), tuple(json.loads(shape)), float(seconds), clock)))
    else:
        try:
            main()
        except LraeeError as error:
            sys.exit(f"error: {error}")
