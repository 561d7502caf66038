"""Transforms move image, boxes, masks and keypoints together."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

import datasets.transforms as T
from datasets.coco import make_coco_transforms
from util.box_ops import box_cxcywh_to_xyxy

WIDTH, HEIGHT = 50, 37


def picture(width=WIDTH, height=HEIGHT):
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8))


def sample(boxes=((3, 4, 20, 30), (25, 10, 49, 36), (0, 0, 50, 37), (30, 2, 34, 6)), width=WIDTH, height=HEIGHT):
    """An image and a target whose masks fill their boxes; the other entries differ between the objects."""
    n = len(boxes)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(n, 4)
    masks = torch.zeros(n, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0:y1, x0:x1] = True
    target = {
        "boxes": boxes,
        "labels": torch.arange(10, 10 + n),
        "area": (boxes[:, 2:] - boxes[:, :2]).prod(1),
        "iscrowd": torch.arange(n) % 2,
        "annotation_id": torch.arange(800, 800 + n),
        "thin": torch.zeros(n, dtype=torch.bool),
        "masks": masks,
        "keypoints": torch.cat([boxes.reshape(n, 2, 2), torch.full((n, 2, 1), 2.0)], dim=-1),  # the corners
        "size": torch.tensor([height, width]),
        "orig_size": torch.tensor([height, width]),
    }
    return picture(width, height), target


def box_around(mask):
    ys, xs = torch.nonzero(mask, as_tuple=True)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


def assert_together(image, target, slack):
    """One row per object in every entry, masks of the image's size inside their boxes, and corners that agree."""
    width, height = image.size
    n = len(target["boxes"])
    assert target["size"].tolist() == [height, width]
    assert target["masks"].shape == (n, height, width) and target["masks"].dtype == torch.bool
    assert target["boxes"].dtype == torch.float32
    assert all(len(target[name]) == n for name in ("labels", "area", "iscrowd", "keypoints"))
    assert torch.equal(target["annotation_id"] - 800, target["labels"] - 10)
    for box, mask in zip(target["boxes"].tolist(), target["masks"]):
        assert box[0] < box[2] and box[1] < box[3]
        if mask.any():
            assert box_around(mask) == pytest.approx(box, abs=slack)
    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    torch.testing.assert_close(target["area"], sides.prod(1), rtol=1e-5, atol=1e-3)


def test_flipping_twice_gives_the_same_image_and_target():
    image, target = sample()
    twice_image, twice = T.hflip(*T.hflip(image, target))
    assert twice_image.tobytes() == image.tobytes()
    for name, value in target.items():
        assert torch.equal(twice[name], value), name


def test_flipped_boxes_mirror_and_keep_their_corners_in_order():
    image, target = sample([(0, 4, 20, 30), (30, 2, 50, 6)])
    flipped_image, flipped = T.hflip(image, target)
    assert flipped["boxes"].tolist() == [[30, 4, 50, 30], [0, 2, 20, 6]]
    assert not torch.signbit(flipped["boxes"]).any()  # no -0
    assert_together(flipped_image, flipped, slack=0)


@pytest.mark.parametrize(
    ("transform", "slack"),
    [
        (lambda i, t: T.crop(i, t, (5, 8, 20, 30)), 0),
        (lambda i, t: T.crop(i, t, (-4, -3, 50, 60)), 0),
        (lambda i, t: T.pad(i, t, (6, 9)), 0),
        (lambda i, t: T.resize(i, t, 74), 1),
        (lambda i, t: T.resize(i, t, 20, 24), 1),
        (lambda i, t: T.resize(i, t, (31, 64)), 1),
        (T.RandomCrop((20, 30)), 0),
        (T.RandomSizeCrop(15, 33), 0),
        (T.CenterCrop((21, 31)), 0),
        (T.CenterCrop((60, 70)), 0),
        (T.RandomHorizontalFlip(1.0), 0),
        (T.RandomResize([25, 60], 90), 1),
        (T.RandomPad(8), 0),
        (T.RandomSelect(T.RandomHorizontalFlip(1.0), T.RandomPad(3)), 0),
        (T.Compose([T.RandomResize([44]), T.RandomSizeCrop(20, 30), T.RandomHorizontalFlip(1.0)]), 1),
    ],
)
def test_boxes_stay_around_their_masks(transform, slack):
    for seed in range(5):
        random.seed(seed)
        torch.manual_seed(seed)
        assert_together(*transform(*sample()), slack=slack)


def test_keypoints_stay_at_their_boxes_corners():
    image, target = sample([(10, 8, 20, 16)])
    image, target = T.resize(*T.crop(image, target, (4, 6, 24, 30)), (60, 72))
    assert target["keypoints"][0, :, :2].flatten().tolist() == target["boxes"][0].tolist() == [8, 12, 28, 36]
    image, target = T.hflip(image, target)
    assert target["keypoints"][0].tolist() == [[52, 12, 2], [32, 36, 2]]


def test_a_transform_does_not_change_the_given_target():
    for transform in (
        T.RandomHorizontalFlip(1.0),
        T.RandomCrop((20, 30)),
        T.RandomResize([25]),
        T.RandomPad(8),
        T.Compose([T.ToTensor(), T.Normalize([0.5] * 3, [0.2] * 3)]),
    ):
        image, target = sample()
        before = {name: value.clone() for name, value in target.items()}
        transform(image, target)
        assert target.keys() == before.keys()
        assert all(torch.equal(target[name], before[name]) for name in before)


def test_crop_filters_every_entry_and_recomputes_area():
    image, target = T.crop(*sample(), (0, 0, 30, 22))
    assert image.size == (22, 30)
    assert target["labels"].tolist() == [10, 12]  # the other two are to the right of the region
    assert target["iscrowd"].tolist() == [0, 0]
    assert target["boxes"].tolist() == [[3, 4, 20, 30], [0, 0, 22, 30]]
    assert target["area"].tolist() == [17 * 26, 22 * 30]
    assert target["masks"].sum((1, 2)).tolist() == [17 * 26, 22 * 30]
    assert len(target["keypoints"]) == 2


def test_crop_keeps_a_sliver_whose_mask_has_no_pixel():
    image, target = sample([(3, 4, 20, 30)])
    target["boxes"] = torch.tensor([[3.0, 4, 20.5, 30]])
    _, cropped = T.crop(image, target, (0, 20, 30, 20))
    assert cropped["boxes"].tolist() == [[0, 4, 0.5, 30]]
    assert not cropped["masks"].any()


def test_crop_without_boxes_filters_by_the_masks():
    image, target = sample()
    del target["boxes"]
    _, cropped = T.crop(image, target, (0, 0, 30, 22))
    assert cropped["labels"].tolist() == [10, 12]


def test_a_target_without_objects_passes_through_everything():
    image, target = sample([])
    for transform in (
        T.RandomHorizontalFlip(1.0),
        T.RandomCrop((20, 30)),
        T.CenterCrop((60, 70)),
        T.RandomSizeCrop(10, 20),
        T.RandomResize([25]),
        T.RandomPad(8),
    ):
        assert_together(*transform(image, target), slack=0)
    tensor, target = T.Compose([T.ToTensor(), T.Normalize([0.5] * 3, [0.2] * 3)])(image, target)
    assert target["boxes"].shape == (0, 4)


def test_resize_and_pad_work_without_a_target():
    assert T.resize(picture(), None, (10, 20))[0].size == (10, 20)
    assert T.pad(picture(), None, (3, 4))[0].size == (WIDTH + 3, HEIGHT + 4)
    assert T.RandomResize([20])(picture())[1] is None
    assert T.Normalize([0.5] * 3, [0.2] * 3)(torch.zeros(3, 4, 5))[1] is None


def test_boxes_scale_by_the_ratio_of_the_rounded_sizes():
    image, target = T.resize(*sample([(0, 0, 50, 37)]), 22)
    assert image.size == (29, 22)  # 22 * 50 / 37 = 29.7, truncated
    torch.testing.assert_close(target["boxes"], torch.tensor([[0.0, 0, 29, 22]]))


@pytest.mark.parametrize(
    ("size", "short", "limit", "expected"),
    [
        ((1000, 200), 800, 1333, (267, 1335)),  # rounding the short side lets the long one exceed the limit
        ((500, 375), 480, 1333, (480, 640)),
        ((480, 640), 480, None, (640, 480)),
        ((333, 334), 800, 1333, (802, 800)),
        ((5000, 1), 480, 1333, (1, 1333)),  # the published rule gives a short side of 0
        ((1, 1333), 480, 1333, (1333, 1)),
        ((3, 20000), 800, 1333, (1333, 1)),
        ((2, 3), 800, 1, (1, 1)),
    ],
)
def test_resized_size_of_ordinary_and_extreme_shapes(size, short, limit, expected):
    assert T.get_size_with_aspect_ratio(size, short, limit) == expected


def published_size(width, height, size, max_size):
    """(h, w) as the published code computes it."""
    short, long = float(min(width, height)), float(max(width, height))
    if long / short * size > max_size:
        size = int(round(max_size * short / long))
    if (width <= height and width == size) or (height <= width and height == size):
        return height, width
    return (int(size * height / width), size) if width < height else (size, int(size * width / height))


@pytest.mark.parametrize(("size", "max_size"), [(800, 1333), (480, 1333), (64, 128), (96, 64), (2000, 800)])
def test_sizes_are_the_published_ones_wherever_the_short_side_keeps_a_pixel(size, max_size):
    for short in (1, 2, 3, 7, 40, 333, 480, 2999):
        for aspect in (1, 1.013, 4 / 3, 2, 3.7, 10, 50, max_size):
            long = int(short * aspect)
            for width, height in ((short, long), (long, short)):
                expected = published_size(width, height, size, max_size)
                assert T.get_size_with_aspect_ratio((width, height), size, max_size) == expected, (width, height)


@pytest.mark.parametrize("max_size", [64, 1333])
def test_no_shape_passes_the_limit_of_the_long_side_by_more_than_rounding(max_size):
    longest = 0
    for short in (1, 2, 3, 10, 77):
        for long in [short * n for n in (1, 2, 9, 40, 41, 42, 43, 60, 500, 880, 888, 1300, 1400, 2600, 5000, 10**6)]:
            high = T.get_size_with_aspect_ratio((short, long), 800, max_size)
            assert T.get_size_with_aspect_ratio((long, short), 800, max_size) == high[::-1]
            assert min(high) >= 1
            longest = max(longest, max(high))
    assert max_size < longest <= max_size * 4 / 3


def test_padding_is_black_and_at_the_right_and_bottom():
    image, target = T.pad(*sample(), (6, 9))
    pixels = np.asarray(image)
    assert (pixels[:HEIGHT, :WIDTH] == np.asarray(picture())).all()
    assert not pixels[HEIGHT:].any() and not pixels[:, WIDTH:].any()
    assert not target["masks"][:, HEIGHT:].any() and not target["masks"][:, :, WIDTH:].any()


def test_random_size_crop_keeps_a_side_shorter_than_its_minimum():
    image, _ = T.RandomSizeCrop(45, 60)(*sample())
    assert image.height == HEIGHT
    assert 45 <= image.width <= WIDTH


def test_random_size_crop_stays_between_its_sides():
    sizes = [T.RandomSizeCrop(10, 30)(*sample())[0].size for _ in range(60)]
    assert min(map(min, sizes)) >= 10 and max(map(max, sizes)) <= 30
    assert len(set(sizes)) > 20


def test_select_takes_the_first_with_the_given_probability():
    first, second = T.RandomResize([20]), T.RandomResize([30])
    for p, heights in ((1.0, {20}), (0.0, {30}), (0.5, {20, 30})):
        assert {T.RandomSelect(first, second, p)(*sample())[0].height for _ in range(20)} == heights


def test_random_erasing_changes_only_the_image():
    _, target = sample()
    erased, same = T.RandomErasing(p=1.0, value=7)(torch.zeros(3, 30, 30), target)
    assert (erased == 7).any()
    assert same is target


def test_normalised_boxes_are_fractions_of_the_images_own_size():
    image, target = sample()
    tensor, normalised = T.Compose([T.ToTensor(), T.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])])(image, target)
    back = box_cxcywh_to_xyxy(normalised["boxes"]) * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    torch.testing.assert_close(back, target["boxes"])
    expected = (np.asarray(image) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(tensor.permute(1, 2, 0), expected, rtol=1e-5, atol=1e-6)


def test_a_sliver_that_rounding_removes_is_dropped_from_every_entry():
    edge = torch.tensor(498.0)
    sliver = [torch.nextafter(edge, torch.tensor(0.0)).item(), 4, edge.item(), 30]  # what a crop may leave of an object
    image, target = T.resize(*sample(boxes=[(3, 4, 20, 30), sliver, (25, 10, 49, 36)], width=500), (517, 37))
    assert target["boxes"][1, 0] == target["boxes"][1, 2]
    _, normalised = T.Normalize([0] * 3, [1] * 3)(*T.ToTensor()(image, target))
    assert normalised["labels"].tolist() == [10, 12] and normalised["annotation_id"].tolist() == [800, 802]
    assert all(len(normalised[name]) == 2 for name in T.PER_OBJECT)
    assert len(target["boxes"]) == 3


def test_a_thin_box_keeps_its_side_of_0_in_everything_but_crops():
    image, target = sample(boxes=[(3, 4, 20, 30), (25, 10, 25, 36)])
    target["thin"][1] = True
    moved = T.resize(*T.pad(*T.hflip(image, target), (3, 2)), (70, 50))
    _, normalised = T.Normalize([0] * 3, [1] * 3)(*T.ToTensor()(*moved))
    assert normalised["boxes"][1, 2] == 0 and normalised["boxes"][1, 3] > 0
    assert all(len(normalised[name]) == 2 for name in T.PER_OBJECT)
    _, cropped = T.crop(image, target, (0, 0, HEIGHT, WIDTH))  # the published crop drops it
    assert all(len(cropped[name]) == 1 for name in T.PER_OBJECT)


def test_boxes_that_are_not_finite_are_kept_for_check_targets():
    _, target = sample()
    target["boxes"][1, 2] = float("nan")
    _, normalised = T.Normalize([0] * 3, [1] * 3)(torch.zeros(3, HEIGHT, WIDTH), target)
    assert len(normalised["boxes"]) == 4


def test_random_resize_rejects_an_empty_list():
    with pytest.raises(ValueError, match="at least one size"):
        T.RandomResize([])


def views(transforms, count=60):
    """(h, w) of the views that `transforms` makes of a 640x480 image, from a fixed stream."""
    random.seed(0)
    torch.manual_seed(0)
    target = {"boxes": torch.tensor([[100.0, 100, 300, 300]]), "labels": torch.tensor([1])}
    return [tuple(transforms(Image.new("RGB", (640, 480)), target)[0].shape[-2:]) for _ in range(count)]


def test_without_the_crop_branch_every_view_has_the_whole_images_ratio():
    sizes = views(make_coco_transforms("train", train_sizes=(24, 48), max_size=60, crop=False))
    assert set(sizes) == {(24, 32), (45, 60)}


def test_the_crop_branch_scales_with_the_largest_training_size():
    steps = make_coco_transforms("train", train_sizes=(48, 80), max_size=133).transforms[1].transforms2.transforms
    assert steps[0].sizes == [40, 50, 60]
    assert (steps[1].min_size, steps[1].max_size) == (38, 60)
    published = make_coco_transforms("train").transforms[1].transforms2.transforms
    assert published[0].sizes == [400, 500, 600]
    assert (published[1].min_size, published[1].max_size) == (384, 600)
    assert published[2].sizes == [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert published[2].max_size == 1333
    assert len(set(views(make_coco_transforms("train", train_sizes=(24, 48), max_size=60)))) > 10


def test_validation_only_resizes():
    assert set(views(make_coco_transforms("val", val_size=30), 3)) == {(30, 40)}
    assert make_coco_transforms("val").transforms[0].sizes == [800]


def test_an_unknown_image_set_is_rejected():
    with pytest.raises(ValueError, match="'test'"):
        make_coco_transforms("test")


def test_the_composition_prints_its_steps():
    assert repr(T.Compose([T.ToTensor(), T.ToTensor()])).count("ToTensor") == 2
