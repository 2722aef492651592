"""Decide which rows a measurement will have, before anything is timed."""

from __future__ import annotations

import numpy as np

from lraee.errors import PolicyError
from lraee.model import Model
from lraee.policies import AnytimeRoute, Deadline, Full
from lraee_benchmarks.config import BenchmarkConfig
from lraee_benchmarks.rows.baseline_files import checked_baseline
from lraee_benchmarks.rows.baselines import available_baselines, check_peer
from lraee_benchmarks.rows.floor import FLOOR_PARTS
from lraee_benchmarks.rows.policy_rows import chain_policies
from lraee_benchmarks.running.in_process import RowPlan
from lraee_benchmarks.running.launches import set_pool
from lraee_benchmarks.running.rounds import time_in_turn

DEADLINE_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the time of full depth, unless deadlines are given."""

_PROBES = 15


def plan_rows(config: BenchmarkConfig, model: Model) -> RowPlan:
    """Decide which rows there will be.

    Raises:
        PolicyError: the bundle lacks what a policy asks for, or the scenario does not allow it.
        BundleError: a baseline or the graph of the floor is missing.
        MissingExtraError: a baseline's package is not installed.
    """
    peers = config.baselines if config.baselines is not None else available_baselines(model.bundle)
    for name in peers:
        check_peer(model.bundle, name)
    if config.floor:
        checked_baseline(model.bundle, "floor")
    specs = config.policies
    if config.scenario == "deadline" and not specs:
        specs = default_deadlines(model)
    policies = chain_policies(model.manifest, specs)
    late = [name for name, policy in policies.items() if isinstance(policy.bind(model.manifest), AnytimeRoute)]
    if config.scenario == "offline" and late:
        raise PolicyError(f"{late[0]} has a deadline, which means nothing in the offline scenario; leave it out")
    if config.scenario == "offline" and (config.floor or config.parts):
        raise PolicyError("--floor and --parts are about one batch; leave them out in the offline scenario")
    return RowPlan(
        chain=tuple(policies),
        peers=peers,
        floor=FLOOR_PARTS if config.floor else (),
        stream=config.batch if config.scenario == "offline" else None,
    )


def default_deadlines(model: Model) -> tuple[str, ...]:
    """Choose deadlines at `DEADLINE_SHARES` of the time that full depth takes here.

    Raises:
        PolicyError: the bundle has no exit to leave through.
    """
    Deadline(1.0).bind(model.manifest)
    set_pool(model)
    size = model.manifest.preprocessing.image_size
    pixels = np.zeros((1, size, size, 3), np.uint8)
    full_ms = float(np.median(time_in_turn([lambda: model.run_pixels(pixels, policy=Full())], _PROBES)))
    return tuple(f"deadline={full_ms * share:.2f}" for share in DEADLINE_SHARES)
