"""What libraries say of the images that their networks were trained on: transformers, timm, smp, torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lmanet.backbones.wrapped.given import Normalisation
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, RGB

HALF = (0.5, 0.5, 0.5)
DPN = (124 / 255, 117 / 255, 104 / 255), (1 / 4.2585, 1 / 4.2585, 1 / 4.2585)
IMAGENET_KINDS = {
    "convnext", "convnextv2", "cvt", "deit", "dinat", "dinov2", "dinov2_with_registers", "focalnet", "hiera", "nat",
    "poolformer", "pvt", "pvt_v2", "regnet", "resnet", "swin", "swinv2", "van", "vit_mae", "vit_msn", "clipseg",
}  # fmt: skip
"""Kinds of transformers whose published weights want ImageNet's, whatever the defaults of their image processor are."""
SMP_ENCODERS: dict[str, tuple[RGB, RGB]] = {
    "xception": (HALF, HALF),
    "inception": (HALF, HALF),
    "dpn": DPN,
    "timm-tf_efficientnet_lite": (HALF, HALF),
}
"""By how an encoder's name begins; all others of smp's own were trained as ImageNet is normalised usually."""


def published(model: nn.Module) -> Normalisation | None:
    """What the library that a network is of, or that a part of it is of, says of its images; None where none does."""
    return of_transformers(model) or of_timm(model) or of_smp(model) or of_torchvision(model)


def of_timm(model: nn.Module) -> Normalisation | None:
    """What timm notes of a network inside the model."""
    for module in model.modules():
        facts = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        if isinstance(facts, dict) and len(facts.get("mean", ())) == len(facts.get("std", ())) == 3:
            name = facts.get("architecture") or type(module).__name__
            return Normalisation(
                tuple(facts["mean"]), tuple(facts["std"]), False, f"timm's configuration of {name}"
            )
    return None


def of_transformers(model: nn.Module) -> Normalisation | None:
    """What the image processor of a network of transformers does; that of its checkpoint, or of its kind.

    Nothing is downloaded, and transformers is not imported unless the network is of it.
    """
    for module in model.modules():
        config = getattr(module, "config", None)
        kind = getattr(config, "model_type", None)
        if isinstance(kind, str) and _is_of(module, "transformers"):
            break
    else:
        return None
    import transformers
    from transformers.models.auto import image_processing_auto

    table = getattr(image_processing_auto, "IMAGE_PROCESSOR_MAPPING_NAMES", {})
    # The part of CLIP and its kin that sees goes by a name of its own.
    known = table.get(kind) or table.get(kind.removesuffix("_model").removesuffix("_vision"))
    names = (
        [known] if isinstance(known, str) else [*(known.values() if isinstance(known, dict) else known or ())]
    )
    if isinstance(known, tuple):
        names = names[::-1]  # the newer kind first, whose defaults can be read without building it
    facts, source = {}, ""
    for name in names:
        found = _defaults(getattr(transformers, name, None)) if isinstance(name, str) else {}
        if found:
            facts, source = (
                found,
                f"the defaults of transformers' {name.removesuffix('Fast').removesuffix('Pil')}",
            )
            break
    if kind in IMAGENET_KINDS:
        facts = {"do_normalize": True, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
        source = f"as transformers' published weights of {kind} want it"
    checkpoint = getattr(config, "_name_or_path", "")
    saved = _saved(checkpoint) if checkpoint else {}
    if saved:
        facts, source = {**facts, **saved}, f"the image processor of {checkpoint}"
    return _of_processor(facts, source) if facts else None


def _of_processor(facts: Mapping[str, Any], source: str) -> Normalisation | None:
    """An image processor's settings as mean and deviation of images in [0, 1]."""
    mean, std = (0.0,) * 3, (1.0,) * 3
    if facts.get("do_normalize"):
        mean, std = _three(facts.get("image_mean")), _three(facts.get("image_std"))
        if mean is None or std is None:
            return None
    scaled = facts.get("do_rescale", True)
    # It is given values of 0 to 255.
    scale = 255 * (facts.get("rescale_factor") or 1 / 255) if scaled or scaled is None else 255.0
    if abs(scale - 1) > 1e-6:
        mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)
    return Normalisation(mean, std, bool(facts.get("do_flip_channel_order")), source)  # pyright: ignore[reportArgumentType]


FACTS = (
    "do_normalize",
    "do_rescale",
    "rescale_factor",
    "image_mean",
    "image_std",
    "do_flip_channel_order",
)


def _defaults(kind: Any) -> dict[str, Any]:
    """The settings that an image processor's class has if nothing else is said; nothing where it cannot be asked."""
    try:
        asked = kind if hasattr(kind, "image_mean") else kind()
        return {name: getattr(asked, name) for name in FACTS if hasattr(asked, name)}
    except Exception:  # of a library that is not there, or one that wants files
        return {}


def _saved(checkpoint: str) -> dict[str, Any]:
    """The settings in a checkpoint's preprocessor_config.json, where that is on this machine."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        facts, _ = ImageProcessingMixin.get_image_processor_dict(checkpoint, local_files_only=True)
    except Exception:  # whatever is raised of files that are not there
        return {}
    return {name: facts[name] for name in FACTS if name in facts}


def of_smp(model: nn.Module) -> Normalisation | None:
    """What segmentation_models_pytorch notes of an encoder's weights, or what such encoders are trained with."""
    for module in model.modules():
        config = getattr(module, "config", None) if _is_of(module, "segmentation_models_pytorch") else None
        if isinstance(config, Mapping) and isinstance(config.get("encoder_name"), str):
            name, weights = config["encoder_name"], config.get("encoder_weights")
            if weights and (facts := _of_weights(name, weights)):
                return facts
            kind = next((kind for kind in SMP_ENCODERS if name.startswith(kind)), None)
            mean, std = SMP_ENCODERS[kind] if kind else (IMAGENET_MEAN, IMAGENET_STD)
            return Normalisation(
                mean, std, False, f"as smp's weights of the encoder {name} want it, by its name"
            )
    return None


def _of_weights(encoder: str, weights: Any) -> Normalisation | None:
    """The parameters beside an encoder's weights, where these were downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from segmentation_models_pytorch.encoders import encoders, get_preprocessing_params

    settings = encoders.get(encoder, {}).get("pretrained_settings", {}).get(weights, {})
    place = settings.get("repo_id"), "config.json"
    if place[0] is None or not isinstance(try_to_load_from_cache(*place, revision=settings["revision"]), str):
        return None
    facts = get_preprocessing_params(encoder, weights)
    mean, std = _three(facts.get("mean")), _three(facts.get("std"))
    if mean is None or std is None:
        return None
    most = float((facts.get("input_range") or (0, 1))[1])
    mean, std = tuple(m / most for m in mean), tuple(s / most for s in std)
    bgr = facts.get("input_space", "RGB") == "BGR"
    if bgr:  # its mean is in the order of its channels
        mean, std = mean[::-1], std[::-1]
    return Normalisation(mean, std, bgr, f"smp's parameters of the encoder {encoder}, {weights}")  # pyright: ignore[reportArgumentType]


def of_torchvision(model: nn.Module) -> Normalisation | None:
    """The segmentation networks of torchvision, whose weights all want ImageNet's."""
    if _is_of(model, "torchvision"):
        return Normalisation(IMAGENET_MEAN, IMAGENET_STD, False, "as torchvision's weights want it")
    return None


def _is_of(module: nn.Module, library: str) -> bool:
    return any(kind.__module__.partition(".")[0] == library for kind in type(module).__mro__)


def _three(values: Any) -> RGB | None:
    if isinstance(values, int | float):
        return float(values), float(values), float(values)
    if isinstance(values, list | tuple) and len(values) == 3:
        return float(values[0]), float(values[1]), float(values[2])
    return None
