"""Build the parts of a tower into a folder, in float32 or INT8, and prove that they fuse as declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lraee.bundle.manifest import PartEntry, block_names
from lraee.bundle.strict_json import read_json, write_json
from lraee_exporters.graphs.block import BlockForm, BlockWeights, build_block, float_block, operators_of_block
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.exit import ExitWeights, TokenShape, build_exit, operators_of_exit
from lraee_exporters.graphs.fused_operators import check_operators, optimized_operators
from lraee_exporters.graphs.stem import build_stem, levels_of_stem, operators_of_stem
from lraee_exporters.graphs.tail import TailWeights, build_tail, float_tail, operators_of_tail
from lraee_exporters.graphs.whole_tower import build_whole
from lraee_exporters.tower import Tower


def save_parts(parts: Sequence[PartEntry], folder: Path) -> None:
    """Write the entries of a stage's parts for the manifest."""
    write_json(parts, folder / "parts.json")


def load_parts(folder: Path) -> tuple[PartEntry, ...]:
    """Read what `save_parts` wrote."""
    return read_json(tuple[PartEntry, ...], folder / "parts.json")


def float_blocks(tower: Tower) -> list[BlockWeights]:
    """Take the weights of all blocks as they were trained."""
    return [float_block(block, tower.activation) for block in tower.blocks]


def build_float(tower: Tower, folder: Path) -> None:
    """Write the float32 parts, and variants ``<part>.observed.onnx`` that also give the tensors to calibrate."""
    blocks = float_blocks(tower)
    save_tower_parts(tower, blocks, float_tail(tower), folder, quantized=False)
    for number, block in enumerate(blocks, start=1):
        graph, _ = build_block(block, BlockForm(token_count=tower.tokens), number=number, observe=True)
        graph.name += ".observed"
        graph.save(folder)
    graph, _ = _tail(float_tail(tower), tower, observe=True)
    graph.name += ".observed"
    graph.save(folder)


def _tail(tail: TailWeights, tower: Tower, *, observe: bool = False) -> tuple[GraphBuilder, WeightFile]:
    return build_tail(tail, width=tower.width, embed_dim=tower.embed_dim, token_count=tower.tokens, observe=observe)


def save_tower_parts(
    tower: Tower, blocks: Sequence[BlockWeights], tail: TailWeights, folder: Path, *, quantized: bool
) -> None:
    """Write all parts and the whole.

    Where there is a class token, two forms of the last block are written: ``block_NN.onnx`` with all tokens, which
    `Chain` runs to look at them, and ``block_NN_class.onnx``, which becomes the bundle's part.
    """
    levels = levels_of_stem(blocks)
    built = [(*build_stem(tower, quantized=quantized, levels=levels), operators_of_stem(tower, quantized=quantized))]
    for number, block in enumerate(blocks, start=1):
        whole_form = BlockForm(token_count=tower.tokens)
        form = replace(whole_form, class_only=number == len(blocks) and tower.has_class_token)
        if form.class_only:
            save_part(*build_block(block, whole_form, number=number), operators_of_block(block, whole_form), folder)
        built.append((*build_block(block, form, number=number), operators_of_block(block, form)))
    built.append((*_tail(tail, tower), operators_of_tail(tail)))
    files: dict[str, WeightFile] = {}
    entries: list[PartEntry] = []
    for name, (graph, file, operators) in zip(["stem", *block_names(len(blocks)), "tail"], built, strict=True):
        files[name] = file
        entries.append(replace(save_part(graph, file, operators, folder), name=name))
    whole = build_whole(tower, blocks, tail, files)
    path = whole.save(folder)
    entries.append(_entry(whole, None, optimized_operators(path)))
    save_parts(entries, folder)


def build_float_baseline(tower: Tower, folder: Path) -> None:
    """Write ``fp32.onnx`` with ``fp32.data``: the float tower as one graph, what a user would run without lraee."""
    file = WeightFile("fp32.data")
    blocks = float_blocks(tower)
    files = dict.fromkeys(["stem", *block_names(tower.depth), "tail"], file)
    build_whole(tower, blocks, float_tail(tower), files, class_only=False, name="fp32").save(folder)
    file.save(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitsOfRoute:
    """The exits of the parts that merge nothing, or of those of one schedule."""

    weights: Mapping[int, ExitWeights]
    """By the block before them."""
    tokens: Sequence[int] | None = None
    """How many there are after each block, where a schedule merges some."""
    suffix: str = ""
    """Of the parts' names under a schedule."""


def build_exits(routes: Sequence[ExitsOfRoute], tower: Tower, folder: Path) -> None:
    """Write one part for each exit, and their list. Exits after one block that have the same head share its weights.

    Args:
        routes: that have exits.
        tower: gives the shapes.
        folder: empty.
    """
    entries, written = [], dict[str, list[bytes]]()
    for route in routes:
        for number, weights in route.weights.items():
            count = tower.tokens if route.tokens is None else route.tokens[number - 1]
            sized = count < tower.tokens
            patches = tower.patches if sized else None
            shape = TokenShape(count=count, width=tower.width, class_token=tower.has_class_token, patches=patches)
            name, shared = f"exit_{number:02d}{route.suffix}", f"exit_{number:02d}.data"
            graph, file = build_exit(weights, shape, name=name, data=shared)
            if written.setdefault(shared, file.chunks) != file.chunks:
                graph, file = build_exit(weights, shape, name=name)
            operators = operators_of_exit(weights, class_token=tower.has_class_token, sized=sized)
            entries.append(save_part(graph, file, operators, folder))
    save_parts(entries, folder)


def save_part(graph: GraphBuilder, file: WeightFile, operators: Mapping[str, int], folder: Path) -> PartEntry:
    """Write one part with its weights and check what it optimizes to."""
    file.save(folder)
    check_operators(graph.save(folder), operators)
    return _entry(graph, file.location, operators)


def _entry(graph: GraphBuilder, data: str | None, operators: Mapping[str, int]) -> PartEntry:
    return PartEntry(
        name=graph.name,
        graph=f"{graph.name}.onnx",
        data=data,
        flops=graph.flops,
        flops_per_label=graph.flops_per_label,
        operators=dict(sorted(operators.items())),
    )
