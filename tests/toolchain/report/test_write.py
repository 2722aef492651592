"""Reports: self-contained, well-formed, escaped, and without a number that was not measured."""

from __future__ import annotations

import ast
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lraee.bundle.folder import find_bundle
from lraee.bundle.manifest import Manifest
from lraee.bundle.manifest_file import read_manifest
from lraee.bundle.strict_json import read_json
from lraee_benchmarks.analysis.intervals import Estimate
from lraee_exporters.graphs.exit import HeadInput
from lraee_exporters.parity import StageParity
from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.config.options import ExportConfig, Precision
from lraee_toolchain.evaluation.example_images import Picture
from lraee_toolchain.evaluation.metrics import (
    Ablations,
    AtMatch,
    Evaluation,
    ExitShare,
    FrontPoint,
    GivenTower,
    Latency,
    LatencyRow,
    MethodRow,
    MethodTable,
    Metrics,
    PolicyRow,
    Quadrants,
    Selectivity,
    Way,
    WayRow,
)
from lraee_toolchain.evaluation.risk_metrics import RiskCheck, RiskChecks
from lraee_toolchain.quantization.noise import BlockNoise, EmbeddingDrift, NoiseProfile
from lraee_toolchain.report import write
from lraee_toolchain.report.bundle_tables import accounting_table
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.sections import report_page
from lraee_toolchain.report.write import report_markdown, write_report

CONFIG = ExportConfig(model="reference", out=Path("reference.lraee"), ablations=True)
VOID = {"meta", "img"}
PNG = b"\x89PNG\r\n\x1a\n"


def interval(mean: float) -> Estimate:
    """Plus and minus a point."""
    return Estimate(mean=mean, low=mean - 0.01, high=mean + 0.01)


def profile(depth: int) -> NoiseProfile:
    """Any numbers; they only have to be drawn."""
    drift = {field.name: 0.125 for field in dataclasses.fields(EmbeddingDrift)}
    fields = [field.name for field in dataclasses.fields(BlockNoise) if field.name != "block"]
    blocks = [BlockNoise(block=block, **dict.fromkeys(fields, float(block))) for block in range(1, depth + 1)]
    return NoiseProfile(images=100, blocks=tuple(blocks), embedding=EmbeddingDrift(**drift))


def compared(method: str, accuracy: float | None) -> MethodRow:
    """A row of the comparison with other methods."""
    front = (FrontPoint(saved=0.1, accuracy=0.89), FrontPoint(saved=0.5, accuracy=0.86))
    found = accuracy and AtMatch(
        accuracy=interval(accuracy),
        flops_saved=0.4321,
        flops_saved_std=0.0123,
        difference_to_lra_ee=interval(-0.0345),
        difference_to_int8=interval(0.0021),
    )
    return MethodRow(method=method, front=front, at_match=found or None)


def way(way: Way, precision: Precision = "naive INT8") -> WayRow:
    """A row of T1 or T3."""
    difference = interval(0.0123)
    return WayRow(
        way=way, precision=precision, accuracy=interval(0.8765), per_seed=(0.8765,), flops_saved=0.4567,
        flops_saved_std=0.0089, difference_to_float=difference, difference_to_int8=difference,
        difference_to_ssa_last=difference, exit_shares=(),
    )  # fmt: skip


def made_evaluation(manifest: Manifest) -> Evaluation:
    """Full depth, the default point and an exit, all alike."""
    block = manifest.exits[0].block
    row = PolicyRow(
        kind="full", point=None, block=None, accuracy=interval(0.9034), difference_to_full=interval(-0.0025),
        difference_to_float=interval(-0.0055), flops=1e8, flops_saved=0.4137,
        exit_shares=(ExitShare(block=block, share=0.7289), ExitShare(block=None, share=0.2711)),
        quadrants=Quadrants(both_right=1771, rescue=36, loss=41, both_wrong=152),
    )  # fmt: skip
    point = dataclasses.replace(row, kind="adaptive", point=manifest.default_point)
    rows = (row, point, dataclasses.replace(row, kind="exit", block=8))
    return Evaluation(images=2000, full_flops=manifest.full_flops, float_accuracy=interval(0.9055), rows=rows)


def made_ablations() -> Ablations:
    """Every table."""
    check = RiskCheck(
        epsilon=0.005, delta=0.1, repeats=200, images=990, exceeded=0.045, exceeded_on_pool=0.01, limit=0.15,
        mean_drop=-0.001, mean_saved=0.31, closed=0.02,
    )  # fmt: skip
    gate = Selectivity(
        left_early=0.731, accuracy=0.9, left_accuracy=0.9512, stayed_accuracy=0.7623, full_accuracy_of_left=0.9434,
        full_accuracy_of_stayed=0.7545,
    )  # fmt: skip
    heads: tuple[HeadInput, ...] = ("patch_mean", "cls", "both")
    return Ablations(
        images=2000,
        seeds=3,
        precision="naive INT8",
        main=(way("full", "FP32"), way("full"), way("routed")),
        methods=MethodTable(
            matched=0.4111, rows=(compared("lra_ee", 0.8991), compared("pabee", None), compared("cls_ee", 0.8642))
        ),
        factorial=(way("full"),),
        quadrants=Quadrants(both_right=1765.5, rescue=39.5, loss=40.5, both_wrong=154.5),
        selectivity=(gate, dataclasses.replace(gate, left_early=0.742)),
        fronts=((FrontPoint(accuracy=0.9, saved=0.4),),),
        exits_kept=((4,),),
        heads={reads: tuple(0.5 + 0.01 * block for block in range(12)) for reads in heads},
        risk=RiskChecks(population=1980, controlled=(check,), uncontrolled=dataclasses.replace(check, exceeded=0.3)),
        pruned={"naive INT8": (9, 11), "strong INT8": ()},
    )


def made_metrics(manifest: Manifest) -> Metrics:
    """Everything that can be measured."""
    rows = [
        LatencyRow(way=row.way, precision=row.precision, mean_ms=1.25, saved=0.3857) for row in made_ablations().main
    ]
    return Metrics(
        parity=(StageParity(name="stem", cosine=0.9999999, error=1e-6),),
        supervision="labels",
        noise={"naive INT8": profile(manifest.tower.blocks)},
        images={"calibration": 300, "heads": 3900, "gating": 1800, "evaluation": 2000},
        skipped={},
        passed_over={},
        notices=(),
        evaluation=made_evaluation(manifest),
        precisions=None,
        ablations=made_ablations(),
        latency=Latency(threads=1, images=200, rows=tuple(rows)),
    )


def picture(label: str | None = "dress", predicted: str = "dress") -> Picture:
    """Of no image; the page only carries its bytes."""
    right = None if label is None else label == predicted
    return Picture(block=4, early=True, label=label, predicted=predicted, right=right, png=PNG)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of the bundle in the package."""
    return read_manifest(find_bundle("reference"))


@pytest.fixture(scope="module")
def page(manifest: Manifest) -> str:
    """With everything that can be measured."""
    return made_page(manifest, made_metrics(manifest), picture())


class Reader(HTMLParser):
    """Checks that every element is closed in order, and keeps ids, links and headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []
        self.alternatives: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember."""
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"<{tag}> has an attribute twice"
        self.seen.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[name] for name in ("href", "src", "xlink:href", "action", "data") if name in values]
        self.alternatives += [values["alt"]] if tag == "img" else []
        assert tag != "img" or values["alt"], "a picture without words"
        assert tag != "svg" or values.get("aria-label"), "a plot without words"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of SVG."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Compare."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep what is to be read, without the style sheet."""
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        """All text, spaces made one."""
        return re.sub(r"\s+", " ", " ".join(self.text))


def made_findings(manifest: Manifest, metrics: Metrics, *pictures: Picture) -> Findings:
    """What a report is made from."""
    return Findings(manifest=manifest, metrics=metrics, config=CONFIG, pictures=pictures)


def made_page(manifest: Manifest, metrics: Metrics, *pictures: Picture) -> str:
    """``report.html``."""
    return report_page(made_findings(manifest, metrics, *pictures))


def words_of(page: str) -> str:
    """What is to be read on a page."""
    return Reader(page).words


def test_a_page_is_well_formed(page: str) -> None:
    """Elements are closed in order, ids are unique, links lead to one of them, and there is one h1."""
    reader = Reader(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.references if link.startswith("#")} <= set(reader.ids)
    assert reader.seen.count("h1") == 1
    assert reader.seen.count("h2") == reader.seen.count("section") == 13


def test_a_page_needs_no_other_file_and_no_network(page: str) -> None:
    """Nothing is loaded from anywhere and nothing runs."""
    reader = Reader(page)
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in reader.references)
    assert {"script", "link", "iframe", "object"} & set(reader.seen) == set()
    assert re.findall(r"https?://|@import|url\((?!#)", page) == []


def test_a_page_is_readable_in_the_dark(page: str) -> None:
    """No plot keeps a colour of its own; every variable that is used is defined, for light and for dark."""
    style = page[page.index("<style>") : page.index("</style>")]
    body = page[page.index("</style>") :]
    caps = {"#1f77b4"}  # matplotlib gives the ends of error bars a fill, and they have no area
    assert set(re.findall(r"(?:fill|stroke): ?(#\w+)", body)) <= caps
    dark = style[style.index("prefers-color-scheme: dark") :]
    for name in set(re.findall(r"var\(--([\w-]+)\)", page)) - {"letters"}:
        assert f"--{name}:" in style[: style.index("prefers-color-scheme: dark")]
        assert f"--{name}:" in dark


def test_the_numbers_of_a_page_are_those_of_the_metrics(page: str) -> None:
    """Headline, T1, T2, T4, selectivity, risk control, and latency."""
    words = words_of(page)
    tiles = ("41.4 %", "90.3 %", "89.3 to 91.3", "38.6 %", "72.9 %")
    tables = ("87.65 %", "45.7 % ± 0.9", "86.42 %", "43.2 % ± 1.2", "-3.45", "41.1 %", "1,771", "1,765.5")
    for number in (*tiles, *tables, "95.12 %", "74.20 %", "4.5 %"):
        assert number in words
    assert "cannot save this much" in words
    assert "0.12500 0.12 12.5 % 9, 11" in words
    assert words.count("broken") == 1


@pytest.mark.parametrize(
    ("keys", "titles"),
    [
        (["ablations", "latency"], ["What heads read", "What routing adds", "Does the guarantee hold?"]),
        (["latency"], []),
        (["noise"], ["Noise of every block"]),
        (["ablations", "evaluation", "latency"], ["Accuracy over FLOPs", "Who leaves, and is it right?"]),
    ],
)
def test_what_was_not_measured_is_not_mentioned(
    manifest: Manifest, page: str, keys: list[str], titles: list[str]
) -> None:
    """A section without numbers goes, and its link with it; the rest stays well-formed."""
    changes: dict[str, Any] = {key: {} if key == "noise" else None for key in keys}
    metrics = dataclasses.replace(made_metrics(manifest), **changes)
    words = words_of(made_page(manifest, metrics))
    for title in titles:
        assert title in words_of(page)
        assert title not in words
    assert ("Latency saved" in words) == ("latency" not in keys)
    assert "Example images" not in words


def test_a_report_asks_only_for_what_measuring_writes() -> None:
    """The time of the export was once asked for and written by nothing, so that its line could never appear."""
    asked: set[str] = set()
    for path in sorted(Path(write.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "metrics":
                asked.add(node.attr)
            if isinstance(node, ast.Call | ast.Subscript):  # by name, which nothing checks
                by_name = re.match(r"getattr\(([\w.]+\.)?metrics,|([\w.]+\.)?metrics\[", ast.unparse(node))
                assert not by_name, f"{path.name}:{node.lineno}"
    assert asked
    assert asked <= {field.name for field in dataclasses.fields(Metrics)}


@pytest.mark.parametrize(
    ("exits", "words"), [("all", "an export with `--adapt-exits none` shows"), ("none", "the control")]
)
def test_what_tuning_gives_is_not_credited_to_exits(manifest: Manifest, exits: Any, words: str) -> None:
    """Full depth is compared with the tower as given; only rows that leave early have figures of exits."""
    metrics = made_metrics(manifest)
    assert metrics.evaluation is not None
    rows = tuple(
        dataclasses.replace(row, difference_to_given=interval(0.0321), difference_to_full=interval(-0.0025))
        for row in metrics.evaluation.rows
    )
    given = GivenTower(
        accuracy=interval(0.8731),
        float_difference=interval(0.0324),
        quantized=interval(0.8711),
        quantized_difference=interval(-0.0020),
    )
    evaluation = dataclasses.replace(metrics.evaluation, given=given, rows=rows)
    config = dataclasses.replace(CONFIG, adapt=Adaptation(exits=exits))
    found = Findings(manifest=manifest, metrics=dataclasses.replace(metrics, evaluation=evaluation), config=config)
    table = accounting_table(found)
    assert table is not None
    assert words in table.note
    name = "tuned without exits" if exits == "none" else "tuned with exits"
    cells = {row[0]: list(row[1:]) for row in table.rows}
    assert cells["FP32 as given, full depth"][1:] == ["", "", ""]
    assert cells["naive INT8 as given, full depth"][1:] == ["-0.20 [-1.20, +0.80]", "", ""]
    assert cells[f"FP32 {name}, full depth"][1:] == ["+3.24 [+2.24, +4.24]", "", ""]
    assert cells[f"naive INT8 {name}, full depth"][1:] == ["+3.21 [+2.21, +4.21]", "", ""]
    early = cells[f"naive INT8 {name}, adaptive={manifest.default_point}"]
    assert early[1:] == ["+3.21 [+2.21, +4.21]", "-0.25 [-1.25, +0.75]", "41.4 %"]
    assert table.title in words_of(report_page(found))
    assert f"## {table.title}" in report_markdown(found)
    assert accounting_table(made_findings(manifest, metrics)) is None


def test_gates_that_released_no_image_have_no_selectivity(manifest: Manifest) -> None:
    """Nothing can be said of the images that left."""
    gate = Selectivity(
        left_early=0.0, accuracy=0.9, left_accuracy=None, stayed_accuracy=0.9, full_accuracy_of_left=None,
        full_accuracy_of_stayed=0.9,
    )  # fmt: skip
    ablations = dataclasses.replace(made_ablations(), selectivity=(gate,))
    words = words_of(made_page(manifest, dataclasses.replace(made_metrics(manifest), ablations=ablations)))
    assert "Selectivity" not in words


def test_random_weights_have_no_accuracy_anywhere(manifest: Manifest) -> None:
    """Nor anything else that random weights say nothing about: noise, pictures, thresholds' savings."""
    model = dataclasses.replace(manifest.model, weights="random:0")
    random = dataclasses.replace(manifest, model=model)
    metrics = dataclasses.replace(made_metrics(manifest), evaluation=None, ablations=None, latency=None)
    words = words_of(made_page(random, metrics, picture()))
    markdown = report_markdown(made_findings(random, metrics))
    accuracies = [exit.accuracy for exit in manifest.exits]
    accuracies += [point.accuracy for point in manifest.operating_points]
    for text in (words, markdown):
        assert "Random weights" in text
        for telling in ("op-1", "gating split", "Noise", "Example images", "agreement", "degrees"):
            assert telling not in text
        assert all(f"{100 * accuracy:.2f}" not in text for accuracy in accuracies if accuracy is not None)


def test_text_from_outside_is_escaped(manifest: Manifest) -> None:
    """Labels, names of methods and of models are shown as they are and never become elements."""
    evil = '<script>alert("x")</script>'
    metrics = made_metrics(manifest)
    ablations = made_ablations()
    methods = dataclasses.replace(ablations.methods, rows=(*ablations.methods.rows, compared(evil, 0.5)))
    metrics = dataclasses.replace(
        metrics,
        ablations=dataclasses.replace(ablations, methods=methods),
        parity=(dataclasses.replace(metrics.parity[0], name=evil),),
    )
    named = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, id=evil, architecture=evil))
    pictures = [picture(evil, "a"), picture(evil, evil), picture(None, evil)]
    config = dataclasses.replace(CONFIG, model=evil)
    reader = Reader(report_page(Findings(manifest=named, metrics=metrics, config=config, pictures=pictures)))
    assert "script" not in reader.seen
    assert reader.alternatives == [f"{evil}, wrongly answered a", f"{evil}, answered rightly", f"answered {evil}"]
    assert reader.words.count(evil) >= 8
    assert reader.open == []


def test_files_beside_each_other(manifest: Manifest, page: str, tmp_path: Path) -> None:
    """Page, Markdown with the same tables, and metrics as they came."""
    metrics = made_metrics(manifest)
    write_report(made_findings(manifest, metrics, picture()), tmp_path)
    expected = ["metrics.json", "noise-naive-int8.csv", "report.html", "report.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    assert (tmp_path / "report.html").read_text("utf-8") == page, "equal exports give equal pages"
    assert read_json(Metrics, tmp_path / "metrics.json") == metrics
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert "| PABEE | cannot save this much | - | - | - |" in markdown
    for title in (
        "(T2)",
        "### Selectivity of the gates",
        "### Does the guarantee hold?",
        "## Evaluation",
        "## Exits",
        "## Noise",
    ):
        assert title in markdown


def test_a_model_whose_exits_do_not_pay_still_has_a_report(manifest: Manifest) -> None:
    """Every image runs to the end; accuracy at full depth is shown."""
    bare = dataclasses.replace(manifest, exits=(), operating_points=(), default_point=None)
    evaluation = made_evaluation(manifest)
    evaluation = dataclasses.replace(evaluation, rows=evaluation.rows[:1])
    metrics = dataclasses.replace(made_metrics(manifest), evaluation=evaluation, ablations=None, latency=None)
    words = words_of(made_page(bare, metrics))
    assert "No exit pays" in words
    assert "90.3 %" in words
