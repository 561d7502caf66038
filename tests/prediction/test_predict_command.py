"""`predict.py`: files in; pictures, JSON and a table out; interruptions and errors."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

import predict
from prediction import result as prediction_result
from tests.helpers.paths import REPOSITORY
from tests.helpers.predict_parts import CATEGORIES, command, write_detector, write_picture, write_pictures
from tests.helpers.processes import leave_behind

SIZES = {"a.jpg": (60, 40), "b.png": (40, 60), "c.bmp": (60, 40), "in/d.JPG": (60, 40)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", SIZES)


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path):
    return command(checkpoint, tmp_path / "out")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_pictures_and_coco_json(run, checkpoint: Path, images: Path, tmp_path: Path, capsys):
    assert run(images) == 0
    out = tmp_path / "out"
    pictures = {"a.jpg", "b.png", "c.bmp.png", "in/d.JPG"}
    assert files_in(out) == {f"pictures/{name}" for name in pictures} | {
        "detections.json",
        "results.json",
        "progress.jsonl",
    }
    kinds = {name: Image.open(out / "pictures" / name).format for name in pictures}
    assert kinds == {"a.jpg": "JPEG", "b.png": "PNG", "c.bmp.png": "PNG", "in/d.JPG": "JPEG"}
    coco = COCO(out / "detections.json")
    assert {image["file_name"]: (image["width"], image["height"]) for image in coco.imgs.values()} == SIZES
    assert [coco.cats[c["id"]] for c in CATEGORIES] == CATEGORIES
    assert len(coco.loadRes(coco.dataset["annotations"]).anns) == len(coco.anns) == 4 * 6
    found = predict.Predictor(checkpoint, "cpu")(images / "b.png", threshold=0)
    own = [coco.anns[number] for number in coco.getAnnIds(imgIds=[2])]
    assert [(a["score"], a["category_id"]) for a in own] == list(zip(found.scores.tolist(), found.labels.tolist()))
    x0, y0, x1, y1 = found.boxes[0].tolist()
    assert own[0]["bbox"] == [x0, y0, x1 - x0, y1 - y0] and own[0]["area"] == (x1 - x0) * (y1 - y0)
    assert {a["category_id"] for a in coco.anns.values()} <= set(coco.cats)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("b.png ")]
    assert len(rows) == 6 and f"{found.scores[0]:.2f}" in rows[0] and found.names[0] in rows[0]


def test_results_do_not_depend_on_the_batch_size(run, images: Path, tmp_path: Path):
    assert run(images, "--no_pictures") == 0
    assert run(images, "--no_pictures", "--batch_size", "3", "--out", tmp_path / "again") == 0
    one, three = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("out", "again"))
    assert one["images"] == three["images"]
    for a, b in zip(one["annotations"], three["annotations"], strict=True):
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-3) and a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_batches_are_ordered_by_their_first_images(run, images: Path, capsys):
    assert run(images, "--no_pictures", "--count", "--batch_size", "3") == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()[0] in SIZES]
    assert listed == ["a.jpg", "c.bmp", "in/d.JPG", "b.png"]  # images of the same size as a.jpg come with it


def test_unreadable_files_are_named_and_skipped(run, checkpoint: Path, images: Path, tmp_path: Path, capsys):
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:60])
    assert run(images, "--batch_size", "2") == 1
    said = capsys.readouterr()
    assert "b.png cannot be read" in said.err and "1 of 4 images skipped" in said.err
    listed = [image["file_name"] for image in json.loads((tmp_path / "out/detections.json").read_text())["images"]]
    assert listed == ["a.jpg", "c.bmp", "in/d.JPG"]
    assert predict.run([str(checkpoint), "gone.jpg", "--out", str(tmp_path / "none")]) == 1
    assert "gone.jpg does not exist\n1 of 1 image" in capsys.readouterr().err


def test_the_limit_of_open_files_ends_the_job_and_blames_no_image(run, images: Path, monkeypatch, capsys):
    monkeypatch.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    assert run(images, "--no_pictures") == 1
    said = capsys.readouterr().err
    assert "error: image file" in said and "ulimit -n" in said and "skipped" not in said


def test_images_above_max_pixels_are_skipped_and_the_flag_is_named(run, images: Path, capsys):
    write_picture(images / "large.png", (80, 60))
    for batch_size in ("1", "3"):
        assert run(images, "--no_pictures", "--max_pixels", "4799", "--batch_size", batch_size) == 1
        said = capsys.readouterr().err
        assert "large.png has 4,800 pixels, more than the limit of 4,799: pass --max_pixels 4800" in said
        assert "1 of 5 images skipped" in said
    assert run(images, "--no_pictures", "--max_pixels", "4800") == 0


def test_an_address_leaves_nothing_behind(run, tmp_path: Path, capsys):
    assert run("s3://bucket/street.jpg") == 1
    assert "error: s3://bucket/street.jpg is an address" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_too_large_for_the_model_is_skipped_too(tmp_path: Path, capsys):
    learned = write_detector(tmp_path / "learned.pth", "--position_embedding", "learned", "--max_size", "4000")
    write_picture(tmp_path / "images/long.png", (2000, 20))
    write_picture(tmp_path / "images/usual.png")
    argv = [learned, tmp_path / "images", "--out", tmp_path / "out", "--no_pictures", "--device", "cpu"]
    assert predict.run([str(part) for part in argv]) == 1
    assert "skipped: long.png: " in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out/detections.json").read_text())["images"]) == 1


def test_images_can_be_listed_on_standard_input(run, images: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{images / 'c.bmp'}\n\n{images / 'a.jpg'}\n"))
    assert run("-", "--no_pictures") == 0
    found = json.loads((tmp_path / "out/detections.json").read_text())["images"]
    assert [image["file_name"] for image in found] == ["c.bmp", "a.jpg"]


def test_counts_crops_and_classes(run, images: Path, tmp_path: Path, capsys):
    assert run(images, "--count", "--save_crops", "--no_pictures", "--top_k", "2") == 0
    annotations = json.loads((tmp_path / "out/detections.json").read_text())["annotations"]
    assert max(Counter(entry["image_id"] for entry in annotations).values()) == 2
    crops = files_in(tmp_path / "out/crops")
    assert len(crops) == 8 and sum(name.endswith(("in/d-1.JPG", "in/d-2.JPG")) for name in crops) == 2
    out = capsys.readouterr().out
    assert sum(line.startswith(("a.jpg ", "b.png ")) for line in out.splitlines()) == 2
    for label, number in Counter(entry["category_id"] for entry in annotations).items():
        name = {c["id"]: c["name"] for c in CATEGORIES}.get(label, f"class {label}")
        assert any(line.split("  ")[0].strip() == name and f" {number} " in line for line in out.splitlines()), name
    assert run(images, "--classes", "square", "--no_pictures") == 0
    kept = json.loads((tmp_path / "out/detections.json").read_text())["annotations"]
    assert {entry["category_id"] for entry in kept} <= {3}


def test_attention_is_drawn_on_request(run, images: Path, tmp_path: Path, capsys):
    assert run(images / "b.png", "--attention", "--top_k", "2") == 0
    out = tmp_path / "out"
    assert f"pictures in {out / 'pictures'}, attention in {out / 'attention'}\n" in capsys.readouterr().out
    sheet = Image.open(tmp_path / "out/attention/b.png")
    assert sheet.width > 3 * 298 and sheet.height > 2 * 448  # the detections, 2 queries; 2 points
    assert run(images / "b.png", "--attention", "--attention_points", "5,5", "39,59", "0,3", "--top_k", "2") == 0
    assert Image.open(tmp_path / "out/attention/b.png").size == sheet.size
    assert run(images / "b.png", "--attention", "--attention_points", "40,5") == 1
    assert "point 40,5 is outside the image, which has 40x60 pixels" in capsys.readouterr().err


# --- interruptions


def interrupt_at(monkeypatch, count: int) -> list[str]:
    """Raise KeyboardInterrupt at the `count`-th picture; returns a list that grows with each picture started."""
    begun, draw = [], prediction_result.Prediction.draw

    def drawing(self, *args):
        begun.append(1)
        if len(begun) == count:
            raise KeyboardInterrupt
        return draw(self, *args)

    monkeypatch.setattr(prediction_result.Prediction, "draw", drawing)
    return begun


def test_an_interrupted_job_resumes_where_it_stopped(run, images: Path, tmp_path: Path, monkeypatch, capsys):
    assert run(images, "--out", tmp_path / "whole") == 0
    begun = interrupt_at(monkeypatch, 3)
    assert run(images) == 130
    assert "run the same command with --resume" in capsys.readouterr().err
    assert not (tmp_path / "out/detections.json").exists()
    assert files_in(tmp_path / "out/pictures") == {"a.jpg", "b.png"}
    with (tmp_path / "out/progress.jsonl").open("a") as file:
        file.write('{"name": "c.bmp", "file": "cut o')
    assert run(images, "--resume") == 0
    assert len(begun) == 3 + 2 and "2 images done, 2 to do" in capsys.readouterr().err
    texts = [(tmp_path / name / "detections.json").read_text() for name in ("out", "whole")]
    assert texts[0] == texts[1]
    assert run(images, "--resume") == 0 and len(begun) == 5


def test_after_a_signal_the_current_image_is_finished(run, images: Path, tmp_path: Path, monkeypatch, capsys):
    assert run(images, "--no_pictures") == 0  # another job, whose detections.json must not be taken for this one's
    draw = prediction_result.Prediction.draw

    def drawing(self, *args):
        signal.raise_signal(signal.SIGTERM)
        return draw(self, *args)

    monkeypatch.setattr(prediction_result.Prediction, "draw", drawing)
    assert run(images) == 130
    assert files_in(tmp_path / "out") == {"progress.jsonl", "pictures/a.jpg"}
    assert "run the same command with --resume" in capsys.readouterr().err
    monkeypatch.setattr(prediction_result.Prediction, "draw", draw)
    assert run(images, "--resume") == 0
    assert "1 image done, 3 to do" in capsys.readouterr().err


def test_another_file_of_the_same_name_is_not_skipped(run, images: Path, tmp_path: Path, capsys):
    assert run(images / "a.jpg", "--no_pictures") == 0
    other = write_picture(tmp_path / "other/a.jpg", seed=9)
    assert run(other, "--no_pictures", "--resume") == 0
    assert "1 of 1 image" in capsys.readouterr().err.splitlines()[-1]


def test_resuming_with_other_settings_is_rejected(run, images: Path, tmp_path: Path, capsys):
    assert run(images, "--no_pictures") == 0
    assert run(images, "--no_pictures", "--resume", "--top_k", "1") == 1
    assert "top_k None (now 1)" in capsys.readouterr().err
    assert run(images, "--no_pictures", "--resume", "--attention") == 1  # otherwise only some pictures would have it
    assert "attention False (now True)" in capsys.readouterr().err
    other = write_detector(tmp_path / "other.pth", "--dim_feedforward", "16")
    assert (
        predict.run([str(other), *f"{images} --out {tmp_path}/out --threshold 0 --no_pictures --resume".split()]) == 1
    )
    assert "weights" in capsys.readouterr().err
    assert run(images, "--no_pictures", "--top_k", "1") == 0  # anew
    assert len(json.loads((tmp_path / "out/detections.json").read_text())["annotations"]) == 4


def test_pictures_are_complete_or_absent(run, images: Path, tmp_path: Path, monkeypatch, capsys):
    def half(self, file, **how):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", half)
        assert run(images) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert files_in(tmp_path / "out") == {"progress.jsonl"}
    leave_behind(tmp_path / "out/pictures/a.jpg")
    foreign = {".notes.tmp", "pictures/.notes.tmp", "another/.detr-00000000-1-00000000.tmp"}
    for name in foreign:
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"the user's own")
    assert run(images, "--resume") == 0
    assert {name for name in files_in(tmp_path / "out") if name.endswith(".tmp")} == foreign


def test_results_inside_the_image_folder_are_not_images(run, images: Path):
    for _ in range(2):
        assert run(images, "--out", images / "found") == 0
    assert len(json.loads((images / "found/detections.json").read_text())["images"]) == 4


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--threshold", "2"], "threshold must be in [0, 1], got 2"),
        (["--classes", "cube"], "has no class 'cube'"),
        (["--device", "nonsense"], "--device nonsense"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
    ],
)
def test_settings_are_rejected_before_anything_is_written(run, images: Path, tmp_path: Path, capsys, flags, fault):
    assert run(images, *flags) == 1
    said = capsys.readouterr().err
    assert fault in said and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_an_error(run, tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 1
    assert "no images found in" in capsys.readouterr().err


def test_out_of_memory_is_one_sentence(run, images: Path, monkeypatch, capsys):
    def exhausted(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(predict.Predictor, "_detect", exhausted)
    assert run(images, "--batch_size", "4") == 1
    message = capsys.readouterr().err
    assert "error: out of memory (CUDA" in message and "lower --batch_size 4, or use --device cpu" in message


def test_nothing_found_is_explained(run, images: Path, capsys):
    assert run(images, "--threshold", "1") == 0
    said = capsys.readouterr()
    assert "no objects" in said.out and "no image has an object with a score of 1 or more" in said.err
    assert "--threshold 0." in said.err and "eval/f1.json" in said.err


def test_memory_that_runs_out_for_one_image_names_what_helps(run, images: Path, monkeypatch, capsys):
    def exhausted(self, images):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(predict.Predictor, "_detect", exhausted)
    assert run(images) == 1
    said = capsys.readouterr().err
    assert (
        "out of memory" in said and "--max_pixels" in said and "--batch_size 1" not in said and "--device" not in said
    )


def start(checkpoint: Path, images: Path, out: Path, **how) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    argv = [checkpoint, images, "--out", out, "--device", "cpu", "--threshold", "0", "--no_pictures"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, REPOSITORY / "predict.py", *argv], text=True, env=environment, **how)


def test_letters_that_the_output_lacks_end_no_job(checkpoint: Path, tmp_path: Path):
    write_picture(tmp_path / "images/图.png")
    done = start(checkpoint, tmp_path / "images", tmp_path / "out", capture_output=True)
    assert done.returncode == 0 and "\\u56fe.png" in done.stdout


def test_a_reader_that_goes_away_is_one_sentence(checkpoint: Path, images: Path, tmp_path: Path):
    reader, writer = os.pipe()
    os.close(reader)
    done = start(checkpoint, images, tmp_path / "out", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: standard output was closed")
    assert "--resume" in done.stderr and "Traceback" not in done.stderr
