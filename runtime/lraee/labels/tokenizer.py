"""Turns text into token ids, as open_clip's `SimpleTokenizer` does: clean, split into words, merge bytes.

It is written here although onnxruntime-extensions has a `CLIPTokenizer` operator. That one splits differently at
digits, contractions and letters younger than its tables, and takes the literal ``<|endoftext|>`` for the end of the
text. Splitting words before the operator to correct this leaves it only the merging, and needs a library of several
megabytes.

Source: Sennrich et al., arXiv 1508.07909 (byte-pair encoding); openai/CLIP, ``simple_tokenizer.py``.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

import ftfy
import numpy as np
from numpy.typing import NDArray

START, END = "<start_of_text>", "<end_of_text>"

WORDS_REMEMBERED = 4096
"""Words whose tokens are kept: a template repeats most of its words with every label."""

_LITERAL = re.compile(rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d", re.IGNORECASE)
_RUN = re.compile(r"L+|N|O+|S")


def clean(text: str) -> str:
    """Repair mojibake, resolve HTML entities twice, make every white space one blank, lower the case.

    >>> clean("  Caf&amp;eacute;\\n au  lait ")
    'café au lait'
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def split(text: str) -> list[str]:
    """Split a cleaned text into words: special tokens, contractions, runs of letters, single digits, runs of the rest.

    Python decides what is a letter or a digit: letters that Unicode has gained since count as the rest.

    >>> split("the dog's 12 toys!")
    ['the', 'dog', "'s", '1', '2', 'toys', '!']
    """
    kinds = "".join(map(_kind, text))
    words, begin = [], 0
    while begin < len(text):
        found = _LITERAL.match(text, begin) or _RUN.match(kinds, begin)
        assert found is not None  # a kind is one of four letters
        if kinds[begin] != "S":
            words.append(text[begin : found.end()])
        begin = found.end()
    return words


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Classify a character: L for letters, N for numbers, O for the rest, S for separators, which are dropped.

    The iota below Greek vowels is one: no class of open_clip's pattern matches it when case does not count.
    """
    if character in (" ", "\N{COMBINING GREEK YPOGEGRAMMENI}"):
        return "S"
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "O"


def byte_characters() -> dict[int, str]:
    """Give the printable character that stands for each byte in merges, in the order of the token ids.

    >>> characters = byte_characters()
    >>> characters[ord("a")], characters[ord(" ")], len(set(characters.values()))
    ('a', 'Ġ', 256)
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class Tokenizer:
    """Encodes texts with CLIP's byte-pair encoding.

    Token ids are, in this order: the 256 bytes, the 256 bytes at the end of a word, the merges, start, end.
    """

    def __init__(self, merges: Iterable[str]) -> None:
        """Make a tokenizer from its merges.

        Args:
            merges: two tokens each, with a blank between them, the first to be merged first.

        Raises:
            ValueError: a merge is not two tokens.
        """
        self._characters = byte_characters()
        letters = list(self._characters.values())
        self._ranks: dict[tuple[str, str], int] = {}
        vocabulary = letters + [f"{letter}</w>" for letter in letters]
        for rank, merge in enumerate(merges):
            left, right = merge.split(" ")
            self._ranks[left, right] = rank
            vocabulary.append(left + right)
        self._ids = {token: number for number, token in enumerate([*vocabulary, START, END])}
        self.start, self.end = len(vocabulary), len(vocabulary) + 1
        self._tokens_of = lru_cache(maxsize=WORDS_REMEMBERED)(self._merged)

    @property
    def size(self) -> int:
        """The number of token ids."""
        return self.end + 1

    def encode(self, text: str) -> list[int]:
        """Encode a text as token ids, without start and end."""
        return [token for word in split(clean(text)) for token in self._tokens_of(word)]

    def row(self, text: str, context_length: int) -> list[int]:
        """Encode a text with start and end; it is cut to the context, and the end is kept."""
        return [self.start, *self.encode(text)[: context_length - 2], self.end]

    def _merged(self, word: str) -> tuple[int, ...]:
        """Encode one word: take its bytes, and merge the neighbours of least rank until none has a rank."""
        if word in (START, END):
            return (self._ids[word],)
        parts = [self._characters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = set(pairwise(parts))
            pair = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if pair not in self._ranks:
                break
            parts = _with_pair_joined(parts, pair)
        return tuple(self._ids[part] for part in parts)


def padded(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Join rows of token ids to one int64 (texts, length) array, padded with zeros.

    The length is that of the longest row and not the context's, since a causal tower does not look ahead.
    """
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def _with_pair_joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of a pair of neighbours in `parts`, from left to right."""
    joined: list[str] = []
    position = 0
    while position < len(parts):
        if tuple(parts[position : position + 2]) == pair:
            joined.append(pair[0] + pair[1])
            position += 2
        else:
            joined.append(parts[position])
            position += 1
    return joined
