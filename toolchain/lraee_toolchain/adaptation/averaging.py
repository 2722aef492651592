"""Average tuned weights with those as given, so that a tower keeps more of what it knew and still gains.

Source of the method: M. Wortsman et al., Robust fine-tuning of zero-shot models, arXiv 2109.01903 (WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lraee.errors import TowerError


def averaged(
    given: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Average two towers, weight by weight.

    Args:
        given: state of the tower as given.
        tuned: of its tuned copy; the same names and shapes.
        share: of the tuned weights, 0 to 1; the rest are those as given.

    Returns:
        A state of the same names; what is no float, such as a table of positions, is the given one.

    Raises:
        TowerError: names or shapes differ.

    >>> averaged({"w": torch.zeros(2)}, {"w": torch.ones(2)}, 0.25)["w"].tolist()
    [0.25, 0.25]
    """
    if {name: weight.shape for name, weight in given.items()} != {name: weight.shape for name, weight in tuned.items()}:
        raise TowerError("one tower is no tuned copy of the other: their weights have other names or shapes")
    return {
        name: torch.lerp(weight, tuned[name], share) if weight.is_floating_point() else weight
        for name, weight in given.items()
    }
