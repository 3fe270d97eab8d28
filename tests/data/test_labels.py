"""Label files of every kind that people have: read as what they mean, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from contracts.imagefiles import SIZE, picture
from contracts.trees import write_classes
from lmanet.classes import VOID
from lmanet.data.classesfile import read_classes
from lmanet.data.labels import ColourTable, IdTable
from lmanet.errors import DataError
from lmanet.imagefile import read_image

IDS = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) % 3


def reader(root, **changes):
    return read_classes(write_classes(root, **changes) / "classes.json").read_label


def saved(root, image, name="f.png", **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(root / name, **options)
    return root / name


def coloured(colours):
    return np.array(colours, np.uint8)[IDS]


@pytest.mark.parametrize(
    ("changes", "values", "expected"),
    [
        ({}, [0, 1, 255], [0, 1, VOID]),
        ({"names": ["background", "foreground"], "values": [0, 255]}, [0, 255, 0], [0, 1, 0]),
        ({"first_id": 1}, [1, 2, 3], [0, 1, 2]),
        ({"first_id": 1, "void": 0}, [0, 1, 3], [VOID, 0, 2]),
        ({"first_id": 1, "void": [0, 255]}, [0, 255, 3], [VOID, VOID, 2]),
        ({"void": 7}, [0, 7, 2], [0, VOID, 2]),
        ({"values": [7, [11, 12], 300]}, [7, 12, 300], [0, 1, 2]),
        ({"values": [0, 1, 1000], "void": 65535}, [1, 1000, 65535], [1, 2, VOID]),
        ({"names": [f"c{i}" for i in range(255)]}, [0, 254, 255], [0, 254, VOID]),
    ],
)
def test_values_become_the_classes_that_the_file_gives_them(tmp_path, changes, values, expected):
    stored = np.array(values, np.uint16 if max(values) > 255 else np.uint8)[IDS]
    got = reader(tmp_path, **changes)(saved(tmp_path, stored))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.array(expected)[IDS])


@pytest.mark.parametrize(
    ("changes", "values", "words"),
    [
        ({}, [0, 1, 3], '0 to 3 are 4 values for 3 names.*"first_id": 1, "void": 0'),
        ({}, [1, 2, 3], 'If the classes count from 1 to 3, write "first_id": 1'),
        (
            {"first_id": 1},
            [0, 1, 2],
            'expected a class id, 1 to 3.*If 0 belongs to no class, write "void": 0',
        ),
        ({"void": 7}, [0, 1, 255], r'If 255 belongs to no class, write "void": \[7, 255\]'),
        ({"void": []}, [0, 1, 255], 'If 255 belongs to no class, write "void": 255'),
        ({}, [0, 26001, 26002], "label 26001 in .* instance maps"),
        ({}, [0, 1, 65535], "label 65535"),
        ({"names": ["a", "b"]}, [0, 128, 255], r"128 is the class 'b', write \"values\": \[0, 128\]"),
        ({"names": ["a", "b"]}, [0, 65535, 0], r"write \"values\": \[0, 65535\].*\"void\": \[255, 65535\]"),
        ({}, [0, 128, 64], r'say by "values" which.*write "void": \[64, 128, 255\]'),
        ({"values": [0, 1, 255]}, [0, 7, 7], r"expected a value of a class \(0, 1, 255\) \(see"),
    ],
)
def test_other_values_are_told_with_what_to_write(tmp_path, changes, values, words):
    stored = np.array(values, np.uint16 if max(values) > 255 else np.uint8)[IDS]
    with pytest.raises(DataError, match=words):
        reader(tmp_path, **changes)(saved(tmp_path, stored))


def test_smoothed_edges_are_told_with_few_of_their_values(tmp_path):
    ramp = np.tile(np.arange(SIZE[1], dtype=np.uint8) * 17, (SIZE[0], 1))
    table = reader(tmp_path, names=["a", "b"], values=[0, 255])
    with pytest.raises(DataError, match=r"and 9 more.*So many values \(14\) are what smoothed edges leave"):
        table(saved(tmp_path, ramp))


def test_ids_are_read_however_they_are_stored(tmp_path):
    table = reader(tmp_path)
    grey, opaque = Image.fromarray(IDS), np.full(SIZE, 255, np.uint8)
    palette = grey.copy()
    palette.putpalette(picture(size=(16, 16)).tobytes())
    kinds = {
        "grey.png": grey,
        "grey.bmp": grey,
        "grey.tif": grey,
        "palette.png": palette,
        "rgb.png": np.dstack([IDS] * 3),
        "rgba.png": np.dstack([IDS, IDS, IDS, opaque]),
        "la.png": np.dstack([IDS, opaque]),
        "short.png": IDS.astype(np.uint16),
        "int.tif": Image.fromarray(IDS.astype(np.int32)),
    }
    for name, image in kinds.items():
        np.testing.assert_array_equal(table(saved(tmp_path, image, name)), IDS, err_msg=name)


def test_a_label_turned_by_its_tag_is_turned_as_its_frame_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    text = PngInfo()  # as ImageMagick keeps it
    text.add_text("Raw profile type exif", f"\nexif\n{len(raw):8d}\n{raw.hex()}\n")
    for options in ({"exif": exif}, {"pnginfo": text}):
        path = saved(tmp_path, IDS, **options)
        np.testing.assert_array_equal(reader(tmp_path)(path), np.rot90(IDS, -1))
        assert read_image(path).shape[:2] == IDS.shape[::-1]


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("lossy.jpg", Image.fromarray(IDS), "a JPEG image, whose compression changes the values"),
        ("float.tif", Image.fromarray(IDS.astype(np.float32)), "an image of mode F"),
        ("cmyk.tif", Image.fromarray(IDS).convert("CMYK"), "an image of mode CMYK"),
        ("photo.png", picture(), r"colour \(.* and 187 more, expected a class id"),
        ("few.png", coloured([[0, 0, 9]] * 3), r"colour \(0, 0, 9\) in 192 pixels.*\"labels\": \"colours\""),
        ("alpha.png", np.dstack([IDS, IDS, IDS, IDS * 127]), "192 pixels are transparent"),
        ("mask.png", np.dstack([IDS * 0, IDS * 127]), "192 pixels are transparent.*save that channel"),
    ],
)
def test_what_holds_no_ids_is_refused_by_name(tmp_path, name, image, words):
    with pytest.raises(DataError, match=words):
        reader(tmp_path)(saved(tmp_path, image, name))


def test_a_jpeg_under_another_name_is_still_one(tmp_path):
    saved(tmp_path, IDS, "f.jpg").rename(tmp_path / "f.png")
    with pytest.raises(DataError, match=r"f\.png: a JPEG image"):
        reader(tmp_path)(tmp_path / "f.png")


@pytest.mark.parametrize(
    "options", [{"compression": "jpeg"}, {"save_all": True, "append_images": [Image.fromarray(IDS)]}]
)
def test_tiffs_that_are_no_single_lossless_image_are_refused(tmp_path, options):
    with pytest.raises(DataError, match=r"compression changes|2 pages"):
        reader(tmp_path)(saved(tmp_path, IDS, "f.tif", **options))


def png_of_few_bits(path, stored, bits):
    """Grey PNG as its standard has it; Pillow writes none of 2 or 4 bits."""
    import struct
    import zlib

    height, width = stored.shape
    unpacked = (stored[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(unpacked.reshape(height, width * bits), axis=1)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_read_as_stored_or_as_shown(tmp_path, bits):
    path = png_of_few_bits(tmp_path / "f.png", IDS % 2, bits)
    np.testing.assert_array_equal(reader(tmp_path, names=["a", "b"])(path), IDS % 2)
    brightest = png_of_few_bits(tmp_path / "f.png", IDS % 2 * (2**bits - 1), bits)
    np.testing.assert_array_equal(reader(tmp_path, names=["a", "b"], values=[0, 255])(brightest), IDS % 2)


def test_grey_of_few_bits_that_may_mean_two_things_is_refused(tmp_path):
    path = png_of_few_bits(tmp_path / "f.png", IDS % 2, 1)
    with pytest.raises(DataError, match="1 bits a pixel, in which 1 may be 1 or 255"):
        reader(tmp_path)(path)  # the class 1, or a picture of 0 and 255 that was packed
    path = png_of_few_bits(tmp_path / "f.png", IDS % 2 * 0, 1)
    np.testing.assert_array_equal(reader(tmp_path)(path), 0)


def test_colours_are_read_however_they_are_stored(tmp_path):
    colours = [[0, 0, 0], [128, 64, 128], [70, 130, 180]]
    table = reader(tmp_path, colours=colours, labels="colours")
    arbitrary = Image.fromarray(coloured(colours)).quantize(8)
    kinds = {
        "rgb.png": coloured(colours),
        "rgba.png": np.dstack([coloured(colours), np.full(SIZE, 255, np.uint8)]),
        "adaptive.png": arbitrary,
        "rgb.bmp": coloured(colours),
    }
    for name, image in kinds.items():
        np.testing.assert_array_equal(table(saved(tmp_path, image, name)), IDS, err_msg=name)
    grey = reader(tmp_path, colours=[[0] * 3, [100] * 3, [255] * 3], labels="colours")
    np.testing.assert_array_equal(grey(saved(tmp_path, np.array([0, 100, 255], np.uint8)[IDS])), IDS)


@pytest.mark.parametrize("void", [[9, 9, 9], [[9, 9, 9], [8, 8, 8]]])
def test_colours_of_void_are_named(tmp_path, void):
    table = reader(tmp_path, colours=[[0, 0, 0], [1, 0, 0], [0, 1, 0]], labels="colours", void=void)
    path = saved(tmp_path, coloured([[0, 0, 0], [0, 1, 0], [9, 9, 9]]))
    np.testing.assert_array_equal(table(path), np.array([0, 2, VOID])[IDS])


def test_other_colours_are_told_with_counts(tmp_path):
    table = reader(tmp_path, colours=[[0, 0, 0], [1, 0, 0], [0, 1, 0]], labels="colours")
    path = saved(tmp_path, coloured([[0, 0, 0], [5, 6, 7], [5, 6, 7]]))
    with pytest.raises(
        DataError, match=r'colour \(5, 6, 7\) in 128 pixels.*classes\.json.*"void": \[\[r, g, b\]'
    ):
        table(path)
    with pytest.raises(DataError, match=r"and 187 more.*So many colours \(192\).*anti-aliasing"):
        table(saved(tmp_path, picture()))
    with pytest.raises(DataError, match=r"mode I;16: expected colours"):
        table(saved(tmp_path, IDS.astype(np.uint16)))


def test_a_palette_that_contradicts_the_values_is_refused(tmp_path):
    colours = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    image = Image.fromarray(IDS)
    image.putpalette(np.array(colours, np.uint8).tobytes())
    np.testing.assert_array_equal(reader(tmp_path, colours=colours)(saved(tmp_path, image)), IDS)
    image.putpalette(np.array(colours[::-1], np.uint8).tobytes())
    with pytest.raises(
        DataError, match=r"the value 0 the colour \(0, 1, 0\), which is class 2's.*\"labels\""
    ):
        reader(tmp_path, colours=colours)(saved(tmp_path, image))
    by_colour = reader(tmp_path, colours=colours, labels="colours")(saved(tmp_path, image))
    np.testing.assert_array_equal(by_colour, 2 - IDS)
    by_value = reader(tmp_path, colours=colours, labels="ids")(saved(tmp_path, image))
    np.testing.assert_array_equal(by_value, IDS)


def test_tables_agree_with_looking_up_each_pixel(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (30, 3), np.uint8)
    ids = rng.integers(0, 30, SIZE)
    table = ColourTable({(int(r), int(g), int(b)): i for i, (r, g, b) in enumerate(colours)}, "")
    np.testing.assert_array_equal(table(saved(tmp_path, colours[ids])), ids)
    values = rng.permutation(65536)[:30].astype(np.uint16)
    table = IdTable({int(value): i for i, value in enumerate(values)}, "")
    np.testing.assert_array_equal(table(saved(tmp_path, values[ids])), ids)
