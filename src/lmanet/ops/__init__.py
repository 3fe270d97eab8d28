"""Local attention: the operator and its backends. Nothing here knows of networks, data or files."""

from lmanet.ops.attention import (
    Backend,
    Border,
    attention_weights,
    explain,
    global_attention,
    local_attention,
)

__all__ = ["Backend", "Border", "attention_weights", "explain", "global_attention", "local_attention"]
