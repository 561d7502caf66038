"""The COCO panoptic data set: matching maps to images, its targets, and contradictions that are rejected."""

import json
import random
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from datasets import build_dataset, get_coco_api_from_dataset
from datasets.coco import make_coco_transforms
from datasets.coco_panoptic import CocoPanoptic, build
from datasets.loader import build_data_loader, fingerprint
from datasets.same_size import resized_sizes
from datasets.shapes import write_shapes
from datasets.targets import check_targets
from models.criterion import SetCriterion
from models.matcher import HungarianMatcher
from tests.helpers.coco_files import captured_warnings
from tests.helpers.panoptic_files import CATEGORIES, HEIGHT, SHARED, WIDTH, map_of, segment, write_panoptic
from training.diagnosis.worst_batch import objects_per_image, worst_batch
from util.box_ops import masks_to_boxes
from util.coco_names import COCO_NAMES, COCO_STUFF
from util.pictures.segment_png import encode_png

TOP, LEFT, WHOLE = slice(0, 10), slice(5, 20), slice(None)
SCENE = map_of((5, WHOLE, WHOLE), (70000, TOP, LEFT))
SEGMENTS = [segment(70000, area=150), segment(5, category_id=2, area=1050, iscrowd=1)]
LINE = map_of((9, slice(3, 4), slice(6, 16)), (11, slice(8, 28), slice(30, 31)), (12, slice(20, 21), slice(2, 3)))
LINES = [segment(9), segment(11, iscrowd=1), segment(12, category_id=2)]


def dataset(tmp_path, samples, transforms=None, return_masks=True, **parts):
    images, maps, ann_file = write_panoptic(tmp_path, samples, **parts)
    return CocoPanoptic(images, maps, ann_file, transforms, return_masks)


# --- Targets ----------------------------------------------------------------------------------------------------------


def test_a_target_holds_the_published_entries(tmp_path):
    image, target = dataset(tmp_path, {4: (SCENE, SEGMENTS)})[0]
    assert image.mode == "RGB" and image.size == (WIDTH, HEIGHT)
    masks = torch.from_numpy(np.stack([SCENE == 70000, SCENE == 5]))
    expected = {
        "boxes": torch.tensor([[5.0, 0, 19, 9], [0, 0, 39, 29]]),
        "labels": torch.tensor([7, 2]),
        "image_id": torch.tensor([4]),
        "area": torch.tensor([150.0, 1050]),
        "iscrowd": torch.tensor([0, 1]),
        "annotation_id": torch.tensor([70000, 5]),
        "orig_size": torch.tensor([HEIGHT, WIDTH]),
        "size": torch.tensor([HEIGHT, WIDTH]),
        "thin": torch.tensor([False, False]),
        "masks": masks,
    }
    assert target.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(target[name], value) and target[name].dtype == value.dtype, name
    assert torch.equal(target["boxes"], masks_to_boxes(masks))


def test_masks_are_optional_and_boxes_are_not(tmp_path):
    _, target = dataset(tmp_path, {4: (SCENE, SEGMENTS)}, return_masks=False)[0]
    assert "masks" not in target and target["boxes"].tolist()[0] == [5, 0, 19, 9]


def test_images_and_maps_are_matched_by_id_in_any_order(tmp_path):
    samples = {n: (map_of((n, slice(0, n), WHOLE)), [segment(n)]) for n in (3, 20, 7)}
    data = dataset(tmp_path, samples)
    assert data.ids == [3, 7, 20]
    for image, target in data:
        number = int(target["image_id"])
        assert target["annotation_id"].tolist() == [number] and target["masks"].sum() == number * WIDTH
        noise = np.random.RandomState(number).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(image), noise)
    assert [data.get_height_and_width(k) for k in range(3)] == [(HEIGHT, WIDTH)] * 3


def test_an_image_may_have_no_segments(tmp_path):
    data = dataset(tmp_path, {1: (map_of(), [])}, make_coco_transforms("train", train_sizes=[24], max_size=40))
    _, target = data[0]
    assert target["boxes"].shape == (0, 4) and target["masks"].shape[0] == 0 and target["masks"].dtype == torch.bool


def test_missing_areas_are_counted(tmp_path):
    with captured_warnings() as logged:
        data = dataset(tmp_path, {4: (SCENE, [segment(70000, area=None), segment(5, area=77)])})
    assert data[0][1]["area"].tolist() == [150, 77]
    assert len(logged) == 1 and "filled in missing areas of segments (1)" in logged[0]


def test_a_missing_size_is_that_of_the_map(tmp_path):
    data = dataset(tmp_path, {4: (SCENE, SEGMENTS)}, images=[{"id": 4, "file_name": "4.png"}])
    assert data.get_height_and_width(0) == (HEIGHT, WIDTH)
    assert data[0][1]["orig_size"].tolist() == [HEIGHT, WIDTH]


# --- Thin segments ----------------------------------------------------------------------------------------------------


def test_crowds_and_thin_segments_are_kept_with_the_published_boxes(tmp_path):
    _, target = dataset(tmp_path, {1: (LINE, LINES)})[0]
    assert target["boxes"].tolist() == [[6, 3, 15, 3], [30, 8, 30, 27], [2, 20, 2, 20]]
    assert target["thin"].tolist() == [True] * 3 and target["iscrowd"].tolist() == [0, 1, 0]


def loss_and_gradient(target):
    torch.manual_seed(0)
    logits = torch.randn(1, 6, 11, requires_grad=True)
    boxes = torch.randn(1, 6, 4, requires_grad=True)
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    criterion = SetCriterion(10, HungarianMatcher(1, 5, 2), weights, 0.1, ["labels", "boxes", "cardinality"])
    losses = criterion({"pred_logits": logits, "pred_boxes": boxes.sigmoid()}, [target])
    loss = sum(losses[name] * weight for name, weight in weights.items())
    loss.backward()
    return loss, boxes.grad


@pytest.mark.parametrize("image_set", ["train", "val"])
def test_thin_segments_can_be_trained_on(tmp_path, image_set):
    transforms = make_coco_transforms(image_set, train_sizes=[24], val_size=24, max_size=40, crop=False)
    _, target = dataset(tmp_path, {1: (LINE, LINES)}, transforms)[0]
    assert len(target["boxes"]) == len(target["masks"]) == 3
    assert (target["boxes"][:, 2:] == 0).any(dim=1).all()
    check_targets([target], 10)
    loss, gradient = loss_and_gradient(target)
    assert loss.isfinite() and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_a_crop_drops_segments_that_are_or_become_thin(tmp_path):
    transforms = make_coco_transforms("train", train_sizes=[24], max_size=40)
    data = dataset(tmp_path, {1: (LINE, LINES), 2: (SCENE, SEGMENTS)}, transforms)
    counts = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        for index in range(2):
            _, target = data[index]
            check_targets([target], 10)
            assert {len(target[name]) for name in ("boxes", "masks", "labels", "thin")} == {len(target["thin"])}
            counts.add((index, len(target["thin"])))
    assert {(0, 3), (0, 0), (1, 2)} <= counts


# --- The rest of the data set -----------------------------------------------------------------------------------------


def test_categories_include_isthing(tmp_path):
    data = dataset(tmp_path, {4: (SCENE, SEGMENTS)}, categories=[*CATEGORIES, {"id": 300, "isthing": False}])
    assert data.categories == [
        {"id": 2, "name": "sky", "isthing": 0},
        {"id": 7, "name": "dog", "isthing": 1},
        {"id": 300, "name": "300", "isthing": 0},
    ]
    assert data.num_classes == 301
    data.check_classes(8)
    with pytest.raises(ValueError, match="annotation 70000 of image 4 has category 7, .*: pass --num_classes 8"):
        data.check_classes(7)


def test_cocos_own_categories_have_the_published_250_classes(tmp_path):
    ids = [*COCO_NAMES, *COCO_STUFF]
    categories = [{"id": number, "name": str(number), "isthing": int(number in COCO_NAMES)} for number in ids]
    assert dataset(tmp_path / "all", {4: (map_of(), [])}, categories=categories).num_classes == 250
    assert dataset(tmp_path / "some", {4: (map_of(), [])}, categories=categories[:-1]).num_classes == 200


def draws(image, target):
    return (random.random(), torch.rand(1).item(), np.random.rand()), target


def test_draws_depend_only_on_seed_epoch_and_index(tmp_path):
    samples = {n: (SCENE, SEGMENTS) for n in (1, 2)}
    data = dataset(tmp_path, samples, draws)
    before = random.getstate(), torch.get_rng_state().tolist()
    first = [data[i][0] for i in range(2)]
    assert [data[i][0] for i in (1, 0)] == first[::-1]
    data.set_epoch(1)
    numbers = [number for sample in [*first, *(data[i][0] for i in range(2))] for number in sample]
    assert len(set(numbers)) == len(numbers)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before
    other = CocoPanoptic(tmp_path / "images", tmp_path / "maps", tmp_path / "panoptic.json", draws, seed=1)
    assert other[0][0] != first[0]


def test_a_bad_image_is_replaced_by_a_complete_sample(tmp_path):
    images, maps, ann_file = write_panoptic(tmp_path, {1: (SCENE, SEGMENTS), 2: (LINE, LINES), 3: (SCENE, SEGMENTS)})
    (images / "1.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"1\.png cannot be read"):
        CocoPanoptic(images, maps, ann_file)[0]
    data = CocoPanoptic(images, maps, ann_file, skip_bad_images=True, max_bad_images=1)
    with captured_warnings():
        assert data[0][1]["image_id"] == 2 and data[0][1]["annotation_id"].tolist() == [9, 11, 12]
    assert data.bad_images == [str(images / "1.png")]


def test_batches_hold_bool_masks_also_through_workers(tmp_path):
    samples = {n: (SCENE, SEGMENTS) if n % 2 else (LINE, LINES) for n in range(1, 5)}
    data = dataset(tmp_path, samples, make_coco_transforms("train", train_sizes=[20, 24], max_size=40))
    seen = {}
    for workers in (0, 2):
        loader = build_data_loader(data, 2, train=True, num_workers=workers)
        for batch, targets in loader:
            for target in targets:
                height, width = target["size"].tolist()
                assert target["masks"].dtype == torch.bool
                assert target["masks"].shape == (len(target["labels"]), height, width)
                assert height <= batch.tensors.shape[2] and width <= batch.tensors.shape[3]
                seen.setdefault(int(target["image_id"]), []).append(target)
    for alone, from_worker in seen.values():
        assert all(torch.equal(alone[name], from_worker[name]) for name in alone)


def test_functions_on_data_sets_accept_panoptic_ones(tmp_path):
    transforms = make_coco_transforms("train", train_sizes=[24], max_size=40, crop=False)
    data = dataset(tmp_path, {1: (SCENE, SEGMENTS), 2: (LINE, LINES)}, transforms)
    assert resized_sizes(Subset(data, [1]), 15, 100) == [(15, 20)]
    assert objects_per_image(data).tolist() == [2, 3]
    samples, targets = worst_batch(data, 1)
    assert samples.tensors.shape == (1, 3, 24, 32) and int(targets[0]["image_id"]) == 2
    assert sorted(get_coco_api_from_dataset(data).imgs) == [1, 2]


def test_the_fingerprint_changes_with_a_segments_annotation(tmp_path):
    def of(name, **fields):
        return fingerprint(dataset(tmp_path / name, {4: (SCENE, [segment(70000, **fields), SEGMENTS[1]])}))

    prints = [of("a"), of("b", category_id=2), of("c", iscrowd=1), of("d", area=151)]
    assert len(set(prints)) == 4
    assert of("e") == prints[0]


# --- Contradictions ---------------------------------------------------------------------------------------------------


def test_a_map_that_contradicts_image_or_json_is_rejected(tmp_path):
    def refused(name, ids, segments, sentence):
        data = dataset(tmp_path / name, {4: (SCENE, SEGMENTS)})
        (data.ann_folder / "map4.png").write_bytes(encode_png(ids))
        data = dataset_again(tmp_path / name, segments)
        with pytest.raises(ValueError, match=sentence):
            data[0]

    narrow = SCENE[:, :-1]
    refused("size", narrow, SEGMENTS, r"map4\.png is 39x30 pixels, but image 4 is 40x30")
    extra = np.where(SCENE == 5, 6, SCENE)
    refused("extra", extra, [SEGMENTS[0]], r"map4\.png has pixels of segment 6, which image 4 does not list")
    refused("absent", SCENE, [*SEGMENTS, segment(8)], r"map4\.png has no pixel of segment 8, which image 4 lists")


def dataset_again(folder, segments):
    ann_file = folder / "panoptic.json"
    content = json.loads(ann_file.read_text())
    content["annotations"][0]["segments_info"] = segments
    ann_file.write_text(json.dumps(content))
    return CocoPanoptic(folder / "images", folder / "maps", ann_file)


def test_missing_maps_are_reported_at_the_start(tmp_path):
    images, maps, ann_file = write_panoptic(tmp_path, {n: (SCENE, SEGMENTS) for n in (1, 2, 3)})
    (maps / "map2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 panoptic maps is missing \(.*map2.png\); .*map1.png. Check"):
        CocoPanoptic(images, maps, ann_file)


# --- Building from arguments ------------------------------------------------------------------------------------------


def arguments(**flags):
    return Namespace(**{"dataset_file": "coco_panoptic", "coco_path": None, "masks": True} | flags)


def test_the_published_flags_suffice_to_build_both_splits(tmp_path):
    write_shapes(tmp_path / "shapes", train=3, val=2, size=48, seed=3)
    root = str(tmp_path / "shapes")
    for args in (arguments(coco_path=root, coco_panoptic_path=root), arguments(coco_path=root)):
        train, val = build_dataset("train", args), build_dataset("val", args)
        assert (len(train), len(val), val.num_classes) == (3, 2, 7)
        image, target = val[0]
        assert image.shape == (3, 800, 800) and target["masks"].shape[1:] == (800, 800)
        assert target["masks"].any(0).all()  # the segments of shapes fill the image
        assert min(train[0][0].shape[1:]) >= 384


def test_our_flags_override_each_part(tmp_path):
    images, maps, ann_file = write_panoptic(tmp_path, {4: (SCENE, SEGMENTS)})
    named = {"val_images": str(images), "val_ann": str(ann_file), "val_panoptic": str(maps), "val_size": 15}
    image, target = build("val", arguments(masks=False, seed=3, **named))[0]
    assert image.shape == (3, 15, 20) and "masks" not in target
    with pytest.raises(ValueError, match="pass --coco_panoptic_path, or --val_panoptic, --val_ann and --val_images"):
        build("val", arguments(val_images=str(images)))
    with pytest.raises(FileNotFoundError, match="--val_panoptic: there is no folder .*nowhere"):
        build("val", arguments(**named | {"val_panoptic": str(tmp_path / "nowhere")}))
    with pytest.raises(
        FileNotFoundError, match="--coco_panoptic_path: there is no file .*panoptic_val2017.json; it must"
    ):
        build("val", arguments(val_images=str(images), coco_panoptic_path=str(tmp_path)))


@pytest.mark.skipif(not SHARED.exists(), reason="coco_panoptic100 is not here")
def test_the_real_data_is_read_as_annotated():
    root = str(SHARED)
    data = build("train", arguments(coco_path=root, coco_panoptic_path=root))
    assert len(data) == 100 and data.num_classes == 250 and len(data.categories) == 133
    assert objects_per_image(data).sum() == 1111
    data._transforms = None
    for index in (0, 50, data.ids.index(142)):
        _, target = data[index]
        counted = target["masks"].sum((1, 2)).float()
        assert torch.equal(target["area"], counted)
        assert not (target["masks"].sum(0) > 1).any()
    assert target["thin"].sum() == 1 and target["annotation_id"][target["thin"]].tolist() == [5467252]
    assert Image.open(SHARED / "train2017" / "000000000142.jpg").size == tuple(target["orig_size"].flip(0).tolist())
