"""Find a bundle's baselines, and check whether they may be opened."""

from __future__ import annotations

from pathlib import Path

from lraee.bundle.external_data import external_locations
from lraee.bundle.folder import Bundle
from lraee.errors import BundleError


def baseline_path(bundle: Bundle, name: str) -> Path:
    """Find a baseline; that of ``clip.lraee`` is ``clip.baselines/fp32.onnx``, in the same folder."""
    return bundle.place.parent / f"{_name(bundle)}.baselines" / f"{name}.onnx"


def _name(bundle: Bundle) -> str:
    """Give the name of a folder or zip file without its ending."""
    return bundle.place.name.removesuffix(".zip").removesuffix(".lraee")


def checked_baseline(bundle: Bundle, name: str) -> Path:
    """Find the file of a baseline and check it.

    Raises:
        BundleError: it is missing, or names weights outside its folder.
    """
    path = baseline_path(bundle, name)
    if not path.is_file():
        what = f"no {name} baseline" if name != "floor" else "no graph of the floor"
        raise BundleError(f"there is {what} at {path}; write it with: {export_command(bundle)}")
    for location in sorted(external_locations(path.read_bytes(), path.name)):
        if location != Path(location).name or location in {"", ".", ".."} or "\\" in location:
            raise BundleError(f"{path.name}: external data is at {location!r}, wanted a file in its own folder")
    return path


def export_command(bundle: Bundle) -> str:
    """Spell the command that writes a bundle's baselines from the same weights."""
    model, name = bundle.manifest.model, f"{_name(bundle)}.lraee"
    if model.weights.startswith(("reference", "file:")):
        return f"lraee-export {model.id} -o {name} --baselines"
    return f"lraee-export {model.id} --pretrained {model.weights} -o {name} --baselines"
