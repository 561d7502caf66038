import numpy as np
import pytest
import torch
from PIL import Image

from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from util.pictures import boxes
from util.pictures.boxes import (
    INK,
    PAPER,
    color_of,
    contact_sheet,
    denormalize,
    draw_boxes,
    ground_truth_beside_prediction,
    side_by_side,
)

GRAY, RED, BLUE = (128, 128, 128), (220, 30, 30), (30, 60, 220)


def gray(width=96, height=96):
    return Image.new("RGB", (width, height), GRAY)


def where(image, color):
    """[H, W], True where the image has exactly this colour."""
    return (np.asarray(image) == color).all(axis=-1)


def bounds(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max(), rows.max()


@pytest.fixture
def tags(monkeypatch):
    """Each text that was drawn: (text, x0, y0, x1, y1), the bounds of its ink in pixels of the image."""
    written, text_of = [], boxes.ImageDraw.ImageDraw.text

    def record(self, xy, text, *args, **kwargs):
        font = args[1]
        written.append((text, *self.textbbox(xy, text, font, anchor=kwargs.get("anchor"))))
        return text_of(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(boxes.ImageDraw.ImageDraw, "text", record)
    return written


# --- colours and tensors


def test_colours_are_distinct_and_stable():
    colors = np.array([color_of(i) for i in range(91)], dtype=float)
    apart = np.linalg.norm(colors[:, None] - colors, axis=2) + 1e3 * np.eye(91)
    assert apart[:20, :20].min() > 45 and apart.min() > 12
    assert [color_of(0), color_of(1), color_of(50)] == [(49, 152, 247), (210, 247, 49), (118, 214, 204)]
    assert all(isinstance(channel, int) and 0 <= channel <= 255 for i in range(300) for channel in color_of(i))


def test_denormalize_undoes_the_normalisation():
    rgb = np.random.RandomState(0).randint(0, 256, (7, 9, 3)).astype(np.uint8)
    tensor = torch.tensor(rgb).permute(2, 0, 1) / 255
    tensor = (tensor - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    assert (np.asarray(denormalize(tensor.requires_grad_(), IMAGENET_MEAN, IMAGENET_STD)) == rgb).all()


def test_denormalize_clips_and_refuses_batches():
    assert np.asarray(denormalize(torch.full((3, 2, 2), 100.0), IMAGENET_MEAN, IMAGENET_STD)).min() == 255
    with pytest.raises(ValueError, match=r"\[3, H, W\], got \[1, 3, 4, 4\]"):
        denormalize(torch.zeros(1, 3, 4, 4), IMAGENET_MEAN, IMAGENET_STD)


# --- boxes


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_boxes_are_drawn_at_their_coordinates(make):
    picture = draw_boxes(gray(), make([[10.0, 20.0, 50.0, 80.0]]), colors=[RED], min_side=0)
    assert picture.size == (96, 96)
    assert bounds(where(picture, RED)) == (10, 20, 50, 80)
    assert where(picture, GRAY)[30:70, 20:40].all()  # an outline, not a filling


def test_small_images_are_enlarged_by_an_integer_factor():
    picture = draw_boxes(gray(100, 96), [[10, 20, 50, 80]], colors=[RED], min_side=300)
    assert picture.size == (400, 384)
    assert bounds(where(picture, RED)) == (40, 80, 200, 320)
    assert draw_boxes(gray(500, 400), []).size == (500, 400)
    assert max(draw_boxes(gray(1000, 10), []).size) == 4000


def test_lines_and_letters_grow_with_the_picture(tags):
    heights, widths = [], []
    for side in (400, 2000):
        picture = draw_boxes(gray(side, side), [[side // 4, side // 4, side // 2, side // 2]], ["Hg"], [RED])
        widths.append(int(where(picture, RED)[side // 3, : side // 3].sum()))
        heights.append(tags[-1][4] - tags[-1][2])
    assert widths[0] >= 2 and 4 * widths[0] < widths[1] < 6 * widths[0]
    assert heights[0] >= 9 and 4 * heights[0] < heights[1] < 6 * heights[0]


def test_boxes_beyond_the_picture_are_clipped():
    picture = draw_boxes(gray(), [[-50.0, 30.0, 500.0, 60.0]], colors=[RED], min_side=0)
    assert bounds(where(picture, RED)) == (0, 30, 95, 60)
    assert where(picture, RED)[45, [0, 95]].all()  # closed at the edges of the picture
    draw_boxes(gray(), [[200.0, 200.0, 300.0, 300.0]], ["far away"])


@pytest.mark.parametrize("box", [[float("nan"), 0, 5, 5], [0, 0, float("inf"), 5], [30, 0, 10, 5], [0, 30, 5, 10]])
def test_boxes_that_cannot_be_drawn_are_named(box):
    with pytest.raises(ValueError, match="box 1 is"):
        draw_boxes(gray(), [[0, 0, 5, 5], box])


def test_lists_of_unequal_lengths_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="1 boxes with 2 labels and 1 colours"):
        draw_boxes(gray(), [[0, 0, 5, 5]], ["a", "b"])
    with pytest.raises(ValueError, match=r"shape \[n, 4\], got \[1, 5\]"):
        draw_boxes(gray(), [[0, 0, 5, 5, 1]])


def test_the_given_image_is_unchanged():
    for mode in ("RGB", "L", "RGBA", "P"):
        image = gray().convert(mode)
        before = image.tobytes()
        assert draw_boxes(image, [[1, 1, 90, 90]], ["x"], min_side=0).mode == "RGB"
        assert image.tobytes() == before and image.mode == mode


def test_without_boxes_the_image_is_unchanged():
    assert (np.asarray(draw_boxes(gray(), torch.zeros(0, 4), [], [], min_side=0)) == 128).all()


def test_earlier_boxes_are_drawn_on_top():
    box = [20, 20, 60, 60]
    assert where(draw_boxes(gray(), [box, box], colors=[RED, BLUE], min_side=0), RED).any()
    assert not where(draw_boxes(gray(), [box, box], colors=[RED, BLUE], min_side=0), BLUE).any()


# --- labels


@pytest.mark.parametrize("size", [(96, 96), (500, 60), (60, 500), (4000, 3000)])
def test_labels_never_leave_the_picture(tags, size):
    width, height = size
    boxes = [
        [0, 0, width, height],
        [-9, -9, 5, 5],
        [width - 4, 0, width, 4],
        [0, height - 3, 3, height],
        [width - 2, height - 2, width + 50, height + 50],
    ]
    names = ["short", "a name that goes on and on " * 20, "two\nlines", "élève Ω ж ש", "m" * 40]
    picture = draw_boxes(gray(*size), boxes, names)
    assert len(tags) == 5
    for text, x0, y0, x1, y1 in tags:
        assert 0 <= x0 and 0 <= y0 and x1 <= picture.width and y1 <= picture.height, text
    assert any(text.endswith("…") for text, *_ in tags) and all("\n" not in text for text, *_ in tags)


def test_a_label_is_above_its_box_or_where_there_is_space(tags):
    draw_boxes(gray(400, 400), [[100, 200, 300, 300]], ["above"])
    draw_boxes(gray(400, 400), [[100, 0, 300, 300]], ["inside"])
    draw_boxes(gray(400, 400), [[100, 0, 130, 40]], ["below"])
    above, inside, below = tags
    assert 180 < above[4] <= 200 and 100 <= above[1] < 110
    assert 0 <= inside[2] and inside[4] < 20 and 100 <= inside[1] < 110
    assert 40 <= below[2] < 50 and 100 <= below[1] < 110


def test_labels_of_one_box_do_not_cover_each_other(tags):
    draw_boxes(gray(400, 400), [[100, 100, 300, 300]] * 4, ["circle 99%", "square 98%", "triangle 97%", "star 96%"])
    for index, (_, ax0, ay0, ax1, ay1) in enumerate(tags):
        for _, bx0, by0, bx1, by1 in tags[:index]:
            assert ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0


def test_a_label_does_not_hide_a_small_box(tags):
    draw_boxes(gray(400, 400), [[100, 100, 300, 300], [100, 82, 112, 97]], ["large", "small"])
    _, _, y0, x0, _ = next(tag for tag in tags if tag[0] == "large")
    assert x0 > 112 or y0 > 97


@pytest.mark.parametrize(("color", "ink"), [((250, 250, 60), INK), ((60, 20, 120), PAPER)])
def test_text_contrasts_with_its_label(color, ink):
    picture = draw_boxes(gray(400, 400), [[100, 100, 300, 300]], ["MMMM"], [color])
    tag = np.asarray(picture)[80:98, 100:150].reshape(-1, 3)
    assert (tag == color).all(axis=1).any() and (tag == ink).all(axis=1).any()


def test_text_shrinks_to_half_at_most_if_labels_would_hide_the_image(tags):
    box, heights = [100, 500, 900, 900], []
    for count in (1, 10, 300):
        draw_boxes(gray(1000, 1000), [box] * count, ["a class of a name"] * count)
        heights.append(tags[-1][4] - tags[-1][2])
    assert heights[0] > heights[1] > heights[2] and heights[2] >= 0.4 * heights[0]


# --- arrangements


def test_side_by_side_keeps_the_pictures_and_writes_the_titles(tags):
    left, right = Image.new("RGB", (200, 150), RED), Image.new("RGB", (120, 180), BLUE)
    row = side_by_side([("left one", left), ("a title far too long for its picture", right)])
    assert where(row, RED).sum() == 200 * 150 and where(row, BLUE).sum() == 120 * 180
    assert bounds(where(row, RED))[2] < bounds(where(row, BLUE))[0]
    assert tags[0][0] == "left one" and tags[1][0].endswith("…") and tags[1][3] - tags[1][1] <= 120
    with pytest.raises(ValueError, match="at least one"):
        side_by_side([])


def test_a_contact_sheet_is_filled_row_by_row():
    images = [Image.new("RGB", (30, 20), color) for color in (RED, BLUE, GRAY)]
    sheet = contact_sheet(images, columns=2)
    red, blue, third = (bounds(where(sheet, color)) for color in (RED, BLUE, GRAY))
    assert red[1] == blue[1] < third[1] and red[0] == third[0] < blue[0]
    assert contact_sheet(images, columns=9).width < 4 * 40
    for images, columns in (([], 2), ([gray()], 0)):
        with pytest.raises(ValueError, match="needs at least 1 image and 1 column"):
            contact_sheet(images, columns)


def test_ground_truth_is_on_the_left_and_the_prediction_on_the_right(tags):
    picture = ground_truth_beside_prediction(
        gray(), [[10, 20, 40, 50]], ["square"], [[50, 60, 80, 90]], ["circle"], colors={"square": RED, "circle": BLUE}
    )
    assert picture.width > 2 * 384
    assert bounds(where(picture, RED))[2] < picture.width / 2 < bounds(where(picture, BLUE))[0]
    assert [text for text, *_ in tags] == ["square", "circle", "ground truth", "prediction"]


def test_the_best_prediction_is_on_top_and_scores_are_written(tags):
    boxes = [[20, 40, 60, 80]] * 2
    picture = ground_truth_beside_prediction(
        gray(),
        [],
        [],
        torch.tensor(boxes),
        ["poor", "good"],
        torch.tensor([0.2, 0.987]),
        colors={"poor": RED, "good": BLUE},
    )
    assert {"poor 20%", "good 99%"} <= {text for text, *_ in tags}
    frame = np.asarray(picture)[:, picture.width // 2 :]
    lines = {color: (frame[220:300] == color).all(axis=-1).sum() for color in (RED, BLUE)}  # no tags in these rows
    assert lines[BLUE] > 0 and lines[RED] == 0


def test_classes_have_one_colour_on_both_sides():
    picture = ground_truth_beside_prediction(gray(), [[10, 20, 40, 50]], ["b"], [[10, 20, 40, 50]], ["b"])
    left, right = np.split(np.asarray(picture)[:, : picture.width // 2 * 2], 2, axis=1)
    assert where(left, color_of(0)).any() and where(right, color_of(0)).any()
    picture = ground_truth_beside_prediction(gray(), [[10, 20, 40, 50]], ["a"], [[10, 20, 40, 50]], ["b"])
    assert where(picture, color_of(0)).any() and where(picture, color_of(1)).any()


def test_missing_colours_and_scores_are_refused():
    with pytest.raises(ValueError, match=r"`colors` lacks the classes \['b'\]"):
        ground_truth_beside_prediction(gray(), [], [], [[1, 1, 5, 5]], ["b"], colors={"a": RED})
    with pytest.raises(ValueError, match="1 predicted boxes with 1 names and 2 scores"):
        ground_truth_beside_prediction(gray(), [], [], [[1, 1, 5, 5]], ["b"], [0.5, 0.6])
