"""Colours of videos: known colours, coded by the formulas of each standard, come back."""

from pathlib import Path

import av
import numpy as np
import pytest

from lmanet.video import VideoSink, open_source

FIELD = Path(__file__).parents[3] / "shared/field"
KR_KB = {"709": (0.2126, 0.0722), "601": (0.299, 0.114), "2020": (0.2627, 0.0593), "240": (0.212, 0.087)}
LEVELS = (20, 128, 235)
PATCHES = np.array([[r, g, b] for r in LEVELS for g in LEVELS for b in LEVELS], float)
SIDE = 16
# Light of BT.709 as light of BT.2020: BT.2087.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def coded(rgb: np.ndarray, matrix: str, *, full: bool, bits: int) -> np.ndarray:
    """(N, 3) R'G'B' from 0 to 1 as (3, N) Y'CbCr code values."""
    kr, kb = KR_KB[matrix]
    red, green, blue = rgb.T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.stack([(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])
    one = 2 ** (bits - 8)
    if full:
        top = 2**bits - 1
        return np.rint([luma * top, *(chroma * top + 128 * one)])
    return np.rint([(219 * luma + 16) * one, *((224 * chroma + 128) * one)])


def write(
    path: Path,
    rgb: np.ndarray,
    matrix: str,
    *,
    full: bool = False,
    bits: int = 8,
    height: int = 64,
    codec: str = "ffv1",
    x265: str = "",
    tags: dict[str, int] | None = None,
) -> Path:
    """Patches side by side, without loss."""
    values = coded(rgb, matrix, full=full, bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    planes = values[:, None].repeat(height, 1).repeat(SIDE, 2)
    options = {"libx264": {"qp": "0"}, "libx265": {"x265-params": f"lossless=1:log-level=none{x265}"}}.get(
        codec, {}
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = planes.shape[1:]
        stream.pix_fmt = "yuv444p" if bits == 8 else "yuv444p10le"
        frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
        for plane, content in zip(frame.planes, planes, strict=True):
            padded = np.zeros((height, plane.line_size // content.itemsize), content.dtype)
            padded[:, : content.shape[1]] = content
            plane.update(padded.tobytes())
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        for pts in range(2):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    """The patches, (N, 3) from 0 to 255, and the warnings."""
    with open_source(path) as source:
        frame = next(iter(source))
    return frame.image[frame.image.shape[0] // 2, SIDE // 2 :: SIDE].astype(float), source.warnings


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("matrix", "tag"), [("709", 1), ("601", 5), ("601", 6), ("240", 7)])
@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
def test_the_tag_is_obeyed(tmp_path, codec, matrix, tag, full, bits):
    tags = {"colorspace": tag, "color_range": 2 if full else 1}
    path = write(tmp_path / "v.mkv", PATCHES / 255, matrix, full=full, bits=bits, codec=codec, tags=tags)
    patches, warnings = read(path)
    assert np.abs(patches - PATCHES).max() <= 1
    assert warnings == []


@pytest.mark.parametrize(("height", "matrix"), [(64, "601"), (576, "601"), (720, "709"), (1080, "709")])
def test_untagged_video_is_bt709_from_hd_on(tmp_path, height, matrix):
    colours = PATCHES[::3]  # narrow, so that the height decides
    patches, warnings = read(write(tmp_path / "v.mp4", colours / 255, matrix, height=height, codec="libx264"))
    assert np.abs(patches - colours).max() <= 1
    assert warnings == []


def test_untagged_hd_of_the_field():
    path = FIELD / "hd_untagged.mp4"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with open_source(path) as source, av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        frame.colorspace = 1
        np.testing.assert_array_equal(next(iter(source)).image, frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("ffv1", "gray"), ("ffv1", "bgr0"), ("png", "rgb24"), ("qtrle", "rgb24")]
)
def test_grey_and_rgb_have_no_matrix(tmp_path, codec, pix_fmt):
    image = np.random.default_rng(0).integers(0, 256, (720, 64, 3), np.uint8)
    if pix_fmt == "gray":
        image = np.repeat(image[..., :1], 3, axis=2)
    path = tmp_path / ("v.mkv" if codec == "ffv1" else "v.mov")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 720, 64, pix_fmt
        content = image[..., 0] if pix_fmt == "gray" else image
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(content), format="gray" if pix_fmt == "gray" else "rgb24"
        )
        container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    with open_source(path) as source:
        np.testing.assert_array_equal(next(iter(source)).image, image)


def test_what_lmanet_writes_comes_back(tmp_path):
    image = np.repeat(np.repeat(PATCHES.astype(np.uint8)[None], 720, 0), SIDE, 1)
    with VideoSink(tmp_path / "v.mp4", width=image.shape[1], height=720, fps=25) as sink:
        sink.write(image, 0)
    patches, _ = read(tmp_path / "v.mp4")
    assert np.abs(patches - PATCHES).max() <= 4


def pq(light: np.ndarray) -> np.ndarray:
    """Light in cd/m² as PQ, SMPTE ST 2084."""
    power = (light / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(light: np.ndarray) -> np.ndarray:
    """Light in cd/m² of a display of 1000 cd/m² as HLG, BT.2100: (N, 3)."""
    shown = light / 1000
    luminance = np.maximum(shown @ [0.2627, 0.6780, 0.0593], 1e-9)[:, None]
    scene = shown * luminance ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


SHADES = np.array(
    [[r, g, b] for r in (0, 40, 120, 180) for g in (0, 40, 120, 180) for b in (0, 40, 120, 180)], float
)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("codec", ["libx265", "libx264", "ffv1"])
@pytest.mark.parametrize(("transfer", "trc", "name"), [(pq, 16, "PQ"), (hlg, 18, "HLG")])
def test_an_sdr_picture_in_hdr_comes_back(tmp_path, codec, transfer, trc, name, full):
    """Shown at 203 cd/m², as BT.2408 says; what is not bright is left as it was."""
    light = 203 * (SHADES / 255) ** 2.4 @ TO_BT2020.T
    tags = {"colorspace": 9, "color_range": 2 if full else 1, "color_primaries": 9, "color_trc": trc}
    path = write(tmp_path / "v.mkv", transfer(light), "2020", full=full, bits=10, codec=codec, tags=tags)
    patches, (warning,) = read(path)
    assert f"HDR ({name}) was tone-mapped" in warning
    visible = SHADES.min(axis=1) > 0
    assert np.abs(patches - SHADES)[visible].max() <= 5
    assert (
        np.abs(patches - SHADES).max() <= 20
    )  # nearly black beside a bright colour: steps of 10 bits are coarse


def test_bright_light_of_hdr_is_rolled_off_not_cut(tmp_path):
    light = np.repeat(np.array([0.0, 1, 50, 203, 400, 700, 1000])[:, None], 3, axis=1)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    path = write(tmp_path / "v.mkv", pq(light), "2020", bits=10, tags=tags)
    grey = read(path)[0].mean(axis=1)
    assert grey[0] == 0 and (np.diff(grey)[:-1] > 0).all()
    assert grey[3] == pytest.approx(230, abs=2) and grey[-1] >= 253


@pytest.mark.parametrize(
    "said",
    [":max-cll=203,100", ":master-display=G(1,1)B(1,1)R(1,1)WP(1,1)L(2030000,1)"],
    ids=["content", "display"],
)
def test_hdr_that_is_no_brighter_than_white_stays_as_it_is(tmp_path, said):
    """The file says how bright its content is, or was shown: nothing is to be rolled off."""
    grey = np.repeat(np.array([20.0, 100, 200, 240, 255])[:, None], 3, axis=1).repeat(8, axis=0)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    light = 203 * (grey / 255) ** 2.4
    path = write(tmp_path / "v.mkv", pq(light), "2020", bits=10, codec="libx265", x265=said, tags=tags)
    assert np.abs(read(path)[0] - grey).max() <= 2


def test_a_peak_that_cannot_be_says_nothing(tmp_path):
    light = np.repeat(np.array([0.0, 50, 203, 1000])[:, None], 3, axis=1)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    plain = write(tmp_path / "plain.mkv", pq(light), "2020", bits=10, codec="libx265", tags=tags)
    absurd = write(
        tmp_path / "v.mkv",
        pq(light),
        "2020",
        bits=10,
        codec="libx265",
        x265=":max-cll=65535,65535",
        tags=tags,
    )
    assert (read(absurd)[0] == read(plain)[0]).all()


@pytest.mark.parametrize("bits", [8, 10])
def test_wide_gamut_that_is_not_hdr(tmp_path, bits):
    code = ((SHADES / 255) ** 2.4 @ TO_BT2020.T) ** (1 / 2.4)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14}
    patches, warnings = read(write(tmp_path / "v.mkv", code, "2020", bits=bits, tags=tags))
    wrong = np.abs(patches - SHADES)[SHADES.min(axis=1) > 0]
    assert wrong.mean() <= 1.5 and wrong.max() <= (
        10 if bits == 8 else 3
    )  # 8 bits are coarse for so wide a gamut
    assert warnings == []


@pytest.mark.parametrize("tag", [8, 10, 14])
def test_codings_that_are_not_read_are_told_of(tmp_path, tag):
    """YCgCo, constant luminance, ICtCp: FFmpeg's scaler refuses them."""
    tags = {"colorspace": tag, "color_range": 1}
    _, (warning,) = read(write(tmp_path / "v.mkv", PATCHES / 255, "2020", tags=tags))
    assert "may look wrong" in warning


def test_hdr_of_the_field_has_its_contrast():
    path = FIELD / "hdr_true.mp4"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with open_source(path) as source:
        image = next(iter(source)).image
    with av.open(str(path)) as container:
        flat = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image.std() > 1.8 * flat.std()
    assert "HDR (PQ) was tone-mapped" in source.warnings[0]
