"""Videos in, videos and lines of JSON out, on clips that are drawn here."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from prediction.result import Prediction
from prediction.video.flags import seconds
from prediction.video.job import VideoJob
from prediction.video.pipeline import ahead
from prediction.video.reader import Frame, Reader
from prediction.video.sources import Source, address_source, sort_inputs
from tests.helpers.paths import REPOSITORY
from tests.helpers.predict_parts import write_detector

av = pytest.importorskip("av", reason="the package av is not installed")
BITS, CELL = 12, 16  # a number is drawn as a row of black and white cells


def numbered(number, size=(208, 96)):
    """A grey picture with a number drawn into it."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    for bit in range(BITS):
        pixels[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
    return pixels


def number_in(pixels):
    middles = pixels[CELL // 2, CELL // 2 : BITS * CELL : CELL].mean(axis=-1)
    return sum(int(middle > 128) << bit for bit, middle in enumerate(middles))


def write_clip(path, times, size=(208, 96), rotation=0, sound=False, codec="libx264"):
    """A clip whose frames are numbered and shown at `times`, in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=30)
        video.width, video.height = size
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        tone = container.add_stream("aac", rate=16000) if sound else None
        for number, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, size), format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if tone:
            for block in range(int(times[-1] * 16000 / 1024)):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, block * 1024
                container.mux(tone.encode(frame))
            container.mux(tone.encode(None))
        container.mux(video.encode(None))
    return path


def even(count, rate=30):
    return [index / rate for index in range(count)]


def decoded(path):
    """(pixels, time) of each frame of a written video."""
    with av.open(str(path)) as container:
        return [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)]


def lines_of(path):
    return [json.loads(line) for line in Path(f"{path}.jsonl").read_text().splitlines()]


def nothing(images):
    """Finds nothing in any picture."""
    empty = torch.zeros(0)
    return [Prediction(image, empty.reshape(0, 4), empty, empty.long(), [], empty.long()) for image in images]


def run_job(clip, out, kind="file", detect=nothing, **how):
    """The written video, its lines, and what was said."""
    said = []
    VideoJob(detect, out, say=said.append, **how).run(Source(str(clip), "clip.mp4", kind))
    return out / "videos" / "clip.mp4", lines_of(out / "videos" / "clip.mp4"), said


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_frame_comes_out_once_and_in_order(tmp_path, batch_size):
    clip = write_clip(tmp_path / "a.mp4", even(50))
    video, lines, said = run_job(clip, tmp_path / "out", batch_size=batch_size)
    assert [number_in(pixels) for pixels, _ in decoded(video)] == list(range(50))
    assert [line["image"]["id"] for line in lines] == list(range(50))
    assert "50 frames" in said[0]


def test_uneven_times_are_kept(tmp_path):
    times = [0, 0.04, 0.2, 0.25, 1.0, 1.5]
    video, lines, _ = run_job(write_clip(tmp_path / "a.mp4", times), tmp_path / "out")
    assert [moment for _, moment in decoded(video)] == pytest.approx(times, abs=0.002)
    assert [line["image"]["time"] for line in lines] == pytest.approx(times, abs=0.002)


def test_a_video_of_a_turned_phone_is_upright(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", even(3), rotation=-90)
    video, lines, _ = run_job(clip, tmp_path / "out")
    pixels = decoded(video)[1][0]
    assert pixels.shape == (208, 96, 3)
    assert (lines[0]["image"]["width"], lines[0]["image"]["height"]) == (96, 208)
    assert number_in(np.rot90(pixels)) == 1  # clockwise by 90 degrees: undone, the number is there


def test_sound_is_carried_over(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", even(60), sound=True)
    video, _, _ = run_job(clip, tmp_path / "out", start=1.0)
    with av.open(str(video)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        sound = [packet for packet in container.demux(audio=0) if packet.size]
    assert 12 <= len(sound) <= 16  # of 31 packets, those of the second that is kept


def test_the_video_plays_in_a_browser(tmp_path):
    video, _, _ = run_job(write_clip(tmp_path / "a.avi", even(4), (207 - 1, 94), codec="mjpeg"), tmp_path / "out")
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # it starts before all of it is there
    with av.open(str(video)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_odd_sides_get_a_row_and_a_column(tmp_path):
    class Odd:
        def __call__(self, images):
            return nothing([image.crop((0, 0, 207, 95)) for image in images])

    video, _, _ = run_job(write_clip(tmp_path / "a.mp4", even(3)), tmp_path / "out", detect=Odd())
    assert decoded(video)[0][0].shape == (96, 208, 3)


def test_every_start_and_end_choose_frames(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", even(60))
    video, lines, _ = run_job(clip, tmp_path / "out", every=4, start=0.5, end=1.0)
    assert [line["image"]["id"] for line in lines] == [16, 20, 24, 28]
    assert [number_in(pixels) for pixels, _ in decoded(video)] == [16, 20, 24, 28]


def test_a_broken_frame_is_counted_and_named(tmp_path):
    clip = write_clip(tmp_path / "a.avi", even(20), codec="mjpeg")
    content = bytearray(clip.read_bytes())
    places = [place for place in range(len(content) - 4) if content[place : place + 3] == b"\xff\xd8\xff"]
    first, last = places[7], places[8] - 32
    content[first:last] = bytes(last - first)
    clip.write_bytes(content)
    _, lines, said = run_job(clip, tmp_path / "out")
    assert len(lines) == 19
    assert "19 frames, 1 broken (the frame after frame 6" in said[0]


def test_a_stop_leaves_a_video_that_plays(tmp_path):
    seen = []

    def detect(images):
        seen.extend(images)
        return nothing(images)

    clip = write_clip(tmp_path / "a.mp4", even(60))
    video, lines, _ = run_job(clip, tmp_path / "out", detect=detect, stopped=lambda: len(seen) >= 10)
    numbers = [number_in(pixels) for pixels, _ in decoded(video)]
    assert numbers == list(range(10)) == [line["image"]["id"] for line in lines]


def test_an_error_in_the_middle_keeps_what_was_done(tmp_path):
    def detect(images):
        if number_in(np.asarray(images[0])) == 5:
            raise ValueError("the model fails")
        return nothing(images)

    clip = write_clip(tmp_path / "a.mp4", even(20))
    with pytest.raises(ValueError, match="the model fails"):
        run_job(clip, tmp_path / "out", detect=detect)
    assert len(decoded(tmp_path / "out" / "videos" / "clip.mp4")) == 5
    assert not list((tmp_path / "out" / "videos").glob(".*"))


def test_a_tracker_sees_each_frame_in_order_and_its_ids_are_written(tmp_path):
    times = []

    class Tracker:
        def update(self, detections, frame_time=None):
            times.append(frame_time)
            return [7]

    def detect(images):
        one = torch.ones(1)
        box = torch.tensor([[40.0, 40, 80, 80]])
        return [Prediction(image, box, one, one.long(), ["circle"], one.long()) for image in images]

    clip = write_clip(tmp_path / "a.mp4", even(5, 10))
    _, lines, _ = run_job(clip, tmp_path / "out", detect=detect, tracker=lambda rate: Tracker())
    assert times == pytest.approx(even(5, 10), abs=0.001)
    assert lines[4]["annotations"][0]["track_id"] == 7


class CutsOff(http.server.BaseHTTPRequestHandler):
    """Sends a part of a video the first time, all of it afterwards."""

    content, requests = b"", []

    def do_GET(self):
        begin = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        self.requests.append(begin)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content if len(self.requests) > 1 else self.content[: len(self.content) * 2 // 3])

    def log_message(self, *_):
        pass


@pytest.fixture(name="checkpoint", scope="module")
def _checkpoint(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture
def served(tmp_path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    http.server.SimpleHTTPRequestHandler.log_message = lambda *_: None
    yield from _serve(handler)


def _serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stream_that_is_cut_is_opened_again_and_no_frame_is_doubled(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.avi", even(40), codec="mjpeg")
    monkeypatch.setattr(CutsOff, "content", clip.read_bytes())
    monkeypatch.setattr(CutsOff, "requests", [])
    monkeypatch.setattr("prediction.video.reader.PAUSE", 0.01)
    for address in _serve(CutsOff):
        video, lines, said = run_job(f"{address}/a.avi", tmp_path / "out", kind="address")
    assert len(CutsOff.requests) > 1
    assert [number_in(pixels) for pixels, _ in decoded(video)] == list(range(40))
    assert "trying again (1 of 3)" in said[0]


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
    inputs = sort_inputs(["a.mp4", "0", "1", "mixed", "clips", "*.png", "rtsp://camera/door", "http://host/photo"])
    assert [source.name for source in inputs.videos] == ["a.mp4", "webcam-0", "b.mov", "d.mkv", "camera_door"]
    assert inputs.images == ["1", "mixed", "*.png"]
    assert inputs.web == ["http://host/photo"]


def test_times_on_the_command_line():
    assert [seconds(text) for text in ("90", "1:30", "0:01:30.5")] == [90, 90, 90.5]


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
