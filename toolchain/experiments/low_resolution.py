"""Measure whether a first pass on fewer, coarser patches saves more than exits by depth alone (arXiv 2503.00060).

    python toolchain/experiments/low_resolution.py MODEL --pool SRC --test SRC --labels FILE [--grid 4] [--json F]

The float tower reads each photo shrunk to a coarse grid of patches first, positions interpolated. Images that a coarse
exit is sure of leave; the others run again: in full, or with full patches only in the regions that the coarse class
token looks at, and coarse patches elsewhere. All rows have the same exits (class token and mean), the same gate (the
largest probability) and thresholds that are chosen on one split of the pool; the test images judge. The row `own trunk`
answers what tuning could add: its coarse pass is tuned on shrunken photos alone and shares no weight with the full one.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lraee.cli import errors_as_one_line
from lraee.labels.label_file import read_label_file
from lraee_benchmarks.analysis.cascade import Array, Cascade
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels
from lraee_exporters.labels import embed_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_exporters.torch_tower.trunk import choose_machine
from lraee_toolchain.adaptation.views import Views
from lraee_toolchain.parts.schedule_search import block_flops, other_flops

BATCH = 64
ATTENTION_FROM = 2 / 3
"""Share of the depth from which on the class token's attention is averaged, to rank regions."""

BUDGETS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Points that thresholds may lose where they are chosen."""

HEAD_EPOCHS, HEAD_BATCH, HEAD_RATE, HEAD_DECAY, HEAD_DROP = 30, 256, 2e-3, 0.05, 0.2
TUNE_RATE, TUNE_DECAY, TUNE_BATCH = 5e-5, 0.05, 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """What one pass over some images gives."""

    seen: torch.Tensor
    """(images, stops, 2 * width) class token and mean of the others after each stop's block."""
    embedding: torch.Tensor
    """(images, embed_dim) unit rows."""
    regions: torch.Tensor
    """(images, patches) attention of the class token, mean of the deep blocks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images of one split."""

    pixels: NDArray[np.uint8]
    classes: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stop:
    """A place where images may leave: its answers by split, and the FLOPs of its pass up to there."""

    gating: torch.Tensor
    test: torch.Tensor
    flops: float


class Passes:
    """Runs the tower of open_clip's own vision transformer on full, coarse and mixed patches."""

    def __init__(self, model: LoadedModel, blocks: Sequence[int]) -> None:
        self.tower, self.visual, self.blocks = model.tower, model.torch_model.visual, tuple(blocks)
        made = self.tower.preprocessing
        self.views = Views(mean=made.mean, std=made.std, device=torch.device("cpu"))
        self.full = self.tower.preprocessing.image_size // self.tower.patch_size

    def patches(self, visual: Any, images: torch.Tensor, grid: int) -> torch.Tensor:
        """Embed (images, 3, size, size) as (images, grid * grid, width) patches with their positions."""
        if grid != self.full:
            side = grid * self.tower.patch_size
            images = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
        places = visual.positional_embedding[1:].T.reshape(1, -1, self.full, self.full)
        if grid != self.full:
            places = F.interpolate(places, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
        return (visual.conv1(images) + places).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def run(self, visual: Any, patches: torch.Tensor, sizes: torch.Tensor | None = None) -> Pass:
        """Run all blocks on patches that stand for `sizes` (images, patches) full ones each."""
        first = visual.class_embedding + visual.positional_embedding[0]
        x = visual.ln_pre(torch.cat([first.expand(len(patches), 1, -1), patches], dim=1))
        bias = None if sizes is None else F.pad(sizes.log(), (1, 0))[:, None, None]
        weights = torch.ones_like(patches[..., 0]) if sizes is None else sizes
        seen, looks, resblocks = [], [], visual.transformer.resblocks
        for number, block in enumerate(resblocks, start=1):
            x, look = _block(block, x, bias)
            if number > ATTENTION_FROM * len(resblocks):
                looks.append(look)
            if number in self.blocks:
                mean = (x[:, 1:] * weights[..., None]).sum(1) / weights.sum(1)[:, None]
                seen.append(torch.cat([x[:, 0], mean], dim=-1))
        embedding = F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)
        return Pass(seen=torch.stack(seen, dim=1), embedding=embedding, regions=torch.stack(looks).mean(0))

    def all(self, visual: Any, pixels: NDArray[np.uint8], grid: int) -> Pass:
        """Run many images on one grid."""
        with torch.no_grad():
            return _joined([self.run(visual, self.patches(visual, batch, grid)) for batch in self._batches(pixels)])

    def mixed(self, pixels: NDArray[np.uint8], regions: torch.Tensor, coarse: int, kept: int) -> Pass:
        """Run many images with full patches in the `kept` regions of the coarse grid that rank highest."""
        parts, at, factor = [], 0, self.full // coarse
        with torch.no_grad():
            for images in self._batches(pixels):
                order = regions[at : at + len(images)].argsort(dim=1, descending=True)
                at += len(images)
                fine, rough = self.patches(self.visual, images, self.full), self.patches(self.visual, images, coarse)
                cells = torch.arange(self.full**2).view(coarse, factor, coarse, factor).transpose(1, 2).flatten(2)
                inside = cells.flatten(0, 1)[order[:, :kept]].flatten(1)
                chosen = [fine.gather(1, inside[..., None].expand(-1, -1, fine.shape[-1]))]
                chosen.append(rough.gather(1, order[:, kept:, None].expand(-1, -1, rough.shape[-1])))
                sizes = torch.ones(len(images), inside.shape[1] + coarse**2 - kept)
                sizes[:, inside.shape[1] :] = factor**2
                parts.append(self.run(self.visual, torch.cat(chosen, dim=1), sizes))
        return _joined(parts)

    def flops(self, patches: int) -> Array:
        """Count the FLOPs up to and with each of the stops' blocks and the end, of a pass on so many patches."""
        tower = self.tower
        blocks = np.cumsum([block_flops(tower, number, patches + 1) for number in range(1, tower.depth + 1)])
        stem = other_flops(tower) * patches / tower.patches
        return np.array([*(blocks[block - 1] for block in self.blocks), blocks[-1]]) + stem

    def _batches(self, pixels: NDArray[np.uint8]) -> list[torch.Tensor]:
        return [self.views.plain(pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)]


def _block(block: Any, x: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one block; also give the attention of the class token to each patch, (images, patches)."""
    images, tokens, width = x.shape
    heads = block.attn.num_heads
    joined = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = joined.view(images, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(2, 3) / (width // heads) ** 0.5
    shares = (scores if bias is None else scores + bias).softmax(-1)
    x = x + block.ls_1(block.attn.out_proj((shares @ value).transpose(1, 2).reshape(images, tokens, width)))
    return x + block.ls_2(block.mlp(block.ln_2(x))), shares[:, :, 0, 1:].mean(1)


def _joined(parts: Sequence[Pass]) -> Pass:
    return Pass(
        seen=torch.cat([part.seen for part in parts]),
        embedding=torch.cat([part.embedding for part in parts]),
        regions=torch.cat([part.regions for part in parts]),
    )


def answers(
    learned: torch.Tensor, classes: torch.Tensor, labels: torch.Tensor, asked: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Train a head on (images, width) tokens and give the probabilities of others, (images, labels) each."""
    torch.manual_seed(0)
    center, spread = learned.mean(0), learned.std(0) + 1e-6
    head = torch.nn.Linear(learned.shape[1], labels.shape[1])
    scale = torch.nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.AdamW([*head.parameters(), scale], HEAD_RATE, weight_decay=HEAD_DECAY)
    steps = HEAD_EPOCHS * -(-len(learned) // HEAD_BATCH)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        return scale.exp() * F.normalize(head((tokens - center) / spread), dim=-1) @ labels.T

    for _ in range(HEAD_EPOCHS):
        for rows in torch.randperm(len(learned)).split(HEAD_BATCH):
            loss = F.cross_entropy(logits(F.dropout(learned[rows], HEAD_DROP)), classes[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    with torch.no_grad():
        return [logits(tokens).softmax(-1) for tokens in asked]


def tuned(passes: Passes, split: Split, labels: torch.Tensor, scale: float, grid: int, epochs: int) -> Any:
    """Tune a copy of the trunk's blocks on shrunken photos and give the copy."""
    visual = copy.deepcopy(passes.visual)
    weights = [weight.requires_grad_() for weight in visual.transformer.parameters()]
    optimizer = torch.optim.AdamW(weights, TUNE_RATE, weight_decay=TUNE_DECAY)
    steps = epochs * -(-len(split.pixels) // TUNE_BATCH)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, machine = torch.Generator().manual_seed(0), choose_machine("cpu")
    for _ in range(epochs):
        for rows in torch.randperm(len(split.pixels), generator=generator).split(TUNE_BATCH):
            images = passes.views.random(split.pixels[rows.numpy()], generator)
            with machine.products():
                embedding = passes.run(visual, passes.patches(visual, images, grid)).embedding
            loss = F.cross_entropy(scale * embedding.float() @ labels.T, split.classes[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            rate.step()
    return visual.requires_grad_(False)


def stops_of(
    passes: Passes,
    ran: Mapping[str, Pass],
    splits: Mapping[str, Split],
    labels: torch.Tensor,
    scale: float,
    patches: int,
) -> list[Stop]:
    """Give the exits of a pass and its end: with a head of its own, and once more as the tower answers."""
    flops = passes.flops(patches)
    stops = []
    for place in range(len(passes.blocks)):
        asked = [ran["gating"].seen[:, place], ran["test"].seen[:, place]]
        gating, test = answers(ran["heads"].seen[:, place], splits["heads"].classes, labels, asked)
        stops.append(Stop(gating=gating, test=test, flops=float(flops[place])))
    ends = [(scale * ran[name].embedding @ labels.T).softmax(-1) for name in ("gating", "test")]
    return [*stops, Stop(gating=ends[0], test=ends[1], flops=float(flops[-1]))]


def cascade_of(name: str, stops: Sequence[Stop], split: Split, plain: Stop) -> tuple[Cascade, NDArray[np.float32]]:
    """Give what is right at all stops for a split, where `plain` is full depth without any, and the gates."""
    said = [getattr(stop, name).numpy() for stop in stops]
    classes = split.classes.numpy()
    good = np.stack([one.argmax(1) == classes for one in said], axis=1).astype(np.float64)
    shares = np.array([stop.flops for stop in stops]) / plain.flops
    gate = np.stack([one.max(1) for one in said[:-1]], axis=1).astype(np.float32)
    return Cascade(good=good, leaving=shares, visits=np.zeros(len(stops) - 1)), gate


def row(stops: Sequence[Stop], splits: Mapping[str, Split], plain: Stop) -> list[tuple[float, float, float]]:
    """Give FLOPs saved, points gained and their standard error at each budget, all against `plain`, on test images."""
    known, gate = cascade_of("gating", stops, splits["gating"], plain)
    judged, judged_gate = cascade_of("test", stops, splits["test"], plain)

    def points(of: Cascade, gates: NDArray[np.float32], thresholds: Array, name: str) -> tuple[Array, Array]:
        saved, change = of.outcome(gates, thresholds)
        right = (getattr(plain, name).argmax(1) == splits[name].classes).numpy().astype(np.float64)
        return saved, change + of.good[:, -1] - right

    found = []
    tried = [(one, *points(known, gate, one, "gating")) for one in known.search(gate)]
    for budget in BUDGETS:
        fitting = [one for one in tried if one[2].mean() >= -budget / 100]
        if not fitting:
            found.append((0.0, 0.0, 0.0))
            continue
        saved, change = points(judged, judged_gate, max(fitting, key=lambda one: float(one[1].mean()))[0], "test")
        found.append((float(saved.mean()), 100 * float(change.mean()), 100 * float(change.std() / len(change) ** 0.5)))
    return found


def after(first: Sequence[Stop], second: Sequence[Stop]) -> list[Stop]:
    """Join two passes: images that leave the first nowhere pay for all of it, then for the second."""
    return [*first, *(Stop(gating=s.gating, test=s.test, flops=s.flops + first[-1].flops) for s in second)]


def main() -> None:
    """Run the passes, fit exits and thresholds, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="open_clip folder with open_clip's own vision transformer")
    parser.add_argument("--pool", required=True, help="labelled folder or zip")
    parser.add_argument("--test", required=True, help="labelled folder or zip")
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--grid", type=int, default=4, help="patches of the coarse pass in a row")
    parser.add_argument("--regions", type=int, nargs="*", default=[4, 8, 12], help="coarse patches that are kept full")
    parser.add_argument("--exits", type=int, nargs="+", default=[6, 8, 10, 12])
    parser.add_argument("--images", type=int, nargs=2, default=(8000, 4000), help="for heads, and for thresholds")
    parser.add_argument("--tune-epochs", type=int, default=0, help="of the row `own trunk`")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    with errors_as_one_line():
        model = load_model(options.model)
        label_set = read_label_file(options.labels)
        pool, test = open_source(options.pool), open_source(options.test)
        order = np.random.default_rng(0).permutation(len(pool))[: sum(options.images)]
        chosen = {"heads": order[: options.images[0]], "gating": order[options.images[0] :]}
        sets = {name: pool.subset([int(index) for index in rows]) for name, rows in chosen.items()} | {"test": test}
        labels = torch.from_numpy(embed_labels(model, label_set))
        splits = {
            name: Split(
                pixels=load_pixels(dataset, model.tower.preprocessing).pixels,
                classes=torch.from_numpy(label_rows(dataset, label_set.names)),
            )
            for name, dataset in sets.items()
        }
    full_grid = model.tower.preprocessing.image_size // model.tower.patch_size
    if options.regions and full_grid % options.grid:
        parser.error(f"--regions needs a --grid that divides {full_grid} patches in a row, not {options.grid}")
    passes, scale, grid = Passes(model, options.exits), float(model.tower.logit_scale), options.grid
    rows: dict[str, list[tuple[float, float, float]]] = {}
    accuracies: dict[str, list[float]] = {}

    def stops(name: str, ran: Mapping[str, Pass], patches: int) -> list[Stop]:
        found = stops_of(passes, ran, splits, labels, scale, patches)
        of = splits["test"].classes
        accuracies[name] = [round(100 * float((stop.test.argmax(1) == of).float().mean()), 2) for stop in found]
        giga = found[-1].flops / 1e9
        print(
            f"{name}: {accuracies[name]} % after blocks {options.exits} and at the end, {giga:.2f} GFLOPs", flush=True
        )
        return found

    def all_splits(visual: Any, size: int) -> dict[str, Pass]:
        return {name: passes.all(visual, split.pixels, size) for name, split in splits.items()}

    full = stops("full", all_splits(passes.visual, passes.full), passes.full**2)
    plain, by_depth = full[-1], [*full[:-2], full[-1]] if options.exits[-1] == model.tower.depth else full
    rows["depth alone"] = row(by_depth, splits, plain)
    trunks = {"": passes.visual}
    if options.tune_epochs:
        trunks[", own trunk"] = tuned(passes, splits["heads"], labels, scale, grid, options.tune_epochs)
    for words, visual in trunks.items():
        ran = all_splits(visual, grid)
        coarse = stops(f"coarse{words}", ran, grid**2)
        rows[f"coarse, then full{words}"] = row(after(coarse[-2:], [plain]), splits, plain)
        rows[f"coarse with exits, then full{words}"] = row(after(coarse, [plain]), splits, plain)
        rows[f"coarse with exits, then full with exits{words}"] = row(after(coarse, by_depth), splits, plain)
        for kept in options.regions:
            mixed = {name: passes.mixed(split.pixels, ran[name].regions, grid, kept) for name, split in splits.items()}
            count = kept * (passes.full // grid) ** 2 + grid**2 - kept
            second = stops(f"{kept} of {grid**2} regions full{words}", mixed, count)
            rows[f"coarse with exits, then {kept} regions{words}"] = row(after(coarse, second), splits, plain)
    cells = [[kind, *(f"{saved:.1%}, {lost:+.2f}" for saved, lost, _ in found)] for kind, found in rows.items()]
    print(Table(header=("first pass", *(f"{budget:g} points" for budget in BUDGETS)), rows=cells).to_markdown())
    print(f"Standard error: at most {max(error for found in rows.values() for _, _, error in found):.2f} points.")
    if options.json is not None:
        said = {"grid": grid, "images": options.images, "budgets": BUDGETS, "accuracies": accuracies, "rows": rows}
        options.json.write_text(json.dumps(said) + "\n", "utf-8")


if __name__ == "__main__":
    main()
