"""What methods of early exit are called, in reports of exports and in what is assembled from several of them."""

from __future__ import annotations

METHODS = {
    "lra_ee": "LRA-EE",
    "lra_ee_free": "LRA-EE, free LCT",
    "lra_ee_shared": "LRA-EE, one threshold",
    "lra_ee_monotone": "LRA-EE, LCT monotone in INR",
    "confidence_shared": "confidence, one threshold",
    "confidence_free": "confidence, free LCT",
    "entropy_shared": "entropy, one threshold",
    "branchynet": "BranchyNet: entropy, free LCT",
    "pabee": "PABEE",
    "pabee_everywhere": "PABEE, exits after every candidate block",
    "lgvit": "LGViT: local and attention heads after every candidate block, confidence",
    "lgvit_free": "LGViT's heads, confidence, free LCT",
    "cls_ee": "CLS-EE: [CLS] heads, confidence",
    "class_based_confidence": "class-based thresholds, confidence",
    "class_based_gate": "class-based thresholds, gate",
    "token_pruning": "token pruning (in the manner of AdaViT)",
    "token_merging": "token merging, as many in every block (ToMe)",
}
"""Rows of the comparison at the same FLOPs (the paper's T2), by their identifiers in ``metrics.json``."""
