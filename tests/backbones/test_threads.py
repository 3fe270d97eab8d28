"""Wrapped networks that several threads run at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from backbones.cuttable import Network, made, original, pictures
from lmanet.backbones import Wrapped
from lmanet.backbones.wrapped.layout import RecentLayouts

SECONDS = 20
"""That no test waits for unless it fails."""
BEFORE, AFTER = "body", "head"
"""Submodules on the two sides of the cut."""


def wrapped(network: nn.Module | None = None) -> Wrapped:
    return Wrapped(network or made(Network()), at="neck").eval().requires_grad_(False)


@contextmanager
def held(module: nn.Module, run: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Run something in a thread, which waits where it calls a submodule first until the block is over."""
    reached, go_on = threading.Event(), threading.Event()
    threads: list[int] = []

    def wait(*_: Any) -> None:
        if not threads:
            threads.append(threading.get_ident())
            reached.set()
            assert go_on.wait(SECONDS)

    hook = module.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(run)
            assert reached.wait(SECONDS)
            yield running
        finally:
            go_on.set()
            hook.remove()


def elsewhere(run: Callable[[], Any]) -> Any:
    """What it gives in a thread of its own, which would time out if it waited for another."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(SECONDS)


def untouched(network: nn.Module) -> bool:
    return not any("forward" in vars(module) for module in network.modules())


@pytest.mark.parametrize("at", [BEFORE, AFTER])
def test_a_network_does_not_wait_for_another(at):
    one, other = wrapped(), wrapped()
    images = pictures(1, 3, 32, 40)
    expected = one(images), other(images)
    with held(one.model.get_submodule(at), lambda: one(images)) as running:
        assert torch.equal(elsewhere(lambda: other(images)), expected[1])
        assert not running.done()
    assert torch.equal(running.result(), expected[0])


@pytest.mark.parametrize("at", [BEFORE, AFTER])
def test_networks_with_submodules_in_common_do_not_mix(at):
    one, network = wrapped(), made(Network())
    network.stem, network.body, network.head = one.model.stem, one.model.body, one.model.head
    other = Wrapped(network, at="body").eval()  # within what comes before the cut of the first
    sets = pictures(1, 3, 32, 40), pictures(1, 3, 48, 40) * 2
    expected = one(sets[0]), other(sets[1])
    with held(one.model.get_submodule(at), lambda: one(sets[0])) as running:
        assert torch.equal(elsewhere(lambda: other(sets[1])), expected[1])
    assert torch.equal(running.result(), expected[0])
    assert untouched(one.model) and untouched(network)


@pytest.mark.parametrize("at", [BEFORE, AFTER])
def test_one_network_runs_twice_at_once_and_by_itself_too(at):
    shared = wrapped()
    sets = pictures(1, 3, 32, 40), pictures(2, 3, 48, 40) * 2
    expected = [shared(images) for images in sets]
    with held(shared.model.get_submodule(at), lambda: shared(sets[0])) as running:
        assert torch.equal(elsewhere(lambda: shared(sets[1])), expected[1])
        assert torch.equal(elsewhere(lambda: original(shared, sets[1])), expected[1])
    assert torch.equal(running.result(), expected[0])
    assert untouched(shared.model)


def test_the_one_that_began_first_may_end_first():
    shared = wrapped()
    sets = pictures(1, 3, 32, 40), pictures(2, 3, 48, 40) * 2
    expected = [shared(images) for images in sets]
    with held(shared.model.head, lambda: shared(sets[0])) as first:
        with held(shared.model.body, lambda: shared(sets[1])) as second:
            pass
        assert torch.equal(second.result(), expected[1]) and not first.done()
    assert torch.equal(first.result(), expected[0])
    with held(shared.model.body, lambda: shared(sets[1])) as second:
        with held(shared.model.head, lambda: shared(sets[0])) as first:
            pass
        assert torch.equal(first.result(), expected[0]) and not second.done()
        assert not untouched(shared.model)
    assert torch.equal(second.result(), expected[1])
    assert untouched(shared.model)


@pytest.mark.parametrize("at", [BEFORE, AFTER])
def test_a_copy_is_made_while_it_runs(at):
    network = made(Network())
    forward = network.neck.forward
    network.neck.forward = lambda x: forward(x) + 1
    shared = wrapped(network)
    images = pictures(1, 3, 32, 40)
    expected = shared(images)
    with held(network.get_submodule(at), lambda: shared(images)) as running:
        copies = [elsewhere(lambda: copy.deepcopy(shared)), elsewhere(shared.optimize)]
    for copied in copies:
        for module in copied.model.modules():
            module._forward_pre_hooks.clear()  # what held the first
        assert [name for name, module in copied.model.named_modules() if "forward" in vars(module)] == [
            "neck"
        ]
        torch.testing.assert_close(copied(images), expected)
    assert torch.equal(running.result(), expected)


def test_many_threads_on_one_network_give_what_one_gives():
    shared = wrapped()
    sets = [pictures(1, 3, 32, 32 + 8 * n) + n for n in range(RecentLayouts.LIMIT + 2)]
    expected = [shared(images) for images in sets]

    def work(n: int) -> bool:
        images, same = sets[n], True
        for _ in range(10):
            features = shared.encode(images)
            same &= torch.equal(shared.decode(features, (32, images.shape[-1])), expected[n])
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(len(sets))))
    assert untouched(shared.model) and len(shared._layouts) <= RecentLayouts.LIMIT
