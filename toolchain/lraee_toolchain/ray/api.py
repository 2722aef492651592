"""The functions that programs call; they need the extra ``ray``, and say so where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lraee.errors import MissingExtraError
from lraee.install import Extra, install_command
from lraee_toolchain.ray.config import Kind, OnShard, RunSummary, Settings

if TYPE_CHECKING:
    from lraee_toolchain.ray.reading import ReadFeatures

MODULES = ("ray", "pyarrow", "pandas", "PIL")
"""What the extra installs, by the names that are imported."""

EXPORT_MODULES = ("torch", "onnx")
"""What extracting features needs besides."""

DEFAULTS = Settings()


def classify(
    bundle: str | Path, images: Path, out: Path, settings: Settings = DEFAULTS, *, on_shard: OnShard | None = None
) -> RunSummary:
    """Classify images, each as deep as it needs, and write one row for each.

    Args:
        bundle: as `lraee.load` takes it.
        images: a folder, at any depth, or a zip of image files; a Parquet file, or a folder of them, with encoded
            images in a column.
        out: folder for the shards. Shards of an earlier run with the same settings, bundle and images are kept.
        settings: see there.
        on_shard: is told of each shard when it is finished.

    Raises:
        MissingExtraError: Ray or pyarrow is not installed.
        DataError: there are no images, or the folder holds the output of other settings, images or another bundle.
        BundleError: the bundle cannot be used.
        PolicyError: the bundle lacks what the policy asks for, or the policy has a deadline.
        ExportError: a file cannot be written, or workers die again and again.
    """
    return _run("classify", bundle, images, out, settings, on_shard)


def embed(
    bundle: str | Path, images: Path, out: Path, settings: Settings = DEFAULTS, *, on_shard: OnShard | None = None
) -> RunSummary:
    """Embed images, at full depth unless the settings name a policy; arguments and errors as `classify` has them."""
    return _run("embed", bundle, images, out, settings, on_shard)


def features(
    bundle: str | Path, images: Path, out: Path, settings: Settings = DEFAULTS, *, on_shard: OnShard | None = None
) -> RunSummary:
    """Extract what heads, gates and thresholds learn from; arguments and errors as `classify` has them.

    Needs the extra ``export`` too, as exports do. See `read_features` for the way back.
    """
    check_installed(EXPORT_MODULES, "export")
    return _run("features", bundle, images, out, settings, on_shard)


def read_features(out: Path, folder: Path) -> ReadFeatures:
    """Read the output of `features` as the arrays that exits, gates and thresholds are fitted on.

    Args:
        out: folder with the shards.
        folder: where the arrays go, as ``.npy`` files which are memory-mapped.

    Raises:
        MissingExtraError: pyarrow or torch is not installed.
        DataError: the output is of another kind, or a shard is missing.
    """
    check_installed()
    check_installed(EXPORT_MODULES, "export")
    from lraee_toolchain.ray.reading import read_features as read

    return read(out, folder)


def check_installed(modules: tuple[str, ...] = MODULES, extra: Extra = "ray") -> None:
    """Refuse to begin without an extra.

    Args:
        modules: that it installs.
        extra: its name.

    Raises:
        MissingExtraError: a module of it is missing.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"lraee_toolchain.ray needs {', '.join(missing)}, which is not installed; run: {install_command(extra)}"
        )


def _run(
    kind: Kind, bundle: str | Path, images: Path, out: Path, settings: Settings, on_shard: OnShard | None
) -> RunSummary:
    check_installed()
    from lraee_toolchain.ray.run import run

    return run(kind, bundle, images, out, settings, on_shard or (lambda report: None))
