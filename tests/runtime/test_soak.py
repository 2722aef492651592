"""Thousands of images through eight threads: the right answers, and no memory lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "soak.py"


@pytest.mark.parametrize(("memory", "images"), [("normal", 3000), ("low", 1000)])
def test_eight_threads_and_every_policy_give_the_answers_of_one_thread_and_lose_no_memory(memory, images):
    """One by one, in batches and as streams; the long run is `benchmarks/experiments/soak.py` with 100,000 images."""
    command = [sys.executable, str(SCRIPT), "reference", "--images", str(images), "--memory", memory]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "through 8 threads: 0 wrong answers" in done.stdout
    blocks = re.search(r"images left after blocks (.*)", done.stdout)
    assert blocks is not None
    assert len(blocks[1].split(", ")) > 3  # otherwise it would prove little


def test_growth_above_the_limit_is_a_failure():
    """So that the other tests here could fail."""
    command = [sys.executable, str(SCRIPT), "reference", "--images", "100", "--different", "40", "--growth-mb", "-1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
