import contextlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from datasets import shapes
from datasets.coco import CocoDetection
from datasets.shapes import CATEGORIES, STUFF, THINGS, draw_sample, draw_scene, write_shapes


def scenes(count, size=96):
    for seed in range(count):
        yield draw_scene(np.random.default_rng(seed), size)


def things_of(segments):
    return [segment for segment in segments if segment.category_id <= len(THINGS)]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "set"
    assert write_shapes(out, train=12, val=5, seed=4)
    return out


@pytest.fixture
def painted(monkeypatch):
    """What draw_scene laid on its canvas: (depth map, side, colour) of each object, in painting order."""
    laid, paint = [], shapes.paint_object

    def record(rng, canvas, depth, color, side, unit):
        laid.append((depth, side, color))
        return paint(rng, canvas, depth, color, side, unit)

    monkeypatch.setattr(shapes, "paint_object", record)
    return laid


# --- pictures


def test_masks_are_disjoint_and_fill_the_picture():
    for image, segments in scenes(20):
        assert image.size == (96, 96) and image.mode == "RGB"
        assert (np.sum([segment.mask for segment in segments], axis=0) == 1).all()
        assert all(segment.mask.any() for segment in segments)


def test_one_to_four_objects_of_every_class_on_every_ground():
    drawn = [segments for _, segments in scenes(80)]
    assert {len(things_of(segments)) for segments in drawn} == {1, 2, 3, 4}
    assert {segment.category_id for segments in drawn for segment in segments} == {c["id"] for c in CATEGORIES}
    assert len(THINGS) >= 3 and len(STUFF) >= 2
    regions = [len(segments) - len(things_of(segments)) for segments in drawn]
    assert regions.count(2) > regions.count(1) > 0


@pytest.mark.parametrize("size", [48, 96])
def test_sides_grow_with_the_picture(painted, size):
    list(scenes(60, size))
    sides = np.array([side for _, side, _ in painted]) * 96 / size
    assert 16 <= sides.min() < 19 and 40 < sides.max() <= 44


def test_objects_overlap_but_none_is_mostly_hidden(painted):
    covered = 0
    for _, segments in scenes(60):
        for thing, (depth, _, _) in zip(things_of(segments), painted, strict=True):
            visible = thing.mask.sum() / (depth >= 0).sum()
            assert visible >= 0.5
            covered += visible < 1
        painted.clear()
    assert covered > 20


def test_objects_stand_out_from_each_other(painted):
    for _ in scenes(40):
        colors = np.array([color for _, _, color in painted])
        apart = np.linalg.norm(colors[:, None] - colors, axis=2)[~np.eye(len(colors), dtype=bool)]
        assert (apart > 0.35).all()
        painted.clear()


def test_colour_does_not_tell_the_class(painted):
    ids = [thing.category_id for _, segments in scenes(100) for thing in things_of(segments)]
    colors = np.array([color for _, _, color in painted])
    means = np.array([colors[np.array(ids) == category["id"]].mean(axis=0) for category in THINGS])
    assert np.abs(means - colors.mean(axis=0)).max() < 0.1
    assert colors.std(axis=0).min() > 0.2


@pytest.mark.parametrize(("name", "filling"), [("circle", np.pi / 4), ("square", 1.0), ("triangle", 3**0.5 / 4)])
def test_outlines_have_their_areas(name, filling):
    y, x = np.mgrid[-50:50, -50:50] + 0.5
    for angle in (0.0, 0.4, 2.0):
        assert (shapes.signed_distance(name, x, y, 60.0, angle) >= 0).sum() == pytest.approx(filling * 60**2, rel=0.02)


def test_rotation_turns_the_outline():
    y, x = np.mgrid[-50:50, -50:50] + 0.5
    straight, turned = (shapes.signed_distance("square", x, y, 40.0, angle) >= 0 for angle in (0.0, np.pi / 4))
    assert straight.any(axis=0).sum() == 40
    assert turned.any(axis=0).sum() == pytest.approx(40 * 2**0.5, abs=2)


# --- files


@pytest.mark.parametrize("split", ["train", "val"])
def test_instances_agree_with_their_masks(data, split):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(data / "annotations" / f"instances_{split}2017.json")
    assert len(coco.imgs) == {"train": 12, "val": 5}[split]
    assert [category["name"] for category in coco.dataset["categories"]] == ["circle", "square", "triangle"]
    assert {annotation["image_id"] for annotation in coco.anns.values()} == set(coco.imgs)
    assert 0 not in coco.anns  # pycocotools takes id 0 for "unmatched"
    for annotation in coco.anns.values():
        mask, segmentation = coco.annToMask(annotation), annotation["segmentation"]
        assert isinstance(segmentation["counts"], str) and mask.shape == (96, 96)
        assert annotation["area"] == mask.sum() == coco_mask.area(segmentation)
        assert annotation["bbox"] == coco_mask.toBbox(segmentation).tolist()
        assert annotation["iscrowd"] == 0
    for image in coco.imgs.values():
        with Image.open(data / f"{split}2017" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) and picture.mode == "RGB"


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_maps_agree_with_their_segments(data, split):
    panoptic = json.loads((data / "annotations" / f"panoptic_{split}2017.json").read_text())
    instances = json.loads((data / "annotations" / f"instances_{split}2017.json").read_text())
    isthing = {category["id"]: category["isthing"] for category in panoptic["categories"]}
    colors = {category["id"]: np.array(category["color"]) for category in panoptic["categories"]}
    assert len({tuple(category["color"]) for category in panoptic["categories"]}) == len(isthing) == 6
    for record in panoptic["annotations"]:
        rgb = np.asarray(Image.open(data / f"panoptic_{split}2017" / record["file_name"])).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        segments = record["segments_info"]
        assert sorted(segment["id"] for segment in segments) == np.unique(ids).tolist()
        for segment in segments:
            mask = ids == segment["id"]
            rows, columns = np.nonzero(mask)
            x, y, width, height = segment["bbox"]
            assert segment["area"] == mask.sum() and segment["iscrowd"] == 0
            assert np.abs(rgb[mask][0] - colors[segment["category_id"]]).max() <= 40  # a map to be looked at
            assert (x, y, x + width - 1, y + height - 1) == (columns.min(), rows.min(), columns.max(), rows.max())
        objects = [a for a in instances["annotations"] if a["image_id"] == record["image_id"]]
        things = [segment for segment in segments if isthing[segment["category_id"]]]
        for annotation, thing in zip(objects, things, strict=True):
            assert annotation["category_id"] == thing["category_id"]
            assert (coco_mask.decode(annotation["segmentation"]) == (ids == thing["id"])).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_sample_in_memory_equals_the_one_from_files(data, split):
    files = CocoDetection(data / f"{split}2017", data / "annotations" / f"instances_{split}2017.json", None, True)
    assert len(files) == {"train": 12, "val": 5}[split]
    for index, (image, target) in enumerate(files):
        drawn, own = draw_sample(index, split=split, seed=4)
        assert drawn.mode == "RGB" and (np.asarray(drawn) == np.asarray(image)).all()
        assert own.keys() == target.keys() and {"boxes", "labels", "masks", "area", "size"} < own.keys()
        assert (own.pop("annotation_id") == -1).all()
        for name, value in own.items():
            assert value.dtype == target[name].dtype and torch.equal(value, target[name]), name


def test_a_sample_has_the_size_asked_for():
    image, target = draw_sample(2, size=48)
    assert image.size == (48, 48) and target["masks"].shape[1:] == (48, 48) and target["size"].tolist() == [48, 48]


@pytest.mark.parametrize("wrong", [{"index": -1}, {"split": "test"}, {"size": 31}, {"seed": -1}])
def test_a_sample_that_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValueError, match="-1|'test'|31"):
        draw_sample(**{"index": 0, **wrong})


def test_segment_ids_never_meet_in_a_picture():
    ids = [shapes._segment_id(category["id"], number) for category in CATEGORIES for number in range(6)]
    assert len(set(ids)) == len(ids) and min(ids) > 0


def test_same_seed_same_bytes(data, tmp_path):
    write_shapes(tmp_path / "again", train=12, val=5, seed=4)
    assert contents(tmp_path / "again") == contents(data)


def test_an_image_depends_only_on_seed_split_and_number(data, tmp_path):
    write_shapes(tmp_path / "smaller", train=3, val=2, seed=4)
    write_shapes(tmp_path / "other", train=3, val=2, seed=5)
    smaller, whole, other = contents(tmp_path / "smaller"), contents(data), contents(tmp_path / "other")
    pictures = [name for name in smaller if name.endswith(".png")]
    assert len(pictures) == 10
    for name in pictures:
        assert smaller[name] == whole[name] != other[name]


def test_validation_images_are_not_training_images(data):
    train, val = contents(data / "train2017"), contents(data / "val2017")
    assert not set(train) & set(val) and not set(train.values()) & set(val.values())
    assert len(set(train.values())) == 12


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    draw, drawn = shapes.draw_scene, []

    def interrupted(rng, size):
        drawn.append(size)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(rng, size)

    monkeypatch.setattr(shapes, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "set", train=5, val=1)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_only_when_complete(tmp_path, monkeypatch):
    draw, seen = shapes.draw_scene, []

    def watched(rng, size):
        seen.append((tmp_path / "set").exists())
        return draw(rng, size)

    monkeypatch.setattr(shapes, "draw_scene", watched)
    write_shapes(tmp_path / "set", train=2, val=1)
    assert seen == [False] * 3 and [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_same_set_is_not_written_again(tmp_path, monkeypatch):
    assert write_shapes(tmp_path / "set", train=1, val=1) is True
    monkeypatch.setattr(shapes, "draw_scene", None)  # drawing again would fail
    assert write_shapes(tmp_path / "set", train=1, val=1) is False


def test_another_set_or_foreign_files_are_rejected_and_kept(tmp_path):
    write_shapes(tmp_path / "set", train=1, val=1)
    before = contents(tmp_path / "set")
    with pytest.raises(FileExistsError, match="another folder, or delete"):
        write_shapes(tmp_path / "set", train=2, val=1)
    assert contents(tmp_path / "set") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="other than a shapes data set"):
        write_shapes(tmp_path / "mine", train=1, val=1)
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_shapes(tmp_path / "empty", train=1, val=1)
    assert write_shapes(tmp_path / "a" / "b", train=1, val=1)
    assert contents(tmp_path / "empty") == contents(tmp_path / "a" / "b")


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": -1}, {"size": 31}, {"seed": -1}])
def test_settings_that_are_too_small_are_rejected(tmp_path, wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"--{name} must be at least .*, got {value}"):
        write_shapes(tmp_path / "set", **{"train": 1, "val": 1, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_the_command_reports_what_it_wrote_and_rejects_in_one_sentence(tmp_path, capsys):
    command = [str(tmp_path / "set"), "--train", "2", "--val", "1", "--size", "48", "--seed", "7"]
    shapes.main(command)
    assert "wrote 2 training and 1 validation images of 48 pixels, seed 7" in capsys.readouterr().out
    assert Image.open(tmp_path / "set" / "train2017" / "000000000001.png").size == (48, 48)
    shapes.main(command)
    assert "already contains" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        shapes.main([*command, "--seed", "8"])
    assert stop.value.code == 2 and "delete this one first" in capsys.readouterr().err


def test_the_command_draws_500_validation_images_of_96_pixels_by_default():
    args = shapes.get_args_parser().parse_args(["out"])
    assert (args.val, args.size) == (500, 96) and args.train >= 1000
