"""Runs of a network on random images, and what was seen in them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lmanet.backbones.wrapped.outputs import Outputs, value_at
from lmanet.backbones.wrapped.reading import Origin, Seen, doubtful, origin_of, with_reading
from lmanet.backbones.wrapped.returned import find_map
from lmanet.errors import InputError, in_a_line
from lmanet.nn.place import place_of

PROBE_SIZES = ((128, 192), (224, 224), (256, 256), (384, 384), (512, 512))
"""Heights and widths that networks are tried at, until one runs."""
EXTREME = 1e4
"""Values of images that no network is made for."""


class StateError(InputError):
    """A network does not label every image by itself."""


class SizeError(InputError):
    """A network runs on no image that was tried."""


class Tries:
    """A network, and what it returned so far.

    Args:
        model: in `eval` mode.
        output: see `find_map`.
        batch: images that it is given at once.
    """

    def __init__(self, model: nn.Module, output: str | int | None, batch: int) -> None:
        self.model, self.batch = model, batch
        self.name = type(model).__name__
        self._output = output
        self._outputs: Outputs | None = None
        self._seen: list[Seen] = []
        self._second: Tensor | None = None
        """What came of the images that `check_again` runs in between."""
        self._like = place_of(model)
        self._generator = torch.Generator().manual_seed(0)

    def first(self, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Random images (B, 3, H, W) of the first size that the network takes."""
        failures: dict[str, Exception] = {}
        for height, width in sizes:
            images = self._random(height, width)
            try:
                returned = self._run(images)
            except Exception as error:  # whatever a network raises of a size that it does not take
                failures[f"{height}×{width}"] = error
                continue
            self._look(returned, images)
            return images
        first = next(iter(failures.values()))
        raise SizeError(
            f"{self.name} runs on no image that was tried ({_told_once(failures)}): if the size is the cause, give "
            f"probe=(H, W) (--resize H W or --probe H W on the command line) of images that it takes"
        ) from first

    def failure(self, height: int, width: int) -> Exception | None:
        """What the network raises of images of a size; what it returns of them is looked at."""
        images = self._random(height, width)
        try:
            returned = self._run(images)
        except Exception as error:
            return error
        self._look(returned, images)
        return None

    def check_again(self, images: Tensor) -> None:
        """Raise InputError unless the network returns the same for the same images, with others in between.

        To be called again when other sizes were tried: a network that goes on from what it made of a frame before, and
        begins anew at another size, gives itself away by the images that came second.
        """
        others = images.flip(0, -1)
        order = (images, others, images) if self._second is None else (others,)
        made = [self._look(self._called_again(x), x).clone() for x in order]
        expected = made[0] if self._second is None else self._second
        self._second = made[len(made) // 2]
        if same(made[-1], expected):
            return
        raise StateError(
            f"{self.name} did not return the same for the same images, with others in between, in eval mode: either it "
            f"keeps something from one call to the next (a recurrent state, a counter, buffers that are updated in "
            f"eval mode too), or it draws random numbers (dropout that does not ask self.training, noise); expected a "
            f"network that labels every image by itself: let forward begin without a state, and switch off what is "
            f"random"
        )

    def check_alone(self, images: Tensor) -> None:
        """Raise InputError unless the network takes one image too, as those of a video come."""
        if self.batch == 1:
            return
        try:
            self._look(self._run(images[:1]), images[:1])
        except Exception as error:
            raise InputError(
                f"{self.name} takes {self.batch} images at once, but not one ({in_a_line(error)}): frames of a video "
                f"come one by one: let it take one (export it with one image, or with a batch that is dynamic)"
            ) from error

    def reading(self, images: Tensor) -> Outputs:
        """Where logits lie in what the network returns, and how they are made of it, by all that was seen."""
        assert self._outputs is not None
        origin: Origin = "another"
        if doubtful(self._seen):
            origin = self._origin(self._outputs, images)
            extreme = (self._random(*images.shape[-2:]) - 0.5) * EXTREME
            seen = Seen.of(self._outputs.map_of(self._run(extreme)))
            self._seen += [] if seen.nan else [seen]
        return with_reading(self._outputs, self._seen, origin)

    def _run(self, images: Tensor) -> Any:
        return self.model(images.clone())  # it may write into them

    def _called_again(self, images: Tensor) -> Any:
        try:
            return self._run(images)
        except Exception as error:
            raise StateError(
                f"{self.name} failed when it was called again, with images of the same size ({in_a_line(error)}): "
                f"expected a network that keeps nothing from one call to the next"
            ) from error

    def _origin(self, outputs: Outputs, images: Tensor) -> Origin:
        try:
            with torch.enable_grad():
                return origin_of(outputs.map_of(self._run(images.clone().requires_grad_())))
        except RuntimeError:  # it writes where gradients forbid it
            return "no gradient"

    def _random(self, height: int, width: int) -> Tensor:
        return torch.rand(self.batch, 3, height, width, generator=self._generator).to(self._like)

    def _look(self, returned: Any, images: Tensor) -> Tensor:
        """The map (B, C, h, w) in what the network returned."""
        if self._outputs is None:
            self._outputs = find_map(returned, images, self._output)
        try:
            value_at(returned, self._outputs.path)
            found = self._outputs.map_of(returned)
        except (LookupError, AttributeError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{self.name} does not return the same kind of output for all images ({in_a_line(error)}): expected "
                f"logits (B, K, h, w) at one place"
            ) from error
        self._seen.append(Seen.of(found))
        if self._seen[-1].nan:
            raise InputError(
                f"{self.name} returned NaN for random images in [0, 1]: expected logits (B, K, h, w); check its weights"
            )
        return found


def same(x: Tensor, y: Tensor) -> bool:
    """Whether two runs on the same images gave the same.

    On the CPU to the bit. GPUs add in an order of their own: there up to 0.1 % of the largest value, of less than
    float32 1 %.
    """
    if x.device.type == "cpu" or x.shape != y.shape:
        return torch.equal(x, y)
    share = 1e-3 if x.dtype in (torch.float32, torch.float64) else 1e-2
    near = (x - y).abs() <= share * x[x.isfinite()].abs().max()
    return bool((near | (x == y)).all())


def check_forward(model: nn.Module) -> None:
    """Raise InputError where a network cannot be called with images alone."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # of a kind of its own, such as TorchScript's
        return
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    wanted = [p.name for p in named[1:] if p.default is p.empty]
    if not wanted:
        return
    task = (
        "; of OneFormer: processor(images=image, task_inputs=['semantic'], return_tensors='pt')['task_inputs'], for "
        "each image the same"
        if wanted == ["task_inputs"]
        else ""
    )
    raise InputError(
        f"{type(model).__name__}.forward wants {', '.join(wanted)} beside {named[0].name}: expected a network that is "
        f"called with images alone; give a torch.nn.Module around it whose forward(images) calls it with "
        f"these{task}"
    )


def check_mode(model: nn.Module) -> None:
    """Raise InputError where layers stay in training mode in `eval` mode."""
    kinds = nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd
    still = [name for name, m in model.named_modules() if isinstance(m, kinds) and m.training]
    if still:
        raise StateError(
            f"{len(still)} layers of {type(model).__name__}, such as {still[0]!r}, stay in training mode after eval(): "
            f"its train() or eval() is overridden, and its labels would depend on statistics of each frame or chance; "
            f"let these set the mode of all submodules, as nn.Module's do"
        )


def own_size(model: nn.Module) -> tuple[int, int] | None:
    """(H, W) that a network of transformers, or an exported program, was set up for, where it says so."""
    if isinstance(model, GraphModule):
        inputs = (node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder")
        sizes = (x.shape[2:] for x in inputs if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == 3)
        return next(((h, w) for h, w in sizes if isinstance(h, int) and isinstance(w, int)), None)
    known = getattr(getattr(model, "config", None), "image_size", None)
    if isinstance(known, int):
        return known, known
    if isinstance(known, list | tuple) and len(known) == 2 and all(isinstance(n, int) for n in known):
        return known[0], known[1]
    return None


def usual_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """The sizes that a network is tried at: the usual ones, and that which it was set up for."""
    own = own_size(model)
    return list(dict.fromkeys([*PROBE_SIZES, *([own] if own else [])]))


def _told_once(failures: dict[str, Exception]) -> str:
    """What failed at which sizes; the same failure, but for its numbers, is told once."""
    sizes: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for size, error in failures.items():
        text = in_a_line(error)
        kind = re.sub(r"\d+", "0", text)
        sizes.setdefault(kind, []).append(size)
        texts.setdefault(kind, text)
    return "; ".join(f"{', '.join(sizes[kind])}: {text}" for kind, text in texts.items())
