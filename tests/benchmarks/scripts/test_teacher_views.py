"""The script that says whether mean answers over several views are right more often."""

from __future__ import annotations

import json
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lraee
from lraee_calibration_data import fashion_mnist_test

SCRIPT = Path(__file__).parents[3] / "toolchain" / "experiments" / "teacher_views.py"
main = runpy.run_path(str(SCRIPT))["main"]


def test_one_view_is_the_bundles_own_answer(
    picked: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each number of views has a row; one view at full depth is what `classify` says."""
    images, found = picked(fashion_mnist_test(), tmp_path / "few.zip", step=20), tmp_path / "found.json"
    main(["reference", "--images", str(images), "--views", "2,1", "--json", str(found)])
    shares = json.loads(found.read_text())
    assert list(shares) == ["1", "2"]
    model = lraee.load("reference")
    data = labelled(images)
    right = [model.classify(picture, policy=lraee.Full()).label == label for picture, label in data]
    assert shares["1"] == pytest.approx(np.mean(right))
    assert 0.7 < shares["2"] <= 1
    assert f"| 2 | {100 * shares['2']:.2f} % |" in capsys.readouterr().out


@pytest.mark.parametrize("views", ["0", "1,many", ""])
def test_numbers_of_views_begin_at_one(views: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything is loaded."""
    with pytest.raises(SystemExit):
        main(["reference", "--images", "fashion-mnist", "--views", views])
    assert f"--views is {views}, wanted numbers from 1 such as 1,2,4" in capsys.readouterr().err


def labelled(archive: Path) -> list[tuple[bytes, str]]:
    """Each picture with the label that its folder has."""
    with zipfile.ZipFile(archive) as given:
        return [(given.read(name), name.split("/")[-2]) for name in given.namelist()]
