import numpy as np
import pytest
from PIL import Image

from contracts.imagefiles import SIZE, picture, write_image
from contracts.trees import sequence, write_classes
from lmanet.classes import generated_palette
from lmanet.data.files import FileSequence, consecutive, image_size, read_image
from lmanet.data.folder import load_folder
from lmanet.data.labels import IdTable
from lmanet.errors import DataError
from lmanet.video import open_source


def test_images_of_all_kinds_become_rgb(tmp_path):
    grey = picture()[..., 0]
    for name, image in {
        "grey": Image.fromarray(grey),
        "alpha": Image.fromarray(np.dstack([picture(), grey])),
        "palette": Image.fromarray(picture()).quantize(16),
    }.items():
        path = tmp_path / f"{name}.png"
        image.save(path)
        expected = np.asarray(image.convert("RGB"))
        got = read_image(path)
        assert got.dtype == np.uint8 and got.flags.writeable
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright_as_their_labels_are(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_image(tmp_path / "a.jpg", np.zeros((12, 16, 3), np.uint8), exif=exif)
    size = (16, 12) if orientation >= 5 else (12, 16)
    assert read_image(tmp_path / "a.jpg").shape[:2] == image_size(tmp_path / "a.jpg") == size
    write_image(tmp_path / "a.png", np.zeros(size, np.uint8))
    table = IdTable({0: 0}, "0")
    sequence = FileSequence("s", ("a",), 1.0, (tmp_path / "a.jpg",), (tmp_path / "a.png",), table)
    assert sequence.label(0).shape == size


def test_frames_of_videos_and_of_data_sets_are_read_alike(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    colours = Image.fromarray(picture())
    for name, image, options in [
        ("turned.png", colours, {"exif": turned}),
        ("turned.webp", colours, {"exif": turned}),
        ("a.bmp", colours, {}),
        ("a.jpg", colours, {"exif": turned}),
        ("cmyk.jpg", colours.convert("CMYK"), {}),
        ("alpha.png", colours.convert("RGBA"), {}),
        ("palette.png", colours.quantize(8), {"transparency": 3}),
        ("wide.png", Image.fromarray(picture()[..., 0].astype(np.uint16) * 200), {}),
        ("bits.tiff", colours.convert("1"), {}),
    ]:
        image.save(tmp_path / name, **options)
        with open_source(tmp_path / name) as source:
            (frame,) = source
        np.testing.assert_array_equal(read_image(tmp_path / name), frame.image, err_msg=name)
        assert image_size(tmp_path / name) == frame.image.shape[:2]


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "gone.png"
    for read in (read_image, image_size, IdTable({0: 0}, "0")):
        with pytest.raises(DataError, match=r"gone\.png is missing"):
            read(path)


def test_the_table_maps_values_and_counts_wrong_ones(tmp_path):
    values = np.zeros(SIZE, np.uint8)
    values[3] = 7
    write_image(tmp_path / "label.png", values)
    ids = IdTable({0: 5, 7: 255}, "")(tmp_path / "label.png")
    np.testing.assert_array_equal(ids, np.where(values == 7, 255, 5))
    with pytest.raises(DataError, match="label 7 in 16 pixels, expected zeros"):
        IdTable({0: 5}, "zeros")(tmp_path / "label.png")


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [([], []), ([4], [(0, 1)]), ([4, 5, 6], [(0, 3)]), ([1, 3, 4, 9], [(0, 1), (1, 3), (3, 4)])],
)
def test_consecutive_numbers(numbers, runs):
    assert consecutive(numbers) == runs


def test_generated_colours_are_those_of_pascal_voc_and_distinct():
    palette = generated_palette(254)
    # Its first classes: aeroplane, bicycle, bird, boat, bottle, bus, car, cat.
    assert palette[:8] == (
        (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0),
    )  # fmt: skip
    assert len(set(palette)) == 254 and (0, 0, 0) not in palette


@pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp", ".jpeg", ".PNG"])
def test_folders_of_frames_take_what_segment_takes(tmp_path, suffix):
    write_classes(tmp_path)
    sequence(tmp_path, "drive", ["f1", "f2"], ["f1"])
    for path in (tmp_path / "images/drive").iterdir():
        Image.open(path).save(
            path.with_suffix(suffix.lower()), **({"lossless": True} if suffix == ".webp" else {})
        )
        path.with_suffix(suffix.lower()).rename(path.with_suffix(suffix))
        if suffix != ".PNG":
            path.unlink()
    (drive,) = load_folder(tmp_path, "all").sequences
    assert drive.frame_names == ("f1", "f2") and drive.image(1).shape == (*SIZE, 3)
