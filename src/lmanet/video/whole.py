"""`lmanet.atomic` under its old name."""

from lmanet.atomic import unwritable, write_whole

__all__ = ["unwritable", "write_whole"]
