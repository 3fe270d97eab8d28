"""From the colours of a decoded frame to 8-bit RGB in BT.709: which matrix, BT.2020, and tone-mapping of HDR.

The formulas are those of ITU-R recommendations and reports, named where each is used. L is light relative to the white
of SDR, which HDR shows at 203 cd/m² (BT.2408).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from lmanet.video.sidedata import side_data

Table = NDArray[np.float32]

# FFmpeg's numbers, those of ITU-T H.273.
UNSPECIFIED, BT709, BT470BG, BT2020_NCL = 2, 1, 5, 9
MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)  # that swscale reads
BT2020_MATRICES = (9, 10)
BT2020_PRIMARIES = 9
FULL_RANGE = 2
PQ, HLG = 16, 18
NAMES = {PQ: "PQ", HLG: "HLG"}

WHITE = 203.0  # cd/m², BT.2408
BRIGHTEST = 10000.0  # cd/m², that PQ can code
USUAL_PEAK = 1000.0  # cd/m², of HLG (BT.2100), and of PQ that does not say
STEPS = 4096  # of all tables
BAND = 16  # rows
SDR_GAMMA = 2.4  # BT.1886
# BT.2087: linear BT.2020 to linear BT.709.
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
BT2020_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], np.float32)


class Colours:
    """Makes RGB of a video's frames, as the first frame says how.

    Attributes:
        told: what the user should know of the colours, if anything.

    Args:
        first: the first frame.
    """

    def __init__(self, first: VideoFrame) -> None:
        self.told: list[str] = []
        self._hdr = first.color_trc if first.color_trc in NAMES else None
        wide = first.color_primaries == BT2020_PRIMARIES or (
            first.color_primaries == UNSPECIFIED and (first.colorspace in BT2020_MATRICES or self._hdr)
        )
        self._map = (
            _mapping(self._hdr, round(_peak(first)), bool(wide), _white_code(first))
            if self._hdr or wide
            else None
        )
        if self._hdr:
            self.told.append(
                f"HDR ({NAMES[self._hdr]}) was tone-mapped to SDR by BT.2390's curve, as networks know SDR"
            )
        if _is_yuv(first) and first.colorspace not in MATRICES:
            self.told.append(
                "the colours are coded in a way that is not read (such as ICtCp): they may look wrong"
            )

    def rgb(self, frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
        """The frame, scaled if its size is another, as (height, width, 3) uint8 RGB."""
        if _is_yuv(frame) and (frame.colorspace == UNSPECIFIED or frame.colorspace not in MATRICES):
            frame.colorspace = BT2020_NCL if self._map else _usual_matrix(frame)
        # One thread, as swscale would start as many as there are cores, all needed by the network.
        if self._map is None:
            return np.asarray(
                frame.to_ndarray(format="rgb24", width=width, height=height, threads=1), np.uint8
            )
        wide = frame.to_ndarray(format="rgb48le", width=width, height=height, threads=1)
        return self._map(np.asarray(wide, np.uint16))


def _is_yuv(frame: VideoFrame) -> bool:
    return len(frame.format.components) >= 3 and not frame.format.is_rgb


def _usual_matrix(frame: VideoFrame) -> int:
    """That of a file that does not say: BT.709 from HD on, BT.601 below, as players take it."""
    return BT709 if frame.height >= 720 or frame.width >= 1280 else BT470BG


def _white_code(frame: VideoFrame) -> int:
    """What swscale makes of white in 16 bits: it shifts the bits of full range, and takes limited range as 8 bits."""
    if not _is_yuv(frame):
        return 65535
    bits = min(frame.format.components[0].bits, 16) if frame.color_range == FULL_RANGE else 8
    return (2**bits - 1) << (16 - bits)


def _peak(frame: VideoFrame) -> float:
    """The brightest light of the content in cd/m², by its metadata."""
    light = side_data(frame, "CONTENT_LIGHT_LEVEL")
    display = side_data(frame, "MASTERING_DISPLAY_METADATA")
    said = []
    if light is not None and frame.color_trc == PQ:
        said.append(float(struct.unpack_from("=I", light)[0]))
    if display is not None and frame.color_trc == PQ:
        # 10 fractions, the last the brightest that the display showed, and whether colours and light are given.
        *_, above, below, _, given = struct.unpack_from("=22i", display)
        said.append(above / below if given and below else 0.0)
    # 0 says nothing, and more than PQ can code is no measurement.
    peak = next((peak for peak in said if 0 < peak <= BRIGHTEST), USUAL_PEAK)
    return max(peak, WHITE)


@lru_cache(maxsize=4)
def _mapping(
    hdr: int | None, peak: int, wide: bool, white: int
) -> Callable[[NDArray[np.uint16]], NDArray[np.uint8]]:
    """What makes 8-bit BT.709 of (H, W, 3) uint16 RGB, by tables."""
    code = np.arange(STEPS) / (STEPS - 1)
    to_light = {PQ: _pq_to_light, HLG: _hlg_to_scene, None: lambda x: x**SDR_GAMMA}[hdr]
    linear = to_light(np.clip(16 * (np.arange(STEPS) + 0.5 * (code > 0)) / white, 0, 1)).astype(np.float32)
    top = max(peak / WHITE, 1.0)
    # Of light in square roots, in which steps look about even.
    root = np.maximum(code, 1e-6) ** 2
    gain = (_eetf(root * top, top) / (root * top)).astype(np.float32)
    out = np.rint(255 * root ** (1 / SDR_GAMMA)).astype(np.uint8)
    out[0] = 0
    system = (USUAL_PEAK / WHITE * root**0.2).astype(np.float32)  # HLG's OOTF: BT.2100, gamma 1.2

    def convert(rgb: NDArray[np.uint16]) -> NDArray[np.uint8]:
        # In bands that the processor's cache holds: twice as fast.
        return np.concatenate([band(rgb[row : row + BAND]) for row in range(0, len(rgb), BAND)])

    def band(rgb: NDArray[np.uint16]) -> NDArray[np.uint8]:
        light = linear.take(rgb >> 4)
        if hdr == HLG:
            light *= _look_up(system, cv2.transform(light, BT2020_LUMINANCE), 1.0)[..., None]
        if wide:
            light = np.maximum(np.asarray(cv2.transform(light, TO_BT709), np.float32), 0)
        if hdr:
            light *= _look_up(gain, _brightest(light), top)[..., None]
        return _look_up(out, light, 1.0)

    return convert


def _brightest(light: Table) -> Table:
    red, green, blue = cv2.split(light)  # NumPy's maximum over the last axis takes ten times as long
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)


def _look_up(table: NDArray, light: NDArray, top: float) -> NDArray:
    index = np.sqrt(np.minimum(light, np.float32(top)) * np.float32(1 / top)) * np.float32(STEPS - 1)
    return table.take((index + np.float32(0.5)).astype(np.int32))


def _pq_to_light(code: NDArray[np.float64]) -> NDArray[np.float64]:
    """PQ's EOTF (SMPTE ST 2084, BT.2100), relative to the white of SDR."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = code ** (1 / m2)
    return 10000 / WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _light_to_pq(light: NDArray[np.float64]) -> NDArray[np.float64]:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (light * WHITE / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def _hlg_to_scene(code: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of HLG's OETF (BT.2100): light of the scene, 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def _eetf(light: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """BT.2390's tone curve: light up to `top` becomes light up to 1; what is well below 1 stays as it is."""
    if top <= 1:
        return light
    scale = float(_light_to_pq(np.array(top)))
    source, target = _light_to_pq(light) / scale, float(_light_to_pq(np.array(1.0))) / scale
    knee = 1.5 * target - 0.5
    t = np.clip((source - knee) / (1 - knee), 0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * target
    )
    return _pq_to_light(np.where(source < knee, source, spline) * scale)
