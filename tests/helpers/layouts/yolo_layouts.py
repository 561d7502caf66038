"""Small data sets of YOLO, in the layouts in which they lie about. Images are 48 x 36 pixels."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.layouts.voc_layouts import write_picture

LABEL = "0 0.5 0.5 0.25 0.5"  # x 18, y 9, 12 wide, 18 high


def write_label(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines or (LABEL,)))
    return path


def write_pair(images: Path, labels: Path, name: str, *lines: str) -> None:
    write_picture(images / f"{name}.png")
    write_label(labels / f"{name}.txt", *lines)


def ultralytics(root: Path) -> Path:
    """images/train and labels/train, with numbered names and a path of another machine."""
    for part, name in (("train", "a b"), ("val", "c#1")):
        write_pair(root / "images" / part, root / "labels" / part, name)
    text = "path: /home/me/datasets/cells\ntrain: images/train\nval: images/val\ntest:\n\nnames:\n  0: cat\n  1: dog\n"
    (root / "data.yaml").write_text(text)
    return root


def roboflow(root: Path) -> Path:
    """train/images, valid/images, with paths that begin above the folder and a test part that was not written."""
    for part, name in (("train", "a_jpg.rf.1"), ("valid", "b_jpg.rf.2")):
        write_pair(root / part / "images", root / part / "labels", name)
    (root / "README.roboflow.txt").write_text("cells - v1\n=====\n")
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    (root / "data.yaml").write_text(f"{paths}\nnc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  version: 1\n")
    return root


def lists(root: Path) -> Path:
    """Lists of images, as Ultralytics and Windows write them."""
    for name in ("a", "b", "c"):
        write_pair(root / "images", root / "labels", name)
    (root / "train.txt").write_text("./images/a.png\nD:\\data\\cells\\images\\b.png\n")
    (root / "val.txt").write_text("./images/c.png\n")
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    return root


def several_folders(root: Path) -> Path:
    """A part of two folders."""
    for folder, name in (("one", "a"), ("two", "b"), ("three", "c")):
        write_pair(root / folder / "images", root / folder / "labels", name)
    (root / "my.yaml").write_text("train: [one/images, two/images]\nval: three/images\nnames: [cat, dog]\n")
    return root


def darknet(root: Path) -> Path:
    """`obj.data`, as CVAT writes it: labels beside the images, paths that begin with a folder that is not there."""
    for part, name in (("train", "a"), ("valid", "b")):
        write_pair(root / f"obj_{part}_data", root / f"obj_{part}_data", name)
        (root / f"{part}.txt").write_text(f"data/obj_{part}_data/{name}.png\n")
    text = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    (root / "obj.data").write_text(text)
    (root / "obj.names").write_text("cat\ndog\n")
    return root


def labelling_program(root: Path) -> Path:
    """images/, labels/ and classes.txt, as Label Studio writes them; b has no label file."""
    write_pair(root / "images", root / "labels", "a")
    write_picture(root / "images" / "b.png")
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "notes.json").write_text('{"categories": [{"id": 0, "name": "cat"}], "info": {}}')
    return root


def flat(root: Path) -> Path:
    """Labels, images and classes.txt in one folder, as labelImg writes them."""
    write_pair(root, root, "a")
    write_pair(root, root, "b", "1 0.5 0.5 1 1")
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def roboflow_darknet(root: Path) -> Path:
    """Labels beside images, with the names in each part."""
    for part, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        write_pair(root / part, root / part, name)
        (root / part / "_darknet.labels").write_text("cat\ndog\n")
    return root
