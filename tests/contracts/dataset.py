"""What every labelled video data set must keep; a data set's test inherits it and gives the fixture `data`."""

import numpy as np
import pytest

from lmanet.classes import VOID


def picked(sequence):
    """A few frames of a sequence: the first, one in the middle, the last."""
    count = len(sequence.frame_names)
    return sorted({0, count // 2, count - 1})


class VideoDataContract:
    @pytest.fixture
    def data(self):
        raise NotImplementedError("give the data set to be tested as the fixture `data`")

    def test_has_a_name_and_sequences(self, data):
        assert data.name
        assert len(data.sequences) > 0
        assert all(sequence.name for sequence in data.sequences)

    def test_classes_have_distinct_names_and_a_colour_each(self, data):
        classes = data.classes
        assert len(classes) == len(classes.names) == len(classes.palette)
        assert len(set(classes.names)) == len(classes)
        assert all(len(colour) == 3 and all(0 <= c <= 255 for c in colour) for colour in classes.palette)
        assert len(classes) <= VOID

    def test_sequence_names_are_unique(self, data):
        names = [sequence.name for sequence in data.sequences]
        assert len(set(names)) == len(names)

    def test_frame_names_are_unique_within_a_sequence(self, data):
        for sequence in data.sequences:
            assert len(sequence.frame_names) > 0
            assert len(set(sequence.frame_names)) == len(sequence.frame_names)

    def test_spacing_is_positive(self, data):
        for sequence in data.sequences:
            assert 0 < sequence.spacing_s < float("inf")

    def test_images_are_rgb_bytes(self, data):
        for sequence in data.sequences:
            for i in picked(sequence):
                image = sequence.image(i)
                assert image.dtype == np.uint8
                assert image.ndim == 3
                assert image.shape[2] == 3
                assert min(image.shape) > 0

    def test_labels_are_class_ids_or_void_and_as_large_as_the_image(self, data):
        labelled = 0
        for sequence in data.sequences:
            for i in picked(sequence):
                label = sequence.label(i)
                if label is None:
                    continue
                labelled += 1
                assert label.dtype == np.uint8
                assert label.shape == sequence.image(i).shape[:2]
                ids = np.unique(label)
                assert np.all((ids < len(data.classes)) | (ids == VOID))
        assert labelled > 0

    def test_labelled_says_which_frames_have_a_label(self, data):
        for sequence in data.sequences:
            assert len(sequence.labelled) == len(sequence.frame_names)
            for i in picked(sequence):
                assert sequence.labelled[i] == (sequence.label(i) is not None)

    def test_frames_of_a_sequence_have_one_size(self, data):
        for sequence in data.sequences:
            assert len({sequence.image(i).shape for i in picked(sequence)}) == 1

    def test_reading_again_and_in_another_order_gives_the_same(self, data):
        sequence = max(data.sequences, key=lambda s: len(s.frame_names))
        places = picked(sequence)
        first = [(sequence.image(i).copy(), sequence.label(i)) for i in places]
        first = [(image, None if label is None else label.copy()) for image, label in first]
        for i, (image, label) in reversed(list(zip(places, first, strict=True))):
            again = sequence.label(i)
            np.testing.assert_array_equal(sequence.image(i), image)
            assert (again is None) == (label is None)
            if label is not None:
                np.testing.assert_array_equal(again, label)

    def test_there_are_as_many_frames_as_names(self, data):
        sequence = data.sequences[0]
        with pytest.raises((IndexError, ValueError)):
            sequence.image(len(sequence.frame_names))
