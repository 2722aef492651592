"""Results of stages are made when they are asked for, and not before."""

from pathlib import Path

import pytest

from lraee.errors import ExportError, TowerError
from lraee_toolchain.cache import WorkFolder
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.stages.exits import Stages
from lraee_toolchain.stages.inputs import Silent


def stages(tmp_path: Path, **options: object) -> Stages:
    """Of an export into a folder that does not exist yet."""
    config = ExportConfig(out=tmp_path / "x.lraee", **options)  # type: ignore[arg-type]  # names are the test's own
    return Stages(config, WorkFolder(tmp_path / "work"), Silent())


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path: Path) -> None:
    """Not even a model that does not exist; then it is refused."""
    unknown = stages(tmp_path, model="refrence")
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(TowerError, match="refrence"):
        unknown.check()


@pytest.mark.parametrize(
    ("options", "option"),
    [({"thresholds": "per-class"}, "--thresholds per-class"), ({"promise": 1.0}, "--promise")],
    ids=["thresholds", "promise"],
)
def test_options_that_need_accuracy_are_refused_for_random_weights(
    options: dict[str, object], option: str, tmp_path: Path
) -> None:
    """Before any image is read."""
    random = stages(tmp_path, model="ViT-B-32", pretrained="random", **options)
    with pytest.raises(ExportError, match=f"{option} means nothing with random weights"):
        random.check()
