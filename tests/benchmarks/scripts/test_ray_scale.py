"""Trials of runs with kills are added to those of other seeds, never to those of other images."""

from __future__ import annotations

from typing import Any

from experiments.ray_scale import with_earlier


def run(*targets: str, images: int = 2000, failed: int = 0) -> dict[str, Any]:
    """What one run with kills measures."""
    return {"bundle": "reference", "images": images, "trials": [{"target": one} for one in targets], "failed": failed}


def test_trials_of_the_same_images_are_added() -> None:
    """Failures too; another number of images, or nothing recorded, begins anew."""
    recorded = {"kills": {"result": run("worker", "driver", failed=1)}}
    assert with_earlier(run("worker"), recorded) == run("worker", "driver", "worker", failed=1)
    assert with_earlier(run("worker", images=500), recorded) == run("worker", images=500)
    assert with_earlier(run("worker"), {}) == run("worker")
