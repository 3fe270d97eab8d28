from dataclasses import replace

import numpy as np
import pytest

from contracts.imagefiles import SIZE, picture, write_image
from contracts.tiny import tiny_data
from contracts.trees import sequence, write_classes
from lmanet.data.check import check_data
from lmanet.data.folder import scan_folder


def test_counts_and_shares_are_those_of_the_files(tmp_path):
    write_classes(tmp_path)
    ids = np.zeros(SIZE, np.uint8)
    ids[0, :12] = 1
    ids[1] = 255
    sequence(tmp_path, "a", ["1", "2", "3"], ["2"], label=ids)
    sequence(tmp_path, "b", ["1"], ["1"], label=ids)
    calls = []
    result = check_data(scan_folder(tmp_path, "all"), progress=lambda *call: calls.append(call))
    assert result.lengths == (3, 1)
    assert result.spacings_s == (0.04,)
    assert (result.found.images, result.found.labels, result.found.problems) == (4, 2, [])
    assert result.found.sizes == {SIZE: 4}
    assert result.found.pixels[255] == 2 * SIZE[1]
    pixels = (SIZE[0] - 1) * SIZE[1]
    np.testing.assert_allclose(result.shares, [1 - 12 / pixels, 12 / pixels, 0])
    assert calls[-1] == (4, 4) and len(calls) == 2


def test_every_damaged_file_is_told_beside_what_was_known(tmp_path):
    write_classes(tmp_path)
    sequence(tmp_path, "a", ["1", "2", "3"], ["1", "2", "3"])
    sequence(tmp_path, "b", ["1", "2"], ["1", "2"])
    (tmp_path / "images/a/2.png").write_bytes(b"")
    write_image(tmp_path / "images/a/3.png", picture(size=(5, 6)))
    write_image(tmp_path / "labels/b/1.png", np.full(SIZE, 77, np.uint8))
    write_image(tmp_path / "labels/b/2.png", picture())
    write_image(tmp_path / "labels/b/7.png", np.zeros(SIZE, np.uint8))
    data = scan_folder(tmp_path, "all")
    found = check_data(data, data.problems, threads=2).found
    expected = [
        "images/b/7.png or .jpg is missing",
        "images/a/2.png cannot be read",  # once, though the size of its label is compared with it too
        "images/a/3.png: height and width are 5×6",
        "labels/a/3.png: height and width are 12×16",
        "labels/b/1.png: label 77 in",
        "labels/b/2.png: colour (",
    ]
    assert len(found.problems) == len(expected)
    assert all(words in problem for words, problem in zip(expected, found.problems, strict=True))
    assert (found.images, found.labels) == (3, 1)


def test_any_data_set_is_checked_for_ids():
    data = tiny_data()
    label = data.sequences[1].labels[2].copy()
    label[:2, 5] = 3
    label[3, :5] = 9
    wrong = replace(data.sequences[1], labels=(*data.sequences[1].labels[:2], label))
    found = check_data(replace(data, sequences=(data.sequences[0], wrong))).found
    assert found.problems == [
        "s1, frame 002: label 3 in 2 pixels, 9 in 5 pixels, expected 0 to 2, or 255 for void"
    ]


def test_unlabelled_data_have_no_shares():
    data = tiny_data()
    bare = tuple(replace(sequence, labels=(None,) * 3) for sequence in data.sequences)
    assert np.isnan(check_data(replace(data, sequences=bare)).shares).all()


def test_an_interrupt_does_not_wait_for_the_rest():
    reads = []

    class Slow:
        name, frame_names, spacing_s, labelled = "slow", ("a",) * 10_000, 1.0, (False,) * 10_000

        def image(self, index):
            reads.append(index)
            return np.zeros((*SIZE, 3), np.uint8)

        def label(self, index):
            return None

    def interrupt(done, total):
        raise KeyboardInterrupt

    data = tiny_data(sequences=1)
    with pytest.raises(KeyboardInterrupt):
        check_data(replace(data, sequences=(*data.sequences, *[Slow()] * 50)), threads=1, progress=interrupt)
    assert len(reads) < 100_000
