"""What a job of `predict.py` leaves behind: its own results and nothing else, however the job before it ended."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

import predict
from prediction import folder as prediction_folder
from tests.helpers.predict_parts import command, write_detector, write_picture, write_pictures
from util.output import folder_lock

SIZES = {"a.jpg": (60, 40), "b.png": (40, 60), "c.bmp": (60, 40)}
SUMMARIES = {"detections.json", "results.json", "progress.jsonl"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", SIZES)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(checkpoint: Path, out: Path):
    return command(checkpoint, out, "--top_k", "2")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def listed(out: Path) -> list[str]:
    return [image["file_name"] for image in json.loads((out / "detections.json").read_text())["images"]]


def written_for(out: Path, *names: str) -> set[str]:
    """The files that a job with pictures and crops of two boxes leaves for these images."""
    crops = {path for path in files_in(out) if path.startswith("crops/")}
    own = {crop for crop in crops if Path(crop).stem.rsplit("-", 1)[0] in {Path(name).stem for name in names}}
    assert crops == own and len(crops) == 2 * len(names)
    return {f"pictures/{name}" for name in names} | own | SUMMARIES


# --- the job before


def test_a_new_job_removes_the_results_of_the_one_before_and_says_so(run, images: Path, out: Path, capsys):
    assert run(images, "--save_crops") == 0
    (out / "notes.txt").write_text("the user's own")
    capsys.readouterr()
    assert run(images / "b.png", "--save_crops") == 0
    assert files_in(out) == written_for(out, "b.png") | {"notes.txt"}
    assert f"removed 9 files of an earlier job from {out}" in capsys.readouterr().err
    assert listed(out) == ["b.png"]


@pytest.mark.parametrize("count", [1, 4, 6, 9])
def test_a_job_that_was_killed_at_any_moment_is_cleared_away_too(run, images: Path, out: Path, monkeypatch, count: int):
    written, write = [], prediction_folder.write_atomically

    def killed_after(path, content):
        write(path, content)
        written.append(path)
        if len(written) == count + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prediction_folder, "write_atomically", killed_after)
        patch.setattr(prediction_folder, "remove_files", lambda *_: 0)  # a killed process removes nothing
        assert run(images, "--save_crops") == 130
    before = files_in(out) - {"progress.jsonl"}
    assert len(before) == count and "detections.json" not in before
    assert run(images / "b.png", "--save_crops") == 0
    assert files_in(out) == written_for(out, "b.png")


def test_a_kill_while_clearing_away_loses_no_trace(run, images: Path, out: Path, monkeypatch):
    assert run(images, "--save_crops") == 0

    def killed(folder, files):
        for file in sorted(files)[:4]:
            (folder / file).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prediction_folder, "remove_files", killed)
        assert run(images / "b.png", "--save_crops") == 130
    assert not (out / "detections.json").exists()
    assert run(images / "b.png", "--save_crops") == 0
    assert files_in(out) == written_for(out, "b.png")


@pytest.mark.parametrize("name", ["detections.json", "results.json", "pictures/b.png"])
def test_files_of_another_origin_are_never_replaced(run, images: Path, out: Path, capsys, name: str):
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("the user's own")
    assert run(images) == 1
    assert f"{out / name} would be replaced" in capsys.readouterr().err
    assert files_in(out) == {name} and (out / name).read_text() == "the user's own"


def test_a_record_of_another_origin_is_not_replaced(run, images: Path, out: Path, capsys):
    out.mkdir()
    (out / "progress.jsonl").write_text('{"loss": 0.5}\n')
    for flags in ((), ("--resume",)):
        assert run(images, *flags) == 1
        assert "progress.jsonl is damaged or not from predict.py" in capsys.readouterr().err
    assert (out / "progress.jsonl").read_text() == '{"loss": 0.5}\n'


# --- inputs and outputs


def test_the_output_folder_may_be_that_of_the_images(run, images: Path):
    before = {name: (images / name).read_bytes() for name in SIZES}
    for _ in range(2):
        assert run(images, "--out", images) == 0
        assert listed(images) == list(SIZES)
    assert {name: (images / name).read_bytes() for name in SIZES} == before


def test_results_of_another_job_are_no_images(run, images: Path, out: Path, capsys):
    assert run(images, "--out", images / "found") == 0
    assert run(images, "--save_crops") == 0
    assert listed(out) == list(SIZES)
    assert "1 folder has results of predict.py (found/pictures)" in capsys.readouterr().out


@pytest.mark.parametrize("link", [False, True])
def test_an_image_where_its_picture_would_be_is_never_overwritten(
    run, images: Path, tmp_path: Path, capsys, link: bool
):
    out = tmp_path / "own"
    out.mkdir()
    if link:
        (out / "pictures").symlink_to(images)
    else:
        images.rename(out / "pictures")
    before = {name: (out / "pictures" / name).read_bytes() for name in SIZES}
    assert run(out / "pictures", "--out", out) == 1
    assert run(out / "pictures/b.png", "--out", out) == 1
    assert "in the output folder" in capsys.readouterr().err
    assert {name: (out / "pictures" / name).read_bytes() for name in SIZES} == before


def test_the_checkpoint_and_the_annotation_file_are_never_replaced(checkpoint: Path, images: Path, out: Path, capsys):
    (out / "crops").mkdir(parents=True)
    own = out / "crops/checkpoint.pth"
    own.write_bytes(checkpoint.read_bytes())
    assert predict.run([str(own), str(images), "--out", str(out)]) == 1
    assert f"would replace the checkpoint {own}" in capsys.readouterr().err
    ann = out / "results.json"
    ann.write_text(json.dumps({"images": [{"id": 4, "file_name": "b.png"}]}))
    assert predict.run([str(checkpoint), str(images), "--ann", str(ann), "--out", str(out)]) == 1
    assert f"would replace --ann {ann}" in capsys.readouterr().err and own.exists() and ann.exists()


def test_inputs_of_one_name_and_clashing_names_have_their_own_outputs(run, tmp_path: Path, out: Path, monkeypatch):
    names = ["x/a.png", "y/a.png", "y/A.png", "y/a.bmp", "y/a.bmp.png", f"y/{'图' * 83}.bmp"]
    for seed, name in enumerate(names):
        write_picture(tmp_path / "in" / name, seed=seed)
    assert predict_all(run, tmp_path / "in", names, "--save_crops", monkeypatch) == 0
    pictures = [path for path in files_in(out) if path.startswith("pictures/")]
    assert len({path.casefold() for path in pictures}) == len(names) == len(listed(out))
    assert len([path for path in files_in(out) if path.startswith("crops/")]) == 2 * len(names)
    first = files_in(out)
    assert predict_all(run, tmp_path / "in", names[::-1], "--save_crops", monkeypatch) == 0
    assert files_in(out) == first


def predict_all(run, folder: Path, names: list[str], flag: str, monkeypatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{folder / name}\n" for name in names)))
    return run("-", flag)


# --- what cannot be written


def test_an_image_that_cannot_be_written_does_not_end_the_job(run, images: Path, out: Path, monkeypatch, capsys):
    write = prediction_folder.write_atomically

    def failing(path, content):
        if path.name == "b-2.png":
            raise OSError(errno.EINVAL, "Invalid argument")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_folder, "write_atomically", failing)
        assert run(images, "--save_crops") == 1
    said = capsys.readouterr().err
    assert f"skipped: b.png: {out}/crops/" in said and "b-2.png cannot be written (Invalid argument)" in said
    assert "1 of 3 images skipped" in said and listed(out) == ["a.jpg", "c.bmp"]
    assert not [name for name in files_in(out) if "b.png" in name or "/b-" in name]
    assert run(images, "--save_crops", "--resume") == 0
    assert "2 images done, 1 to do" in capsys.readouterr().err and listed(out) == list(SIZES)


def test_a_full_disk_ends_the_job_names_the_file_and_can_be_resumed(run, images: Path, out: Path, monkeypatch, capsys):
    assert run(images, "--save_crops", "--out", out.with_name("whole")) == 0
    write = prediction_folder.write_atomically

    def full(path, content):
        if path.name.startswith("b"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_folder, "write_atomically", full)
        assert run(images, "--save_crops") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {out / 'pictures/b.png'} cannot be written (No space left on device)")
    assert "--resume" in said and not (out / "detections.json").exists()
    assert run(images, "--save_crops", "--resume") == 0
    for name in ("detections.json", "results.json"):
        assert (out / name).read_text() == (out.with_name("whole") / name).read_text()
    assert files_in(out) == files_in(out.with_name("whole"))


@pytest.mark.parametrize("blocked", ["a file", "a folder below a file", "no permission"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    run, images: Path, out: Path, monkeypatch, capsys, blocked: str
):
    monkeypatch.setattr(predict, "Predictor", lambda *_, **__: pytest.fail("the model was loaded"))
    if blocked == "no permission":
        monkeypatch.setattr(folder_lock.os, "open", refuse)
    else:
        out.write_text("the user's own")
    target = out / "below" if blocked == "a folder below a file" else out
    assert run(images, "--out", target) == 1
    assert f"error: --out {target} cannot be written to" in capsys.readouterr().err
    assert out.is_file() or not out.exists()


def refuse(*_):
    raise OSError(errno.EROFS, "Read-only file system")


def test_two_jobs_do_not_write_to_one_folder_at_a_time(run, images: Path, out: Path, monkeypatch, capsys):
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.0)
    assert run(images) == 0
    before = files_in(out)
    with (out / predict.LOCK).open("w") as other:
        folder_lock.fcntl.flock(other, folder_lock.fcntl.LOCK_EX)
        assert run(images / "b.png") == 1
    assert f"error: --out {out} is in use by" in capsys.readouterr().err
    assert files_in(out) == before | {predict.LOCK}
    assert run(images / "b.png") == 0 and not (out / predict.LOCK).exists()


def test_nothing_is_left_behind_where_nothing_could_be_predicted(checkpoint: Path, tmp_path: Path, images: Path):
    out = tmp_path / "new/out"
    for argv in (
        [checkpoint, tmp_path / "images/*.gif"],
        [tmp_path / "none.pth", images],
        [checkpoint, images, "--threshold", "2"],
        [checkpoint, "https://example.org/a.jpg"],
        [checkpoint, "--ann", tmp_path / "none.json"],
    ):
        assert predict.run([str(part) for part in (*argv, "--out", out)]) == 1
        assert not (tmp_path / "new").exists()


def test_a_point_outside_of_one_image_skips_that_image(run, tmp_path: Path, images: Path, out: Path, capsys):
    assert run(images, "--attention", "--attention_points", "50,10") == 1
    assert "skipped: b.png: point 50,10 is outside the image" in capsys.readouterr().err
    assert listed(out) == ["a.jpg", "c.bmp"]


# --- resuming


def test_what_has_changed_is_done_again(run, images: Path, out: Path, capsys):
    whole = out.with_name("whole")
    assert run(images, "--save_crops") == 0
    stamp = (images / "a.jpg").stat().st_mtime_ns
    write_picture(images / "a.jpg", SIZES["a.jpg"], seed=77)
    os.utime(images / "a.jpg", ns=(stamp, stamp))
    (out / "pictures/b.png").write_bytes(b"altered")
    assert run(images, "--save_crops", "--out", whole) == 0
    capsys.readouterr()
    assert run(images, "--save_crops", "--resume") == 0
    said = capsys.readouterr().err
    assert "1 image is done again because its file has changed: a.jpg" in said
    assert "1 image is done again because a result is missing or was changed: b.png" in said
    assert "1 image done, 2 to do" in said
    assert files_in(out) == files_in(whole)
    assert (out / "results.json").read_text() == (whole / "results.json").read_text()
    assert (out / "pictures/a.jpg").read_bytes() == (whole / "pictures/a.jpg").read_bytes()
    assert Image.open(out / "pictures/b.png").format == "PNG"


def test_a_deleted_crop_is_made_again(run, images: Path, out: Path, capsys):
    assert run(images, "--save_crops") == 0
    before = files_in(out)
    next((out / "crops").rglob("c.bmp-2.png")).unlink()
    assert run(images, "--save_crops", "--resume") == 0
    assert "missing or was changed: c.bmp" in capsys.readouterr().err and files_in(out) == before


def test_images_that_are_no_inputs_any_more_leave_no_results(run, images: Path, out: Path, capsys):
    assert run(images, "--save_crops") == 0
    assert run(images / "b.png", "--save_crops", "--resume") == 0
    assert files_in(out) == written_for(out, "b.png")
    said = capsys.readouterr().err
    assert "1 image done, 0 to do" in said and "removed earlier results of 2 images" in said


@pytest.mark.parametrize("line", [0, 1, 2, 4])
def test_a_damaged_record_is_repaired(run, images: Path, out: Path, capsys, line: int):
    assert run(images) == 0
    lines = (out / "progress.jsonl").read_text().splitlines()
    lines[line] = lines[line][: len(lines[line]) // 2]
    (out / "progress.jsonl").write_text("\n".join(lines) + "\n")
    assert run(images, "--resume") == 0
    assert "progress.jsonl has 1 damaged line" in capsys.readouterr().err
    assert (
        listed(out) == list(SIZES)
        and files_in(out) == {"pictures/a.jpg", "pictures/b.png", "pictures/c.bmp.png"} | SUMMARIES
    )
    assert run(images, "--resume") == 0
    assert "3 images done, 0 to do" in capsys.readouterr().err


def test_other_points_of_attention_are_other_settings(run, images: Path, capsys):
    flags = (images / "a.jpg", "--attention", "--attention_points")
    assert run(*flags, "5,5") == 0
    assert run(*flags, "5,5", "--resume") == 0
    assert run(*flags, "6,5", "--resume") == 1
    assert "attention_points [[5.0, 5.0]] (now [[6.0, 5.0]])" in capsys.readouterr().err
