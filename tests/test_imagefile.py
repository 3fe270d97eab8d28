"""The one image reader: what each kind of file becomes, and what is refused."""

import struct
import warnings
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from lmanet.imagefile import ImageFileError, image_size, read_image, series_in_jpeg
from lmanet.video.animation import durations, read_frames

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera stores of an upright picture under each orientation."""


def picture(height=16, width=24):
    rng = np.random.default_rng(0)
    return cv2.resize(
        rng.integers(0, 256, (4, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_ordinary_images_are_pillows_and_opencvs_pixels(tmp_path, suffix):
    """Bit for bit, so that what was measured before there was one reader holds."""
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture()).save(path)
    read = read_image(path)
    assert read.dtype == np.uint8 and read.flags.writeable and read.flags.c_contiguous
    np.testing.assert_array_equal(read, np.asarray(Image.open(path)))
    np.testing.assert_array_equal(read, cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_file_type_is_turned_upright(tmp_path, suffix, orientation):
    stored = Image.fromarray(picture())
    stored = stored.transpose(TURNS[orientation]) if orientation in TURNS else stored
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    stored.save(path, exif=exif, **options)
    assert image_size(path) == (16, 24)
    assert np.abs(read_image(path).astype(int) - picture()).max() <= (8 if suffix == "jpg" else 0)


def test_orientation_behind_the_pixels_of_a_png_is_seen(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
    (tmp_path / "late.png").write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert image_size(tmp_path / "late.png") == read_image(tmp_path / "late.png").shape[:2] == (24, 16)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_by_257(tmp_path, suffix, channels):
    wide = np.random.default_rng(0).integers(0, 65536, (8, 12, channels)).astype(np.uint16)
    wide[0, :3] = [[0], [65535], [40000]]
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), wide if channels > 1 else wide[..., 0])
    expected = np.rint(wide / 257).astype(np.uint8)
    expected = np.repeat(expected, 3, axis=2) if channels == 1 else expected[..., 2::-1]
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "PA"])
def test_other_modes_become_rgb_and_lose_transparency(tmp_path, mode):
    colours = Image.fromarray(picture())
    image = colours.convert(mode.removesuffix("A") if mode in ("LA", "PA") else mode)
    expected = np.asarray(image.convert("RGB"))
    options = {}
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.arange(384, dtype=np.uint8).reshape(16, 24)))
    elif mode == "PA":
        options = {"transparency": bytes(range(256))}
    image.save(tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_cmyk_and_profiles(tmp_path):
    Image.fromarray(picture(64, 96)).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture(64, 96)).mean() < 3
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(picture()).save(tmp_path / "b.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), picture())


def test_large_images_are_read(tmp_path):
    """Beyond Pillow's limit, which stays as it is for others."""
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png")
    before = Image.MAX_IMAGE_PIXELS
    assert image_size(tmp_path / "a.png") == (10000, 20000)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_values_that_are_no_colours_are_refused(tmp_path, kind):
    Image.fromarray(np.zeros((4, 4), kind)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageFileError, match=r"a\.tiff: an image of mode [FI] .* expected 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


def test_what_is_no_image_is_named_with_its_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    Image.fromarray(picture(64, 96)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    for name, message in [
        ("empty.png", "0 bytes"),
        ("text.png", "not an image"),
        ("folder.png", "directory"),
        ("link.png", "missing .a link to nothing"),
        ("cut.jpg", "truncated"),
    ]:
        with pytest.raises(ImageFileError, match=f"{name}.*{message}"):
            read_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_lose_the_image(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")
    assert read_image(tmp_path / "a.jpg").shape[:2] == image_size(tmp_path / "a.jpg") == (16, 24)


def animation(path, count=4, **options):
    frames = [Image.fromarray(np.full((16, 24, 3), 60 * index, np.uint8)) for index in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_one_image_is_not_taken_of_several(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}")
    for read in (read_image, image_size):
        with pytest.raises(ImageFileError, match=f"a.{suffix} holds 4 (frames|pages)"):
            read(path)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_have_their_own_durations(tmp_path, suffix):
    times = [40, 80, 500, 0]
    path = animation(tmp_path / f"a.{suffix}", duration=times, lossless=True)
    assert durations(path) == [Fraction(time or 100, 1000) for time in times]
    assert [int(frame[0, 0, 0]) for frame in read_frames(path)] == [0, 60, 120, 180]


def test_frames_of_an_animation_are_composed(tmp_path):
    """A file stores the part that changes: the rest is that of the frame before."""
    frames = [picture(64, 96) for _ in range(3)]
    for index, frame in enumerate(frames):
        frame[10 : 10 + 4 * index, 20:30] = (250, 0, 0)
    for suffix in ("png", "webp"):
        path = tmp_path / f"a.{suffix}"
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=40, lossless=True)
        np.testing.assert_array_equal(list(read_frames(path)), frames)


def test_the_picture_before_an_animation_is_no_frame_of_it(tmp_path):
    path = animation(tmp_path / "a.png", count=4, default_image=True, duration=40)
    assert [int(frame[0, 0, 0]) for frame in read_frames(path)] == [60, 120, 180]
    assert durations(path) == [Fraction(1, 25)] * 3


def test_a_small_copy_is_no_page(tmp_path):
    large, small = Image.fromarray(picture()), Image.fromarray(picture(4, 6))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    large.save(tmp_path / "a.tiff", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), picture())


def test_of_pictures_in_one_jpeg_the_first_is_read(tmp_path):
    first, second = Image.fromarray(picture()), Image.fromarray(255 - picture())
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture()).mean() < 20
    assert series_in_jpeg(tmp_path / "a.jpg") <= 2
    first.save(tmp_path / "b.jpg")
    assert series_in_jpeg(tmp_path / "b.jpg") == 1
