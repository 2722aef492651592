"""The room that an export takes on disk, and the images that pass in it, computed as the export itself does."""

from __future__ import annotations

from pathlib import Path

from records import table

from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.disk_need import Sizes, disk_need, gigabytes
from lraee_toolchain.data.splits import FRACTIONS
from lraee_toolchain.early_exit.exits import candidates
from lraee_toolchain.early_exit.token_heads.sources import shard_bytes

IMAGES = ((10_000, 5_000), (50_000, 10_000), (128_000, 50_000))
"""Training and evaluation images of the rows."""

LABELS = 1000

OWN_PHOTOS = (2_000, 10_000, 50_000)
"""Photos of the rows of the recipe for photos of one's own."""

HELD_BACK = 0.2
"""Share of them that its command holds back."""

OWN = ExportConfig(
    model="ViT-B-32", out=Path("x.lraee"), evaluate_share=HELD_BACK, adapt=Adaptation(), quantizer="strong"
)
"""Its command."""


def disk_table() -> str:
    """Disk that a ViT-B/32 at 224 pixels takes in the work folder, with and without the tables."""
    rows = []
    for training, evaluated in IMAGES:
        sizes = b32(split_rows(training) | {"evaluation": evaluated}, LABELS)
        config = ExportConfig(model="ViT-B-32", out=Path("x.lraee"), evaluate=Path())
        needs = [disk_need(sizes, config)]
        needs.append(disk_need(sizes, ExportConfig(model="ViT-B-32", out=config.out, evaluate=Path(), ablations=True)))
        shown = [gigabytes(size) for size in (needs[0].pixels, needs[0].total, needs[1].total)]
        rows.append([f"{training:,} + {evaluated:,}", *shown])
    return table(["training + evaluation images", "pixels", "whole export", "with `--ablations`"], rows)


def b32(rows: dict[str, int], labels: int) -> Sizes:
    """Sizes of a ViT-B/32 at 224 pixels with rows of pixels by split."""
    return Sizes(
        rows=rows,
        image_size=224,
        tokens=50,
        blocks=12,
        width=768,
        embed_dim=512,
        labels=labels,
        class_token=True,
        weights=12 * 12 * 768**2,
    )


def split_rows(training: int) -> dict[str, int]:
    """Divide images to learn from, where they are many."""
    return {name: round(share * training) for name, share in FRACTIONS.items()}


def own_rows(photos: int) -> dict[str, int]:
    """Divide photos of one's own as the recipe's command does."""
    held_back = round(HELD_BACK * photos)
    return split_rows(photos - held_back) | {"evaluation": held_back}


def own_photos_disk_table() -> str:
    """Disk that the recipe's command takes for a ViT-B/32, and the tokens that heads may read on top."""
    rows = []
    for photos in OWN_PHOTOS:
        sizes = b32(own_rows(photos), 100)
        need = disk_need(sizes, OWN)
        tokens = shard_bytes(
            sizes.rows["heads"] + sizes.rows["gating"],
            len(candidates("auto", sizes.blocks)),
            tokens=sizes.tokens,
            width=sizes.width,
        )
        rows.append([f"{photos:,}", gigabytes(need.pixels), gigabytes(need.total), gigabytes(tokens)])
    return table(["photos", "pixels", "whole export", "tokens on top, at most"], rows)


def passes_table() -> str:
    """Images that pass in each stage that grows with them, of 1,000 photos, with the recipe's command."""
    rows, options = own_rows(1000), Adaptation()
    heads, gating, evaluated = rows["heads"], rows["gating"], rows["evaluation"]
    passes = options.epochs + options.head_epochs
    judged = heads + gating + evaluated
    shown = [
        ("preprocess images", "all, once", sum(rows.values())),
        ("run a tower to the end", "all but those for calibration, as given and tuned, FP32", 2 * judged),
        ("tune the trunk", f"the {heads} of the heads, {passes} passes", passes * heads),
        ("extract features", "those of heads and gates, INT8", heads + gating),
        ("evaluate the bundle", "those that were held back, INT8, by each policy", evaluated),
    ]
    return table(["stage", "which images", "pass"], [[name, which, f"{n:,}"] for name, which, n in shown], left=2)
