"""Policies decide at each exit which images leave. A policy is one file; add one by adding a file.

A policy is a small immutable object. Before each batch it is bound to the bundle, which gives a `Route`; the route
holds any state about the images of that batch.

May import: bundle, checks, errors.
"""

from lraee.policies.adaptive import Adaptive
from lraee.policies.base import AnytimeRoute, Policy, Route, Verdict
from lraee.policies.confidence import Confidence
from lraee.policies.deadline import Deadline
from lraee.policies.entropy import Entropy
from lraee.policies.exit_at import ExitAt
from lraee.policies.full import Full
from lraee.policies.given_shares import Replay
from lraee.policies.patience import Patience

__all__ = [
    "Adaptive",
    "AnytimeRoute",
    "Confidence",
    "Deadline",
    "Entropy",
    "ExitAt",
    "Full",
    "Patience",
    "Policy",
    "Replay",
    "Route",
    "Verdict",
]
