"""Runs whose validation images are held out of the training part: exact resumption, images added since, --eval."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from tests.helpers.runs import TINY, signal_at
from training.run_folder import RunFolder
from util.checkpoint import load_checkpoint

FLAGS = [*TINY, "--epochs", "2", "--batch_size", "2"]


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations without their files and pictures, which take longer than the trainings here."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def write(folder: Path, count: int) -> Path:
    """One JSON file beside a folder of noise pictures 1.png to `count`.png, with an object each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        noise = np.random.RandomState(number).randint(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
        box = {"bbox": [5, 5, 20, 10 + number % 9], "area": 300, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": 1 + number % 2, **box})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(data))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pictures", 14)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs with a fifth of the pictures held out."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
        assert train(data, out) == 0
    return out


def train(data: Path, out: Path, *more: str) -> int:
    return main.run([*FLAGS, "--data", str(data), "--val_share", "0.2", "--output_dir", str(out), *more])


def split_in(folder: Path) -> dict:
    return json.loads((folder / "split.json").read_text())


def score_of(folder: Path) -> float:
    """The validation loss of the last epoch."""
    return json.loads((folder / "log.txt").read_text().splitlines()[-1])["test_loss"]


def test_the_split_is_written_and_kept_in_the_checkpoint(run):
    split = split_in(run)
    assert split == load_checkpoint(run / "checkpoint.pth")["split"]
    assert sorted(split["train"] + split["val"], key=lambda name: int(name[:-4])) == [f"{n}.png" for n in range(1, 15)]
    assert all(counts["train"][0] and counts["val"][0] for counts in split["classes"].values())


def test_a_stop_goes_on_to_the_bit(data, run, tmp_path, monkeypatch):
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert train(data, tmp_path) == 0
    monkeypatch.undo()
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
    assert main.run([*FLAGS, "--data", str(data), "--output_dir", str(tmp_path), "--resume", "auto"]) == 0
    one, two = (load_checkpoint(folder / "checkpoint.pth") for folder in (run, tmp_path))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    assert score_of(run) == score_of(tmp_path) and split_in(run) == split_in(tmp_path)


def test_images_added_to_a_run_that_resumes_are_for_training(run, tmp_path):
    more, out = write(tmp_path / "more", 24), tmp_path / "run"
    shutil.copytree(run, out)
    resume = ["--output_dir", str(out), "--resume", "auto", "--epochs", "3"]
    assert main.run([*FLAGS, "--data", str(more), *resume]) == 0
    before, after = split_in(run), split_in(out)
    assert after["val"] == before["val"]
    assert set(after["train"]) == set(before["train"]) | {f"{n}.png" for n in range(15, 25)}
    assert load_checkpoint(out / "checkpoint.pth")["split"] == after


def test_an_evaluation_of_the_checkpoint_takes_its_validation_images(data, run, tmp_path, capsys, monkeypatch):
    seen = evaluated(monkeypatch)
    more = write(tmp_path / "more", 24)
    for folder in (data, more):  # also where pictures were added
        assert main.run([*TINY, "--data", str(folder), "--resume", str(run / "checkpoint.pth"), "--eval"]) == 0
    expected = sorted(int(name[:-4]) for name in split_in(run)["val"])
    assert seen == [expected, expected]
    assert f"evaluating the {len(expected)} validation images" in capsys.readouterr().out


def test_an_evaluation_of_other_data_takes_all_of_it(run, tmp_path, monkeypatch, capsys):
    seen = evaluated(monkeypatch)
    other = write(tmp_path / "other", 5)
    file = other / "annotations.json"
    file.write_text(file.read_text().replace('.png"', '.x.png"'))
    for picture in list((other / "images").iterdir()):
        picture.rename(picture.with_suffix(".x.png"))
    command = [*TINY, "--resume", str(run / "checkpoint.pth"), "--eval"]
    assert main.run([*command, "--data", str(other)]) == 0
    assert "none of the images of the checkpoint's run" in capsys.readouterr().out
    same = write(tmp_path / "same", 14)
    assert main.run([*command, "--data", str(same), "--val_share", "0"]) == 0
    assert seen == [list(range(1, 6)), list(range(1, 15))]


def test_an_evaluation_without_the_validation_images_is_refused(run, tmp_path, capsys):
    few = write(tmp_path / "few", 14)
    file = few / "annotations.json"
    content, names = json.loads(file.read_text()), split_in(run)["train"]
    content["images"] = [image for image in content["images"] if image["file_name"] in names]
    file.write_text(json.dumps(content))
    command = [*TINY, "--resume", str(run / "checkpoint.pth"), "--eval", "--data", str(few)]
    assert main.run(command) == 1
    assert "none of its" in capsys.readouterr().err


def test_a_new_run_takes_the_split_of_an_earlier_one(run, tmp_path):
    more, out = write(tmp_path / "more", 40), tmp_path / "new"
    file = split_in(run)
    file["train"], file["val"] = file["val"], file["train"]  # nothing that a rule would choose
    (tmp_path / "split.json").write_text(json.dumps(file))
    command = [*FLAGS, "--data", str(more), "--val_split", str(tmp_path), "--output_dir", str(out), "--max_steps", "1"]
    assert main.run(command) == 0
    after = split_in(out)
    assert set(file["train"]) <= set(after["train"]) and set(file["val"]) <= set(after["val"])
    assert after["val_share"] == 0.2 and len(after["val"]) < len(file["val"]) + 15


def test_data_with_a_validation_part_keep_it(shapes, tmp_path, capsys):
    command = [*FLAGS, "--data", str(shapes), "--val_share", "0.2", "--output_dir", str(tmp_path), "--max_steps", "1"]
    assert main.run(command) == 0
    assert "the data have a validation part, which is used" in capsys.readouterr().out
    assert not (tmp_path / "split.json").exists()


@pytest.mark.parametrize("flag", [["--val_share", "0.2"], ["--val_split", "run"]])
def test_other_flags_of_the_data_are_refused(shapes, flag, capsys):
    assert main.run([*TINY, "--coco_path", str(shapes), *flag]) == 1
    assert f"{flag[0]} splits the training part of --data" in capsys.readouterr().err


def test_a_damaged_split_in_a_checkpoint_is_refused(data, run, tmp_path, capsys):
    checkpoint = torch.load(run / "checkpoint.pth", weights_only=True)
    for damaged in ({"train": 3}, [1]):
        torch.save(checkpoint | {"split": damaged}, tmp_path / "damaged.pth")
        command = [*TINY, "--data", str(data), "--resume", str(tmp_path / "damaged.pth"), "--eval"]
        assert main.run(command) == 1
        assert "the record of a split" in capsys.readouterr().err


def test_a_split_that_cannot_be_written_is_a_fault_of_the_run(tmp_path, capsys):
    (tmp_path / "split.json").mkdir()
    folder = RunFolder(tmp_path)
    folder.write_split({"val_share": 0.2})
    assert "split.json could not be written" in folder.faults["split"]
    RunFolder("").write_split({})


def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of the images of each evaluation that follows."""
    seen = []
    validate = main.Validation.run
    monkeypatch.setattr(
        main.Validation, "run", lambda self, *more: seen.append(list(self.loader.dataset.ids)) or validate(self, *more)
    )
    return seen
