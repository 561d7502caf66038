"""Streams that break off, end and begin again, from servers on this machine."""

import http.server
import io
import struct
import threading

import pytest
from PIL import Image

from prediction.video.clock import Clock
from tests.helpers.drawn.clips import decoded, even, nothing, number_in, numbered, run_job, write_clip
from tests.helpers.drawn.rtsp import rtsp
from tests.helpers.file_server import serving


class Server(http.server.BaseHTTPRequestHandler):
    """Sends one answer after another; a client that asks again gets the next one, or 404 after the last."""

    answers, kind, length, requests = [], "video/mp2t", None, []

    def do_GET(self):
        self.requests.append(self.path)
        if len(self.requests) > len(self.answers):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", self.kind)
        if self.length is not None:
            self.send_header("Content-Length", str(self.length))
        self.end_headers()
        self.wfile.write(self.answers[len(self.requests) - 1])

    def log_message(self, *_):
        pass


@pytest.fixture
def received(tmp_path, monkeypatch):
    """Answers → the numbers in the frames that are written, the lines, and what was said."""
    monkeypatch.setattr("prediction.video.reader.PAUSE", 0.01)

    def receive(answers, name="live.ts", **how):
        monkeypatch.setattr(Server, "requests", [])
        monkeypatch.setattr(Server, "answers", answers)
        for key in ("kind", "length"):
            if key in how:
                monkeypatch.setattr(Server, key, how.pop(key))
        with serving(Server) as address:
            video, lines, said = run_job(f"{address}/{name}", tmp_path / "out", kind="address", **how)
        return [number_in(pixels) for pixels, _ in decoded(video)], lines, said

    return receive


def ts(folder, first, count):
    return write_clip(folder / f"{first}.ts", even(count), first=first).read_bytes()


def test_a_file_that_is_cut_is_opened_again_and_no_frame_is_doubled(tmp_path, received):
    content = write_clip(tmp_path / "a.avi", even(40), codec="mjpeg").read_bytes()
    numbers, _, said = received([content[: len(content) * 2 // 3], content], "a.avi", length=len(content))
    assert numbers == list(range(40))
    assert "trying again (1 of 3)" in said[0]


def test_a_live_stream_that_its_server_ends_goes_on_and_so_do_its_times(tmp_path, received):
    numbers, lines, said = received([ts(tmp_path, 0, 20), ts(tmp_path, 20, 20)])
    assert numbers == [line["image"]["id"] for line in lines] == list(range(40))
    assert [line["image"]["time"] for line in lines] == pytest.approx(even(40), abs=0.002)
    assert "broke off after frame 19 (the server ended it), trying again (1 of 3)" in said[0]
    assert "404 Not Found) and was tried again 3 times" in said[-1]


def test_a_camera_by_rtsp_is_received_over_tcp_and_again_when_it_breaks_off(tmp_path, monkeypatch):
    monkeypatch.setattr("prediction.video.reader.PAUSE", 0.01)
    with rtsp([(0, 20), (20, 20)]) as (address, transports):
        video, lines, said = run_job(address, tmp_path / "out", kind="address", retries=2)
    assert [number_in(pixels) for pixels, _ in decoded(video)] == list(range(40))
    assert [line["image"]["time"] for line in lines] == pytest.approx(even(40), abs=0.001)
    assert "broke off after frame 19 (the server ended it), trying again (1 of 2)" in said[0]
    assert {transport.split(";")[0] for transport in transports} == {"RTP/AVP/TCP"}


def test_a_live_stream_without_retries_ends_with_its_server(tmp_path, received):
    numbers, _, said = received([ts(tmp_path, 0, 20), ts(tmp_path, 20, 20)], retries=0)
    assert numbers == list(range(20))
    assert len(said) == 1 and "broke" not in said[0]


def test_a_file_of_known_length_ends_at_once(tmp_path, received):
    content = ts(tmp_path, 0, 20)
    numbers, _, said = received([content, content], length=len(content))
    assert numbers == list(range(20))
    assert len(Server.requests) == 1
    assert len(said) == 1 and "broke" not in said[0]


def test_a_file_with_its_index_at_the_end_is_loaded_from_a_server_that_sends_no_parts(tmp_path, received):
    clip = write_clip(tmp_path / "a.mp4", even(40), sound="aac")
    content = clip.read_bytes()
    place = content.index(b"moov") - 4
    space = 2**20  # between the frames and the index: more than is read in passing
    content = content[:place] + struct.pack(">I4s", space, b"free") + bytes(space - 8) + content[place:]
    numbers, _, said = received([content] * 9, "a.mp4", length=len(content))
    assert numbers == list(range(40))
    assert said[0].endswith("its server sends no parts of files, so it is downloaded first")


def test_pictures_of_a_network_camera_are_received(received):
    parts = []
    for number in range(12):
        picture = io.BytesIO()
        Image.fromarray(numbered(number)).save(picture, "jpeg")
        head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.getvalue())}\r\n\r\n"
        parts.append(head.encode() + picture.getvalue() + b"\r\n")
    numbers, lines, _ = received([b"".join(parts)], "video", kind="multipart/x-mixed-replace; boundary=next", retries=0)
    assert numbers == list(range(12))
    times = [line["image"]["time"] for line in lines]
    assert times[0] == 0 and times == sorted(set(times))


def test_a_clock_goes_on_where_the_source_starts_its_own_again():
    clock = Clock(0.1, longest=10.0)
    times = [5.0, 5.1, 5.3, 0.0, 0.1, 0.3, 900.0, 900.1, 900.3]
    expected = [0, 0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1.1]
    assert [clock.frame(time) for time in times] == pytest.approx(expected)
    assert clock.sound(900.25) == pytest.approx(1.05)
    assert clock.sound(5.0) is None


def test_a_clock_passes_over_missing_equal_and_single_wrong_times():
    clock = Clock(0.1)
    times = [None, 7.0, 7.0, 7.2, 1.0, 7.4]
    assert [clock.frame(time) for time in times] == pytest.approx([0, 0.1, 0.101, 0.3, 0.4, 0.5])


def test_a_stream_that_sends_nothing_more_is_left_when_asked_to(tmp_path):
    class Silent(Server):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ts(tmp_path, 0, 90))
            left.append(may_end.wait(9))  # less than the silence that the reader bears

    may_end, left, seen, asked = threading.Event(), [], [], []

    def detect(images):
        seen.extend(images)
        return nothing(images)

    def stopped():
        asked.append(len(seen))
        return len(asked) > 10 and 0 < asked[-10] == asked[-1]

    with serving(Silent) as address:
        video, lines, _ = run_job(f"{address}/a.ts", tmp_path / "out", kind="address", detect=detect, stopped=stopped)
        may_end.set()
    assert 0 < len(decoded(video)) == len(lines)
    assert left == [True]
