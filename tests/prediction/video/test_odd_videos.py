"""Videos that are unlike what a camera writes: mirrored, damaged, of changing size, with other sound or times."""

import gc
from fractions import Fraction

import numpy as np
import pytest

from prediction.video.reader import Reader
from prediction.video.sources import Source
from tests.helpers.drawn.clips import av, decoded, even, number_in, numbered, run_job, write_clip


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_turned_and_mirrored_as_the_file_says(tmp_path, turned, mirrored):
    """The rotation is counter-clockwise; mirroring comes after it."""
    clip = write_clip(tmp_path / "a.mp4", even(3), rotation=turned, mirrored=mirrored)
    video, _, _ = run_job(clip, tmp_path / "out")
    pixels = decoded(video)[1][0]
    before = np.rot90(np.fliplr(pixels) if mirrored else pixels, -turned // 90)
    assert before.shape == (96, 208, 3)
    assert number_in(before) == 1


def test_frames_of_another_size_are_done_and_fit_the_video(tmp_path):
    parts = [write_clip(tmp_path / f"{side}.ts", even(5), (2 * side, side), first=side) for side in (96, 192)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    video, lines, _ = run_job(joined, tmp_path / "out", batch_size=2)
    sizes = [(line["image"]["width"], line["image"]["height"]) for line in lines]
    assert sizes == [(192, 96)] * 5 + [(384, 192)] * 5
    frames = [pixels for pixels, _ in decoded(video)]
    assert [pixels.shape for pixels in frames] == [(96, 192, 3)] * 10
    times = [line["image"]["time"] for line in lines]
    assert times == sorted(set(times))


def test_a_damaged_frame_is_marked_counted_and_named(tmp_path):
    clip = write_clip(tmp_path / "a.avi", even(30), codec="mpeg4")
    with av.open(str(clip)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(clip.read_bytes())
    position, size = places[12]
    content[position + 8 + size // 2 : position + 8 + size] = b"\xa5" * (size - size // 2)
    clip.write_bytes(content)
    _, lines, said = run_job(clip, tmp_path / "out")
    assert [line["image"]["id"] for line in lines if line["image"].get("damaged")] == [12]
    assert "30 frames, 1 broken (frame 12 at 0.40 s is damaged)" in said[0]


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "pcm_s16le"), ("a.ts", "mp2")])
def test_sound_that_mp4_does_not_hold_becomes_aac(tmp_path, name, codec):
    video, _, said = run_job(write_clip(tmp_path / name, even(61), sound=codec), tmp_path / "out")
    assert said[1].endswith(f"its sound, {codec}, is written as aac")
    with av.open(str(video)) as container:
        stream = container.streams.audio[0]
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])
    assert (stream.codec_context.name, stream.rate) == ("aac", 16000)
    heard = np.abs(np.fft.rfft(wave[4000:20000]))
    assert heard.argmax() == 440  # Hz, in a second of it
    assert len(wave) == pytest.approx(2 * 16000, abs=2048)


def test_the_first_time_need_not_be_0(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", [7 + moment for moment in even(40)])
    video, lines, _ = run_job(clip, tmp_path / "out", start=0.5, end=1.0, every=5)
    assert [line["image"]["id"] for line in lines] == [15, 20, 25, 30]
    assert [line["image"]["time"] for line in lines] == pytest.approx([0.5, 0.667, 0.833, 1.0], abs=0.002)
    assert [number_in(pixels) for pixels, _ in decoded(video)] == [15, 20, 25, 30]
    assert [moment for _, moment in decoded(video)] == pytest.approx([0, 0.167, 0.333, 0.5], abs=0.002)


def test_frames_are_chosen_by_their_times_also_at_a_variable_rate(tmp_path):
    times = [0, 0.01, 0.5, 0.52, 0.53, 1.1, 1.5, 1.6, 2.75, 2.8, 3.0, 3.04]
    clip = write_clip(tmp_path / "a.ts", times)
    for how, expected in (
        ({"start": 0.5, "end": 2.75}, [2, 3, 4, 5, 6, 7, 8]),
        ({"start": 0.51, "end": 2.7, "every": 3}, [3, 6]),
        ({"every": 5, "overlay": True}, [0, 5, 10]),
    ):
        video, lines, _ = run_job(clip, tmp_path / "out", **how)
        assert [line["image"]["id"] for line in lines] == expected
        assert [line["image"]["time"] for line in lines] == pytest.approx([times[i] for i in expected], abs=0.002)
        if "overlay" not in how:
            assert [number_in(pixels) for pixels, _ in decoded(video)] == expected
        shown = [moment + times[expected[0]] for _, moment in decoded(video)]
        assert shown == pytest.approx([times[index] for index in expected], abs=0.002)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", even(300))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    _, lines, said = run_job(clip, tmp_path / "out")
    assert f"1 broken (after frame {len(lines) - 1} the file cannot be read (it ends after" in said[0]
    assert "of 10.0 s" in said[0]


def test_colours_are_those_of_the_source_also_for_a_player_that_believes_what_it_is_told(tmp_path):
    video, _, _ = run_job(write_clip(tmp_path / "a.mp4", even(2)), tmp_path / "out")
    with av.open(str(video)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (6, 1)  # BT.601, limited
        assert (context.color_primaries, context.color_trc) == (1, 1)  # browsers guess unless these are told, too


def test_pixels_that_are_not_square_stay_so(tmp_path):
    clip = tmp_path / "a.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 208, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1), format="rgb24")))
        container.mux(stream.encode(None))
    video, _, _ = run_job(clip, tmp_path / "out")
    with av.open(str(video)) as container:
        assert container.streams.video[0].sample_aspect_ratio == pytest.approx(16 / 11)


def test_a_video_without_a_frame_in_the_chosen_time_leaves_no_file(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", even(30))
    with pytest.raises(OSError, match="no frame between --start and --end, the last one read is at 0.97 s"):
        run_job(clip, tmp_path / "out", start=5.0)
    assert not (tmp_path / "out" / "videos").exists()


def test_the_cover_of_a_song_is_no_video(tmp_path):
    song = tmp_path / "a.m4v"
    with av.open(str(song), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 208, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1), format="rgb24")))
    with pytest.raises(OSError, match="holds no video"):
        run_job(song, tmp_path / "out")


def test_frames_do_not_stay_in_memory_until_garbage_is_collected(tmp_path):
    reader = Reader(Source(str(write_clip(tmp_path / "a.mp4", even(40), sound="aac")), "a.mp4", "file"))
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in reader) > 40
        kept = [type(thing).__name__ for thing in gc.get_objects() if str(type(thing).__module__).startswith("av.")]
    finally:
        gc.enable()
    assert len([name for name in kept if name.endswith("Frame")]) <= 4
    assert kept.count("Packet") <= 4
