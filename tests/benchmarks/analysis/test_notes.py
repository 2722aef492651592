"""Notes say where early exit does not pay and where a number is not to be trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from lraee_benchmarks.analysis.notes import disturbance_notes
from lraee_benchmarks.results.model import Accuracy, Report, RowKind

Make = Callable[..., Report]


def changed(make_report: Make, part: str, **changes: Any) -> Report:
    """A report with some fields of one of its parts changed."""
    return make_report(**{part: dataclasses.replace(getattr(make_report(), part), **changes)})


def with_saving(make_report: Make, saved: float, margin: float) -> Report:
    """A report whose adaptive row saves so much latency."""
    rows = make_report().rows
    interval = dataclasses.replace(rows[0].latency_saved_interval, low=saved - margin, high=saved + margin)
    first = dataclasses.replace(rows[0], latency_saved=saved, latency_saved_interval=interval)
    return make_report(rows=(first, *rows[1:]))


def test_a_good_run_has_one_note(make_report: Make) -> None:
    """What the chain costs is always said."""
    assert make_report().notes == ("At full depth the parts one by one take 2.0% longer than one graph.",)


def test_where_products_saturate_the_report_says_what_the_rows_ran(make_report: Make) -> None:
    """ONNX Runtime's exact kernels cost time; OpenVINO has none, and its answers are wrong."""
    peers = make_report().peers
    exact = [dataclasses.replace(peers[0], options={**peers[0].options, "session.x64quantprecision": "1"})]
    first = make_report(peers=tuple(exact)).notes
    assert len([note for note in first if "saturate" in note]) == 1
    openvino = dataclasses.replace(peers[0], name="openvino", engine="OpenVINO", precision="int8, the rest float32")
    notes = [note for note in make_report(peers=(*exact, openvino)).notes if "saturate" in note]
    assert len(notes) == 2
    assert "the openvino row times wrong answers" in notes[1]
    floats = tuple(dataclasses.replace(peer, precision="fp32") for peer in exact)
    assert not [note for note in make_report(peers=floats).notes if "saturate" in note]


def test_early_exit_that_is_slower_is_called_slower(make_report: Make) -> None:
    """With how much, against which row, and what it saved in FLOPs."""
    note = with_saving(make_report, -0.05, 0.01).notes[0]
    assert note.startswith("adaptive=balanced is slower than full depth (graph) by 5.0%: it saves 13.4% of the FLOPs")


@pytest.mark.parametrize("saved", [0.01, -0.01])
def test_early_exit_within_the_noise_is_not_called_faster_or_slower(make_report: Make, saved: float) -> None:
    """The interval holds zero."""
    assert "within the noise" in with_saving(make_report, saved, 0.02).notes[0]


def test_rows_within_the_noise_share_one_note(make_report: Make) -> None:
    """A bundle may have ten exits."""
    row = with_saving(make_report, 0.0, 0.02).rows[0]
    other = dataclasses.replace(row, name="exit=8", kind="exit")
    notes = [note for note in make_report(rows=(row, other)).notes if "noise" in note]
    assert notes == [
        "Whether adaptive=balanced, exit=8 is faster than full depth (graph) is within the noise.",
    ]


def test_a_point_that_saves_nothing_is_said_to_save_nothing(make_report: Make) -> None:
    """Its latency is that of full depth, whatever the noise says."""
    for saved, margin in ((0.0, 0.02), (-0.05, 0.01)):
        rows = with_saving(make_report, saved, margin).rows
        notes = make_report(rows=(dataclasses.replace(rows[0], flops_saved=0.0), *rows[1:])).notes
        assert notes[0] == "adaptive=balanced saves no FLOPs on these images."
        assert not any("noise" in note or "slower" in note for note in notes)


@pytest.mark.parametrize("kind", ["confidence", "entropy", "patience"])
def test_heuristics_are_noted_like_the_gates(make_report: Make, kind: RowKind) -> None:
    """Slower, saving nothing, or spread by nature: a row is judged by what it does, not by its name."""
    row = dataclasses.replace(with_saving(make_report, -0.05, 0.01).rows[0], name=f"{kind}=1", kind=kind)
    others = make_report().rows[1:]
    assert any(f"{kind}=1 is slower than" in note for note in make_report(rows=(row, *others)).notes)
    idle = dataclasses.replace(row, flops_saved=-0.01)
    assert f"{kind}=1 saves no FLOPs on these images." in make_report(rows=(idle, *others)).notes
    spread = dataclasses.replace(row, latency=dataclasses.replace(row.latency, p99_ms=30.0))
    assert not any("p99" in note for note in make_report(rows=(spread, *others)).notes)


def test_random_weights_are_named_first(make_report: Make) -> None:
    """Where images leave means nothing."""
    assert changed(make_report, "bundle", weights="random").notes[0].startswith("The weights are random")


def test_without_the_graph_the_cost_of_the_chain_is_unknown(make_report: Make) -> None:
    """And the report says that it is."""
    rows = make_report().rows[:2]
    assert any("Without the graph baseline" in note for note in make_report(rows=rows, reference="full").notes)


@pytest.mark.parametrize(
    ("float_ms", "features", "said"),
    [
        (19.6, ("dotprod",), "2.00 times as fast as FP32."),
        (14.7, (), "1.50 times as fast as FP32."),
        (9.8, ("dotprod",), "as fast as FP32."),
        (9.76, ("dotprod",), "as fast as FP32."),
        (
            9.408,
            ("dotprod",),
            "0.96 times as fast as FP32; INT8 does not pay here, take what lraee-export --precision fp32 gives.",
        ),
        (
            9.408,
            (),
            "0.96 times as fast as FP32; this CPU has no 8-bit dot product; INT8 does not pay here, take what "
            "lraee-export --precision fp32 gives.",
        ),
    ],
)
def test_int8_is_compared_with_fp32(make_report: Make, float_ms: float, features: tuple[str, ...], said: str) -> None:
    """Also when it is no faster, or slower, and why that may be."""
    report = changed(make_report, "device", int8_features=features)
    latency = dataclasses.replace(report.rows[2].latency, mean_ms=float_ms)
    float_row = dataclasses.replace(report.rows[2], name="fp32", kind="fp32", latency=latency)
    rows = (*report.rows, float_row)
    (note,) = [note for note in make_report(device=report.device, rows=rows).notes if "FP32" in note]
    assert note == f"INT8 full depth (graph) is {said}"
    bundle = dataclasses.replace(report.bundle, precision="fp32")
    assert not any("FP32" in note for note in make_report(bundle=bundle, rows=rows).notes)


def test_a_chain_that_takes_less_than_the_graph_is_said_to(make_report: Make) -> None:
    """How much, without a sign."""
    adaptive, full, graph = make_report().rows
    full = dataclasses.replace(full, latency=dataclasses.replace(full.latency, mean_ms=0.95 * graph.latency.mean_ms))
    notes = make_report(rows=(adaptive, full, graph)).notes
    assert "At full depth the parts one by one take 5.0% less than one graph." in notes


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("settings", {"images": 12}, "Only 12 different images"),
        ("device", {"load_average": 1.5}, "The CPU was busy in the minute before (load average 1.5)"),
        ("device", {"governor": "ondemand"}, "frequency governor is ondemand"),
        ("settings", {"images": 99}, "Only 99 different images"),
        ("device", {"celsius_after": 84.6}, "85 °C"),
        ("device", {"celsius_after": 80.0}, "80 °C"),
    ],
)
def test_bad_conditions_are_named(make_report: Make, part: str, changes: dict[str, Any], said: str) -> None:
    """A reader learns why another run may differ."""
    assert any(said in note for note in changed(make_report, part, **changes).notes)


def test_conditions_that_just_do_are_not_named(make_report: Make) -> None:
    """A hundred images, and a degree below the one where the clock falls."""
    assert len(changed(make_report, "settings", images=100).notes) == 1
    assert len(changed(make_report, "device", celsius_after=79.0).notes) == 1


def test_load_on_other_cores_does_not_disturb(make_report: Make) -> None:
    """Four cores, one of them busy, two threads."""
    device = dataclasses.replace(make_report().device, load_average=1.0)
    settings = dataclasses.replace(make_report().settings, threads=2)
    assert not any("busy" in note for note in make_report(device=device, settings=settings).notes)


def test_a_long_tail_is_named_except_for_adaptive_rows(make_report: Make) -> None:
    """Adaptive rows are spread because images leave at different depths."""
    rows = tuple(
        dataclasses.replace(row, latency=dataclasses.replace(row.latency, p99_ms=30.0)) for row in make_report().rows
    )
    (note,) = [note for note in make_report(rows=rows).notes if "p99" in note]
    assert "for full, graph;" in note


def test_runtimes_that_shared_a_process_are_named() -> None:
    """Unless each had its own; peers over the chain's own pool disturb nobody."""
    (note,) = disturbance_notes(("graph", "openvino", "torch"), isolated=False, busy_rows=())
    assert note.startswith("openvino, torch brought threads of their own into one process")
    assert disturbance_notes(("graph", "openvino"), isolated=True, busy_rows=()) == ()
    assert disturbance_notes(("graph", "fp32"), isolated=False, busy_rows=()) == ()


def test_rows_that_went_on_after_their_turn_are_named() -> None:
    """Their threads took cores from the next row."""
    assert disturbance_notes(("torch", "openvino"), isolated=True, busy_rows=("torch", "openvino")) == (
        "Threads of openvino, torch were still spinning while other rows were timed.",
    )


def test_early_exit_must_beat_a_tower_that_is_cut(make_report: Callable[..., Report], accuracy: Accuracy) -> None:
    """A cut that is as accurate and as fast is named; one that is slower, or less accurate, is not."""
    adaptive, full, graph = make_report().rows
    adaptive = dataclasses.replace(adaptive, accuracy=accuracy)
    worse = dataclasses.replace(accuracy, top1=accuracy.top1 - 0.001)

    def notes(cut_ms: float, found: Accuracy | None) -> list[str]:
        latency = dataclasses.replace(adaptive.latency, mean_ms=cut_ms)
        cut = dataclasses.replace(adaptive, name="exit=9", kind="exit", latency=latency, accuracy=found)
        return [note for note in make_report(rows=(adaptive, cut, full, graph)).notes if "cutting the tower" in note]

    assert len(notes(adaptive.latency.mean_ms, accuracy)) == 1
    assert "exit=9" in notes(adaptive.latency.mean_ms, accuracy)[0]
    assert notes(adaptive.latency.mean_ms + 1, accuracy) == []
    assert notes(adaptive.latency.mean_ms, worse) == []
    assert notes(adaptive.latency.mean_ms, None) == []
    adaptive = dataclasses.replace(adaptive, accuracy=None)
    assert notes(adaptive.latency.mean_ms, accuracy) == []
