"""JSON that users hand in: what is read, and what a file of another kind is called."""

import gc
import gzip
import json
import os

import pytest

from util.loading.json_text import collector_paused, read_json


def refused(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"record {file} ") as caught:
        read_json(file, "record")
    return str(caught.value).partition("a.json ")[2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_every_encoding_is_read(tmp_path, encoding):
    value = {"names": ["Küken", "鳥"], "score": 0.5, "none": None}
    (tmp_path / "a.json").write_text(json.dumps(value, ensure_ascii=False), encoding=encoding)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("text", [' \n{"a": [1]}\n', "NaN", "-1", "true", '"x"', " " * 2000 + "[]"])
def test_any_value_is_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    value = read_json(tmp_path / "a.json")
    assert value == json.loads(text) or value != value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            gzip.compress(b'{"images": []}', mtime=0),
            "is not JSON but a gzip archive: unpack it and pass the file in it",
        ),
        (b"PK\x03\x04" + bytes(60), "is not JSON but a ZIP archive: unpack it"),
        (bytes(257) + b"ustar" + bytes(300), "is not JSON but a tar archive: unpack it"),
        (b"\x80\x04}q\x00.", "is not JSON but a Python pickle: pass another file"),
        (b"\x89PNG\r\n\x1a\n", "is not JSON but a PNG image: pass another file"),
        (b"<annotation><folder>", "is not JSON but XML: pass another file"),
        (b"<!DOCTYPE html><html>", "is not JSON but an HTML page: it is probably a page about the file"),
        (b"names:\n  0: cat\n", "it looks like YAML"),  # "n" could begin null
        (b"train: ../train/images\n", "it looks like YAML"),
        (b"0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n", "YOLO's text format"),
        (b"file,x,y\na.png,1,2\n", "it looks like a table of comma-separated values"),
        (b"1,2,3\n4,5,6\n", "a table of comma-separated values"),
        (b"{'images': []}", "is not JSON but a Python value"),
        (b'{"a": 1}\n{"a": 2}\n', "it holds several JSON values, such as JSON lines"),
        (bytes(600), "is not JSON but nothing but zeros"),
        (b"version https://git-lfs.github.com/spec/v1\n", "fetch the file itself with `git lfs pull`"),
        (b"\x1b[2Jsecret", "is not JSON (it begins with '\\x1b[2Jsecret'): pass another file"),
        ('{"name": "Küken"}'.encode("latin-1"), "saved in another encoding than UTF-8"),
        (b'{"a": [1, 2', "it may be truncated"),
        (b'{"a": "half', "it may be truncated"),
        (b'{"a": fals', "it may be truncated"),
        (b'{"a": 1,, "b": "' + b"x" * 100 + b'"}', "correct it there, or pass another file"),
        (b'{"a": ' + b"9" * 5000 + b"}", "an integer of more than 4300 digits"),
        (b"[" * 10**5, "is nested too deeply to be read"),
        (b'{"a":' * 10**5, "is nested too deeply to be read"),
        (b" \n", "is not JSON"),
        (b"", "is empty"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_not_json_is_named(tmp_path, content, sentence):
    found = refused(tmp_path, content)
    assert sentence in found
    assert "\n" not in found and len(found) < 400


def test_a_repeated_key_among_very_many_is_found(tmp_path):
    entries = ",".join(f'"{key}": 0' for key in [*range(200_000), 199_999])
    assert refused(tmp_path, f'{{"deep": [{{{entries}}}]}}'.encode()).startswith("has the key '199999' twice")
    assert len(refused(tmp_path, b'{"%s": 1, "%s": 2}' % (b"k" * 10**6, b"k" * 10**6))) < 200


def test_what_is_not_a_regular_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a regular file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a folder: pass a file"):
        read_json(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.json does not exist: pass --x"):
        read_json(tmp_path / "none.json", if_missing="pass --x")


def test_a_large_file_of_another_kind_is_refused_by_its_first_bytes(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.write(b"\x1f\x8b")
        file.truncate(2**42)  # a sparse file: reading all of it would take all memory
    with pytest.raises(ValueError, match="a gzip archive"):
        read_json(tmp_path / "a.json")


def test_the_collector_pauses_and_goes_on_unless_it_was_off():
    assert gc.isenabled()
    try:
        with pytest.raises(KeyError), collector_paused():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled()
        gc.disable()
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
