"""The largest batch: training draws none that is larger, and can draw one of this size."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

import datasets.transforms as T
from datasets.augment.repeats import Repeats
from datasets.coco import CocoDetection, make_coco_transforms
from datasets.transforms import crop, get_size_with_aspect_ratio, resize
from tests.helpers.coco_files import annotation, write_coco
from training.diagnosis.worst_batch import crop_views, largest_size, objects_per_image, typical_batches, worst_batch

SIZES = [(40, 30), (30, 44), (60, 20), (33, 33)]  # (w, h) of the images below
BOXES = {1: 1, 2: 3, 3: 2, 4: 0}  # image id → objects


def dataset(folder, sizes=(24, 32, 40), max_size=64, crop=True, said=True) -> CocoDetection:
    """Four images of different shapes, with objects as in `BOXES` and many crowds in image 4."""
    objects = [(image, 0) for image, count in BOXES.items() for _ in range(count)] + [(4, 1)] * 5
    annotations = [annotation(n, image, [2, 2, 9, 9], iscrowd=crowd) for n, (image, crowd) in enumerate(objects, 1)]
    images = [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(SIZES, 1)]
    if not said:
        images = [{key: value for key, value in image.items() if key not in ("width", "height")} for image in images]
    pictures, ann_file = write_coco(folder, annotations, images=images)
    for number, (width, height) in enumerate(SIZES, 1):
        Image.new("RGB", (width, height), (9 * number, 80, 160)).save(pictures / f"{number}.png")
    return CocoDetection(
        pictures, ann_file, make_coco_transforms("train", train_sizes=sizes, max_size=max_size, crop=crop), False
    )


def drawn_sizes(data: CocoDetection, epochs: int) -> np.ndarray:
    """(h, w) of every view of some epochs, [views, 2]."""
    found = []
    for epoch in range(epochs):
        data.set_epoch(epoch)
        found += [data[i][0].shape[1:] for i in range(len(data))]
    return np.array(found)


@pytest.mark.parametrize("crop", [True, False])
def test_no_view_of_training_is_larger_than_the_bound(tmp_path, crop):
    data = dataset(tmp_path, crop=crop)
    height, width = worst_batch(data, 2)[0].tensors.shape[2:]
    views = drawn_sizes(data, 60)
    assert (views <= [height, width]).all()
    if crop:  # a crop of 19x30 pixels becomes 40x63, higher than any whole image
        assert (height, width) == (63, 63)
    else:  # without crops, the bound is reached
        assert views.max(axis=0).tolist() == [height, width]
    height, width = worst_batch(data, 1)[0].tensors.shape[2:]
    assert views.prod(axis=1).max() <= height * width


def test_without_crops_a_batch_is_as_high_as_the_tallest_and_as_wide_as_the_widest(tmp_path):
    # 30x44 → 40x58; 60x20 → limited to 64 → 63x21; the batch must hold both
    samples, _ = worst_batch(dataset(tmp_path, crop=False), 2)
    assert samples.tensors.shape == (2, 3, 58, 63)


def test_a_single_image_is_not_padded_so_its_area_decides(tmp_path):
    # 30x44 → 58x40 = 2320 pixels wins over 40x53, 21x63 and 40x40
    samples, _ = worst_batch(dataset(tmp_path, crop=False), 1)
    assert samples.tensors.shape == (1, 3, 58, 40)


@pytest.mark.parametrize(("size", "max_size"), [(40, 64), (40, 50), (160, 266), (96, 96)])
def test_crops_of_every_shape_are_within_the_bound_and_one_reaches_it(size, max_size):
    sides = (round(384 * size / 800), round(600 * size / 800))
    lengths = [sides[0], *range(sides[0] + 1, sides[1], 7), sides[1]]
    image = Image.new("L", (sides[1], sides[1]))
    reached = [
        resize(*crop(image, {}, (0, 0, height, width)), size, max_size)[0].size[::-1]
        for height in lengths
        for width in lengths
    ]
    height, width = largest_size(crop_views(sides, size, max_size), 2)
    assert max(h for h, _ in reached) <= height and max(w for _, w in reached) <= width
    if size * sides[1] / sides[0] <= max_size:  # without the limit, the longest and narrowest crop is the largest
        assert (height, width) == (max(h for h, _ in reached), max(w for _, w in reached))
    else:
        assert height == width and abs(height - max_size) <= 2


def test_the_published_sizes():
    # A portrait crop of 384x600 becomes 1250 high, which beats the 1066 of common images.
    crops = crop_views((384, 600), 800, 1333)
    assert largest_size(crops, 2) == (1250, 1250)
    assert largest_size([*crops, (800, 1066), (267, 1335)], 2) == (1250, 1335)
    assert largest_size(crops, 1) in ((1250, 800), (800, 1250))


def test_crops_of_very_thin_images_are_within_the_bound(tmp_path):
    data = dataset(tmp_path)
    data.coco.imgs[1].update(width=9000, height=2)
    Image.new("RGB", (9000, 2)).save(data.img_folder / "1.png")
    height, width = worst_batch(data, 2)[0].tensors.shape[2:]
    data._reader._sizes[0] = (9000, 2)
    views = np.array([data[0][0].shape[1:] for epoch in range(60) for _ in [data.set_epoch(epoch)]])
    assert (views <= [height, width]).all() and views[:, 0].min() == 1
    assert max(height, width) <= 64 * 4 / 3


def test_a_smaller_short_side_makes_neither_side_longer():
    generator = random.Random(1)
    for number in range(3000):
        shape = (generator.randint(1, 2000), generator.randint(1, 2000 if number % 3 else 3))
        large = get_size_with_aspect_ratio(shape, 800, 1333)
        small = get_size_with_aspect_ratio(shape, generator.choice(range(480, 800)), 1333)
        assert small[0] <= large[0] and small[1] <= large[1], shape


def test_the_images_with_the_most_objects_are_used_and_crowds_do_not_count(tmp_path):
    data = dataset(tmp_path)
    assert objects_per_image(data).tolist() == [1, 3, 2, 0]
    _, targets = worst_batch(data, 2)
    assert [int(target["image_id"]) for target in targets] == [2, 3]
    assert [len(target["labels"]) for target in targets] == [3, 2]


def test_the_images_are_stretched_with_their_boxes_and_normalised(tmp_path):
    samples, targets = worst_batch(dataset(tmp_path, crop=False), 4)
    assert not samples.mask.any()
    assert [target["size"].tolist() for target in targets] == [[58, 63]] * 4
    # image 2 is 30x44 with boxes of 9x9 pixels at (2, 2)
    assert targets[0]["boxes"][0].tolist() == pytest.approx([6.5 / 30, 6.5 / 44, 9 / 30, 9 / 44], abs=1e-5)
    red = samples.tensors[0, 0]
    assert red.min() == red.max() and red[0, 0].item() == pytest.approx((18 / 255 - 0.485) / 0.229, abs=1e-5)


def test_a_data_set_smaller_than_the_batch_gives_all_its_images(tmp_path):
    data = dataset(tmp_path)
    assert len(worst_batch(data, 9)[1]) == 4
    assert [len(targets) for _, targets in typical_batches(data, 9, 2)] == [4, 4]


def test_sizes_missing_in_the_annotations_are_read_from_the_files(tmp_path):
    said, unsaid = (worst_batch(dataset(tmp_path / str(said), said=said), 2)[0] for said in (True, False))
    assert said.tensors.shape == unsaid.tensors.shape


def test_typical_batches_are_drawn_by_the_seed_and_transformed_as_in_training(tmp_path):
    data = dataset(tmp_path)
    (one, other), again = typical_batches(data, 2, 2), typical_batches(data, 2, 2)
    assert torch.equal(one[0].tensors, again[0][0].tensors) and torch.equal(other[0].tensors, again[1][0].tensors)
    ids = {int(target["image_id"]) for _, targets in (one, other) for target in targets}
    assert ids == {1, 2, 3, 4}, "no image comes twice while there are others"
    orders = {tuple(int(t["image_id"]) for t in typical_batches(data, 4, 1, seed=seed)[0][1]) for seed in range(5)}
    assert len(orders) > 1
    image_id = int(one[1][0]["image_id"])
    assert torch.equal(one[0].tensors[0][:, ~one[0].mask[0]].flatten(), data[image_id - 1][0].flatten())


def test_data_set_and_generators_are_unchanged(tmp_path):
    data = dataset(tmp_path)
    transforms, before = data._transforms, data[0][0]
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    worst_batch(data, 2)
    typical_batches(data, 2, 1)
    assert data._transforms is transforms and torch.equal(data[0][0], before)
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    assert np.random.get_state()[1].tolist() == states[2]


def test_transforms_that_do_not_resize_are_rejected(tmp_path):
    data = dataset(tmp_path)
    data._transforms = None
    with pytest.raises(ValueError, match="do not resize"):
        worst_batch(data, 2)


def test_the_last_resize_decides_not_one_before_a_crop(tmp_path):
    data = dataset(tmp_path)
    data._transforms = T.Compose([T.RandomResize([20]), T.RandomSizeCrop(10, 15), T.RandomResize([40], 64)])
    # a crop of 10x15 pixels becomes 40x60; the whole 60x20 image would become 63x21
    assert worst_batch(data, 2)[0].tensors.shape[2:] == (60, 63)


def test_an_image_that_is_repeated_may_fill_the_largest_batch(tmp_path):
    rows = [annotation(n, 2, [5, 5, 20, 10]) for n in range(1, 6)]
    few = CocoDetection(*write_coco(tmp_path, rows), make_coco_transforms("train", train_sizes=(16,)), False)
    repeats = Repeats(np.array([1.0, 1.5, 1.0]))
    assert [int(t["image_id"]) for t in worst_batch(few, 3, repeats=repeats)[1]] == [2, 2, 1]
    assert [int(t["image_id"]) for t in worst_batch(few, 3)[1]] == [2, 1, 3]
