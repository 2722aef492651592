"""A p-value for "routing loses more accuracy than this against full depth", valid for any number of images.

Testing by betting: each image gives a loss ``full depth right - routed answer right``, which is -1 (rescue), 0 or 1
(loss). Wealth starts at 1 and is multiplied for each image by a bet on a mean loss below `epsilon`. Under the null it
is a supermartingale, so by Ville's inequality it exceeds 1/p with probability at most p. No normality is assumed.

Source: Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, arXiv 2010.09686, section 4;
used for early exits by Jazbec et al., arXiv 2405.20915.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_AT_STAKE = 0.75
"""Largest share of the wealth that one image may cost, so that a single loss never ends the test."""


def drop_p_value(losses: NDArray[np.float64], *, epsilon: float, delta: float) -> float:
    """Compute the p-value of "the mean loss is `epsilon` or more", 0 to 1.

    Args:
        losses: (images,) in [-1, 1], independent, in an order that was fixed without looking at them.
        epsilon: accuracy that may be lost, 0 to 1.
        delta: level that will be compared with; the bets are sized for it, the p-value holds at any level.

    >>> drop_p_value(np.zeros(1000), epsilon=0.01, delta=0.1) < 0.1
    True
    >>> drop_p_value(np.zeros(10), epsilon=0.01, delta=0.1) < 0.1
    False
    """
    count = len(losses)
    if count == 0:
        return 1.0
    seen = np.arange(1, count + 1)
    # a first variance as if one image had lost or been rescued; bets only know the images before them
    mean = np.cumsum(losses) / (seen + 1)
    variance = (1.0 + np.cumsum(np.square(losses - mean))) / (seen + 1)
    known = np.append(1.0, variance[:-1])
    bets = np.minimum(np.sqrt(2 * np.log(1 / delta) / (count * known)), MOST_AT_STAKE / (1 - epsilon))
    log_wealth = np.cumsum(np.log1p(bets * (epsilon - losses)))
    return float(np.exp(-max(0.0, float(log_wealth.max()))))
