"""Recipes: everything that a training is made of besides its data, and the committed presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lmanet.errors import InputError
from lmanet.methods.fusion import Convolutions, FusionName
from lmanet.training.augment import PAPER_AUGMENTATION, Augmentation
from lmanet.training.clips import Memories, PseudoMemory
from lmanet.training.config import Stage


@dataclass(frozen=True)
class SingleRecipe:
    """Step 0: the single-frame network itself, all of its parameters.

    Attributes:
        network: the architecture, by its name in weights files.
        imagenet: begin with an encoder trained on ImageNet, where there is one (`efficient-unet`).
        dropout: factor on the network's own rates of dropout; 0 for none.
        augmentation: drawn anew for every frame in every epoch.
        stage: the optimiser's run.
    """

    network: str = "erfnet"
    imagenet: bool = False
    dropout: float = 1.0
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            crop=(288, 352), scale=(0.7, 1.6), gain=0.25, gamma=0.2, noise=4.0, blur_px=1.0
        )
    )
    stage: Stage = field(
        default_factory=lambda: Stage(epochs=90, batch_size=6, lr=2e-3, weight_decay=1e-2, ema=0.995)
    )


@dataclass(frozen=True)
class VideoRecipe:
    """Steps 1 and 2: a method on a trained single-frame network (paper, section III-E); what all methods share.

    Attributes:
        method: its name in `lmanet.methods.registry`.
        arguments: what it is built with on its network.
        memory_size: frames of the past in a training sample: S of a memory.
        memories: what these are in training; `current` makes the control, which sees no past.
        draws: groups of views of each frame that are encoded and cached.
        pseudo: views of each group besides its draw, each a pseudo-memory of all others; 0 unless `memories` needs
            them.
        augmentation: what the groups' draws are taken from.
        pseudo_memory: how far pseudo-memories differ from their frame.
        module: step 1, the memory; the encoder and the decoder frozen.
        joint: step 2, the memory and the decoder, of methods that train it; the encoder frozen.
    """

    if TYPE_CHECKING:  # an attribute of the class, a property or a field, as each recipe has it
        method: ClassVar[str]

        @property
        def arguments(self) -> Mapping[str, Any]: ...  # noqa: D102 (told above)

    memory_size: int = 4
    memories: Memories = "mixed"
    draws: int = 4
    pseudo: int = 4
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(scale=(1.0, 1.3), gain=0.15, gamma=0.1, noise=12.0, blur_px=1.5)
    )
    pseudo_memory: PseudoMemory = field(default_factory=PseudoMemory)
    module: Stage = field(
        default_factory=lambda: Stage(epochs=5, batch_size=4, lr=1e-3, ema=0.99, validate_every=5)
    )
    joint: Stage = field(
        default_factory=lambda: Stage(epochs=15, batch_size=4, lr=5e-4, ema=0.995, validate_every=5)
    )

    def __post_init__(self) -> None:
        if self.memories in ("pseudo", "mixed") and self.pseudo < 1:
            raise InputError(
                f"memories={self.memories!r} with pseudo={self.pseudo}: expected pseudo of at least 1"
            )
        if self.draws < 1:
            raise InputError(f"draws {self.draws}: expected at least 1 view of each frame")


@dataclass(frozen=True)
class LMANetRecipe(VideoRecipe):
    """LMANet, the paper's memory of projected features (`lmanet.LMANet`).

    Attributes:
        window: R in cells; if not given, by the map's stride: 21 at stride 8.
        key_channels: Ck; if not given, by the map's channels: 16 for ERFNet.
        value_channels: Cv; if not given, by the map's channels: 64 for ERFNet, or 32 with `fast` convolutions.
        fusion: `gated`, `concat`, or `bottleneck` for maps of many channels, as the paper's for PSPNet.
        convolutions: of keys, values and fusion, `paper` (3×3) or `fast` (1×1).
    """

    method = "lmanet"

    window: int | None = None
    key_channels: int | None = None
    value_channels: int | None = None
    fusion: FusionName = "gated"
    convolutions: Convolutions = "paper"

    @property
    def arguments(self) -> Mapping[str, Any]:
        """S, R, channels, fusion and convolutions, as `lmanet.LMANet` takes them."""
        names = "memory_size", "window", "key_channels", "value_channels", "fusion", "convolutions"
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LabelMemoryRecipe(VideoRecipe):
    """A memory of the labels given (`lmanet.LabelMemory`), which leaves the network as it is.

    Attributes:
        window: R in cells.
        hidden: channels between the two convolutions that give the trust.
        persistence: how much of what is remembered is the labels given, the rest being what the network said by
            itself; no matter of training.
    """

    method = "label-memory"

    memory_size: int = 2
    module: Stage = field(
        default_factory=lambda: Stage(epochs=4, batch_size=4, lr=1e-3, ema=0.98, validate_every=1)
    )
    joint: Stage = field(default_factory=lambda: Stage(epochs=0, batch_size=4, lr=1e-4))
    window: int | None = 15
    hidden: int = 32
    persistence: float = 0.5

    @property
    def arguments(self) -> Mapping[str, Any]:
        """S, R, hidden channels and persistence, as `lmanet.LabelMemory` takes them."""
        return {name: getattr(self, name) for name in ("memory_size", "window", "hidden", "persistence")}


Argument = bool | int | float | str
"""What a method may be built with beside its network: a JSON value."""


@dataclass(frozen=True)
class MethodRecipe(VideoRecipe):
    """Any trainable method, one of the user's own too.

    Attributes:
        method: its name, as `lmanet.methods.register` knows it.
        arguments: what it is built with on its network, beyond its defaults; a `memory_size` of its own is not taken
            from the field of that name, which says how many frames of the past a training sample has.
    """

    method: str = ""  # pyright: ignore[reportIncompatibleVariableOverride]
    arguments: Mapping[str, Argument] = field(default_factory=dict, hash=False)  # pyright: ignore[reportIncompatibleVariableOverride]


def _paper_stage(epochs: int) -> Stage:
    return Stage(epochs=epochs, batch_size=4, lr=2e-4, optimizer="adam", schedule="plateau", weight_decay=0.0)


_ERFNET_CAMVID = SingleRecipe(
    dropout=0.2,
    augmentation=Augmentation(
        crop=(256, 256), scale=(0.75, 1.5), gain=0.25, gamma=0.2, noise=4.0, blur_px=0.5
    ),
    stage=Stage(
        epochs=120,
        batch_size=4,
        lr=1.5e-3,
        weight_decay=1e-2,
        ema=0.998,
        validate_every=10,
        lovasz=1.0,
        distillation=1.0,
    ),
)


PRESETS: dict[str, SingleRecipe | LMANetRecipe | LabelMemoryRecipe] = {
    "erfnet": SingleRecipe(),
    "erfnet-synthetic": SingleRecipe(
        augmentation=Augmentation(crop=(256, 256), scale=(0.8, 1.5), gain=0.1),
        stage=Stage(epochs=20, batch_size=4, lr=1.5e-3, weight_decay=1e-2, ema=0.998, validate_every=5),
    ),
    "erfnet-camvid": _ERFNET_CAMVID,
    "erfnet-camvid-2": replace(
        _ERFNET_CAMVID,
        augmentation=replace(_ERFNET_CAMVID.augmentation, crop=(352, 480), scale=(0.85, 1.5)),
        stage=replace(_ERFNET_CAMVID.stage, epochs=30, lr=5e-4),
    ),
    "unet-camvid": SingleRecipe(
        network="efficient-unet",
        imagenet=True,
        augmentation=Augmentation(crop=(256, 256), scale=(0.85, 1.5), gain=0.15, gamma=0.1),
        stage=Stage(
            epochs=90, batch_size=6, lr=1e-3, weight_decay=1e-2, ema=0.998, validate_every=10, lovasz=1.0
        ),
    ),
    "label-memory": LabelMemoryRecipe(),
    "label-memory-synthetic": LabelMemoryRecipe(
        memories="real",
        draws=2,
        pseudo=0,
        module=Stage(epochs=3, batch_size=4, lr=1e-3, ema=0.98, validate_every=1, samples=360),
    ),
    "label-memory-camvid": LabelMemoryRecipe(memories="pseudo", draws=3, persistence=1.0),
    "lmanet": LMANetRecipe(),
    "paper": LMANetRecipe(
        memories="real",
        draws=8,
        pseudo=0,
        augmentation=PAPER_AUGMENTATION,
        module=_paper_stage(30),
        joint=_paper_stage(100),
    ),
}
"""Recipes by name, for any data but where the name says which: of a network by its architecture, of a method by its
name in the registry. `lmanet` has rates that suit it; `paper` trains it as the paper does."""
