"""Fill difficult_texts.json up to 500 texts that tokenizers disagree about.

The first 257 are written by hand and stay; the others mix them, by a seed, with characters of every kind.

python tests/exporters/make_difficult_texts.py
"""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

TARGET = Path(__file__).with_name("difficult_texts.json")
COUNT = 500
BY_HAND = 257
"""Nothing at all, white space, control characters; contractions; digits; the tokens that mean something; HTML; mojibake
and typography; letters of all sorts; emoji; punctuation; long ones; prompts in unusual clothes."""


def mixed(by_hand: list[str], count: int) -> list[str]:
    """The texts, and pieces of them, glued together or not, with characters of Unicode 3.2 between them."""
    generator = random.Random(0)
    short = [text for text in by_hand if len(text) < 40]
    characters = [chr(code) for code in range(0x20000) if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")]
    texts = dict.fromkeys(by_hand)  # without repetitions, in order
    while len(texts) < count:
        pieces = []
        for _ in range(generator.randint(2, 7)):
            if generator.random() < 0.5:
                pieces.append(generator.choice(short))
            else:
                pieces.append("".join(generator.choices(characters, k=generator.randint(1, 5))))
        texts[generator.choice(["", "", " ", "-", "'"]).join(pieces)] = None
    return list(texts)


def main() -> None:
    """Write the file; in ASCII, so that no editor changes it."""
    texts = json.loads(TARGET.read_text("ascii"))[:BY_HAND]
    lines = ",\n".join(json.dumps(text) for text in mixed(texts, COUNT))
    TARGET.write_text(f"[\n{lines}\n]\n", "ascii")


if __name__ == "__main__":
    main()
