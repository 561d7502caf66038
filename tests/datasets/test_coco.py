"""The COCO data set: its targets, masks, images and random choices, and building it from arguments."""

import json
import random
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import Subset

from datasets import build_dataset, get_coco_api_from_dataset
from datasets.coco import CocoDetection, ConvertCocoPolysToMask, build, convert_coco_poly_to_mask, make_coco_transforms
from datasets.fast.byte_image import ByteImage
from tests.helpers.coco_files import CATEGORIES, annotation, captured_warnings, write_coco


@pytest.fixture
def logged():
    with captured_warnings() as lines:
        yield lines


def dataset(tmp_path, annotations, transforms=None, return_masks=False, seed=0, **parts):
    return CocoDetection(*write_coco(tmp_path, annotations, **parts), transforms, return_masks, seed=seed)


# --- Targets ----------------------------------------------------------------------------------------------------------


def test_a_target_holds_the_published_entries(tmp_path, logged):
    image, target = dataset(tmp_path, [annotation(1, 2, [4, 5, 10, 12]), annotation(2, 2, [0, 0, 3, 3], area=5)])[1]
    assert image.mode == "RGB" and image.size == (40, 30)
    expected = {
        "boxes": torch.tensor([[4.0, 5, 14, 17], [0, 0, 3, 3]]),
        "labels": torch.tensor([7, 7]),
        "image_id": torch.tensor([2]),
        "area": torch.tensor([120.0, 5]),
        "iscrowd": torch.tensor([0, 0]),
        "annotation_id": torch.tensor([1, 2]),
        "orig_size": torch.tensor([30, 40]),
        "size": torch.tensor([30, 40]),
    }
    assert target.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(target[name], value) and target[name].dtype == value.dtype, name
    assert logged == []


def test_samples_come_in_the_order_of_image_ids_each_with_its_own_objects(tmp_path):
    data = dataset(tmp_path, [annotation(n, n % 3 + 1, [n, n, 5, 5]) for n in range(1, 8)])
    assert data.ids == [1, 2, 3]
    assert [data[i][1]["boxes"][:, 0].tolist() for i in range(3)] == [[3, 6], [1, 4, 7], [2, 5]]
    assert data[-1][1]["image_id"] == 3
    with pytest.raises(IndexError):
        data[3]


def test_crowds_are_omitted_from_targets_and_kept_for_evaluation(tmp_path):
    data = dataset(
        tmp_path,
        [annotation(1, 1, [4, 5, 10, 12], iscrowd=1), annotation(2, 1, [1, 1, 9, 9]), annotation(3, 2, [2, 2, 9, 9])],
    )
    assert data[0][1]["boxes"].tolist() == [[1, 1, 10, 10]]
    assert data[1][1]["boxes"].tolist() == [[2, 2, 11, 11]]
    assert len(data.coco.anns) == 3


def test_images_without_objects_are_kept(tmp_path):
    data = dataset(
        tmp_path, [annotation(1, 1, [4, 5, 10, 12], iscrowd=1)], transforms=make_coco_transforms("val", val_size=16)
    )
    assert len(data) == 3
    for _, target in data:
        assert target["boxes"].shape == (0, 4) and target["boxes"].dtype == torch.float32
        assert all(len(target[name]) == 0 for name in ("labels", "area", "iscrowd", "annotation_id"))


def test_targets_hold_the_keypoints_of_the_file(tmp_path):
    points = [5, 6, 2, 7, 8, 1]
    data = dataset(
        tmp_path, [annotation(1, 1, [4, 5, 10, 12], keypoints=points), annotation(2, 1, [0, 0, 0, 0], keypoints=points)]
    )
    assert data[0][1]["keypoints"].tolist() == [[[5, 6, 2], [7, 8, 1]]]


def test_categories_and_the_number_of_classes_come_from_the_file(tmp_path):
    data = dataset(tmp_path, [], categories=CATEGORIES[::-1])
    assert data.categories == [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert data.num_classes == 8


# --- Masks ------------------------------------------------------------------------------------------------------------


def test_polygons_and_both_kinds_of_rle_give_the_same_mask(tmp_path):
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[5:17, 4:14] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    compressed["counts"] = compressed["counts"].decode()
    column_runs = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.flatten(order="F"), 2])))
    plain = {"size": [30, 40], "counts": column_runs.tolist()}
    polygon = [[4, 5, 14, 5, 14, 17, 4, 17]]
    two_polygons = [[4, 5, 10, 5, 10, 17, 4, 17], [8, 5, 14, 5, 14, 17, 8, 17]]
    masks = convert_coco_poly_to_mask([polygon, compressed, plain, two_polygons, [], [[1, 2, 3, 4]]], 30, 40)
    assert masks.dtype == torch.bool
    for found in masks[:4]:
        assert torch.equal(found, torch.from_numpy(mask).bool())
    assert not masks[4:].any()
    assert convert_coco_poly_to_mask([], 30, 40).shape == (0, 30, 40)


def test_masks_belong_to_the_boxes_that_are_kept(tmp_path):
    boxes = [[4, 5, 10, 12], [3, 3, 0, 0], [20, 10, 8, 6]]
    data = dataset(tmp_path, [annotation(n, 1, box) for n, box in enumerate(boxes)], return_masks=True)
    target = data[0][1]
    assert target["masks"].shape == (2, 30, 40) and target["annotation_id"].tolist() == [0, 2]
    assert target["masks"].sum((1, 2)).tolist() == [120, 48]
    assert data[1][1]["masks"].shape == (0, 30, 40)


def test_a_missing_or_unusable_segmentation_is_rejected_by_annotation_id(tmp_path):
    with pytest.raises(ValueError, match="annotation 4 of image 1 has no segmentation"):
        dataset(tmp_path, [annotation(4, 1, [4, 5, 10, 12], segmentation=None)], return_masks=True)
    other_size = {"size": [10, 10], "counts": [100]}
    with pytest.raises(ValueError, match=r"annotation 4 of image 1 has a mask of \(h, w\) = \(10, 10\)"):
        dataset(tmp_path, [annotation(4, 1, [4, 5, 10, 12], segmentation=other_size)], return_masks=True)


def test_the_converter_makes_the_targets_of_the_data_set(tmp_path):
    annotations = [
        annotation(1, 2, [-4.25, 5.1, 10.7, 12.3]),
        annotation(2, 2, [3, 3, 9, 9], iscrowd=1),
        annotation(3, 2, [3, 3, 0, 9]),
        annotation(4, 2, [30.3, 20.2, 20, 20]),
    ]
    image, target = dataset(tmp_path, annotations, return_masks=True)[1]
    _, converted = ConvertCocoPolysToMask(return_masks=True)(image, {"image_id": 2, "annotations": annotations})
    assert converted.keys() == target.keys()
    assert all(torch.equal(converted[name], target[name]) for name in target)
    for bare in annotations:
        del bare["id"]
    _, unnamed = ConvertCocoPolysToMask()(image, {"image_id": 2, "annotations": annotations})
    assert unnamed["annotation_id"].tolist() == [-1, -1]
    _, without = ConvertCocoPolysToMask()(image, {"image_id": 2, "annotations": []})
    assert without["boxes"].shape == (0, 4) and "masks" not in without


# --- Images -----------------------------------------------------------------------------------------------------------


def test_the_data_set_turns_images_by_the_annotated_size(tmp_path):
    folder, ann_file = write_coco(tmp_path, [annotation(1, 1, [2, 3, 10, 30])], count=1, size=(40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "1.png").save(folder / "1.png", exif=exif)
    data = json.loads(ann_file.read_text())
    data["images"][0] |= {"width": 30, "height": 40}
    ann_file.write_text(json.dumps(data))
    image, target = CocoDetection(folder, ann_file, None, False)[0]
    assert image.size == (30, 40)
    assert target["orig_size"].tolist() == [40, 30]
    assert target["boxes"].tolist() == [[2, 3, 12, 33]]


def test_an_image_of_another_size_than_annotated_gives_one_warning(tmp_path, logged):
    folder, ann_file = write_coco(tmp_path, [annotation(1, 1, [2, 3, 4, 5])], count=2)
    for number in (1, 2):
        Image.new("RGB", (20, 15)).save(folder / f"{number}.png")
    data = CocoDetection(folder, ann_file, None, False)
    assert [data[0][1]["orig_size"].tolist(), data[1][1]["orig_size"].tolist()] == [[15, 20], [15, 20]]
    assert len(logged) == 1 and "1.png is 20x15 pixels" in logged[0] and "40x30" in logged[0]


def test_images_without_an_annotated_size_are_read_as_stored(tmp_path, logged):
    data = dataset(tmp_path, [annotation(1, 1, [-5, 0, 100, 10])])
    for image in data.coco.imgs.values():
        del image["width"], image["height"]
    ann_file = tmp_path / "plain.json"
    ann_file.write_text(json.dumps(data.coco.dataset))
    logged.clear()
    data = CocoDetection(tmp_path / "images", ann_file, None, False)
    assert data[0][1]["boxes"].tolist() == [[0, 0, 40, 10]]
    assert len(logged) == 1  # the negative corner


def test_a_missing_or_damaged_image_is_named(tmp_path):
    data = dataset(tmp_path, [])
    folder = tmp_path / "images"
    intact = (folder / "2.png").read_bytes()
    (folder / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png does not exist"):
        data[0]
    for content in (intact[: len(intact) // 2], b"", b"no image", intact[:40] + b"x" * 40):
        (folder / "2.png").write_bytes(content)
        with pytest.raises(OSError, match=r"2\.png cannot be read"):
            data[1]
    assert data[2][0].size == (40, 30)


# --- Randomness -------------------------------------------------------------------------------------------------------


def generator_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_a_sample_leaves_the_global_generators_alone(tmp_path):
    transforms = make_coco_transforms("train", train_sizes=(24, 32), max_size=60)
    data = dataset(tmp_path, [], transforms=transforms)
    before = generator_states()
    for index in range(3):
        data[index]
    assert generator_states() == before


def test_the_generators_are_restored_after_an_error_too(tmp_path):
    def fail(image, target):
        random.random(), torch.rand(1), np.random.rand()
        raise RuntimeError("broken transform")

    before = generator_states()
    with pytest.raises(RuntimeError, match="broken transform"):
        dataset(tmp_path, [], transforms=fail)[0]
    assert generator_states() == before


def draws(image, target):
    return (random.random(), torch.rand(1).item(), np.random.rand()), target


def test_draws_depend_only_on_seed_epoch_and_index(tmp_path):
    data = dataset(tmp_path, [], transforms=draws)
    first = [data[i][0] for i in range(3)]
    random.seed(5), torch.manual_seed(5), np.random.seed(5)
    assert [data[i][0] for i in (2, 0, 1)] == [first[i] for i in (2, 0, 1)]
    assert data[-1][0] == first[2]
    data.set_epoch(1)
    second = [data[i][0] for i in range(3)]
    other_seed = [dataset(tmp_path, [], transforms=draws, seed=1)[i][0] for i in range(3)]
    numbers = [number for sample in first + second + other_seed for number in sample]
    assert len(set(numbers)) == len(numbers)
    data.set_epoch(0)
    assert [data[i][0] for i in range(3)] == first


# --- Building from arguments ------------------------------------------------------------------------------------------


def published_layout(root, image_set="train"):
    folder, ann_file = write_coco(root / "made" / image_set, [annotation(1, 1, [4, 5, 10, 12])])
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    folder.rename(root / f"{image_set}2017")
    ann_file.rename(root / "annotations" / f"instances_{image_set}2017.json")
    return root


def test_the_published_flags_suffice_to_build_both_splits(tmp_path):
    for image_set in ("train", "val"):
        published_layout(tmp_path, image_set)
    args = Namespace(dataset_file="coco", coco_path=str(tmp_path), masks=False)
    train, val = build_dataset("train", args), build_dataset("val", args)
    assert len(train) == len(val) == 3
    assert val[0][0].shape == (3, 800, 1066)
    assert min(train[0][0].shape[1:]) >= 384


def test_our_flags_name_other_files_and_sizes(tmp_path):
    folder, ann_file = write_coco(tmp_path / "mine", [annotation(1, 1, [4, 5, 10, 12])])
    args = Namespace(coco_path=None, masks=True, val_ann=str(ann_file), val_images=str(folder), val_size=15, seed=3)
    data = build("val", args)
    image, target = data[0]
    assert image.shape == (3, 15, 20) and target["masks"].shape == (1, 15, 20)
    assert data.seed == 3
    args = Namespace(
        coco_path=None, masks=False, train_ann=str(ann_file), train_images=str(folder), train_sizes=[12], no_crop=True
    )
    assert {tuple(image.shape) for image, _ in build("train", args)} == {(3, 12, 16)}


def test_a_flag_overrides_one_part_of_the_layout(tmp_path):
    published_layout(tmp_path)
    _, other = write_coco(tmp_path / "other", [annotation(1, 1, [0, 0, 2, 2])])
    data = build("train", Namespace(coco_path=str(tmp_path), masks=False, train_ann=str(other)))
    assert data.coco.anns[1]["bbox"] == [0, 0, 2, 2]


def test_a_missing_path_names_the_flag_to_correct(tmp_path):
    published_layout(tmp_path)
    folder, ann_file = str(tmp_path / "train2017"), str(tmp_path / "annotations" / "instances_train2017.json")

    def refused(kind, match, image_set="train", **flags):
        with pytest.raises(kind, match=match):
            build(image_set, Namespace(**{"coco_path": None, "masks": False} | flags))

    refused(ValueError, "pass --coco_path, or --train_ann and --train_images")
    refused(ValueError, "pass --coco_path", train_images=folder)
    refused(FileNotFoundError, "--coco_path: there is no folder .*train2017", coco_path=str(tmp_path / "nowhere"))
    refused(FileNotFoundError, "--coco_path: there is no folder .*--val_images", "val", coco_path=str(tmp_path))
    refused(FileNotFoundError, "--train_ann: there is no file", train_ann=folder, train_images=folder)
    refused(FileNotFoundError, "--train_images: there is no folder", train_ann=ann_file, train_images=ann_file)
    refused(ValueError, "unknown image set 'test'", "test", coco_path=str(tmp_path))


def test_unknown_data_sets_are_rejected():
    with pytest.raises(ValueError, match="unknown --dataset_file 'voc'"):
        build_dataset("train", Namespace(dataset_file="voc"))


def test_the_coco_api_is_found_through_subsets(tmp_path):
    data = dataset(tmp_path, [])
    assert get_coco_api_from_dataset(Subset(Subset(data, [0, 1]), [0])) is data.coco
    with pytest.raises(TypeError, match="list has no COCO annotations"):
        get_coco_api_from_dataset([])


def test_training_reduces_a_very_thin_image_to_a_bounded_size_before_cropping(monkeypatch):
    sizes, resize = [], ByteImage.resize
    monkeypatch.setattr(
        ByteImage, "resize", lambda image, size, by: sizes.append(size[::-1]) or resize(image, size, by)
    )
    transforms = make_coco_transforms("train")
    random.seed(0)
    for _ in range(12):
        transforms(Image.new("RGB", (20000, 2)), {"boxes": torch.zeros(0, 4)})
    assert max(height * width for height, width in sizes) <= 6 * 60_000  # 400 x 4,000,000 in the published code
    assert {width for _, width in sizes} > {60_000, 1333}
