"""Attention operators."""

from lmanet.ops.attention import local_attention

__all__ = ["local_attention"]
