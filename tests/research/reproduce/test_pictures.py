from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.tiny import CLASSES, tiny_data
from lmanet.errors import DataError
from lmanet.methods.single_frame import SingleFrame
from lmanet.ops import local_attention
from lmanet.research.reproduce.attention import (
    Place,
    choose_places,
    draw_attention_maps,
    largest_region,
    weights_over_memory,
    whole_map,
)
from lmanet.research.reproduce.cells import Changes, MemoryTraining, Weights
from lmanet.research.reproduce.changes import count_changes, find_changes, pick
from lmanet.research.reproduce.data import DataConfig
from lmanet.session import Session
from lmanet.training.recipes import LMANetRecipe

DATA = tiny_data(sequences=2, frames=5)


def test_changes_are_counted():
    label = np.array([[0, 1, 2, 255, 1, 0]], np.uint8)
    single = np.array([[0, 0, 2, 0, 1, 1]], np.uint8)
    video = np.array([[0, 1, 1, 1, 1, 2]], np.uint8)
    # Pixel 1 made right, 2 made wrong, 3 void, 5 wrong before and after.
    assert count_changes(label, single, video) == (5, 3, 1, 1)


def test_the_most_changed_frame_of_each_run_is_picked():
    assert pick([1, 5, 2, 9, 0, 0, 3], 3) == [1, 3, 6]
    assert pick([4, 2], 4) == [0, 1]


def test_frames_with_changed_labels(model, tmp_path):
    weights = Weights("x", "0", "tiny-cells")
    data = DataConfig("synthetic:", "val")
    cell = Changes(data, weights, MemoryTraining(data, LMANetRecipe(), weights), parts=2)
    result = find_changes(cell, SingleFrame(model.backbone), model, DATA, tmp_path)
    counts = []
    for sequence in DATA.sequences:
        sessions = Session(SingleFrame(model.backbone)), Session(model)
        for i, image in enumerate(sequence.images):
            both = [session.step(image).labels for session in sessions]
            counts.append((sequence.name, f"{i:03d}", *count_changes(sequence.labels[i], *both)))
    assert [(one["sequence"], one["frame"], one["changed"]) for one in result["shown"]] == [
        (best[0], best[1], best[3])
        for best in (max(counts[:5], key=lambda c: c[3]), max(counts[5:], key=lambda c: c[3]))
    ]
    assert result["all"]["made_right"] == sum(count[4] for count in counts)
    assert result["all"]["changed"] > 0
    with Image.open(tmp_path / "changes.png") as picture:
        assert picture.width > 4 * 64 and picture.height > 2 * 48


def test_labels_are_needed_to_show_changes(model, tmp_path):
    blank = replace(DATA, sequences=tuple(replace(s, labels=(None,) * 5) for s in DATA.sequences))
    weights, data = Weights("x", "0", "tiny-cells"), DataConfig("synthetic:", "val")
    cell = Changes(data, weights, MemoryTraining(data, LMANetRecipe(), weights))
    with pytest.raises(DataError, match="no labelled frame"):
        find_changes(cell, SingleFrame(model.backbone), model, blank, tmp_path)


def test_the_largest_region_and_the_place_nearest_to_its_centre():
    mask = np.zeros((8, 9), bool)
    mask[1, 1:3] = True
    mask[4:7, 3:8] = True
    assert largest_region(mask) == (15, 5, 5)
    mask[5, 5] = False  # the centre itself does not belong to it
    size, row, column = largest_region(mask)
    assert size == 14 and mask[row, column] and abs(row - 5) + abs(column - 5) == 1
    assert largest_region(np.zeros((3, 3), bool)) == (0, 0, 0)


def test_places_are_of_labelled_frames_with_a_full_memory():
    places = choose_places(DATA, 2)
    assert [place.class_name for place in places] == ["car"]  # it has neither pedestrian nor sign
    place = places[0]
    assert place.frame >= 2
    sizes = [(s.labels[i] == 2).sum() for s in DATA.sequences for i in range(2, 5)]
    assert place.region_px == max(sizes)
    label = DATA.sequences[place.sequence].label(place.frame)
    assert label is not None and label[place.row, place.column] == 2
    assert choose_places(DATA, 5) == []


def test_weights_are_those_that_the_memory_is_read_with(model):
    images = [DATA.sequences[0].image(i) for i in range(3)]
    place = Place("car", 0, 2, 30, 3, 1)  # near the border: the window reaches beyond the map
    row, column = 30 // 4, 3 // 4
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features, _ = model.backbone.encode_any_size(batch)
        query, _ = model.key_value.query(features.fused[-1:])
        keys, values = model.key_value.memory(features.fused[:-1])
        for weights, window in zip(
            weights_over_memory(model, images, place), (5, whole_map((12, 16))), strict=True
        ):
            read = local_attention(query, keys[None], values[None], window=window)
            assert weights.shape == (2, 12, 16)
            by_hand = torch.einsum("shw,schw->c", torch.from_numpy(weights), values)
            torch.testing.assert_close(by_hand, read[0, :, row, column], rtol=1e-4, atol=1e-5)
        local, everywhere = weights_over_memory(model, images, place)
    assert (local[:, :, 5:] == 0).all() and (everywhere[:, :, 5:] > 0).any()


def test_attention_maps_are_drawn(model, tmp_path):
    result = draw_attention_maps(model, DATA, tmp_path)
    assert [cell["class_name"] for cell in result["cells"]] == ["car"]
    for picture in result["pictures"]:
        with Image.open(tmp_path / picture) as opened:
            assert np.asarray(opened.convert("RGB")).std() > 1
    skies = replace(DATA, classes=replace(CLASSES, names=("sky", "road", "van")))
    with pytest.raises(DataError, match="attention maps need one"):
        draw_attention_maps(model, skies, tmp_path)
