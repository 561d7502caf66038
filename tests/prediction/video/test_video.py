"""Videos in, videos and lines of JSON out, on clips that are drawn here."""

import numpy as np
import pytest
import torch

from prediction.result import Prediction
from tests.helpers.drawn.clips import av, decoded, even, nothing, number_in, run_job, write_clip


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
    clip = write_clip(tmp_path / "a.mp4", even(60), sound="aac")
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
