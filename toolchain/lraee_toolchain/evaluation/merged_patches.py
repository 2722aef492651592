"""Shows which patches of a picture became one token under a merging schedule, as the bundle's own graphs decide it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image, ImageDraw

from lraee.bundle.folder import Bundle
from lraee.bundle.manifest import MergeSchedule
from lraee.engine.sized_tokens import SizedTokens, Tokens, feed_of
from lraee.ort.sessions import SessionSettings, make_session
from lraee_toolchain.parts.schedules import link

PLACES = ("places_that_stay", "places_that_go", "partner")
"""Values of a merging graph: where the tokens stand that stay and that are merged, and the partners of the latter."""

LEAST_SIDE = 160
"""Pixels of a drawing's side, at least; the pixels of small pictures are repeated."""

EDGE = (255, 255, 255)
"""Colour of the line between tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedPicture:
    """One picture with the tokens that it ended in."""

    png: bytes
    """Patches that became one token have their mean colour, and lines stand between tokens."""
    tokens: int
    """Tokens that were left, the class token not counted."""


def merged_pictures(bundle: Path, schedule: str, pixels: NDArray[np.uint8]) -> list[MergedPicture]:
    """Draw some pictures with the tokens that are left after the last block that merges.

    Args:
        bundle: folder.
        schedule: name of one of its merging schedules.
        pixels: (images, size, size, 3) uint8, preprocessed.
    """
    manifest = Bundle(bundle).manifest
    groups = tokens_of_patches(bundle, schedule, pixels)
    return [
        MergedPicture(png=draw_tokens(image, of_image, manifest.tower.patch_size), tokens=len(np.unique(of_image)))
        for image, of_image in zip(pixels, groups, strict=True)
    ]


def tokens_of_patches(bundle: Path, schedule: str, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find the token that each patch ended in, (images, patches) int64, numbered from 0 within an image."""
    manifest = Bundle(bundle).manifest
    chosen, class_token = manifest.schedule(schedule), manifest.tower.pooling == "cls"
    place = np.tile(np.arange(manifest.tower.tokens), (len(pixels), 1))
    with _traced_parts(bundle, chosen) as sessions:
        tokens: Tokens = sessions["stem"].run(["tokens_out"], {"pixels": pixels})[0]
        last = max(block for block, merged in enumerate(chosen.merged) if merged)
        for name, merged in list(zip(chosen.blocks, chosen.merged, strict=True))[: last + 1]:
            outputs = ["tokens_out", *(["sizes_out", *PLACES] if merged else [])]
            values, *more = sessions[name].run(outputs, feed_of(tokens))
            if merged:
                sizes, *places = more
                place = np.take_along_axis(_after(places, tokens_in=place.max() + 1), place, axis=1)
                tokens = SizedTokens(values, sizes)
            else:
                tokens = SizedTokens(values, tokens.sizes) if isinstance(tokens, SizedTokens) else values
    return np.unique(place[:, int(class_token) :], return_inverse=True)[1].reshape(len(place), -1).astype(np.int64)


def _after(places: list[NDArray[np.int64]], *, tokens_in: int) -> NDArray[np.int64]:
    """Give the new place of every token of a block, (images, tokens): those that stay, then every second with all that
    joined it."""
    stays, goes, partner = (place[..., 0] for place in places)
    images, kept = stays.shape
    new = np.zeros((images, tokens_in), np.int64)
    new[:, 1::2] = kept + np.arange(tokens_in // 2)
    np.put_along_axis(new, stays, np.broadcast_to(np.arange(kept), stays.shape), axis=1)
    np.put_along_axis(new, goes, kept + partner, axis=1)
    return new


@contextmanager
def _traced_parts(bundle: Path, schedule: MergeSchedule) -> Iterator[dict[str, ort.InferenceSession]]:
    """Open the stem and the blocks of a schedule so that they also give `PLACES`."""
    with tempfile.TemporaryDirectory() as name:
        folder, sessions = Path(name), {}
        manifest = Bundle(bundle).manifest
        for part in ("stem", *schedule.blocks):
            entry = manifest.part(part)
            model = onnx.load(str(bundle / entry.graph), load_external_data=False)
            made = {output for node in model.graph.node for output in node.output}
            for place in PLACES:
                if place in made:
                    model.graph.output.append(helper.make_tensor_value_info(place, TensorProto.INT64, None))
            (folder / entry.graph).write_bytes(model.SerializeToString())
            if entry.data is not None and not (folder / entry.data).exists():
                link(bundle / entry.data, folder / entry.data)
            sessions[part] = make_session(folder / entry.graph, SessionSettings())
        yield sessions


def draw_tokens(image: NDArray[np.uint8], tokens: NDArray[np.int64], patch_size: int) -> bytes:
    """Draw a picture whose merged patches have their mean colour, with lines between tokens, as PNG.

    Args:
        image: (size, size, 3) uint8.
        tokens: (patches,) the token of each patch, row by row.
        patch_size: pixels.
    """
    side = round(len(tokens) ** 0.5)
    grid, values = tokens.reshape(side, side), image[: side * patch_size, : side * patch_size].astype(np.float32)
    by_pixel = grid.repeat(patch_size, axis=0).repeat(patch_size, axis=1)
    names, counts = np.unique(tokens, return_counts=True)
    for token in names[counts > 1]:
        values[by_pixel == token] = values[by_pixel == token].mean(axis=0)
    scale = -(-LEAST_SIDE // len(values))
    drawn = Image.fromarray(values.round().astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1))
    lines, step = ImageDraw.Draw(drawn), patch_size * scale
    for row, column in np.ndindex(side, side):
        left, top = column * step, row * step
        if column and grid[row, column] != grid[row, column - 1]:
            lines.line([(left, top), (left, top + step)], EDGE)
        if row and grid[row, column] != grid[row - 1, column]:
            lines.line([(left, top), (left + step, top)], EDGE)
    file = io.BytesIO()
    drawn.save(file, "PNG", optimize=True)
    return file.getvalue()
