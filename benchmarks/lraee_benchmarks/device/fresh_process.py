"""The program that `cold_start` starts: ``python -m`` this module, BUNDLE THREADS POOL STARTED.

An encoded image, or the .npy of one decoded already, comes on stdin; times and memory leave on stdout as one line of
JSON. Nothing heavy is imported before the first clock is read.
"""

import json
import sys
import time


def main() -> None:
    """Import, load, answer once; then look at the memory."""
    bundle, threads, thread_pool, started_ns = sys.argv[1:]
    image = sys.stdin.buffer.read()
    decoded = image.startswith(b"\x93NUMPY")
    start = time.monotonic_ns()

    import lraee
    from lraee.policies.adaptive import Adaptive
    from lraee.policies.full import Full

    imported = time.monotonic_ns()
    if thread_pool == "global":
        from lraee.ort.sessions import use_global_thread_pool

        use_global_thread_pool(int(threads))
    model = lraee.load(bundle, threads=int(threads), thread_pool="global" if thread_pool == "global" else "session")
    loaded = time.monotonic_ns()
    # A gate is at most 1: the image passes every exit of the default operating point and leaves by none.
    default = [point for point in model.manifest.operating_points if point.name == model.manifest.default_point]
    exits = [threshold.block for point in default for threshold in point.thresholds]
    deepest = Adaptive(thresholds=dict.fromkeys(exits, 2.0)) if exits else Full()
    if decoded:
        import io

        import numpy as np

        image = np.load(io.BytesIO(image), allow_pickle=False)
    model.classify(image, policy=deepest)
    answered = time.monotonic_ns()

    from lraee_benchmarks.device.memory import measure_memory

    for _ in range(5):
        model.classify(image, policy=deepest)
    run = {
        "import_ms": (imported - start) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "first_image_ms": (answered - loaded) / 1e6,
        "to_first_answer_ms": (answered - int(started_ns)) / 1e6,
        **measure_memory()._asdict(),
    }
    print(json.dumps(run))


if __name__ == "__main__":
    main()
