"""What each way to store a text tower costs: size, load, time for a label, and cosine to torch.

    python benchmarks/text_precisions.py MODEL [--pretrained TAG] [--labels imagenet] [--texts 200] [--threads 2]

Runs where a model is exported, since it compares with torch. Prompts run 32 at a time, as `Model.set_labels` runs them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from lraee.cli import errors_as_one_line
from lraee.sessions import SessionSettings, make_session
from lraee.text import TEXTS_PER_RUN
from lraee.tokenizer import Tokenizer, padded
from lraee_benchmarks.device import describe_device
from lraee_benchmarks.wording import device_line
from lraee_exporters.labels import encode_prompts
from lraee_exporters.open_clip_models import load_model
from lraee_exporters.parity import compare_stage
from lraee_exporters.text_graph import TEXT_PRECISIONS, build_text
from lraee_exporters.text_tower import clip_merges, text_tower_of
from lraee_toolchain.label_sets import read_labels

REPEATS = 5


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pretrained")
    parser.add_argument("--labels", default="imagenet", help="as of lraee-export")
    parser.add_argument("--texts", type=int, default=200, help="prompts at most")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with errors_as_one_line():
        model = load_model(arguments.model, pretrained=arguments.pretrained)
        tower, tokenizer = text_tower_of(model), Tokenizer(clip_merges())
        texts = read_labels(arguments.labels).prompts()[: arguments.texts]
    texts = sorted(texts, key=lambda text: len(tokenizer.encode(text)))
    rows = [tokenizer.row(text, tower.context_length) for text in texts]
    batches = [padded(rows[start : start + TEXTS_PER_RUN]) for start in range(0, len(rows), TEXTS_PER_RUN)]
    wanted = encode_prompts(model.torch_model, model.tokenizer(texts)).numpy()
    print(
        f"{device_line(describe_device())}; {arguments.threads} threads; {len(rows)} prompts of {arguments.labels}, "
        f"{np.mean([len(row) for row in rows]):.1f} tokens on average; median of {REPEATS} runs\n\n"
        "| stored as | MB | load s | ms a prompt | least cosine | least cosine, mean taken away |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for precision in TEXT_PRECISIONS:
        with tempfile.TemporaryDirectory() as name:
            graph, file = build_text(tower, precision)
            file.save(Path(name))
            path = graph.save(Path(name))
            begun = time.perf_counter()
            session = make_session(path, SessionSettings(threads=arguments.threads))
            loaded = time.perf_counter() - begun
            times = []
            for _ in range(REPEATS + 1):  # the first one warms up
                begun = time.perf_counter()
                got = np.concatenate([session.run(["embedding"], {"tokens": batch})[0] for batch in batches])
                times.append(1000 * (time.perf_counter() - begun) / len(rows))
            size = sum(found.stat().st_size for found in Path(name).iterdir())
        cosines = (got * wanted).sum(axis=1).min(), compare_stage("text", got, wanted).cosine
        numbers = f"{size / 1e6:.1f} | {loaded:.2f} | {np.median(times[1:]):.3f}"
        print(f"| {precision} | {numbers} | {cosines[0]:.6f} | {cosines[1]:.6f} |")


if __name__ == "__main__":
    main()
