"""Whether a video file has its end, by its structure: what the times in its header do not tell of every container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# The File Properties Object of ASF: its GUID; the file's size is 40 bytes on.
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_HEADER_BYTES = 1 << 16
OGG_PAGE_BYTES = 1 << 16  # at most, about
TS_PACKETS = (188, 192, 204)  # bytes: as sent, with a time before each, with check bytes after each


def lacks_its_end(path: Path, container_format: str) -> bool:
    """Whether a file is cut off or broken on the way, as far as its structure tells.

    Args:
        path: the file; of a pipe nothing is told.
        container_format: FFmpeg's name of it.
    """
    check = CHECKS.get(container_format)
    if check is None or not path.is_file():  # a pipe cannot be looked at twice
        return False
    with path.open("rb") as file:
        return check(file, file.seek(0, os.SEEK_END))


def _gif(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - 1024))
    return not file.read().rstrip(b"\0").endswith(b";")


def _asf(file: BinaryIO, size: int) -> bool:
    file.seek(0)
    header = file.read(ASF_HEADER_BYTES)
    place = header.find(ASF_PROPERTIES)
    return place >= 0 and size < int.from_bytes(header[place + 40 : place + 48], "little")


def _flv(file: BinaryIO, size: int) -> bool:
    """Each tag is followed by its size."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4), "big")
    if not 11 <= length <= size - 4:
        return True
    file.seek(size - 4 - length)
    return int.from_bytes(file.read(4)[1:], "big") + 11 != length


def _ogg(file: BinaryIO, size: int) -> bool:
    """The last page of each stream says that it is the last."""
    file.seek(max(0, size - OGG_PAGE_BYTES))
    tail = file.read()
    last = tail.rfind(b"OggS")
    return last < 0 or last + 6 > len(tail) or not tail[last + 5] & 4


def _ts(file: BinaryIO, size: int) -> bool:
    return all(size % packet for packet in TS_PACKETS)


def _fragmented_mp4(file: BinaryIO, size: int) -> bool:
    """Of an mp4 in fragments: the header of one that is not tells how long it is, and anything may follow it."""
    place, fragmented = 0, False
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        fragmented |= kind == b"moof"
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        elif length == 0 and kind == b"mdat":  # to the end
            return False
        if length < 8 or not (kind.isascii() and kind.strip().isalnum()):
            return fragmented
        place += length
    return fragmented and place != size


CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "gif": _gif,
    "asf": _asf,
    "flv": _flv,
    "ogg": _ogg,
    "mpegts": _ts,
    "mov,mp4,m4a,3gp,3g2,mj2": _fragmented_mp4,
}
