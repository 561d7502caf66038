"""Missing and bad image files are reported, or replaced on request."""

import errno
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from datasets.image_reader import ImageReader, find_missing
from tests.helpers.coco_files import captured_warnings


@pytest.fixture
def logged():
    with captured_warnings() as lines:
        yield lines


def write(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (number, 0, 0)).save(folder / name)
    return list(names)


def reader(folder, names, **options):
    return ImageReader(folder, names, [(0, 0)] * len(names), **options)


def number_of(image):
    return np.asarray(image)[0, 0, 0]


def test_missing_files_are_counted_and_the_first_three_named(tmp_path):
    names = write(tmp_path, "a.png", "in/b.png")
    reader(tmp_path, names)
    lost = ["c.png", "in/d.png", "away/e.png", "f.png"]
    with pytest.raises(FileNotFoundError) as caught:
        reader(tmp_path, [*names, *lost])
    message = str(caught.value)
    assert "4 of 6 listed images are missing" in message and "--skip_bad_images" in message
    assert all(str(tmp_path / name) in message for name in lost[:3]) and "f.png" not in message
    with pytest.raises(FileNotFoundError, match="1 of 3 listed images is missing"):
        reader(tmp_path, [*names, "c.png"])


def test_what_is_not_a_regular_file_counts_as_missing(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would block
    names = ["folder.png", "broken.png", "pipe.png", "x" * 300, "a.png/b.png"]
    write(tmp_path, "a.png")
    assert find_missing(tmp_path, names) == [0, 1, 2, 3, 4]
    assert find_missing(tmp_path / "nowhere", ["a.png"]) == [0]


def test_names_may_leave_the_folder_be_absolute_or_be_links(tmp_path):
    write(tmp_path, "in/a.png", "out/b.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out" / "b.png")
    names = ["a.png", "../out/b.png", str(tmp_path / "out" / "b.png"), "link.png", "./a.png"]
    assert find_missing(tmp_path / "in", names) == []
    data = reader(tmp_path / "in", names)
    assert [number_of(data.read(index)[0]) for index in range(5)] == [0, 1, 1, 1, 0]


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    names = write(tmp_path, *(f"{n}.png" for n in range(5)), *(f"in/{n}.png" for n in range(5)))
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    monkeypatch.setattr(os, "stat", None)
    assert find_missing(tmp_path, names) == []
    assert len(listed) == 2


def test_names_that_the_file_system_accepts_in_another_spelling_are_not_missing(tmp_path, monkeypatch):
    names = write(tmp_path, "a.png")
    monkeypatch.setattr("datasets.image_reader._files_in", lambda folder: {"A.PNG"})
    assert find_missing(tmp_path, names) == []


def test_a_bad_image_is_replaced_by_the_next_good_one_wrapping_around(tmp_path, logged):
    names = write(tmp_path, *(f"{n}.png" for n in range(6)))
    for number in (2, 3, 5):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    data = reader(tmp_path, names, skip_bad=True)
    for _ in range(2):
        for index, expected in enumerate([0, 1, 4, 4, 4, 0]):
            image, read = data.read(index)
            assert read == expected == number_of(image)
    assert data.bad == [str(tmp_path / f"{n}.png") for n in (2, 3, 5)]
    assert len(logged) == 3 and all(f"{n}.png" in line for n, line in zip((2, 3, 5), logged))


def test_the_replacement_does_not_depend_on_earlier_reads(tmp_path):
    names = write(tmp_path, *(f"{n}.png" for n in range(6)))
    for number in (1, 2, 4):
        (tmp_path / f"{number}.png").write_bytes(b"")
    orders = [range(6), reversed(range(6)), (4, 1, 2, 5, 0, 3)]
    replaced = [{index: data.read(index)[1] for index in order} for order in orders
                for data in [reader(tmp_path, names, skip_bad=True)]]  # fmt: skip
    assert replaced[0] == replaced[1] == replaced[2]


def test_missing_images_count_as_bad_when_bad_ones_are_skipped(tmp_path, logged):
    names = write(tmp_path, "a.png", "b.png")
    data = reader(tmp_path, ["lost.png", *names], skip_bad=True)
    assert data.bad == [str(tmp_path / "lost.png")] and "lost.png" in logged[0]
    assert data.read(0)[1] == 1
    with pytest.raises(OSError, match="2 of 4 images .* more than --max_bad_images 1 .*lost.png; .*gone.png"):
        reader(tmp_path, ["lost.png", "gone.png", *names], skip_bad=True, max_bad=1)


def test_no_more_than_the_limit_are_skipped(tmp_path):
    names = write(tmp_path, *(f"{n}.png" for n in range(6)))
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    data = reader(tmp_path, names, skip_bad=True, max_bad=3)
    assert data.read(1)[1] == 4
    sentence = r"4 of 6 images .* --max_bad_images 3 \(.*0.png; .*1.png; .*2.png; …\): repair"
    with pytest.raises(OSError, match=sentence):
        data.read(0)
    assert reader(tmp_path, names, skip_bad=True, max_bad=4).read(0)[1] == 4


def test_a_limit_of_0_stops_at_the_first_bad_image(tmp_path):
    names = write(tmp_path, "a.png", "b.png")
    (tmp_path / "b.png").write_bytes(b"")
    data = reader(tmp_path, names, skip_bad=True, max_bad=0)
    assert data.read(0)[1] == 0
    with pytest.raises(OSError, match="1 of 2 images .* more than --max_bad_images 0"):
        data.read(1)


def test_without_any_good_image_there_is_no_replacement(tmp_path):
    with pytest.raises(OSError, match="none of the 2 images in .* can be read"):
        reader(tmp_path, ["a.png", "b.png"], skip_bad=True).read(0)


def test_without_the_flag_a_bad_image_is_an_error(tmp_path, logged):
    names = write(tmp_path, "a.png", "b.png")
    data = reader(tmp_path, names)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(OSError, match="a.png cannot be read"):
        data.read(0)
    assert data.bad == [] and logged == []


def test_the_sentence_on_a_bad_image_names_the_flag_that_skips_it(tmp_path):
    names = write(tmp_path, "a.png", "b.png")
    data = reader(tmp_path, names)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(OSError, match="a.png cannot be read .*: replace it, .*, or pass --skip_bad_images$"):
        data.read(0)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match="b.png does not exist: .*, or pass --skip_bad_images$"):
        data.read(1)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_the_limit_of_open_files_makes_no_image_a_bad_one(tmp_path, monkeypatch, skip_bad):
    data = reader(tmp_path, write(tmp_path, "a.png", "b.png"), skip_bad=skip_bad)

    def fail(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="the limit of open files .*ulimit -n 4096`$"):
        data.read(0)
    assert data.bad == []


def test_images_above_the_limit_of_pixels_are_bad(tmp_path, logged):
    names = write(tmp_path, "a.png", "b.png")
    Image.new("RGB", (5, 3), (9, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(OSError, match="a.png has 15 pixels, .* pass --max_pixels 15 "):
        reader(tmp_path, names, max_pixels=12).read(0)
    assert reader(tmp_path, names, max_pixels=12, skip_bad=True).read(0)[1] == 1
    assert "--max_pixels 15" in logged[0]
    assert reader(tmp_path, names, max_pixels=15).read(0)[0].size == (5, 3)


def test_how_images_were_read_is_said_once_by_all_workers(tmp_path):
    import torch.multiprocessing as multiprocessing

    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((3, 4), 900, dtype=np.uint16)).save(tmp_path / name)
    data = reader(tmp_path, ["a.png", "b.png"])
    with captured_warnings() as lines:
        data.read(0)
        assert len(lines) == 1 and "a.png has samples of 900..900, which are read as 10-bit ones" in lines[0]
        data.read(1)
        assert len(lines) == 1
    data = reader(tmp_path, ["a.png", "b.png"])
    worker = multiprocessing.get_context("fork").Process(target=data.read, args=(1,))
    worker.start()
    worker.join()
    with captured_warnings() as lines:
        data.read(0)
    assert worker.exitcode == 0 and lines == []


def test_names_with_a_nul_or_lone_surrogates_are_missing(tmp_path):
    assert find_missing(tmp_path, ["a\0b.png", "in\0/a.png", "\ud800.png", "\ud800/a.png"]) == [0, 1, 2, 3]


def test_worker_processes_share_what_they_find(tmp_path):
    import torch.multiprocessing as multiprocessing

    names = write(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "b.png").write_bytes(b"")
    data = reader(tmp_path, names, skip_bad=True)
    worker = multiprocessing.get_context("fork").Process(target=data.read, args=(1,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0 and data.bad == [str(tmp_path / "b.png")]


def test_good_files_give_no_warning(tmp_path, logged):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = reader(tmp_path, write(tmp_path, "a.png"), skip_bad=True)
        assert data.read(0)[1] == 0 and data.bad == logged == []
