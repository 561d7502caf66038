"""Masks and panoptic maps on images: colours, legend, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from util.pictures import masks as mask_pictures
from util.pictures.boxes import INK, PAPER, color_of
from util.pictures.masks import FILL, VOID, draw_masks, draw_panoptic, muted, shades

GREY = (120, 120, 120)
RED, BLUE = (250, 20, 20), (20, 20, 250)


def plain(size: tuple[int, int] = (100, 80)) -> Image.Image:
    return Image.new("RGB", size, GREY)


def rectangle(size: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def mixed(color: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(round((1 - FILL) * below + FILL * above) for below, above in zip(GREY, color))


def segment(number: int, category: int, isthing: bool, name: str) -> dict:
    return {"id": number, "category_id": category, "isthing": isthing, "name": name, "area": 1}


@pytest.fixture
def legend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are drawn during a test."""
    written: list[str] = []
    monkeypatch.setattr(mask_pictures, "draw_text", lambda pen, xy, text, *more: written.append(text))
    return written


# --- instances


def test_a_mask_is_translucent_inside_and_has_a_crisp_border():
    mask = rectangle((100, 80), 30, 20, 70, 60)
    drawn = draw_masks(plain(), mask[None], [[0, 0, 5, 5]], [""], [RED], min_side=0)
    assert drawn.getpixel((50, 40)) == mixed(RED)
    assert drawn.getpixel((30, 40)) == INK and drawn.getpixel((32, 40)) == RED
    assert drawn.getpixel((29, 40)) == drawn.getpixel((90, 70)) == GREY


def test_the_best_mask_is_on_top():
    masks = np.stack([rectangle((100, 80), 10, 10, 60, 60), rectangle((100, 80), 10, 10, 90, 70)])
    drawn = draw_masks(plain(), masks, [[0, 0, 3, 3]] * 2, None, [RED, BLUE], min_side=0)
    red, blue = drawn.getpixel((30, 30)), drawn.getpixel((80, 65))
    assert red[0] > red[2] and blue == mixed(BLUE)
    assert drawn.getpixel((58, 40)) == RED  # its border is whole where the other goes on below it


def test_no_border_runs_along_the_edge_of_the_picture():
    mask = np.ones((80, 100), dtype=bool)
    drawn = draw_masks(plain(), mask[None], [[40, 40, 45, 45]], [""], [RED], min_side=0)
    assert drawn.getpixel((0, 30)) == drawn.getpixel((99, 30)) == drawn.getpixel((70, 0)) == mixed(RED)


def test_small_pictures_grow_with_their_masks():
    mask = rectangle((24, 20), 6, 5, 18, 15)
    drawn = draw_masks(plain((24, 20)), torch.from_numpy(mask)[None], [[6.0, 5, 18, 15]], [""], [RED])
    assert drawn.size == (24 * 20, 20 * 20)
    assert drawn.getpixel((240, 200)) == mixed(RED) and drawn.getpixel((40, 40)) == GREY


def test_an_empty_mask_and_no_masks_draw_nothing():
    assert draw_masks(plain(), np.zeros((0, 80, 100), bool), [], [], [], min_side=0).tobytes() == plain().tobytes()
    masks = np.stack([np.zeros((80, 100), bool)])
    drawn = draw_masks(plain(), masks, [[40, 40, 45, 45]], [""], [RED], min_side=0)
    assert drawn.getpixel((10, 10)) == GREY and drawn.getpixel((40, 42)) == RED


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"masks of shape \[1, 100, 80\] for an image of 100x80 pixels and 1 boxes"):
        draw_masks(plain(), np.zeros((1, 100, 80), bool), [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="and 2 boxes"):
        draw_masks(plain(), np.zeros((1, 80, 100), bool), [[0, 0, 1, 1]] * 2)


def test_many_masks_of_a_large_picture_take_little_memory():
    size = (1200, 1000)
    masks = np.stack([rectangle(size, 10 * i, 10 * i, 900 + 10 * i, 800 + 10 * i) for i in range(16)])
    tracemalloc.start()
    draw_masks(plain(size), masks, [[0, 0, 9, 9]] * 16, min_side=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 1200 * 1000  # bytes: masks in colour would take thrice, in floats twelve times as much


def test_instances_of_a_class_differ_and_the_first_has_its_colour():
    colors = shades([3, 5, 3, 3, 3, 3, 3])
    assert colors[0] == color_of(3) and colors[1] == color_of(5)
    assert len(set(colors)) == 7


# --- panoptic maps


def halves(size: tuple[int, int] = (100, 80)) -> np.ndarray:
    """Segment 1 on the left, 2 on the right."""
    ids = np.ones((size[1], size[0]), dtype=np.int32)
    ids[:, size[0] // 2 :] = 2
    return ids


def test_the_whole_image_is_shown_with_the_legend_below(legend):
    segments = [segment(1, 3, True, "cat"), segment(2, 8, False, "sky")]
    drawn = draw_panoptic(plain(), halves(), segments, min_side=0)
    assert drawn.width >= 100 and drawn.height > 80
    left, right, line = drawn.getpixel((20, 79)), drawn.getpixel((80, 79)), drawn.getpixel((50, 40))
    assert left != right and line == PAPER
    assert np.argmax(left) == np.argmax(color_of(3)) and np.argmax(right) == np.argmax(muted(color_of(8)))
    assert np.ptp(right) < np.ptp(left)  # stuff is muted
    assert legend == ["cat  50%", "sky  50%"]


def test_the_legend_groups_things_by_class_and_names_void(legend):
    ids = np.zeros((10, 100), dtype=np.int32)
    ids[:, :10], ids[:, 10:30], ids[:, 30:60], ids[:1, 60:62] = 1, 2, 3, 4
    segments = [segment(1, 3, True, "cat"), segment(2, 3, True, "cat"), segment(3, 8, False, "sky")]
    segments.append(segment(4, 9, True, "fly"))
    draw_panoptic(plain((100, 10)), ids, segments, min_side=0)
    assert legend == ["cat  ×2  30%", "fly  <1%", "sky  30%", "nothing  40%"]


def test_things_of_a_class_have_shades_and_void_is_dark():
    ids = halves()
    ids[60:] = 0
    segments = [segment(1, 3, True, "cat"), segment(2, 3, True, "cat")]
    drawn = draw_panoptic(plain(), ids, segments, min_side=0)
    assert drawn.getpixel((20, 30)) != drawn.getpixel((80, 30))
    assert max(drawn.getpixel((20, 75))) < GREY[0] and max(VOID) < GREY[0]


def test_a_map_without_segments_is_only_void(legend):
    drawn = draw_panoptic(plain(), np.zeros((80, 100), np.int32), [], min_side=0)
    assert legend == ["nothing  100%"] and len(set(drawn.crop((0, 0, 100, 80)).get_flattened_data())) == 1


@pytest.mark.parametrize("size", [(20, 300), (300, 20), (96, 96), (1, 1)])
def test_the_legend_fits_on_the_frame(size: tuple[int, int], monkeypatch):
    ends = []

    def note(pen, xy, text, color, letters):
        ends.append((xy[0] + mask_pictures.text_length(text, letters), xy[1] + letters / 2))

    monkeypatch.setattr(mask_pictures, "draw_text", note)
    segments = [segment(i + 1, i + 1, bool(i % 2), "a name that is very long " * 3) for i in range(9)]
    drawn = draw_panoptic(plain(size), np.ones(size[::-1], np.int32), segments)
    assert len(ends) == 9
    assert all(x <= drawn.width and y <= drawn.height for x, y in ends)


def test_small_maps_are_enlarged_smoothly(monkeypatch):
    """A slanted edge of a map enlarged eight times does not move in steps of eight pixels."""
    ids = np.fromfunction(lambda y, x: 1 + (x > 8 + y / 2), (48, 48)).astype(np.int32)
    drawn = draw_panoptic(plain((48, 48)), ids, [segment(1, 3, True, "cat"), segment(2, 8, False, "sky")])
    assert drawn.width == 8 * 48
    pixels = np.asarray(drawn)[40:340]  # [rows, columns, 3]
    ends = {int(np.flatnonzero((row == PAPER).all(axis=-1))[0]) for row in pixels}
    assert len({end % 8 for end in ends}) >= 6


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"a map of shape \[100, 80\] for an image of 100x80"):
        draw_panoptic(plain(), halves((80, 100)), [])
