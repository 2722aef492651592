"""The tokenizer's own rules, with merges few enough to follow by hand; `test_text_tower` holds it against open_clip."""

from __future__ import annotations

import pytest

from lraee.labels.tokenizer import Tokenizer, clean, padded, split

MERGES = ["t h", "th e</w>", "t o", "th a", "to y"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """512 bytes, five merges, start and end."""
    return Tokenizer(MERGES)


def test_ids_are_bytes_then_bytes_that_end_a_word_then_merges_then_start_and_end(tokenizer: Tokenizer) -> None:
    """`!` is the first printable byte."""
    assert tokenizer.encode("!") == [256]
    assert tokenizer.encode("!!") == [0, 256]
    assert (tokenizer.start, tokenizer.end, tokenizer.size) == (517, 518, 519)
    assert tokenizer.encode("<start_of_text> <END_OF_TEXT>") == [517, 518]


def test_merges_are_made_in_their_order(tokenizer: Tokenizer) -> None:
    """`the` takes `t h` and then the end; `toy` takes `t o` first, and its last letter is another token."""
    assert tokenizer.encode("the") == [513]
    last_y = 256 + ord("y") - ord("!")
    assert tokenizer.encode("toy") == [514, last_y]
    assert tokenizer.encode("that") == [515, 256 + ord("t") - ord("!")]


def test_a_batch_is_cut_to_the_context_with_the_end_kept_and_padded_with_zeros(tokenizer: Tokenizer) -> None:
    """As wide as its longest text."""
    batch = padded([tokenizer.row(text, 4) for text in ("the", "", "the the the the")])
    assert batch.tolist() == [[517, 513, 518, 0], [517, 518, 0, 0], [517, 513, 513, 518]]
    assert padded([tokenizer.row("the", 77)]).shape == (1, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a1b22", ["a", "1", "b", "2", "2"]),
        ("we'll''s", ["we", "'ll", "''", "s"]),
        ("a-b, c!?", ["a", "-", "b", ",", "c", "!?"]),
        ("<|endoftext|>", ["<|", "endoftext", "|>"]),
        ("x<end_of_text>'", ["x", "<end_of_text>", "'"]),
        ("日本語です。", ["日本語です", "。"]),
        ("a\u0345b", ["a", "b"]),
    ],
)
def test_texts_are_split_as_clip_does(text: str, words: list[str]) -> None:
    """Runs of letters, single digits, contractions, runs of the rest."""
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("  A\n B\t", "a b"), ("&amp;amp;", "&"), ("sch\u00c3\u00b6n", "sch\u00f6n"), ("\ufeff\u3000", "")],
)
def test_texts_are_cleaned(text: str, cleaned: str) -> None:
    """White space, entities of entities, mojibake, case."""
    assert clean(text) == cleaned


def test_merges_that_are_no_pairs_are_refused() -> None:
    """A line of another file is not a pair."""
    with pytest.raises(ValueError, match="unpack"):
        Tokenizer(["#version: 0.2 x"])
