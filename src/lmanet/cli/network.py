"""The options of a network of one's own, which several verbs have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lmanet.errors import InputError

if TYPE_CHECKING:
    from lmanet.backbones import NetworkOptions


@dataclass(frozen=True)
class OwnNetwork:
    """A network of your own.

    Attributes:
        model: MODULE:FUNCTION that builds a trained network of your own; the module lies in the current folder. With
            --weights of a method that was trained on it, or without.
        at: the submodule of it whose output goes through the memory, of those that `lmanet inspect` lists.
        model_output: key or index of the logits among what it returns, such as masks or 0; if not given, `out`,
            `logits`, or the only map there is.
        normalise: what is done to images in [0, 1] before it: imagenet, none, or six numbers, mean and then standard
            deviation of R, G, B, such as 0.5,0.5,0.5,0.25,0.25,0.25; with ,bgr behind it for a network that takes BGR.
            If not given, it is found out; `lmanet inspect` says what, and why.
        mean: of R, G, B in [0, 1], in place of --normalise; goes with --std.
        std: of R, G, B, likewise.
        probe: height and width of images that it takes, if it does not take the usual ones.
    """

    model: str | None = None
    at: str | None = None
    model_output: str | None = None
    normalise: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    probe: tuple[int, int] | None = None

    def options(self, size: tuple[int, int] | None = None) -> NetworkOptions:
        """How it is taken; nothing, without a model.

        Args:
            size: (H, W) of the images that it will get, where that is known.

        Raises:
            InputError: there is no model to be taken so.
        """
        if self.model is None:
            if said := [name for name, value in asdict(self).items() if value is not None]:
                raise InputError(
                    f"--{', --'.join(said).replace('_', '-')}: said of a network of your own: give --model "
                    f"MODULE:FUNCTION"
                )
            return {}
        return {
            "at": self.at,
            "output": output_of(self.model_output),
            "normalise": self.normalise,
            "mean": self.mean,
            "std": self.std,
            "probe": self.probe or size,
        }


NO_NETWORK = OwnNetwork()


def output_of(text: str | None) -> int | str | None:
    """An index among what a network returns as a number, a key as it is."""
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else text
