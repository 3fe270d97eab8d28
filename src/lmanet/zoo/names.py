"""Models by name: bundled ones, files, and repositories of the Hugging Face Hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from lmanet.backbones import Backbone
from lmanet.errors import WeightsError
from lmanet.segmenter import VideoSegmenter
from lmanet.zoo.files import load_model, read_config

HUB_FILE = "model.safetensors"


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
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file() or name.endswith(".safetensors"):
        return path
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _from_hub(name)
    raise WeightsError(
        f"no weights named {name!r}: expected one of the bundled ({', '.join(known) or 'none'}), a .safetensors file, "
        f"or a Hub id USER/REPO"
    )


def load(name: str) -> VideoSegmenter | Backbone:
    """A pretrained model in `eval` mode, with its attributes `classes` and `card`.

    Args:
        name: a bundled name such as `lmanet-erfnet-camvid` (a `VideoSegmenter`) or `erfnet-camvid` (a bare
            `Backbone`), a `.safetensors` file written by lmanet, or a Hub id.

    Raises:
        WeightsError: unknown, damaged, or of another architecture.
    """
    return load_model(locate(name))


def single_frame_of(name: str) -> str | None:
    """Name of the single-frame model that a video model was made from; `name` itself if it is one."""
    path = locate(name)
    config = read_config(path)
    if "video" not in config:
        return name
    base = config.get("single_frame")
    if base is None or base in bundled():
        return base
    beside = path.with_name(base)
    return str(beside) if beside.is_file() else None


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
