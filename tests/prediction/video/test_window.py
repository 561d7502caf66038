"""The window of --show: without a display, on a virtual one, and what closing it does."""

import os
import shutil
import subprocess

import pytest
from PIL import Image

import predict
from prediction.video.window import Window
from tests.helpers.drawn.clips import decoded, even, number_in, run_job, write_clip
from tests.helpers.paths import REPOSITORY

pytest.importorskip("tkinter", reason="this Python has no Tk")


@pytest.fixture(name="display")
def _display(monkeypatch):
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb, a display without a screen, is not installed")
    reading, writing = os.pipe()
    how = ["-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    running = subprocess.Popen(["Xvfb", *how], pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as file:
        monkeypatch.setenv("DISPLAY", f":{file.readline().strip()}")
    yield
    running.terminate()
    running.wait()


def test_without_a_display_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    clip, out = write_clip(tmp_path / "a.mp4", even(2)), tmp_path / "out"
    checkpoint = REPOSITORY / "weights" / "detr_tiny_shapes.pth"
    assert predict.run([str(checkpoint), str(clip), "--out", str(out), "--device", "cpu", "--show"]) == 1
    assert "error: --show needs a display, and there is none" in capsys.readouterr().err
    assert not out.exists()


def test_a_window_fits_the_screen_and_a_key_closes_it(display):
    window = Window("clip.mp4")
    window.show(Image.new("RGB", (1920, 1080)))
    assert 500 < window._root.winfo_reqwidth() < 640
    assert not window.closed
    window._root.focus_force()
    window._root.event_generate("q")
    window.update()
    assert window.closed
    window.close()


def test_closing_the_window_ends_the_video_and_it_plays(tmp_path, monkeypatch):
    class Closes:
        closed, shown = False, 0

        def __init__(self, title):
            pass

        def show(self, picture):
            self.shown += 1
            self.closed = self.shown == 5

        def update(self):
            pass

        close = update

    monkeypatch.setattr("prediction.video.job.Window", Closes)
    video, lines, _ = run_job(write_clip(tmp_path / "a.mp4", even(60)), tmp_path / "out", show=True)
    assert [number_in(pixels) for pixels, _ in decoded(video)] == [line["image"]["id"] for line in lines] == [*range(5)]
