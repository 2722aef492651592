"""The floor runs the products it is made of, and reads what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lraee.bundle.folder import Bundle
from lraee.ort.sessions import SessionSettings, make_session
from lraee_benchmarks.analysis.summary import RowInput, summarize_floor
from lraee_benchmarks.rows.baseline_files import baseline_path
from lraee_benchmarks.rows.floor import BareGemms, MemoryRead, open_floor, weight_bytes
from lraee_benchmarks.running.rounds import Measured


@pytest.mark.parametrize("batch", [1, 3])
def test_the_products_run_into_shared_buffers(with_baselines: Bundle, batch: int) -> None:
    """The last product of a shape is what its buffer holds: all of them were written there in order."""
    settings = SessionSettings(threads=1)
    session = make_session(baseline_path(with_baselines, "floor"), settings)
    products = BareGemms(session, with_baselines.manifest.tower, batch)
    assert products.count == 74
    products()
    feeds = dict(zip([entry.name for entry in session.get_inputs()], products._arrays, strict=False))
    last = {entry.shape[1]: entry.name for entry in session.get_outputs() if entry.shape[0] == "token_rows"}
    for buffer in products._arrays[len(feeds) :]:
        if len(buffer) == batch * with_baselines.manifest.tower.tokens:
            np.testing.assert_array_equal(buffer, session.run([last[buffer.shape[1]]], feeds)[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_byte_is_read_whatever_the_threads(threads: int) -> None:
    """The largest number is found wherever it lies."""
    read = MemoryRead(8 * 1001, threads)
    assert sum(share.nbytes for share in read._shares) == 8 * 1001
    for share in read._shares:
        share[-1] = np.iinfo(np.int64).max - 1
        assert read() == np.iinfo(np.int64).max - 1
        share[-1] = 0


def test_both_parts_are_opened_by_name(with_baselines: Bundle) -> None:
    """Over the weights of the bundle."""
    for part in ("gemm", "read"):
        open_floor(with_baselines, part, SessionSettings(threads=1), batch=1)(0)  # type: ignore[arg-type]


def test_the_floor_is_summarized_against_the_full_chain(tmp_path: Path) -> None:
    """Medians of 10, 8 and 5 ms: 1.25 and 2 times the floors; 16 MB in 5 ms are 3.2 GB a second."""
    (tmp_path / "floor.data").write_bytes(bytes(16_000_000))
    measured = Measured(samples_ms=np.tile([10.0, 8.0, 5.0], (9, 1)), batch_of_round=np.zeros(9, np.intp))
    full = RowInput(name="full", kind="full", samples_ms=measured.samples_ms[:, 0], outcomes=())
    floor = summarize_floor(full, measured, tmp_path / "floor.onnx", products=74, seed=0)
    assert (floor.chain_to_gemm.value, floor.chain_to_read.value) == (1.25, 2.0)
    assert floor.read_bytes_per_second == pytest.approx(3.2e9)
    assert weight_bytes(tmp_path / "floor.onnx") == floor.weight_bytes == 16_000_000
