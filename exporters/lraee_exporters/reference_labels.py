"""Lists the words that the reference CLIP's text tower has seen: names, synonyms, coarser groups and prompt templates.

Outside these words its text embeddings mean nothing, so label sets for it are drawn from here: by the recipe that
trained it, by tests with an open vocabulary, and by `reference/labels.json` (the names and the first five templates).
"""

NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The ten classes in the order of Fashion-MNIST's labels 0 to 9."""

SYNONYMS = (
    ("t-shirt", "tee", "tee shirt", "t-shirt or top"),
    ("trousers", "pair of trousers", "pants"),
    ("pullover", "sweater", "jumper"),
    ("dress", "gown"),
    ("coat", "jacket", "overcoat"),
    ("sandal", "open shoe", "strappy shoe"),
    ("shirt", "blouse", "buttoned shirt"),
    ("sneaker", "trainer", "running shoe"),
    ("bag", "handbag", "purse"),
    ("ankle boot", "boot", "bootie"),
)
"""Words of each class, its name first."""

Group = tuple[tuple[str, ...], frozenset[int]]
"""Words of a group of classes, and the classes that belong to it."""

PARTITIONS: tuple[tuple[Group, ...], ...] = (
    (
        (("shoe", "footwear"), frozenset({5, 7, 9})),
        (("garment", "piece of clothing", "clothes"), frozenset({0, 1, 2, 3, 4, 6})),
        (("bag", "accessory"), frozenset({8})),
    ),
    (
        (("top", "upper-body garment"), frozenset({0, 2, 4, 6})),
        (("trousers", "legwear"), frozenset({1})),
        (("dress", "one-piece garment"), frozenset({3})),
        (("shoe", "footwear"), frozenset({5, 7, 9})),
        (("bag", "accessory"), frozenset({8})),
    ),
    (
        (("light top", "summer top"), frozenset({0, 6})),
        (("warm top", "winter top"), frozenset({2, 4})),
        (("trousers",), frozenset({1})),
        (("dress",), frozenset({3})),
        (("open shoe",), frozenset({5})),
        (("closed shoe",), frozenset({7, 9})),
        (("bag",), frozenset({8})),
    ),
)
"""Coarser label sets; the groups of each cover the ten classes exactly once."""

TEMPLATES = (
    "a photo of a {}.",
    "a clear photo of a {}.",
    "a low resolution photo of a {}.",
    "a black and white photo of a {}.",
    "a product photo of a {}.",
    "a picture of a {}.",
    "a photo of the {}.",
    "{}",
)
"""Prompts of the training; the first five are averaged for classification."""
