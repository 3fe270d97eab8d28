from __future__ import annotations

import pytest
import torch

from lmanet.devices import devices, find_device
from lmanet.errors import InputError


@pytest.mark.parametrize(
    ("cards", "expected"),
    [(0, ["cpu"]), (1, ["cuda", "cuda:0", "cpu"]), (2, ["cuda", "cuda:0", "cuda:1", "cpu"])],
)
def test_devices(cards: int, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine cannot have: as many GPUs as the case says."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert devices() == expected
    assert find_device(None) == torch.device(expected[0])
    for name in expected:
        assert find_device(name) == torch.device(name)
    with pytest.raises(InputError) as caught:
        find_device("cuda:2")
    assert str(caught.value).startswith("device 'cuda:2' is not there: ")
    assert str(caught.value).endswith(f" has {', '.join(expected)} on this machine")
