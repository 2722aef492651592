"""Times `Model.classify` on encoded images, with the gaps between calls that requests at some rate would have.

    python benchmarks/experiments/service/library.py BUNDLE IMAGES --per-second 5 --seconds 20

Gaps matter: a call after a pause finds its weights outside the caches, as an image of a service does. Prints the
latencies in milliseconds as JSON. `soak.py` runs it on the cores of its service.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import lraee
from lraee.policies.spec import parse_policy


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("images", type=Path, help="folder of encoded images")
    parser.add_argument("--per-second", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the image to begin with")
    parser.add_argument("--policy")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    policy = None if given.policy is None else parse_policy(given.policy)
    model = lraee.load(given.bundle, threads=given.threads, policy=policy)
    images = [path.read_bytes() for path in sorted(given.images.iterdir())]
    model.warm()
    for image in images[:8]:
        model.classify(image)
    draw, latencies = random.Random(0), []
    began = due = time.perf_counter()
    while (due := due + draw.expovariate(given.per_second)) < began + given.seconds:
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        start = time.perf_counter()
        model.classify(images[(given.first + len(latencies)) % len(images)])
        latencies.append(1000 * (time.perf_counter() - start))
    print(json.dumps(latencies))


if __name__ == "__main__":
    main()
