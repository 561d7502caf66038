"""The command on videos, streams and addresses, and what its inputs are taken for."""

import errno
import http.server
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import predict
from prediction.video.flags import seconds
from prediction.video.job import VideoJob
from prediction.video.pipeline import ahead
from prediction.video.reader import Frame, Reader
from prediction.video.sources import Source, address_source, sort_inputs
from tests.helpers.drawn.clips import decoded, even, nothing, number_in, numbered, write_clip
from tests.helpers.file_server import serving
from tests.helpers.paths import REPOSITORY
from tests.helpers.predict_parts import write_detector


@pytest.fixture(name="checkpoint", scope="module")
def _checkpoint(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture
def served(tmp_path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    http.server.SimpleHTTPRequestHandler.log_message = lambda *_: None
    with serving(handler) as address:
        yield address


def test_the_command_takes_a_file_and_addresses(tmp_path, served, checkpoint, capsys):
    write_clip(tmp_path / "a.mp4", even(3))
    Image.fromarray(numbered(5)).save(tmp_path / "photo.png")
    inputs = [str(tmp_path / "a.mp4"), f"{served}/a.mp4", f"{served}/photo.png", f"{served}/none.png"]
    out = tmp_path / "found"
    assert predict.run([str(checkpoint), *inputs, "--out", str(out), "--device", "cpu", "--fps"]) == 1
    assert (out / "pictures" / "photo.png").is_file()
    names = sorted(path.name for path in (out / "videos").iterdir())
    assert len(names) == 4 and "a.mp4.jsonl" in names
    assert "none.png cannot be fetched (HTTP Error 404: File not found)" in capsys.readouterr().err


def test_a_broken_file_is_skipped_and_the_rest_of_the_folder_goes_on(tmp_path, checkpoint, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"no video" * 100)
    write_clip(folder / "b.mp4", even(3))
    assert predict.run([str(checkpoint), str(folder), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert "skipped: a.mp4 cannot be opened as a video" in capsys.readouterr().err
    assert len(decoded(tmp_path / "out" / "videos" / "b.mp4")) == 3


def test_videos_are_done_beside_images_and_other_files(tmp_path, checkpoint, capsys):
    for name in ("mixed", "captions"):
        write_clip(tmp_path / name / "clip.mp4", even(2))
        (tmp_path / name / "clip.srt").write_text("1")
    Image.fromarray(numbered(5)).save(tmp_path / "mixed" / "photo.png")
    inputs, out = [str(tmp_path / "mixed"), str(tmp_path / "captions")], tmp_path / "out"
    assert predict.run([str(checkpoint), *inputs, "--out", str(out), "--device", "cpu", "--count"]) == 0
    said = "".join(capsys.readouterr())
    assert "1 file is not an image that Pillow reads (clip.srt)" in said and "without --count" in said
    assert sorted(path.name for path in (out / "videos").glob("*.mp4")) == ["clip-2.mp4", "clip.mp4"]


@pytest.mark.parametrize(
    "name", ["x" * 250 + ".mkv", "视频" * 41 + ".mkv", os.fsdecode(b"\xff\xfe.mkv"), "a\nb\x1b.mkv"]
)
def test_any_name_of_a_video_has_results(tmp_path, name):
    clip, said = write_clip(tmp_path / "a.mkv", even(2)), []
    clip = clip.rename(clip.with_name(name))
    VideoJob(nothing, tmp_path / "out", say=said.append).run(Source(str(clip), clip.name, "file"))
    video, lines = sorted((tmp_path / "out" / "videos").iterdir())
    assert lines.name == f"{video.name}.jsonl" and video.name[:1] == name[:1]
    assert json.loads(lines.read_text("utf-8").splitlines()[1])["image"]["file_name"] == name
    assert said[0].isprintable()


def test_a_full_disk_ends_the_job_and_leaves_no_part(tmp_path, checkpoint, capsys, monkeypatch):
    def full(writer, pixels, time):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("prediction.video.writer.Writer.picture", full)
    for name in "ab":
        write_clip(tmp_path / "clips" / f"{name}.mp4", even(2))
    out = tmp_path / "out"
    assert predict.run([str(checkpoint), str(tmp_path / "clips"), "--out", str(out), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "error: the results of a.mp4 cannot be written (No space left on device): make room" in said
    assert "b.mp4" not in said
    assert not list(out.glob("videos/.*part"))


def test_a_video_is_not_replaced_by_its_result(tmp_path, checkpoint, capsys):
    clip = write_clip(tmp_path / "videos" / "clip.mp4", even(2))
    (tmp_path / "videos" / "clip.mp4.jsonl").touch()
    before = clip.read_bytes()
    assert predict.run([str(checkpoint), str(clip), "--out", str(tmp_path), "--device", "cpu"]) == 1
    assert "clip.mp4 is the video itself: choose another --out folder" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_a_panoptic_video_has_the_size_of_its_source(tmp_path):
    """The legend of a panoptic picture would give each frame a height of its own."""
    clip, out = write_clip(tmp_path / "clip.mp4", even(2)), tmp_path / "out"
    checkpoint = REPOSITORY / "weights" / "detr_tiny_shapes_panoptic.pth"
    assert predict.run([str(checkpoint), str(clip), "--out", str(out), "--device", "cpu"]) == 0
    assert [pixels.shape for pixels, _ in decoded(out / "videos" / "clip.mp4")] == [(96, 208, 3)] * 2


def test_a_password_is_in_no_name():
    assert address_source("rtsp://me:secret@camera/door?token=x").name == "camera_door"
    with pytest.raises(OSError) as caught:
        Reader(address_source("rtsp://me:secret@127.0.0.1:1/door"))
    assert "secret" not in str(caught.value)


def test_inputs_are_sorted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "1", "mixed/b.mov", "mixed/c.png", "clips/d.mkv", "clips/d.mkv.mp4", "clips/d.mkv.mp4.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    entries = ["a.mp4", "0", "1", "mixed", "clips", "*.png", "rtsp://camera/door", "http://host/photo"]
    inputs = sort_inputs(entries, {".png"})
    assert [source.name for source in inputs.videos] == ["a.mp4", "webcam-0", "b.mov", "d.mkv", "camera_door"]
    assert inputs.images == ["1", "mixed", "*.png"]
    assert inputs.web == ["http://host/photo"]


def test_times_on_the_command_line():
    assert [seconds(text) for text in ("90", "1:30", "0:01:30.5")] == [90, 90, 90.5]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["a.mp4", "--start", "5", "--end", "2"], "--start 5 s is after --end 2 s"),
        (["a.mp4", "--every", "x"], "--every: must be a whole number of at least 1, got 'x'"),
        (["a.mp4", "--retries", "-1"], "--retries: must be a whole number of at least 0, got '-1'"),
        (["ftp://host/a.mp4", "--every", "2"], "are for videos, and none is named"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, sentence, capsys):
    with pytest.raises(SystemExit):
        predict.run(["checkpoint.pth", *flags, "--out", "out"])
    assert sentence in capsys.readouterr().err


def test_frames_are_read_only_a_few_ahead(tmp_path):
    """Bounded memory: a slow model holds the decoder back."""
    made = []

    def frames():
        for number in range(100):
            made.append(number)
            yield Frame(number, number / 30, numbered(number))

    items = ahead(frames(), room=4)
    for _ in range(3):
        next(items)
    time.sleep(0.05)
    items.close()
    assert len(made) <= 9


def test_ctrl_c_closes_the_file(tmp_path, checkpoint):
    clip = write_clip(tmp_path / "a.mp4", even(1500))
    flags = [str(checkpoint), str(clip), "--out", str(tmp_path / "out"), "--device", "cpu"]
    running = subprocess.Popen([sys.executable, "predict.py", *flags], cwd=REPOSITORY, stderr=subprocess.PIPE)
    part = tmp_path / "out" / "videos" / ".a.mp4.part"
    while not (part.exists() and part.stat().st_size > 40) and running.poll() is None:
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGINT)
    message = running.communicate()[1].decode()
    assert running.returncode == 130, message
    assert "what is written until then plays" in message
    frames = decoded(tmp_path / "out" / "videos" / "a.mp4")
    assert 0 < len(frames) < 1500
    assert [number_in(pixels) for pixels, _ in frames] == list(range(len(frames)))
