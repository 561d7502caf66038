"""Recognising a data set's folder: each layout, and what is said where there is none or more than one."""

import errno
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from datasets.formats import find_data, tree
from tests.helpers.layouts import coco_layouts
from tests.helpers.layouts.coco_layouts import DIVIDED, LAYOUTS, UNDIVIDED, write_part

KINDS = {
    "published": "COCO",
    "roboflow": "Roboflow COCO",
    "cvat": "CVAT COCO",
    "cvat_default": "CVAT COCO",
    "cvat_subsets": "CVAT COCO",
    "label_studio": "Label Studio COCO",
    "beside": "COCO",
    "inside": "COCO",
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_is_read_with_the_names_of_its_files(tmp_path, layout):
    found = find_data(layout(tmp_path, (0, 1)))
    assert found.kind == KINDS.get(layout.__name__, found.kind)
    assert found.undivided == (layout in UNDIVIDED)
    assert {"train", "val"} <= set(found.parts) if layout in DIVIDED else set(found.parts) == {"train"}
    numbers = []
    for part in found.parts.values():
        data = part.read()
        assert all((part.images / image["file_name"]).is_file() for image in data["images"])
        numbers += [image["id"] for image in data["images"]]
        assert [(c["id"], c["name"]) for c in data["categories"]] == [(0, "ein Apfel"), (1, "plum #2")]
    assert sorted(numbers) == list(range(9 if layout is coco_layouts.roboflow else 6))


@pytest.mark.parametrize("layout", DIVIDED, ids=lambda layout: layout.__name__)
def test_parts_are_not_mixed_up(tmp_path, layout):
    parts = find_data(layout(tmp_path, (0, 1))).parts
    assert {name: parts[name].read()["images"][0]["id"] for name in ("train", "val")} == {"train": 0, "val": 3}


def test_the_sentence_counts_the_parts_that_were_read(tmp_path):
    found = find_data(coco_layouts.roboflow(tmp_path, (1, 2)))
    for name in ("train", "val"):
        found.parts[name].read()
    assert found.sentence() == (
        f"Roboflow COCO in {tmp_path}: train 3 images, 6 objects; val 3 images, 6 objects; "
        "2 classes (ein Apfel, plum #2); not read: test"
    )


def test_a_part_can_be_sent_to_a_worker(tmp_path):
    part = find_data(coco_layouts.label_studio_windows(tmp_path, (0, 1))).parts["train"]
    assert pickle.loads(pickle.dumps(part)).read() == part.read()


def test_a_folder_with_nothing_says_what_was_looked_for_and_what_was_found(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "notes.json").write_text(json.dumps({"categories": [], "info": {}}))
    with pytest.raises(
        ValueError, match=r"no data set is recognised in .*_annotations\.coco\.json.*1 \.png \(a\.png\)"
    ):
        find_data(tmp_path)


def test_a_missing_folder_and_a_file_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_data(tmp_path / "absent")
    for name, text in (("file", ""), ("data.yaml", "names: [cat]\n"), ("a.xml", "<annotation/>")):
        (tmp_path / name).write_text(text)
        with pytest.raises(NotADirectoryError, match=f"{name} is .*: pass the folder of the data set"):
            find_data(tmp_path / name)


def test_an_archive_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr("a.json", "{}")
    with pytest.raises(ValueError, match=r"1 \.zip \(cells\.zip\); unpack cells\.zip first"):
        find_data(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a ZIP archive: unpack it, and pass the folder"):
        find_data(tmp_path / "cells.zip")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("annotations.xml", "<?xml version='1.0'?>\n<annotations>\n<meta/>", "CVAT's own XML"),
        ("a.json", '{"version": "5.4.1", "shapes": [{"label": "a"}], "imagePath": "a.png"}', "LabelMe's format"),
        ("via.json", '{"a.png12": {"filename": "a.png", "regions": []}}', "VIA's own format"),
        ("task.json", '[{"id": 1, "annotations": [{"result": []}], "data": {}}]', "Label Studio's own JSON"),
        ("found.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]', "detections"),
        ("_annotations.createml.json", '[{"image": "a", "annotations": [{"coordinates": {}}]}]', "CreateML's format"),
        ("a.png.json", '{"objects": [{"classTitle": "a"}]}', "Supervisely's format"),
        ("default.json", '{"categories": {"label": {"labels": []}}, "items": []}', "Datumaro's own format"),
        ("_annotations.csv", "filename,width,height,class,xmin\na.png,1,1,a,1\n", "a table"),
        ("_annotations.txt", "a.png 1,1,20,20,0\n", "a list of images with their boxes"),
        ("metadata.jsonl", '{"file_name": "a.png", "objects": {}}\n', "JSON Lines"),
    ],
)
def test_the_form_of_another_tool_is_named_with_what_to_do(tmp_path, name, text, said):
    (tmp_path / "notes.txt").write_text("drawn in March\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name} is .*{said}.*which is not read: \w"):
        find_data(tmp_path)


def test_two_data_sets_are_two_candidates(tmp_path):
    coco_layouts.published(tmp_path, (0, 1))
    coco_layouts.roboflow(tmp_path / "export", (0, 1))
    with pytest.raises(ValueError, match=r"holds 2 data sets: COCO \(.*instances_train2017\.json\); Roboflow COCO"):
        find_data(tmp_path)


def test_two_files_of_one_part_are_named(tmp_path):
    write_part(tmp_path / "images", tmp_path / "old_train.json", (0, 1))
    write_part(tmp_path / "images", tmp_path / "new_train.json", (0, 1))
    with pytest.raises(ValueError, match=r"new_train\.json, old_train\.json.*--train_ann"):
        find_data(tmp_path)


def test_the_other_tasks_of_the_published_layout_are_no_candidates(tmp_path):
    root = coco_layouts.published(tmp_path, (0, 1))
    content = (root / "annotations/instances_train2017.json").read_text()
    for other in ("captions_train2017", "person_keypoints_val2017", "image_info_test2017"):
        (root / f"annotations/{other}.json").write_text(content)
    assert set(find_data(root).parts) == {"train", "val"}


def test_a_folder_around_the_data_set_is_looked_into(tmp_path):
    coco_layouts.roboflow(tmp_path / "download" / "cells.v1", (0, 1))
    found = find_data(tmp_path)
    assert found.root == tmp_path / "download" / "cells.v1"
    assert set(found.parts) == {"train", "val", "test"}


def test_images_that_no_folder_holds_are_named(tmp_path):
    write_part(tmp_path / "images", tmp_path / "labels.json", (0, 1), names=lambda name: f"other {name}")
    with pytest.raises(ValueError, match="lists images such as 'other cell 000.png', but no folder"):
        find_data(tmp_path)


def test_a_part_whose_images_are_absent_does_not_spoil_the_others(tmp_path):
    for layout, folder in ((coco_layouts.published, "train2017"), (coco_layouts.roboflow, "train")):
        root = layout(tmp_path / layout.__name__, (0, 1))
        for image in (root / folder).glob("*.png"):
            image.unlink()
        if layout is coco_layouts.published:
            (root / folder).rmdir()
        found = find_data(root)
        assert "train" not in found.parts and "val" in found.parts
        assert "'cell 000.png', but no folder" in found.unusable["train"]


def test_images_of_another_part_are_not_taken_for_those_that_are_absent(tmp_path):
    for part in ("train", "val"):
        write_part(tmp_path / "pictures" / part, tmp_path / f"{part}.json", (0, 1))
    shutil.rmtree(tmp_path / "pictures" / "train")
    found = find_data(tmp_path)
    assert set(found.parts) == {"val"} and "train.json lists images" in found.unusable["train"]


def test_the_published_files_may_have_their_images_elsewhere(tmp_path):
    root = coco_layouts.published(tmp_path, (0, 1))
    (root / "images").mkdir()
    for part in ("train", "val"):
        (root / f"{part}2017").rename(root / "images" / f"{part}2017")
    parts = find_data(root).parts
    assert parts["val"].images == root / "images" / "val2017" and parts["train"].images.name == "train2017"


def test_the_annotations_of_each_image_in_a_file_of_its_own_are_no_candidates(tmp_path):
    coco_layouts.beside(tmp_path, (0, 1))
    (tmp_path / "shapes").mkdir()
    for number in range(201):
        (tmp_path / "shapes" / f"{number}.json").write_text('{"images": [], "annotations": []}')
    assert find_data(tmp_path).evidence == tmp_path / "labels.json"


def test_lists_far_into_a_file_are_seen(tmp_path):
    coco_layouts.beside(tmp_path, (0, 1))
    file = tmp_path / "labels.json"
    content = json.loads(file.read_text())
    synonyms = {"synonyms": "x" * 300_000}
    order = {"categories": [c | synonyms for c in content["categories"]]}
    order |= {key: content[key] for key in ("annotations", "images")}
    file.write_text(json.dumps(order))
    assert len(find_data(tmp_path).parts["train"].read()["images"]) == 6


@pytest.mark.parametrize(
    ("content", "fault"), [("", "is empty"), ('{"images": [{"id": 1, "file_name": "cell 000.png"}, {"id"', "truncated")]
)
@pytest.mark.parametrize("name", ["_annotations.coco.json", "labels.json"])
def test_a_damaged_file_is_named_where_it_is_needed(tmp_path, name, content, fault):
    root = coco_layouts.roboflow(tmp_path, (0, 1))
    for part in ("train", "valid", "test"):
        (root / part / "_annotations.coco.json").rename(root / part / name)
    (root / "train" / name).write_text(content)
    found = find_data(root)
    assert {"val", "test"} <= set(found.parts)
    if content:  # its beginning shows what it is
        with pytest.raises(ValueError, match=rf"train/{name} .*{fault}"):
            found.parts["train"].read()
    elif name == "_annotations.coco.json":
        assert f"train/{name} {fault}" in found.unusable["train"]
    else:
        assert "train" not in found.parts


def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    root = coco_layouts.beside(tmp_path, (0, 1))

    def refuse(path, *args):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=r"labels\.json cannot be read \(Permission denied\): check its permissions"):
        find_data(root)


@pytest.mark.parametrize("layout", [coco_layouts.beside, coco_layouts.roboflow])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, layout):
    root = layout(tmp_path, (0, 1))
    file = next(root.rglob("*.json"))
    file.unlink()
    os.mkfifo(file)
    try:
        assert len(find_data(root).parts) < 3
    except ValueError as error:
        assert "no data set is recognised" in str(error)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    coco_layouts.beside(tmp_path, (0, 1))
    listing = os.scandir

    def refuse(path):
        if "März" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=r"Fotos März cannot be listed \(Permission denied\): check its permissions"):
        find_data(tmp_path)


def test_a_folder_of_everything_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MOST_FOLDERS", 3)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(ValueError, match="more than 3 folders: pass the folder of the data set itself"):
        find_data(tmp_path)


def test_names_in_another_letter_case_are_hinted_at(tmp_path):
    write_part(tmp_path / "images", tmp_path / "labels.json", (0, 1), names=str.upper)
    with pytest.raises(ValueError, match="they are there under another name.*letter case"):
        find_data(tmp_path)


def test_the_files_that_tools_put_beside_an_export_do_not_matter(tmp_path):
    root = coco_layouts.roboflow(tmp_path, (0, 1))
    (root / "README.roboflow.txt").write_text("1 2 3 4 5\nExported\n")
    (root / "README.dataset.txt").write_text("# cells\n")
    (root / "notes.json").write_text('{"categories": [{"id": 0, "name": "a"}], "info": {"version": "1.0"}}')
    assert find_data(root).kind == "Roboflow COCO"


def test_two_folders_with_the_same_names_are_not_guessed_between(tmp_path):
    write_part(tmp_path / "a", tmp_path / "labels.json", (0, 1))
    write_part(tmp_path / "b", tmp_path / "labels.json", (0, 1))
    with pytest.raises(ValueError, match="several folders: a, b"):
        find_data(tmp_path)


def test_names_of_two_folders_that_became_one_are_refused(tmp_path):
    numbers = iter(range(6))
    root = tmp_path / "images"
    write_part(root, tmp_path / "result.json", (0, 1), names=lambda name: f"C:\\{next(numbers)}\\cell 000.png")
    with pytest.raises(ValueError, match="of which only one file is there"):
        find_data(tmp_path).parts["train"].read()


def test_a_link_to_the_folder_itself_is_not_followed(tmp_path):
    coco_layouts.beside(tmp_path, (0, 1))
    os.symlink(tmp_path, tmp_path / "again")
    assert find_data(tmp_path).kind == "COCO"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_in_another_encoding_is_recognised(tmp_path, encoding):
    coco_layouts.beside(tmp_path, (0, 1))
    file = tmp_path / "labels.json"
    file.write_text(file.read_text(encoding="utf-8"), encoding=encoding)
    assert len(find_data(tmp_path).parts["train"].read()["images"]) == 6
