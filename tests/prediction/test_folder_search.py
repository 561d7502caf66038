"""Every image below a folder is found, also through links, and everything else is counted and named."""

import os
import socket
from pathlib import Path

import pytest

from datasets.image_files import image_suffixes
from prediction.folder_search import LeftOut, search_folder


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")


def search(folder: Path, **options) -> tuple[list[str], str]:
    left_out = LeftOut()
    found = search_folder(folder, left_out, **options)
    return [path.relative_to(folder).as_posix() for path in found], str(left_out)


def test_every_suffix_that_pillow_reads_is_found_in_any_case(tmp_path):
    names = [f"a{suffix}" for suffix in image_suffixes()] + [f"b{suffix.upper()}" for suffix in image_suffixes()]
    make(tmp_path, *names)
    assert search(tmp_path) == (sorted(names), "")


def test_what_is_left_out_is_counted_and_named(tmp_path):
    make(tmp_path, "a.png", "e.heic", "in/notes.txt", "no suffix", "in/.cache/x.png", "._a.png", ".DS_Store")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.png"))
        found, said = search(tmp_path)
    assert found == ["a.png"]
    assert set(said.split("; ")) == {
        "3 files are not images that Pillow reads (e.heic, no suffix, in/notes.txt)",
        "2 hidden files or folders (._a.png, in/.cache)",
        "2 links lead nowhere (gone.png, self.png)",
        "2 pipes, sockets or devices (pipe.png, socket.png)",
    }


def test_long_lists_are_cut_and_names_cannot_forge_lines(tmp_path):
    make(tmp_path, *(f"{number}.txt" for number in range(7)), "\x1b[31m\nerror: forged.txt")
    assert search(tmp_path)[1].endswith(r"(\x1b[31m\nerror: forged.txt, 0.txt, 1.txt, 2.txt, 3.txt, …)")


def test_links_to_folders_and_files_are_followed_under_their_own_names(tmp_path):
    make(tmp_path, "photos/own.png", "real/linked.png", "real/deep/other.jpg", "single.png")
    (tmp_path / "photos/more").symlink_to(tmp_path / "real")
    (tmp_path / "photos/one.png").symlink_to("../single.png")
    (tmp_path / "photos/blob.png").symlink_to("../real/unnamed")  # the link's suffix counts
    make(tmp_path, "real/unnamed")
    found, said = search(tmp_path / "photos")
    assert found == ["blob.png", "more/deep/other.jpg", "more/linked.png", "one.png", "own.png"]
    assert said == "1 file is not an image that Pillow reads (more/unnamed)"


def test_loops_end_and_no_folder_or_file_is_listed_twice(tmp_path):
    make(tmp_path, "z/a.png", "z/in/b.png")
    (tmp_path / "a_first").symlink_to("z")  # sorted before the folder itself
    (tmp_path / "z/in/up").symlink_to("..")
    (tmp_path / "z/in/top").symlink_to(tmp_path)
    (tmp_path / "again.png").symlink_to("z/a.png")
    found, said = search(tmp_path)
    assert found == ["z/a.png", "z/in/b.png"]
    assert "3 links lead to folders that are searched anyway (a_first, z/in/top, z/in/up)" in said
    assert "1 link leads to an image that is listed anyway (again.png)" in said


def test_two_links_to_a_folder_outside_give_its_images_once(tmp_path):
    make(tmp_path, "out/a.png")
    (tmp_path / "photos").mkdir()
    for name in ("x", "y"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "out")
    assert search(tmp_path / "photos")[0] == ["x/a.png"]


def test_a_folder_can_be_ignored_and_is_not_counted(tmp_path):
    make(tmp_path, "a.png", "out/b.png", "out/c.json")
    (tmp_path / "link").symlink_to("out")
    assert search(tmp_path, ignored=[tmp_path / "out"]) == (["a.png"], "")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert search(tmp_path) == (["a.png"], "1 folder cannot be read (closed: Permission denied)")


@pytest.mark.parametrize("name", ["two\nlines.png", os.fsdecode(b"\xff\xfe.png"), "\x1b[2J.png", " .png"])
def test_odd_names_are_found(tmp_path, name):
    make(tmp_path, name)
    assert search(tmp_path)[0] == [name]
