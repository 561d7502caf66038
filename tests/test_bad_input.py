"""Bad input to the command: one sentence that names the cause, exit code 1, and no file written or changed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main
from tests.helpers.coco_files import captured_warnings
from tests.helpers.processes import HANGS
from tests.helpers.runs import flags

REPOSITORY = Path(__file__).resolve().parents[1]
pytest_plugins = ["tests.helpers.refusals"]  # the fixtures `finished` and `refused`


@pytest.fixture
def data(shapes, tmp_path):
    """A copy of the data that a test may damage."""
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def rewrite(data, change, split="train"):
    """Apply `change` to the parsed annotations of a split."""
    file = data / "annotations" / f"instances_{split}2017.json"
    parsed = json.loads(file.read_text())
    change(parsed)
    file.write_text(json.dumps(parsed))
    return file


def images(data, split="train"):
    return sorted((data / f"{split}2017").iterdir())


# ---- data ------------------------------------------------------------------------------------------------------------


def test_a_wrong_data_folder(refused, tmp_path):
    error = refused("nowhere")
    assert "--coco_path" in error and "nowhere" in error
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(tmp_path / "empty")
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(tmp_path / "file")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: b"not JSON", "is not JSON"),
        (lambda content: content[: len(content) // 2], "may be truncated"),
        (lambda content: b"", "is empty"),
        (lambda content: b"[" * 10**5, "nested too deeply"),
        (lambda content: b"\x80\x02}q\x00.", "is not JSON"),
    ],
)
def test_an_annotation_file_that_is_not_json(refused, data, damage, sentence):
    file = data / "annotations" / "instances_train2017.json"
    file.write_bytes(damage(file.read_bytes()))
    error = refused(data)
    assert str(file) in error and sentence in error


def replace(**fields):
    return lambda found: found["annotations"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found.pop("images"), "no list `images`"),
        (lambda found: found.update(categories=None), "no list `categories`"),
        (lambda found: found["images"].append(found["images"][0]), "appears twice in `images`"),
        (lambda found: found["categories"].append(found["categories"][0]), "appears twice in `categories`"),
        (lambda found: found["categories"].append({"id": 10**9, "name": "far"}), "id 1000000000 in `categories`"),
        (lambda found: found["images"][0].update(file_name="a\0b"), "image 1 has file_name"),
        (lambda found: found["images"][0].update(width=-5), "image 1 has width -5"),
        (lambda found: [a.update(image_id=999) for a in found["annotations"]], "belongs to a listed image"),
        (replace(category_id=77), "annotation 2 of image 2 has category_id 77"),
        (lambda found: found.pop("annotations"), "lists images without `annotations`"),
        (replace(image_id="one"), "needs an integer `image_id`"),
        (replace(bbox=[1, 2, 3]), "annotation 2 of image 2 needs a bbox"),
        (replace(bbox=[1, 2, float("nan"), 4]), "annotation 2 of image 2: [1, 2, nan, 4]"),
        (replace(iscrowd=2), "annotation 2 of image 2 has iscrowd 2"),
    ],
)
def test_an_annotation_file_that_cannot_be_used(refused, data, change, sentence):
    file = rewrite(data, change)
    error = refused(data)
    assert str(file) in error and sentence in error


def test_categories_beyond_the_number_of_classes(refused, shapes):
    error = refused(shapes, "--num_classes", 2)
    assert "has category" in error and "annotation " in error and "--num_classes 4" in error


def test_missing_images_are_reported_before_the_first_step(refused, data):
    gone = images(data)[2:6]
    for path in gone:
        path.unlink()
    error = refused(data)
    assert "4 of 8 listed images are missing" in error
    assert all(str(path) in error for path in gone[:3]) and str(gone[3]) not in error


def test_a_file_name_cannot_break_the_sentence(refused, data):
    rewrite(data, lambda found: found["images"][0].update(file_name="a\nb\r\n.png"))
    assert r"a\nb\r\n.png" in refused(data)


WRONG_IMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"<!DOCTYPE html>",
}


@pytest.mark.parametrize(("damage", "workers"), [*((damage, 0) for damage in WRONG_IMAGES), ("truncated", 1)])
def test_an_image_that_cannot_be_read(refused, data, damage, workers):
    path = images(data)[3]
    path.write_bytes(WRONG_IMAGES[damage](path.read_bytes()))
    error = refused(data, "--num_workers", workers)
    assert f"image file {path} cannot be read" in error and "Traceback" not in error


def test_the_command_ends_when_a_worker_finds_a_bad_image(data):
    images(data)[3].write_bytes(b"")
    command = [sys.executable, "main.py", *flags(data, "--num_workers", "2")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 1
    assert f"\nerror: image file {images(data)[3]} cannot be read" in f"\n{done.stderr}"
    assert "Traceback" not in done.stderr


def test_bad_images_are_skipped_with_a_warning_on_request(data, tmp_path):
    bad = [images(data)[0], images(data)[5], images(data, "val")[4]]
    bad[0].write_bytes(b"")
    bad[1].unlink()
    bad[2].write_bytes(b"text")
    with captured_warnings() as logged:
        assert main.run(flags(data, "--skip_bad_images", "--epochs", "1", "--output_dir", str(tmp_path / "out"))) == 0
    for path in bad:
        assert sum(str(path) in line for line in logged) == 1, logged
    assert len(torch.load(tmp_path / "out" / "checkpoint.pth", weights_only=True)["model"]) > 10


def test_no_more_bad_images_are_skipped_than_allowed(refused, data):
    for path in images(data)[:3]:
        path.write_bytes(b"no image")
    error = refused(data, "--skip_bad_images", "--max_bad_images", 2)
    assert "3 of 8 images" in error and "--max_bad_images 2" in error
    images(data)[0].unlink()
    assert "1 of 8 images" in refused(data, "--skip_bad_images", "--max_bad_images", 0)


# ---- settings --------------------------------------------------------------------------------------------------------


def test_an_output_folder_that_cannot_be_made(refused, shapes, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "below" / "it", tmp_path / "file"):
        assert f"--output_dir {folder} cannot be created" in refused(shapes, out=folder)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"] and (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device here")
def test_cuda_without_a_cuda_device(refused, shapes):
    for device in ("cuda", "cuda:3"):
        assert f"--device {device}" in refused(shapes, "--device", device)


@pytest.mark.parametrize(
    "contradiction",
    [
        "--resume a.pth --init_from b.pth",
        "--eval",
        "--eval --init_from a.pth",
        "--hidden_dim 18 --nheads 4",
        "--val_size 128 --max_size 64",
        "--train_sizes 128 --max_size 64",
        "--warmup_steps 10 --max_steps 10",
        "--warmup_steps 5000",
        "--start_epoch 5 --epochs 5",
        "--batch_size 9",
        "--backbone tiny --backbone_weights imagenet",
        "--world_size 2",
    ],
)
def test_flags_that_contradict_each_other(refused, shapes, contradiction):
    named = [word for word in contradiction.split() if word.startswith("--")]
    error = refused(shapes, *contradiction.split())
    assert any(flag in error for flag in named)


# ---- nothing lost ----------------------------------------------------------------------------------------------------


def test_a_failed_start_does_not_change_an_earlier_runs_files(refused, finished, shapes, data, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "kept"))
    (tmp_path / "bad.pth").write_bytes(b"")
    refused("nowhere", out=out)
    refused(shapes, "--resume", tmp_path / "bad.pth", out=out)
    refused(shapes, "--num_classes", 2, out=out)
    images(data)[0].write_bytes(b"")
    refused(data, out=out)
    refused(data, "--resume", out / "checkpoint.pth", "--epochs", 2, out=out)
