"""A service answers as `Model.classify` and `Model.embed` do, whatever else it is asked at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from served import Service, serving

import lraee
from lraee.policies.spec import parse_policy

TOLERANCE = 1e-5
"""Float products may differ in the last bits between batch sizes, as in a stream."""

LABEL_SETS = (
    ["footwear", "garment", "bag"],
    ["a shoe", "a dress", "a shirt", "trousers"],
    ["bag", "garment", "footwear"],
)


def agrees(answer: dict[str, Any], wanted: lraee.Prediction) -> None:
    """Label, exit and FLOPs are equal, probabilities up to rounding."""
    keys = ("label", "exit_block", "early", "flops")
    assert tuple(answer[key] for key in keys) == tuple(getattr(wanted, key) for key in keys)
    found = {one["label"]: one["score"] for one in answer["top"]}
    assert found == pytest.approx(dict(wanted.top), abs=TOLERANCE)
    assert answer["gate"] == (None if wanted.gate is None else pytest.approx(wanted.gate, abs=TOLERANCE))


@pytest.mark.parametrize("policy", ["", "adaptive", "fast", "adaptive=accurate", "full", "exit=5", "patience=1"])
def test_an_image_is_answered_as_by_the_model(service: Service, clothes: list[bytes], model: Any, policy: str) -> None:
    """With the policies of the command line, and names of operating points."""
    chosen = lraee.Adaptive(policy) if policy == "fast" else parse_policy(policy) if policy else None
    for image in clothes[:6]:
        reply = service.image(image, f"/v1/classify?policy={policy}&top=3" if policy else "/v1/classify?top=3")
        assert reply.status == 200, reply.content
        agrees(reply.json, model.classify(image, policy=chosen, top=3))


def test_embeddings_are_those_of_the_model(service: Service, clothes: list[bytes], model: Any) -> None:
    """At full depth unless a policy is given."""
    found = service.form("/v1/embed", *(("images", None, image) for image in clothes[:5])).json["results"]
    for row, result in zip(model.embed(clothes[:5]), found, strict=True):
        assert result["answer"]["embedding"] == pytest.approx(row.tolist(), abs=TOLERANCE)
        assert result["answer"]["exit_block"] == 12
    early = service.image(clothes[0], "/v1/embed?policy=exit=4").json
    assert (early["exit_block"], early["early"]) == (4, True)


def test_requests_at_the_same_time_get_their_own_labels_and_policies(
    service: Service, clothes: list[bytes], tmp_path: Path
) -> None:
    """Although their images run in the same batches."""
    models = [lraee.load("reference", threads=1) for _ in LABEL_SETS]
    for one, names in zip(models, LABEL_SETS, strict=True):
        one.set_labels(names)
    policies = ("balanced", "full", "exit=6")

    def ask(number: int) -> tuple[int, Any]:
        labels = quote(",".join(LABEL_SETS[number % 3]))
        path = f"/v1/classify?labels={labels}&policy={policies[number // 3 % 3]}"
        return number, service.image(clothes[number % len(clothes)], path).json

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(72)))
    for number, answer in answers:
        policy = (lraee.Adaptive("balanced"), lraee.Full(), lraee.ExitAt(6))[number // 3 % 3]
        agrees(answer, models[number % 3].classify(clothes[number % len(clothes)], policy=policy))
    assert service.metric("lraee_label_sets_total") >= 72
    assert set(service.ask("GET", "/v1/model").json["labels"]) == set(lraee.load("reference").labels)


def test_each_image_of_a_form_has_its_own_answer_or_error(
    service: Service, clothes: list[bytes], photo: bytes, model: Any
) -> None:
    """A damaged picture costs the others nothing; names come back as they were given."""
    parts = [("images", "a.png", clothes[0]), ("images", "b.jpg", photo[:3000]), ("images", "c.txt", b"no image")]
    parts += [("images", 'd "1".png', clothes[1]), ("images", None, b""), ("top", None, b"2")]
    found = service.form("/v1/classify", *parts).json["results"]
    assert [result["position"] for result in found] == [0, 1, 2, 3, 4]
    assert [result["name"] for result in found[:3]] == ["a.png", "b.jpg", "c.txt"]
    agrees(found[0]["answer"], model.classify(clothes[0], top=2))
    agrees(found[3]["answer"], model.classify(clothes[1], top=2))
    assert [None if one["error"] is None else one["error"]["status"] for one in found] == [None, 422, 415, None, 422]
    assert "images[1] is damaged" in found[1]["error"]["message"]
    assert found[4]["error"]["message"] == "images[4] is empty: it has 0 bytes"


def test_a_deadline_chooses_how_deep_an_image_runs(service: Service, clothes: list[bytes]) -> None:
    """It counts from when the request was read; there is always an answer."""
    shallow = service.image(clothes[0], "/v1/classify?deadline_ms=0.01").json
    deep = service.image(clothes[0], "/v1/classify?deadline_ms=2000").json
    assert (shallow["exit_block"], shallow["early"]) == (4, True)
    assert (deep["exit_block"], deep["early"]) == (12, False)
    assert service.image(clothes[0], "/v1/classify?deadline_ms=2000&policy=exit=5").json["exit_block"] == 5


def test_labels_of_a_request_are_kept_and_their_order_counts(service: Service, clothes: list[bytes]) -> None:
    """The second request embeds nothing."""
    fields = (("images", None, clothes[0]), ("labels", None, b'["a red hat, worn", "a blue coat"]'))
    before = service.metric("lraee_label_sets_total")
    for _ in range(2):
        assert service.form("/v1/classify", *fields).status == 200
    lines = service.ask("GET", "/metrics").content.decode().splitlines()
    assert any(line.startswith('lraee_label_sets_total{kept="true"}') for line in lines)
    assert service.metric("lraee_label_sets_total") == before + 2


def test_a_bundle_without_a_text_tower_says_so_and_knows_photos(photo: bytes, tmp_path: Path) -> None:
    """With the library's message; its answers are the model's."""
    with serving(tmp_path, "photo-clip", "--policy", "full", "--batch-size", "2") as started:
        refused = started.image(photo, "/v1/classify?labels=a,b", "image/jpeg")
        assert (refused.status, refused.message.startswith("this bundle has no text tower")) == (422, True)
        answer = started.image(photo, kind="image/jpeg").json
        agrees(answer, lraee.load("photo-clip", threads=1, policy=lraee.Full()).classify(photo))
        assert answer["label"] == "espresso"
        assert started.stop() == 0
