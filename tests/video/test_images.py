"""Images as a source: folders, bad files among them, numbers that are missing, animations and pages."""

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lmanet.errors import InputError, VideoError
from lmanet.video import open_source
from lmanet.video.imagelist import images_in

FIELD = Path(__file__).parents[3] / "shared/field"


def picture(index: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A red top left corner on a grey that tells the index."""
    image = np.full((height, width, 3), 40 + 15 * index % 180, np.uint8)
    image[: height // 4, : width // 4] = (250, 10, 10)
    return image


def save(path: Path, index: int = 0, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(index, **size)[..., ::-1])
    return path


def read(path: Path, **options: object):
    with open_source(path, **options) as source:
        frames = list(source)
    return source, frames


def test_a_folder_of_images_in_natural_order(tmp_path):
    for number, suffix in [(10, "png"), (9, "jpg"), (11, "WEBP"), (8, "bmp"), (12, "TIFF")]:
        save(tmp_path / f"f{number}.{suffix.lower()}").rename(tmp_path / f"f{number}.{suffix}")
    save(tmp_path / "straße 13.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "Thumbs.db").write_bytes(b"a leftover")
    (tmp_path / "._f1.png").write_bytes(b"a leftover of another system")
    source, frames = read(tmp_path, images_fps=10)
    assert [frame.name for frame in frames] == ["f8", "f9", "f10", "f11", "f12", "straße 13"]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert all(tuple(frame.image[2, 2] > 200) == (True, False, False) for frame in frames)
    info = source.info
    assert (info.kind, info.frame_count, info.width, info.height) == ("images", 6, 48, 32)
    assert source.warnings == []


def test_a_single_image_upright_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    Image.fromarray(picture(0)).save(tmp_path / "turned.png", exif=exif)
    source, (frame,) = read(tmp_path / "turned.png")
    assert frame.image.shape == (48, 32, 3) and tuple(frame.image[2, -2]) == (250, 10, 10)
    assert (source.info.kind, frame.name, source.warnings) == ("image", "turned", [])


def bad_images(folder: Path) -> list[str]:
    """Five images of the folder are made bad, each in another way."""
    for index in range(1, 11):
        save(folder / f"f{index}.png", index)
    whole = (folder / "f3.png").read_bytes()
    (folder / "f3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "f5.png").write_bytes(b"")
    (folder / "f6.png").write_text("not an image")
    (folder / "f8.png").unlink()
    (folder / "f8.png").symlink_to(folder / "nowhere.png")
    (folder / "f10.png").unlink()
    (folder / "f10.png").mkdir()
    return ["f1", "f2", "f4", "f7", "f9"]


def test_bad_images_are_skipped_with_one_warning_and_the_others_keep_their_times(tmp_path):
    good = bad_images(tmp_path)
    source, frames = read(tmp_path, images_fps=10)
    assert [frame.name for frame in frames] == good
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.6, 0.8])
    assert [frame.index for frame in frames] == [0, 1, 3, 6, 8]
    (warning,) = source.warnings
    assert "5 images skipped: " in warning and "and 2 more" in warning and "0 bytes" in warning
    assert source.info.frame_count in (5, 6)  # the cut one is known when it is decoded


def test_strict_makes_a_bad_image_an_error_before_the_first_frame(tmp_path):
    bad_images(tmp_path)
    with pytest.raises(VideoError, match=r"4 images cannot be read: f5\.png .*0 bytes.*and 1 more"):
        open_source(tmp_path, strict=True)


def test_strict_tells_of_damage_that_the_header_does_not_show(tmp_path):
    for index in range(3):
        save(tmp_path / f"f{index}.png", index)
    whole = (tmp_path / "f1.png").read_bytes()
    (tmp_path / "f1.png").write_bytes(whole[: len(whole) // 2])
    with (
        open_source(tmp_path, strict=True) as source,
        pytest.raises(VideoError, match=r"f1\.png cannot be read"),
    ):
        list(source)


def test_a_folder_of_bad_images_alone_is_an_error(tmp_path):
    for index in range(5):
        (tmp_path / f"f{index}.png").write_text("no image")
    with pytest.raises(VideoError, match=r"not one image can be read: .*5 images.*and 2 more"):
        open_source(tmp_path)
    for index in range(5):
        whole = save(tmp_path / f"f{index}.png").read_bytes()
        (tmp_path / f"f{index}.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match=r"not one image can be read: .*5 images.*truncated"):
        open_source(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_skipped(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png").chmod(0)
    source, frames = read(tmp_path)
    assert len(frames) == 1 and "b.png (Permission denied)" in source.warnings[0]


def test_other_sizes_are_told_before_the_first_frame(tmp_path):
    for index in range(12):
        save(tmp_path / f"f{index}.png", index, width=40 if index in (0, 3, 5, 7, 9) else 48)
    with pytest.raises(VideoError) as caught:
        open_source(tmp_path)
    message = str(caught.value)
    assert (
        "5 of 12 images have another size: f0.png (40×32), f3.png (40×32), f5.png (40×32), and 2 more"
        in message
    )
    assert "the other 7 are 48×32" in message


def test_an_animation_in_a_folder_is_skipped_by_name(tmp_path):
    save(tmp_path / "a.png")
    first, second = (Image.fromarray(picture(index)) for index in range(2))
    first.save(tmp_path / "b.webp", save_all=True, append_images=[second])
    source, frames = read(tmp_path)
    assert [frame.name for frame in frames] == ["a"]
    assert "1 image skipped: b.webp (holds 2 frames (an animation)" in source.warnings[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("f1 f2 f4", "1 number missing in the sequence: f3;"),
        ("f001 f002 f003 f007 f008 f009", "3 numbers missing in the sequence: f004, f005, f006;"),
        ("a0_l a5_l a10_l a20_l", "1 number missing in the sequence: a15_l;"),
        ("f1 f2 f3 f9 f10 f11", "5 numbers missing in the sequence: f4, f5, f6, and 2 more;"),
        ("l1 l2 l3 r1 r2 r3", None),
        ("f0 f10 f20", None),
        ("f1 f3", None),
        ("a b c", None),
        ("t1700000000033 t1700000000067 t1700000000100 t1700000000134", None),
        ("aachen_000001_000019 aachen_000002_000019 bochum_000001_000019", None),
    ],
)
def test_missing_numbers_are_told(tmp_path, names, expected):
    for name in names.split():
        save(tmp_path / f"{name}.png")
    source, frames = read(tmp_path)
    assert len(frames) == len(names.split())
    assert (expected in source.warnings[0]) if expected else (source.warnings == [])


def test_a_folder_of_folders_says_so(tmp_path):
    for name in ("clip1", "clip2"):
        save(tmp_path / name / "a.png")
    with pytest.raises(VideoError, match=r"no images .*it has subfolders \(clip1, clip2\): give one of them"):
        open_source(tmp_path)


def test_images_whose_outputs_would_collide_are_refused(tmp_path):
    for suffix in ("png", "jpg"):
        save(tmp_path / f"a.{suffix}")
    with pytest.raises(VideoError, match=r"a\.(png|jpg) and a\.(png|jpg)"):
        images_in(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_animated_image_is_a_video_with_its_own_times(tmp_path, suffix):
    frames = [Image.fromarray(picture(index)) for index in range(6)]
    path, times = tmp_path / f"a.{suffix}", [40, 80, 40, 200, 40, 40]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, lossless=True)
    source, read_frames = read(path)
    assert source.info.kind == "video" and source.info.frame_count == 6
    assert source.info.fps == Fraction(6000, sum(times))
    assert [frame.time_s for frame in read_frames] == pytest.approx([0, 0.04, 0.12, 0.16, 0.36, 0.4])
    for index, frame in enumerate(read_frames):
        assert np.array_equal(frame.image, picture(index)) and frame.name == f"{index:06d}"
    with pytest.raises(InputError, match="an animation has its own"):
        open_source(path, images_fps=10)


def test_pages_are_frames_if_they_have_one_size(tmp_path):
    pages = [Image.fromarray(picture(index)) for index in range(4)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    source, frames = read(tmp_path / "a.tiff", images_fps=8)
    assert (source.info.fps, source.info.frame_count) == (8, 4)
    assert [frame.time_s for frame in frames] == [0, 1 / 8, 2 / 8, 3 / 8]
    assert all(np.array_equal(frame.image, picture(index)) for index, frame in enumerate(frames))
    pages[2] = Image.fromarray(picture(0, width=40))
    pages[0].save(tmp_path / "b.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(VideoError, match=r"b\.tiff: page 3 is 40×32, page 1 is 48×32"):
        open_source(tmp_path / "b.tiff")


def test_an_animation_that_is_cut_off_gives_the_frames_that_it_has(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)) for _ in range(6)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=40)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    source, read_frames = read(tmp_path / "a.png")
    assert 1 <= len(read_frames) < 6 and f"ends after {len(read_frames)} of 6 frames" in source.warnings[0]
    with open_source(tmp_path / "a.png", strict=True) as source, pytest.raises(VideoError, match="cut off"):
        list(source)


@pytest.mark.parametrize("name", ["anim.webp", "apng.png"])
def test_animations_of_the_field(name):
    path = FIELD / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    source, frames = read(path)
    assert len(frames) == 12 and source.warnings == []
    assert [frame.time_s for frame in frames] == pytest.approx([0.04 * index for index in range(12)])


def test_pages_and_frames_are_read_whatever_the_file_is_called(tmp_path):
    """FFmpeg, which reads files of unknown names, gives the first of them alone."""
    pages = [Image.fromarray(picture(index)) for index in range(3)]
    for name, kind in (("scan", "tiff"), ("sticker.gif", "webp"), ("scan.dat", "tiff")):
        pages[0].save(tmp_path / name, kind, save_all=True, append_images=pages[1:])
        assert len(read(tmp_path / name)[1]) == 3


def test_pages_that_are_no_colours_are_refused_before_the_first(tmp_path):
    path = tmp_path / "v.tif"
    Image.fromarray(picture(0)).save(
        path, save_all=True, append_images=[Image.fromarray(np.zeros((32, 48), np.float32))]
    )
    with pytest.raises(VideoError, match="floating point"):
        open_source(path)


def test_a_pipe_in_a_folder_is_skipped_and_not_waited_for(tmp_path):
    for index in (0, 2):
        save(tmp_path / f"{index}.png", index)
    os.mkfifo(tmp_path / "1.png")
    source, frames = read(tmp_path)
    assert len(frames) == 2
    assert source.warnings == [f"{tmp_path}: 1 image skipped: 1.png (is no file (a pipe or a device))"]
