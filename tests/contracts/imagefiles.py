"""What every data set of image files must say of files that are not as they should be."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from contracts.dataset import VideoDataContract
from lmanet.errors import DataError

SIZE = (12, 16)


def write_image(path, array, **options):
    """Write an image file: (H, W) or (H, W, 3), uint8 or uint16; RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "jpeg" if path.suffix == ".jpg" and array.dtype == np.uint8 else "png"
    Image.fromarray(array).save(path, format=kind, **options)


def picture(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def read_all(data):
    for sequence in data.sequences:
        for i in range(len(sequence.frame_names)):
            sequence.image(i)
            sequence.label(i)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path):
    path.write_text("not found")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)


class DiskDataContract(VideoDataContract):
    """A subclass gives `make` and `load`, and the places of a labelled frame that is not its sequence's first."""

    image: str
    label: str
    wrong_value: int | None
    """In a label; None where labels hold colours."""

    def make(self, root):
        raise NotImplementedError

    def load(self, root):
        raise NotImplementedError

    @pytest.fixture
    def data(self, tmp_path):
        self.make(tmp_path)
        return self.load(tmp_path)

    def refused(self, root, path, message):
        """The error of reading everything names the file and says more."""
        with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{message}"):
            read_all(self.load(root))

    @pytest.mark.parametrize("which", ["image", "label"])
    @pytest.mark.parametrize("damage", [truncate, write_text])
    def test_a_damaged_file_is_named(self, tmp_path, which, damage):
        self.make(tmp_path)
        path = tmp_path / getattr(self, which)
        damage(path)
        self.refused(tmp_path, path, "cannot be read as an image")

    def test_a_label_with_a_wrong_byte_is_named(self, tmp_path):
        self.make(tmp_path)
        flip_a_byte(tmp_path / self.label)
        self.refused(tmp_path, tmp_path / self.label, "cannot be read as an image")

    @pytest.mark.parametrize("which", ["image", "label"])
    def test_a_file_of_another_size_is_named(self, tmp_path, which):
        self.make(tmp_path)
        path = tmp_path / getattr(self, which)
        with Image.open(path) as file:
            array = np.array(file)
        write_image(path, array[:-1])
        self.refused(tmp_path, path, f"height and width are {SIZE[0] - 1}×{SIZE[1]}.*{SIZE[0]}×{SIZE[1]}")

    def test_an_image_of_floating_point_is_named(self, tmp_path):
        self.make(tmp_path)
        Image.fromarray(np.zeros(SIZE, np.float32)).save(tmp_path / self.image, format="tiff")
        self.refused(tmp_path, tmp_path / self.image, "expected 8 or 16 bits a channel")

    def test_an_animation_is_named(self, tmp_path):
        self.make(tmp_path)
        first, second = (Image.fromarray(picture(seed)) for seed in range(2))
        first.save(tmp_path / self.image, format="png", save_all=True, append_images=[second])
        self.refused(tmp_path, tmp_path / self.image, "holds 2 frames")

    def test_a_label_in_colours_is_named(self, tmp_path):
        if self.wrong_value is None:
            pytest.skip("these labels hold colours")
        self.make(tmp_path)
        write_image(tmp_path / self.label, picture())
        self.refused(
            tmp_path, tmp_path / self.label, r"colour \(\d+, \d+, \d+\) in 1 pixels.* more, expected"
        )

    def test_ids_of_16_bits_and_in_grey_colours_are_read(self, tmp_path):
        if self.wrong_value is None:
            pytest.skip("these labels hold colours")
        self.make(tmp_path)
        before = [sequence.label(-1) for sequence in self.load(tmp_path).sequences]
        with Image.open(tmp_path / self.label) as file:
            array = np.array(file)
        for same in (array.astype(np.uint16), np.dstack([array] * 3)):
            write_image(tmp_path / self.label, same)
            for sequence, label in zip(self.load(tmp_path).sequences, before, strict=True):
                np.testing.assert_array_equal(sequence.label(-1), label)

    def test_an_unknown_value_names_file_and_value(self, tmp_path):
        if self.wrong_value is None:
            pytest.skip("these labels hold colours")
        self.make(tmp_path)
        label = np.zeros(SIZE, np.uint8)
        label[2, 3:6] = self.wrong_value
        write_image(tmp_path / self.label, label)
        message = f"label {self.wrong_value} in 3 pixels, expected"
        self.refused(tmp_path, tmp_path / self.label, message)

    def test_a_palette_does_not_change_the_ids(self, tmp_path):
        if self.wrong_value is None:
            pytest.skip("these labels hold colours")
        self.make(tmp_path)
        before = [sequence.label(-1) for sequence in self.load(tmp_path).sequences]
        with Image.open(tmp_path / self.label) as file:
            array = np.array(file)
        image = Image.fromarray(array)
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        image.save(tmp_path / self.label)
        for sequence, label in zip(self.load(tmp_path).sequences, before, strict=True):
            np.testing.assert_array_equal(sequence.label(-1), label)

    def test_a_missing_image_is_named(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / self.image).unlink()
        with pytest.raises(DataError, match=re.escape(str(tmp_path / self.image))):
            self.load(tmp_path)

    def test_a_changed_file_changes_the_stamp(self, tmp_path):
        self.make(tmp_path)
        before = [sequence.stamp for sequence in self.load(tmp_path).sequences]
        assert [sequence.stamp for sequence in self.load(tmp_path).sequences] == before
        (tmp_path / self.label).touch()
        after = [sequence.stamp for sequence in self.load(tmp_path).sequences]
        assert sum(a != b for a, b in zip(after, before, strict=True)) == 1
