from __future__ import annotations

from contracts.backbone import BackboneContract
from lmanet.backbones import ESPNetv2


class TestESPNetv2(BackboneContract):
    cells = (4, 8)

    def make(self) -> ESPNetv2:
        return ESPNetv2(7, scale=0.5)
