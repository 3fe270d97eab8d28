"""Checkpoints that the authors of other networks published, read into the backbones here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmanet.backbones import ERFNet
from lmanet.errors import WeightsError
from lmanet.zoo.files import load_strictly

ENCODER_CLASSIFIER = ("encoder.output_conv.weight", "encoder.output_conv.bias")
"""With it ERFNet's encoder is trained alone, first; the whole network does not run it."""

BATCH_COUNTER = "num_batches_tracked"
"""BatchNorm keeps it since PyTorch 0.4.1, later than the published checkpoints."""


def load_official_erfnet(path: Path) -> ERFNet:
    """ERFNet with the weights of a checkpoint of the original implementation, in `eval` mode.

    Such as `erfnet_pretrained.pth` (Cityscapes; 20 outputs, the 19 classes and void last). The file holds a state
    dict, or a dict with one under `state_dict`; keys may begin with `module.`. The encoder's own classifier is
    left out. Nothing in the file is executed.

    Args:
        path: the `.pth` file.

    Returns:
        The network; its number of classes is that of the checkpoint.

    Raises:
        WeightsError: the file is missing, damaged, holds more than tensors, or is of another architecture (naming
            the first key that differs).
    """
    tensors = {key.removeprefix("module."): value for key, value in _read_state_dict(path).items()}
    for key in ENCODER_CLASSIFIER:
        tensors.pop(key, None)
    classifier = tensors.get("decoder.output_conv.weight")
    # Without the classifier `load_strictly` names the first key that differs, whatever the number of classes.
    model = ERFNet(classifier.shape[1] if classifier is not None and classifier.ndim == 4 else 1)
    for key, value in model.state_dict().items():
        if key.endswith(BATCH_COUNTER):
            tensors.setdefault(key, value)
    load_strictly(model, tensors, path)
    return model.eval()


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path} is not a file: give the .pth file that the network's authors published")
    try:
        with warnings.catch_warnings():
            # Damaged files look to torch like a protocol to come, which it asks to report.
            warnings.simplefilter("ignore", UserWarning)
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On damaged bytes torch's unpickler raises whatever it stumbles over. Its message, which tells how to run
        # what is in the file, stays the cause.
        raise WeightsError(
            f"{path} is damaged, or holds more than tensors, which could run code and was not loaded: download it "
            "again, or save the network's state_dict() with torch.save"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{path} holds a {type(content).__name__} that is no state dict: expected tensors by name, or a dict "
            "with them under 'state_dict'"
        )
    return content
