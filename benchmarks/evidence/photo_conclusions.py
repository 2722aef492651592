"""What the evidence on photos says, in sentences drawn from its figures, also where a claim of the paper does not hold.

A difference counts where its 95 % interval excludes zero. Every sentence names the part that it is drawn from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from photo_words import percent, points, saving

from lraee_benchmarks.render.method_names import METHODS

Whole = Mapping[str, Any]
"""The content of ``photos.json``, without conclusions."""

Difference = Mapping[str, float]
"""``mean``, ``low`` and ``high``, in shares of 1."""

RECALL_GOAL = 0.6
"""Share of the ten nearest that search by adaptive embeddings should find at the balanced point."""

KINDS = {
    "attention": "",
    "pooled": "",
    "distilled": " whose heads learn from labels and FP32's answers",
    "merged": " and merged tokens together",
}
"""What is said of each kind of exits."""

REFUSED = "no: "
"""How a record begins to say that tuning was refused."""

LATE_BLOCKS = 3
"""Last blocks over which the paper sees INT8 noise rise."""

RISE = 1.5
"""Noise over the last blocks against that before, above which it is said to rise."""


def conclusions(whole: Whole) -> list[str]:
    """Give every sentence that the recorded parts allow.

    Args:
        whole: see `photo_accounting.assembled`.
    """
    return [
        *_tuning(whole),
        *_exits(whole),
        *_heads(whole),
        *_rivals(whole),
        *_claims(whole),
        *_spread(whole),
        *_search(whole),
    ]


def sign(difference: Difference) -> int:
    """Say whether a difference is above zero (1), below (-1), or cannot be told from it (0).

    >>> sign({"mean": 0.01, "low": -0.01, "high": 0.03})
    0
    """
    return int(difference["low"] > 0) - int(difference["high"] < 0)


def _row(
    whole: Whole, trunk: str, policy: str, *, precision: str = "INT8", heads: str | None = None
) -> Mapping[str, Any] | None:
    """Find a row of the accounting; `precision` is the end of its name, None any heads, the first of the trunk."""
    for row in whole["accounting"]:
        same = (row["trunk"], row["policy"]) == (trunk, policy) and heads in (None, row["heads"])
        if same and row["precision"].endswith(precision):
            found: Mapping[str, Any] = row
            return found
    return None


def _main(whole: Whole, part: str, way: str) -> Mapping[str, Any] | None:
    """Find a row of T1 or T3 at the exported precision."""
    rows = [*whole["main"].get(part, ()), *whole["factorial"].get(part, ())]
    return next((row for row in rows if (row["way"], row["precision"]) == (way, whole["precision"])), None)


def refused_trunks(whole: Whole) -> set[str]:
    """Name the arms whose tuning was refused, so that the trunk as given runs in their bundles."""
    return {
        part["name"].rpartition("-")[0] for part in whole["parts"] if (part.get("adapted") or "").startswith(REFUSED)
    }


def _tuning(whole: Whole) -> Iterator[str]:
    words = {"control": "without exits", "labels": "with exits and labels", "label-free": "with exits, without labels"}
    for part in whole["parts"]:
        if (part["adapted"] or "").startswith(REFUSED):
            yield f"`{part['name']}` runs the trunk as given: {part['adapted'].removeprefix(REFUSED)}."
    for trunk, how in words.items():
        row = _row(whole, trunk, "full", precision="FP32")
        if row is None or row["to_given_float"] is None or trunk in refused_trunks(whole):
            continue
        verb = ("cannot be told to move", "raises", "lowers")[sign(row["to_given_float"])]
        yield f"Tuning {how} {verb} full depth: {points(row['to_given_float'])} points in FP32 to the tower as given."
        if row["to_control"] is not None:
            verdict = (
                "so nothing of what tuning gives can be told to come from tuning for exits",
                "so tuning for exits helps full depth itself",
                "so tuning for exits costs full depth something",
            )[sign(row["to_control"])]
            yield (
                f"At full depth tuning {how} is {points(row['to_control'])} points from tuning without exits on the "
                f"same photos and passes, {verdict}."
            )


def _exits(whole: Whole) -> Iterator[str]:
    words = {"given": "as given", "labels": "tuned with labels", "label-free": "tuned without labels"}
    if "label-free" in refused_trunks(whole):
        words["label-free"] = "as given, with heads that learned without labels,"
    saved: dict[str, float] = {}
    for trunk, how in words.items():
        for heads, also in KINDS.items():
            if (row := _row(whole, trunk, "LRA-EE", heads=heads)) is None:
                continue
            saved.setdefault(trunk, row["flops_saved"])
            yield f"On the trunk {how} exits{also} {_saves(row)}."
    for trunk in ("labels", "label-free"):
        if "given" in saved and trunk in saved:
            more = saved[trunk] - saved["given"]
            verb = "more" if more >= 0 else "less"
            yield (
                f"Exits on the trunk {words[trunk]} save {abs(100 * more):.1f} points of FLOPs {verb} than on the "
                f"trunk as given{' with labels' if trunk in refused_trunks(whole) else ''}."
            )


def _saves(row: Mapping[str, Any]) -> str:
    own = row["to_own_full"]
    verb = ("at no loss that can be told", "and gain accuracy", "and lose accuracy")[sign(own)]
    to_given = "" if row["to_given_float"] is None else f"; {points(row['to_given_float'])} to FP32 as given"
    return (
        f"save {percent(row['flops_saved'])} of the FLOPs {verb}: {points(own)} points to the bundle's own full "
        f"depth{to_given}"
    )


def _heads(whole: Whole) -> Iterator[str]:
    for trunk in ("given", "again"):
        pooled, attention = (_main(whole, f"{trunk}-{heads}", "routed") for heads in ("pooled", "attention"))
        if pooled is not None and attention is not None:
            more = attention["flops_saved"] - pooled["flops_saved"]
            yield (
                f"Heads that attend to tokens save {percent(attention['flops_saved'])} at "
                f"{points(attention['difference_to_int8'])} points to own full depth on the trunk `{trunk}`, pooled "
                f"heads {percent(pooled['flops_saved'])} at {points(pooled['difference_to_int8'])}: attention saves "
                f"{abs(100 * more):.1f} points of FLOPs {'more' if more >= 0 else 'less'}."
            )


def _rivals(whole: Whole) -> Iterator[str]:
    for part, methods in whole["methods"].items():
        kinds: dict[int, list[str]] = {1: [], 0: [], -1: []}
        for method, found in methods.items():
            if found is not None and not method.startswith("lra_ee"):
                kinds[sign(found["difference_to_lra_ee"])].append(METHODS[method])
        if not any(kinds.values()):
            yield f"`{part}`: no other method saves as much as LRA-EE, so there is nothing to compare."
            continue
        words = (("LRA-EE loses to", 1), ("It is level with", 0), ("It beats", -1))
        said = " ".join(f"{verb}: {'; '.join(kinds[kind]) or 'none'}." for verb, kind in words)
        yield f"`{part}`, every method at the same FLOPs: {said}"


def _claims(whole: Whole) -> Iterator[str]:
    """Check what the paper claims, part by part."""
    for part, methods in whole["methods"].items():
        if (gate := methods.get("confidence_shared")) is not None:
            apart = gate["difference_to_lra_ee"]
            holds = ("does not hold", "does not hold", "holds")[sign(apart)]
            yield (
                f"The paper's claim that a learned gate beats a threshold on the confidence {holds} on `{part}`: one "
                f"threshold is {points(apart)} points from LRA-EE."
            )
        routed, ssa, hard = (_main(whole, part, way) for way in ("routed", "routed_ssa", "routed_ssa_hard"))
        if routed is not None and ssa is not None:
            yield (
                f"The paper's claim that exits should read the mean patch token {_more(ssa, routed)} on `{part}`: SSA "
                f"heads save {saving(ssa)}, the part's own heads {saving(routed)}."
            )
        if ssa is not None and hard is not None:
            yield (
                f"The paper's claim that distillation makes better exits {_more(ssa, hard)} on `{part}`: distilled SSA "
                f"heads save {saving(ssa)}, those trained on hard labels {saving(hard)}."
            )
        if routed is not None:
            counts, net = whole["quadrants"][part], routed["difference_to_int8"]
            holds = "holds" if sign(net) > 0 else "does not hold"
            yield (
                f"The paper's claim that exits rescue more answers than they lose {holds} on `{part}`: "
                f"{counts['rescue']:.0f} rescued, {counts['loss']:.0f} lost, {points(net)} points."
            )
    yield from _noise(whole)


def _more(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Say whether the claim that one way saves more than another holds, beyond the spread over the seeds."""
    apart = one["flops_saved"] - other["flops_saved"]
    spread = one["flops_saved_std"] + other["flops_saved_std"]
    return "is not settled" if abs(apart) <= spread else "holds" if apart > 0 else "does not hold"


def _noise(whole: Whole) -> Iterator[str]:
    """Check where INT8 noise rises, once for each precision, on the trunk as given where it was measured."""
    seen: set[str] = set()
    for part, profiles in whole["noise"].items():
        for precision, noise in profiles.items():
            if precision in seen or len(noise) <= LATE_BLOCKS:
                continue
            seen.add(precision)
            late, before = (sum(some) / len(some) for some in (noise[-LATE_BLOCKS:], noise[:-LATE_BLOCKS]))
            holds = "holds" if late > RISE * before else "does not hold"
            yield (
                f"The paper's claim that INT8 noise rises over the last blocks {holds} for {precision} on `{part}`: "
                f"{percent(late)} of what a block changes on average over the last {LATE_BLOCKS}, {percent(before)} "
                "before."
            )


def _spread(whole: Whole) -> Iterator[str]:
    for policy, words in (("full", "Full depth"), ("adaptive=balanced", "`balanced`")):
        one, other = _row(whole, "labels", policy), _row(whole, "again", policy)
        if one is not None and other is not None:
            apart = 100 * (other["accuracy"]["mean"] - one["accuracy"]["mean"])
            text = f"{words} of a second tuning, with other splits and seed, is {apart:+z.2f} points from the first"
            if policy != "full":
                text += f" and saves {percent(other['flops_saved'])} instead of {percent(one['flops_saved'])}"
            yield f"{text}."


def _search(whole: Whole) -> Iterator[str]:
    for part, found in whole["retrieval"].items():
        rows = {(row["images"], row["queries"]): row for row in found["rows"]}
        image, text = (rows.get(("adaptive=balanced", queries)) for queries in ("same policy", "labels"))
        if image is None or text is None:
            continue
        goal = "reaches" if image["ten_in_ten"] >= RECALL_GOAL else "misses"
        yield (
            f"Search on `{part}` at `balanced`, which saves {percent(image['flops_saved'])}, finds "
            f"{percent(image['ten_in_ten'])} of the ten nearest image to image, which {goal} the goal of "
            f"{percent(RECALL_GOAL, 0)}, and {percent(text['ten_in_ten'])} text to image."
        )
