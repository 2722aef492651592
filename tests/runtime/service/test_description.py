"""The service does what its own description says, and its page loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from served import Service


def test_schemathesis_finds_no_difference_to_the_description(service: Service, tmp_path: Path) -> None:
    """No fault, no status, type, header or body that `openapi.json` does not have, for requests made from it.

    What it calls valid may be refused all the same: which policies and labels can be used depends on the bundle.
    """
    options = ("--checks", "all", "--exclude-checks", "positive_data_acceptance", "--seed", "1", "--no-color")
    address = f"http://127.0.0.1:{service.port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", address, "--max-examples", "10", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "Tested: 6" in done.stdout
    asked = [event for event in service.events() if event["event"] == "request" and event["path"] != "/readyz"]
    statuses = {event["status"] for event in asked}
    assert 200 in statuses
    assert not {status for status in statuses if status >= 500}


def test_the_page_is_whole_and_may_load_nothing(service: Service) -> None:
    """Its policy allows the one script and the one style that stand in it."""
    reply = service.ask("GET", "/")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert len(re.findall(r"'sha256-[\w+/]{43}='", policy)) == 2
    assert "unsafe" not in policy
    text = reply.content.decode()
    assert not re.findall(r"(?:https?:)?//\w", text.replace("// ", ""))
    assert not re.findall(r"<[^>]+ (?:style|on\w+)=", text)


def test_the_model_is_described(service: Service) -> None:
    """Without where it lies."""
    found = service.ask("GET", "/v1/model").json
    assert (found["bundle"], found["blocks"], found["takes_labels"], found["embed_dim"]) == ("reference", 12, True, 128)
    assert found["default_point"] in found["operating_points"]
    assert found["limits"]["images"] == 16
    assert "/" not in str(found)


def test_metrics_are_what_happened(service: Service, clothes: list[bytes]) -> None:
    """Images by block, sizes of batches, and no name for paths that are not there."""
    before = service.metric("lraee_images_total")
    assert service.form("/v1/classify", *(("images", None, image) for image in clothes[:4])).status == 200
    service.ask("GET", "/not/there")
    assert service.metric("lraee_images_total") == before + 4
    text = service.ask("GET", "/metrics").content.decode()
    assert 'lraee_requests_total{path="other",status="404"}' in text
    assert "/not/there" not in text
    assert 'lraee_batch_images_bucket{le="8.0",part="block_01"}' in text
    assert "lraee_ready 1.0" in text
