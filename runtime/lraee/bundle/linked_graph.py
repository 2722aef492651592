"""Makes a part whose files are links, as in a Hugging Face cache, into one that every ONNX Runtime opens.

ONNX Runtime takes weights from the folder of the graph and refuses links that lead out of it: 1.24.1 all of them, later
versions (seen up to 1.32) those that do not lead to where the graph itself lies. Caches keep files where they like, for
instance each in a folder of its own. So the graph is handed over as bytes, its locations changed to the files that were
hashed, below the folder that they have in common. Graphs are small; the weights stay memory-mapped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lraee.bundle.external_data import with_locations
from lraee.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedGraph:
    """Holds what a session is made from where files are links."""

    path: Path
    """Where the graph lies in the bundle, for messages."""
    content: bytes
    """The graph, with locations below `folder`."""
    folder: Path
    """Holds all weights; no link is left on the way to them."""

    @property
    def name(self) -> str:
        """The file name of the graph, with its suffix."""
        return self.path.name

    @property
    def stem(self) -> str:
        """The file name of the graph, without its suffix."""
        return self.path.stem


def linked_graph(content: bytes, weights: Mapping[str, Path], path: Path) -> LinkedGraph:
    """Change the locations of a graph.

    Args:
        content: the graph.
        weights: for each location in it the file that was hashed, without links.
        path: of the graph in the bundle.

    Raises:
        BundleError: the files have no folder in common, as on two drives of Windows.
    """
    try:
        folder = Path(os.path.commonpath([file.parent for file in weights.values()] or [path.parent]))
    except ValueError as error:
        raise BundleError(f"the weights of {path.name} lie on several drives; copy the bundle to one") from error
    places = {location: file.relative_to(folder).as_posix() for location, file in weights.items()}
    return LinkedGraph(path=path, content=with_locations(content, places, path.name), folder=folder)
