"""The blocks that are compared for speed compute the same, and the other form is what it says."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from experiments import operator_sets
from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import BundleError


@pytest.mark.parametrize("operator", ["Attention", "MultiHeadAttention"])
def test_both_forms_of_the_blocks_compute_the_same(operator: str, tmp_path: Path) -> None:
    """All blocks of the shipped bundle, the last for the class token alone, to a float rounding."""
    bundle = Bundle(find_bundle("reference"))
    operator_sets.write_forms(bundle, tmp_path, operator)
    for number in range(1, bundle.manifest.tower.blocks + 1):
        own, other = (
            [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
            for path in (tmp_path / f"bundle_{number:02d}.onnx", tmp_path / f"other_{number:02d}.onnx")
        )
        assert (own.count(operator), other.count(operator)) == (0, 1)
        assert not {"MatMul", "Softmax", "Transpose"} & set(other)
    tower = bundle.manifest.tower
    found = operator_sets.launch(tmp_path, 1, (2, tower.tokens, tower.width), 0.1, "cpu")
    assert found["difference"] < 1e-5
    assert min(len(found["bundle"]), len(found["other"])) >= 1


def test_a_bundle_whose_blocks_have_attention_is_refused(tmp_path: Path) -> None:
    """There would be nothing to compare; the golden bundle is older than the change."""
    golden = Bundle(Path(__file__).parents[2] / "runtime" / "golden" / "format_1.lraee")
    with pytest.raises(BundleError, match="is no INT8 block of MatMul and Softmax; wanted one"):
        operator_sets.write_forms(golden, tmp_path, "Attention")
