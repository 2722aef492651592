"""Loading models by name: every format of weights gives the same tower, and what is wrong is said."""

import math
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lraee.bundle.folder import find_bundle
from lraee.bundle.manifest_file import read_manifest
from lraee.errors import TowerError
from lraee_exporters.loading import sources
from lraee_exporters.loading.open_clip_models import load_model

Build = Callable[[dict[str, Any]], Any]
Register = Callable[[str, dict[str, Any]], None]
Write = Callable[..., Path]


def weights_of(tower: Any) -> str:
    """Fingerprint without the file's name, which is part of a tower."""
    fingerprint: str = replace(tower, weights="any").fingerprint()
    return fingerprint


def test_every_checkpoint_format_gives_the_same_tower(
    tmp_path: Path, small_config: dict[str, Any], build_model: Build, register_architecture: Register
) -> None:
    """safetensors, state dicts, a training checkpoint of a distributed run: one tower, named after its file."""
    register_architecture("small-vit", small_config)
    model = build_model(small_config)
    state = model.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.bin")
    training = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(training, tmp_path / "d.pt")
    towers = [
        load_model("small-vit", pretrained=str(tmp_path / name), activation="gelu").tower
        for name in ("a.safetensors", "b.pt", "c.bin", "d.pt")
    ]
    assert [tower.weights for tower in towers] == ["file:a.safetensors", "file:b.pt", "file:c.bin", "file:d.pt"]
    assert len({weights_of(tower) for tower in towers}) == 1
    np.testing.assert_array_equal(towers[0].class_embedding, model.visual.class_embedding.numpy())
    assert towers[0].logit_scale == pytest.approx(math.exp(model.logit_scale.item()))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # deprecated, but it writes what OpenAI wrote
def test_openais_archive_is_read_with_quick_gelu(
    tmp_path: Path,
    small_config: dict[str, Any],
    build_model: Build,
    register_architecture: Register,
    save_torchscript: Callable[..., None],
) -> None:
    """The architecture says GELU, but all archives of OpenAI were trained with QuickGELU."""
    register_architecture("small-vit", small_config)
    half = {key: value.half() for key, value in build_model(small_config).state_dict().items()}
    save_torchscript({**half, "transformer.attn_mask": torch.zeros(2)}, tmp_path / "openai.pt")
    torch.save(half, tmp_path / "half.pt")
    archive = load_model("small-vit", pretrained=str(tmp_path / "openai.pt")).tower
    plain = load_model("small-vit", pretrained=str(tmp_path / "half.pt"), activation="gelu").tower
    assert (archive.activation, plain.activation) == ("quick_gelu", "gelu")
    assert weights_of(replace(archive, activation="gelu")) == weights_of(plain)
    with pytest.raises(TowerError, match="was trained with quick_gelu, the override says gelu"):
        load_model("small-vit", pretrained=str(tmp_path / "openai.pt"), activation="gelu")
    save_torchscript({**half, "visual.extra.weight": torch.zeros(2)}, tmp_path / "more.pt")
    with pytest.raises(TowerError, match=r"more\.pt .* missing in the architecture: visual\.extra\.weight"):
        load_model("small-vit", pretrained=str(tmp_path / "more.pt"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(
    dtype: torch.dtype,
    tmp_path: Path,
    small_config: dict[str, Any],
    build_model: Build,
    register_architecture: Register,
) -> None:
    """The values are those of the file; nothing is computed in half precision."""
    register_architecture("small-vit", small_config)
    state = {key: value.to(dtype) for key, value in build_model(small_config).state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    loaded = load_model("small-vit", pretrained=str(tmp_path / "half.safetensors"), activation="gelu")
    assert {parameter.dtype for parameter in loaded.torch_model.parameters()} == {torch.float32}
    np.testing.assert_array_equal(loaded.tower.projection, state["visual.proj"].float().numpy())


def test_a_folder_is_loaded_as_open_clip_loads_it(
    small_config: dict[str, Any], build_model: Build, write_model_folder: Write
) -> None:
    """Weights, preprocessing and tokens agree with open_clip's own loader."""
    model = build_model(small_config)
    folder = write_model_folder(small_config, model, {"mean": [0.5, 0.4, 0.3], "resize_mode": "squash"})
    by_path, by_prefix = load_model(str(folder)), load_model(f"local-dir:{folder}")
    assert weights_of(by_prefix.tower) == weights_of(by_path.tower)
    assert by_path.tower.model_id == by_prefix.tower.model_id == folder.name  # and no path of this computer
    assert by_path.tower.fingerprint() == by_prefix.tower.fingerprint()
    assert by_path.tower.preprocessing.mean == (0.5, 0.4, 0.3)
    assert by_path.tower.preprocessing.resize_mode == "squash"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    expected = theirs.eval().encode_image(transform(image)[None]).detach()
    torch.testing.assert_close(by_path.torch_model.encode_image(by_path.transform(image)[None]), expected)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a cat"])
    torch.testing.assert_close(by_path.tokenizer(["a cat"]), tokens)
    assert len(by_path.source_sha256 or "") == 64


def test_random_weights_are_marked_seeded_and_leave_torchs_generator_alone(
    small_config: dict[str, Any], write_model_folder: Write
) -> None:
    """Two loads with one seed are equal, another seed differs."""
    folder = str(write_model_folder(small_config))
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (load_model(folder, pretrained=word) for word in ("random", "random:0", "random:1"))
    torch.testing.assert_close(torch.rand(2), expected)
    assert (first.tower.weights, first.source_sha256) == ("random", None)
    assert first.tower.fingerprint() == again.tower.fingerprint() != other.tower.fingerprint()


def test_the_reference_is_shipped_with_its_configuration() -> None:
    """Twelve blocks of width 128, on the CPU, in eval mode, without gradients."""
    model = load_model("reference")
    tower = model.tower
    assert (tower.depth, tower.width, tower.heads, tower.tokens, tower.embed_dim) == (12, 128, 4, 50, 128)
    assert (tower.weights, tower.activation, tower.logit_bias) == ("reference", "gelu", None)
    assert not model.torch_model.training
    assert not any(parameter.requires_grad for parameter in model.torch_model.parameters())
    with pytest.raises(TowerError, match="reference has its own weights"):
        load_model("reference", pretrained="random")


def test_an_override_sets_the_activation_of_bare_weights(
    small_config: dict[str, Any], build_model: Build, write_model_folder: Write
) -> None:
    """Without it, the architecture would decide."""
    folder = str(write_model_folder(small_config, build_model(small_config)))
    assert load_model(folder).tower.activation == "gelu"
    overridden = load_model(folder, activation="quick_gelu")
    assert overridden.tower.activation == "quick_gelu"
    assert isinstance(overridden.torch_model.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)


def test_bare_weights_that_do_not_say_their_activation_are_refused_until_told(
    tmp_path: Path, small_config: dict[str, Any], build_model: Build, register_architecture: Register
) -> None:
    """A wrong one would cost accuracy in silence; a name that says quick_gelu is enough."""
    register_architecture("small-vit", small_config)
    register_architecture("small-vit-quickgelu", {**small_config, "quick_gelu": True})
    torch.save(build_model(small_config).state_dict(), tmp_path / "bare.pt")
    with pytest.raises(TowerError, match=r"bare\.pt are bare weights, .* Say --activation quick_gelu"):
        load_model("small-vit", pretrained=str(tmp_path / "bare.pt"))
    assert load_model("small-vit-quickgelu", pretrained=str(tmp_path / "bare.pt")).tower.activation == "quick_gelu"
    told = load_model("small-vit", pretrained=str(tmp_path / "bare.pt"), activation="quick_gelu").tower
    assert told.activation == "quick_gelu"


def test_a_siglip_bias_is_kept(small_config: dict[str, Any], build_model: Build, write_model_folder: Write) -> None:
    """A plain ViT trained with SigLIP's loss has a logit bias."""
    config = {**small_config, "init_logit_bias": -10.0}
    model = build_model(config)
    tower = load_model(str(write_model_folder(config, model))).tower
    assert tower.logit_bias == pytest.approx(model.logit_bias.item())


def test_nearest_neighbour_preprocessing_is_read_from_a_folder(
    small_config: dict[str, Any], write_model_folder: Write
) -> None:
    """open_clip has no such transform; widened models need it."""
    folder = write_model_folder(small_config, preprocess={"interpolation": "nearest"})
    model = load_model(str(folder), pretrained="random")
    assert model.tower.preprocessing.interpolation == "nearest"
    assert model.transform(Image.new("L", (12, 12), 255)).shape == (3, 24, 24)
    bad = write_model_folder(small_config, preprocess={"interpolation": "lanczos"})
    with pytest.raises(TowerError, match="preprocess_cfg cannot be followed"):
        load_model(str(bad), pretrained="random")


def test_a_tag_decides_its_activation_and_a_failed_download_names_the_ways_out(
    tmp_path: Path,
    small_config: dict[str, Any],
    build_model: Build,
    register_architecture: Register,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tag openai of ViT-B-32 means QuickGELU, though the architecture of that name says GELU."""
    register_architecture("ViT-B-32", small_config)
    torch.save(build_model(small_config).state_dict(), tmp_path / "cached.bin")
    monkeypatch.setattr(sources, "download_pretrained", lambda tag: str(tmp_path / "cached.bin"))
    openai = load_model("ViT-B/32", pretrained="openai").tower
    laion = load_model("ViT-B-32", pretrained="laion2b_s34b_b79k").tower
    assert (openai.activation, openai.weights, openai.architecture) == ("quick_gelu", "openai", "ViT-B-32")
    assert (laion.activation, laion.weights) == ("gelu", "laion2b_s34b_b79k")

    def offline(tag: object) -> str:
        raise FileNotFoundError("no route to the hub.\nlong trace")

    monkeypatch.setattr(sources, "download_pretrained", offline)
    with pytest.raises(TowerError, match=r"'openai' of ViT-B-32 are not cached .* no route to the hub\. Connect"):
        load_model("ViT-B-32", pretrained="openai")


def test_names_and_weights_that_do_not_exist_are_refused_with_what_does(tmp_path: Path) -> None:
    """Close names, known tags, and the ways to say random."""
    with pytest.raises(TowerError, match=r"'vit-b-32' is not an architecture .* Close names: ViT-B-32"):
        load_model("vit-b-32", pretrained="random")
    with pytest.raises(TowerError, match="Close names: reference"):
        load_model("refrence")
    with pytest.raises(TowerError, match=r"ViT-B-32 needs weights: a pretrained tag .*openai.* or random"):
        load_model("ViT-B-32")
    with pytest.raises(TowerError, match="'laion5b' is not a file and not a pretrained tag of ViT-B-32"):
        load_model("ViT-B-32", pretrained="laion5b")
    with pytest.raises(TowerError, match="wanted random or random:SEED"):
        load_model("ViT-B-32", pretrained="random:x")
    with pytest.raises(TowerError, match=r"there is no open_clip_config\.json"):
        load_model(f"local-dir:{tmp_path}")


def test_a_folder_with_an_unusable_configuration_or_unclear_weights_is_refused(
    small_config: dict[str, Any], write_model_folder: Write
) -> None:
    """Nothing is guessed between two files of unusual names."""
    folder = write_model_folder(small_config)
    with pytest.raises(TowerError, match="met the checkpoint files none"):
        load_model(str(folder))
    for name in ("first.pt", "second.pt"):
        (folder / name).write_bytes(b"")
    with pytest.raises(TowerError, match=r"met the checkpoint files first\.pt, second\.pt"):
        load_model(str(folder))
    (folder / "open_clip_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(TowerError, match="is not JSON"):
        load_model(str(folder))
    (folder / "open_clip_config.json").write_text('{"vision_cfg": {}}', encoding="utf-8")
    with pytest.raises(TowerError, match="wanted the key model_cfg"):
        load_model(str(folder))


class Harmful:
    """An object whose unpickling would call a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def test_damaged_foreign_and_harmful_files_are_refused_without_running_them(
    tmp_path: Path,
    small_config: dict[str, Any],
    build_model: Build,
    register_architecture: Register,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each message names the file."""
    register_architecture("small-vit", small_config)
    state = build_model(small_config).state_dict()
    save_file(state, tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:1000])
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"visual.proj": Harmful()}, tmp_path / "harmful.pt")
    with zipfile.ZipFile(tmp_path / "harmful-archive.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful(), protocol=2))
        archive.writestr("archive/constants.pkl", b"")
    with zipfile.ZipFile(tmp_path / "damaged-archive.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q")
        archive.writestr("archive/constants.pkl", b"")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({**state, "note": "text"}, tmp_path / "text.pt")
    torch.save({key: value for key, value in state.items() if key != "visual.proj"}, tmp_path / "missing.pt")
    other_grid = {**state, "visual.positional_embedding": torch.zeros(5, 32)}
    torch.save(other_grid, tmp_path / "grid.pt")
    for path in [*sorted(tmp_path.glob("*.pt")), tmp_path / "cut.safetensors"]:
        with pytest.raises(TowerError, match=path.name):
            load_model("small-vit", pretrained=str(path), activation=None if "archive" in path.name else "gelu")
    assert "unpickled" not in capsys.readouterr().out
    with pytest.raises(TowerError, match="another image or patch size"):
        load_model("small-vit", pretrained=str(tmp_path / "grid.pt"), activation="gelu")


def test_the_fingerprint_of_the_reference_is_that_of_the_shipped_bundle() -> None:
    """Fields that a tower got later must not change it."""
    assert load_model("reference").tower.fingerprint() == read_manifest(find_bundle("reference")).model.fingerprint


def test_bare_siglip_weights_take_the_preprocessing_that_all_tags_share() -> None:
    """Without a tag, CLIP's means and crops would be wrong for them."""
    shared = sources._common_preprocessing("ViT-B-16-SigLIP")
    assert (shared["resize_mode"], shared["mean"]) == ("squash", (0.5, 0.5, 0.5))
    assert sources._common_preprocessing("ViT-B-32").get("resize_mode") in (None, "shortest")
