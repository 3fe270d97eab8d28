"""Models by name: bundled ones, files, and repositories of the Hugging Face Hub."""

from __future__ import annotations

import warnings
from importlib import resources
from pathlib import Path
from typing import Any

from lmanet.errors import WeightsError
from lmanet.methods.base import VideoModel
from lmanet.methods.registry import METHODS
from lmanet.zoo.files import load_model, read_config

HUB_FILE = "model.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""Names with these are files: the Hub is not asked for them."""

RENAMED = {
    "lmanet-erfnet-camvid": "label-memory-erfnet-camvid",
    "lmanet-erfnet-synthetic": "label-memory-erfnet-synthetic",
}
"""Bundled models by the names that they had before these told the method; still taken, with a warning."""


def bundled() -> dict[str, Path]:
    """The models that come with lmanet: name to file."""
    return {path.stem: path for path in sorted(bundled_folder().glob("*.safetensors"))}


def bundled_folder() -> Path:
    """Where the bundled models lie in the package."""
    return Path(str(resources.files("lmanet.zoo") / "weights"))


def locate(name: str) -> Path:
    """The file of a model: a bundled name, a path, or a Hub id `USER/REPO` that holds `model.safetensors`.

    Raises:
        WeightsError: there is no such model; the message lists the bundled ones.
    """
    known = bundled()
    if name in RENAMED and not Path(name).exists():
        # Of this line, wherever it comes from: said once, though a report looks a model up several times.
        warnings.warn(f"{name} is called {RENAMED[name]} now: use that name", FutureWarning, stacklevel=1)
        name = RENAMED[name]
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file():
        _refuse_torch_file(path)
        return path
    if name and path.is_dir():
        raise WeightsError(f"{name} is a folder: give a weights file ({_weights_in(path)})")
    if "/" not in name and path.suffix not in SUFFIXES:
        wrong = f"no weights named {name!r}"
    elif _may_be_hub_id(name):
        return _from_hub(name)
    elif path.parent.is_dir():
        wrong = f"{name}: no such file ({_weights_in(path.parent)})"
    else:
        wrong = f"{name}: no such file, and no folder {path.parent}"
    raise WeightsError(
        f"{wrong}: expected one of the bundled ({', '.join(known) or 'none'}), a .safetensors file, "
        f"or a Hub id USER/REPO"
    )


def load(name: str) -> VideoModel:
    """A pretrained model in `eval` mode.

    ```python
    model = lmanet.load("label-memory-erfnet-camvid")
    network = lmanet.load("erfnet-camvid").backbone
    ```

    Args:
        name: a bundled name (`lmanet info` lists them), a `.safetensors` file written by lmanet, or a Hub id.

    Returns:
        The model, with `classes`, `card` and `backbone`; of a single-frame network a `SingleFrame`.

    Raises:
        WeightsError: unknown, damaged, of another architecture, or of a network or method that is not registered.
    """
    return load_model(locate(name))


def single_frame_of(name: str) -> str:
    """Name or path of the single-frame model that a model was made from.

    Args:
        name: of the model, as `load` takes it. Where its network was not trained on, as of a single-frame model or of a
            method without training, it is `name` itself.

    Raises:
        WeightsError: see `locate`; or the model does not say which it is, or that one is not there.
    """
    path = locate(name)
    config = read_config(path)
    base = config["single_frame"]
    if base is None and not _trained(config):
        return name
    if base is None:
        raise WeightsError(
            f"{name} does not say which single-frame network it was made from: give that one's own weights"
        )
    if base in bundled():
        return base
    beside = path.with_name(base)
    if not beside.is_file():
        raise WeightsError(
            f"{name} was made from the single-frame network {base}, which is not bundled, and there is no file "
            f"{beside}: put it there"
        )
    return str(beside)


def _trained(config: dict[str, Any]) -> bool:
    """Whether the network in a file may have been trained on with its method."""
    method = METHODS.get(config["method"]["name"])
    return method is None or method.trainable


def _may_be_hub_id(name: str) -> bool:
    """Whether it looks like USER/REPO, and not like a mistyped file in a folder that is here."""
    path = Path(name)
    return (
        name.count("/") == 1
        and not name.startswith((".", "/", "~"))
        and path.suffix not in SUFFIXES
        and not path.parent.is_dir()
    )


def _weights_in(folder: Path) -> str:
    """What weights files a folder holds, in words."""
    found = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    return f"{folder} holds {', '.join(found) or 'no .safetensors file'}"


def _refuse_torch_file(path: Path) -> None:
    """Raise WeightsError for what `torch.save` wrote; by content, as the suffixes are anybody's."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}): check that you may read it") from error
    # The 9th byte of a safetensors file opens its JSON header, whatever length the first 8 spell.
    if head[8:] != b"{" and head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive; a pickle
        raise WeightsError(
            f"{path} is a PyTorch checkpoint: lmanet reads .safetensors files that lmanet train or "
            "lmanet.zoo.save_model wrote. The published ERFNet checkpoint is read in Python by "
            "lmanet.zoo.load_official_erfnet"
        )


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, HUB_FILE))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise WeightsError(
            f"{name!r} is none of the bundled weights ({', '.join(bundled())}) nor a file here, and the Hub gave no "
            f"{HUB_FILE} for it: {error}"
        ) from error
