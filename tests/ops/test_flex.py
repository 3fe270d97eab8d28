from __future__ import annotations

from contracts.attention import AttentionContract


class TestFlex(AttentionContract):
    backend = "flex"
    devices_with_gradients = ("cuda",)
    examples = 5  # FlexAttention compiles again for each
