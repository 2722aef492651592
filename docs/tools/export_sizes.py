"""The room that an export takes on disk for numbers of images, computed as the export itself computes it."""

from __future__ import annotations

from pathlib import Path

from records import table

from lraee_toolchain.config import ExportConfig
from lraee_toolchain.data.disk_need import Sizes, disk_need, gigabytes
from lraee_toolchain.data.splits import FRACTIONS

IMAGES = ((10_000, 5_000), (50_000, 10_000), (128_000, 50_000))
"""Training and evaluation images of the rows."""

LABELS = 1000


def disk_table() -> str:
    """Disk that a ViT-B/32 at 224 pixels takes in the work folder, with and without the tables."""
    rows = []
    for training, evaluated in IMAGES:
        sizes = Sizes(
            rows={name: round(share * training) for name, share in FRACTIONS.items()} | {"evaluation": evaluated},
            image_size=224,
            tokens=50,
            blocks=12,
            width=768,
            embed_dim=512,
            labels=LABELS,
            class_token=True,
            weights=12 * 12 * 768**2,
        )
        config = ExportConfig(model="ViT-B-32", out=Path("x.lraee"), evaluate=Path())
        needs = [disk_need(sizes, config)]
        needs.append(disk_need(sizes, ExportConfig(model="ViT-B-32", out=config.out, evaluate=Path(), ablations=True)))
        shown = [gigabytes(size) for size in (needs[0].pixels, needs[0].total, needs[1].total)]
        rows.append([f"{training:,} + {evaluated:,}", *shown])
    return table(["training + evaluation images", "pixels", "whole export", "with `--ablations`"], rows)
