"""Only regular files of raster formats are opened, up to a number of pixels; the message says what is wrong."""

import errno
import os
import socket
import threading
import warnings
import zlib

import pytest
from PIL import EpsImagePlugin, Image

from datasets.annotations.segment_maps import decode_segment_map, read_segment_map
from datasets.image_decoding import read_image
from datasets.image_files import image_suffixes, open_image, raster_formats
from tests.datasets.test_image_decoding import STORED, refused, saved
from util.errors import OpenFilesError


def test_formats_that_start_other_programs_or_are_not_decoded_are_not_opened():
    known = set(raster_formats())
    assert {"JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM"} <= known
    assert not known & {"EPS", "PDF", "WMF", "HDF5", "GRIB", "BUFR", "MPEG", "FITS", "IPTC"}


def test_suffixes_are_those_of_the_formats():
    assert {".jpg", ".jfif", ".mpo", ".dib", ".j2k", ".tiff", ".png"} <= image_suffixes()
    assert not image_suffixes() & {".eps", ".ps", ".pdf", ".wmf", ".h5", ".heic", ".txt", ""}
    openers = {name for name in Image.OPEN}
    for suffix, name in Image.registered_extensions().items():
        assert (suffix in image_suffixes()) == (name == "MPO" or name in openers & set(raster_formats())), suffix


def test_postscript_is_not_handed_to_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    path = tmp_path / "a.png"
    STORED.save(path, format="EPS")
    refused(path, path.read_bytes(), "PostScript")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (bytes(1000), "damaged, or of a format that Pillow does not read"),
        (b"", "the file is empty"),
    ],
)
def test_what_is_no_image_is_described(tmp_path, content, words):
    refused(tmp_path / "a.jpg", content, words)


def test_pipes_sockets_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.png"))
        for path, words in ((tmp_path / "pipe.png", "named pipe"), (tmp_path / "socket.png", "socket")):
            with pytest.raises(OSError, match=f"{path.name} cannot be read .it is a {words}, not a file"):
                read_image(path)
    with pytest.raises(OSError, match="/dev/null cannot be read .it is a device"):
        read_image("/dev/null")


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png", "\udcff\ud800.png", "a.png\nerror: forged"])
def test_names_that_no_file_can_have_or_that_look_forged_are_errors_like_others(tmp_path, name):
    with pytest.raises(OSError, match="^image file .*(cannot be read|does not exist)[^\n]*$"):
        read_image(tmp_path / name)


def test_an_address_is_not_a_missing_file():
    for address in (
        "https://example.org/a.jpg",
        "s3://bucket/a.jpg",
        "https:/example.org/a.jpg",
        "data:image/png;base64,AA",
    ):
        with pytest.raises(FileNotFoundError, match="is an address, and images are read from files only: download it"):
            read_image(address)
    with pytest.raises(FileNotFoundError, match="file:///a.jpg is an address.*: name the path"):
        read_image("file:///a.jpg")


# --- Size -------------------------------------------------------------------------------------------------------------


def test_the_limit_of_pixels_is_exact_and_names_the_flag(tmp_path):
    saved(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=1200).size == (40, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match=r"a.png has 1,200 pixels, more than the limit of 1,199: .*--max_pixels 1200"):
            read_image(tmp_path / "a.png", max_pixels=1199)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.gif"])
def test_pillows_own_limit_neither_warns_nor_refuses(tmp_path, monkeypatch, name):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of its own, Pillow warns of 1,000 pixels and refuses 1,200
    for size in ((40, 25), (40, 30)):
        STORED.resize(size).save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / name).size == size
    assert Image.MAX_IMAGE_PIXELS == 500


def test_panoptic_maps_have_the_limit_too(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    path = tmp_path / "a.png"
    content = saved(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_segment_map(path, 1200).shape == decode_segment_map(content).shape == (30, 40)
        with pytest.raises(ValueError, match="panoptic map .*a.png has 1,200 pixels, .* pass --max_pixels 1200"):
            read_segment_map(path, 1199)


def test_the_default_limit_is_pillows():
    assert read_image.__kwdefaults__["max_pixels"] == 2 * (1024**3 // 4 // 3)


def test_an_image_inside_of_an_image_has_the_same_limit(tmp_path):
    path = tmp_path / "a.ico"
    STORED.resize((64, 64)).save(path, sizes=[(64, 64)])
    content = path.read_bytes()
    start = content.index(b"IHDR")
    header = b"IHDR" + (90_000).to_bytes(4, "big") * 2 + content[start + 12 : start + 17]
    path.write_bytes(content[:start] + header + zlib.crc32(header).to_bytes(4, "big") + content[start + 21 :])
    with pytest.raises(OSError, match=r"a.ico has 8,100,000,000 pixels, more than the limit"):
        read_image(path)


def test_threads_with_other_limits_do_not_disturb_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 77)
    saved(tmp_path / "a.png")
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with open_image(tmp_path / "a.png", 5000):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    assert read_image(tmp_path / "a.png", max_pixels=1200).size == (40, 30)
    with pytest.raises(OSError, match="more than the limit of 1,199"):
        read_image(tmp_path / "a.png", max_pixels=1199)
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == 77


def test_compressed_text_and_profiles_that_expand_without_end_are_refused(tmp_path):
    whole = saved(tmp_path / "a.png")
    bomb = zlib.compress(bytes(80 * 2**20))
    for kind, content in (
        (b"zTXt", b"key\0\0" + bomb),
        (b"iTXt", b"key\0\1\0\0\0" + bomb),
        (b"iCCP", b"name\0\0" + bomb),
    ):
        body = kind + content
        chunk = len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])  # after the header
        with pytest.raises(OSError, match="a.png cannot be read .*[Dd]ecompress"):
            read_image(tmp_path / "a.png")


# --- Open files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_the_limit_of_open_files_is_not_the_fault_of_the_file(tmp_path, monkeypatch, code):
    saved(tmp_path / "a.png")

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(
        OpenFilesError, match=r"a.png cannot be opened: the limit of open files .*is reached: .*ulimit -n"
    ):
        read_image(tmp_path / "a.png")
