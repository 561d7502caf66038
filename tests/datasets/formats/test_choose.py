"""Which parts of `--data` a run uses."""

import shutil
from argparse import Namespace

import pytest

from datasets.formats.choose import choose_data
from tests.helpers.layouts import coco_layouts, yolo_layouts


def choose(root, **named):
    return choose_data(Namespace(**{"data": str(root), "eval": False, "eval_part": "val"} | named))


def first_image(part):
    return part.read()["images"][0]["id"]


def test_without_a_folder_nothing_is_chosen():
    assert choose_data(Namespace()) is None
    assert choose(root="") is None


def test_training_uses_two_parts_and_an_evaluation_one(tmp_path):
    root = coco_layouts.roboflow(tmp_path, (0, 1))
    chosen = choose(root)
    assert (first_image(chosen.train), first_image(chosen.val)) == (0, 3)
    chosen = choose(root, eval=True)
    assert chosen.train is None and first_image(chosen.val) == 3


def test_the_test_part_can_be_evaluated(tmp_path):
    chosen = choose(coco_layouts.roboflow(tmp_path, (0, 1)), eval=True, eval_part="test")
    assert first_image(chosen.val) == 6
    assert chosen.found.sentence().endswith(
        "test 3 images, 6 objects; 2 classes (ein Apfel, plum #2); not read: train, val"
    )


def test_a_folder_without_parts_is_evaluated_as_a_whole(tmp_path):
    chosen = choose(coco_layouts.label_studio(tmp_path, (0, 1)), eval=True)
    assert len(chosen.val.read()["images"]) == 6
    assert "all 6 images, 12 objects" in chosen.found.sentence()


def test_a_training_without_a_validation_part_is_told_how_to_get_one(tmp_path):
    root = coco_layouts.cvat(tmp_path, (0, 1))
    with pytest.raises(ValueError, match="CVAT COCO in .* has no val part.*one part.*--val_share 0.15"):
        choose(root)


def test_a_test_part_is_offered_where_there_is_no_validation_part(tmp_path):
    root = coco_layouts.roboflow(tmp_path, (0, 1))
    (root / "valid" / "_annotations.coco.json").unlink()
    with pytest.raises(ValueError, match=r"has no val part.*train and test.*--val_share.*--eval_part test"):
        choose(root)
    (root / "train" / "_annotations.coco.json").unlink()
    with pytest.raises(ValueError, match="has no train part, which training needs"):
        choose(root, eval_part="test")


def test_without_the_validation_part_that_a_data_file_states_a_share_can_be_held_out(tmp_path):
    root = yolo_layouts.roboflow(tmp_path)
    shutil.rmtree(root / "valid")
    with pytest.raises(
        ValueError, match=r"the val part.* cannot be used: .*data.yaml line 2.*; or pass --val_share 0.15"
    ):
        choose(root)
    with pytest.raises(ValueError, match="the val part, which evaluation needs, cannot be used"):
        choose(root, eval=True)  # never the training images in its place


def test_a_part_without_its_images_says_so(tmp_path):
    root = coco_layouts.published(tmp_path, (0, 1))
    for image in (root / "train2017").glob("*.png"):
        image.unlink()
    (root / "train2017").rmdir()
    assert first_image(choose(root, eval=True).val) == 3
    with pytest.raises(
        ValueError,
        match="the train part, which training needs, cannot be used: .* no folder below",
    ):
        choose(root)
