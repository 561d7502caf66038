"""The ZIP archive of a checkpoint: damage is seen, and what is no archive of torch.save is named."""

import os
import re
import struct
import zipfile
import zlib

import pytest
import torch

from tests.helpers.checkpoint_files import refusal
from training.run_folder import RunFolder
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def written(path, content):
    torch.save(content, path)
    return path


def test_damage_anywhere_in_the_values_is_seen(tmp_path):
    save_checkpoint(tmp_path / "whole.pth", {"model": {"w": torch.rand(3000)}, "epoch": 1})
    whole = bytearray((tmp_path / "whole.pth").read_bytes())
    load_checkpoint(tmp_path / "whole.pth")
    start = bytes(whole).index(torch.load(tmp_path / "whole.pth")["model"]["w"].numpy().tobytes())
    for place in (start, start + 5000, start + 11_999):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "a.pth").write_bytes(damaged)
        assert "is truncated or damaged (Bad CRC-32 for file" in refusal(tmp_path / "a.pth")


def test_damage_in_the_directory_is_seen_or_does_no_harm(tmp_path):
    """One bit there makes a record a folder, of which torch would read nothing and take whatever memory holds."""
    whole = written(tmp_path / "whole.pth", {"w": torch.arange(4.0)}).read_bytes()
    refused = 0
    for place in range(whole.index(b"PK\x01\x02"), len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        (tmp_path / "a.pth").write_bytes(damaged)
        try:
            assert load_checkpoint(tmp_path / "a.pth")["w"].tolist() == [0, 1, 2, 3], place
        except CheckpointError:
            refused += 1
    assert refused > 300


def test_resuming_goes_on_from_the_newest_intact_file_and_says_so(tmp_path, capsys):
    folder, weights = RunFolder(tmp_path), torch.rand(1000)
    for epoch in (9, 19):
        folder.save({"model": {"w": weights}, "epoch": epoch}, [f"checkpoint{epoch:04}.pth"])
    newest = tmp_path / "checkpoint0019.pth"
    content = bytearray(newest.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 64] ^= 0xFF
    newest.write_bytes(content)
    path, found = folder.newest()
    assert path.name == "checkpoint0009.pth" and found["epoch"] == 9
    assert capsys.readouterr().out.count("trying an older one") == 1


def test_a_file_that_ends_too_early_is_refused_at_every_length(tmp_path):
    whole = written(tmp_path / "whole.pth", {"model": {"w": torch.rand(100)}}).read_bytes()
    for length in range(1, len(whole), 29):
        (tmp_path / "a.pth").write_bytes(whole[:length])
        refusal(tmp_path / "a.pth")


def repacked(path, change, compression=zipfile.ZIP_STORED):
    """The records of a small checkpoint, changed and packed again."""
    torch.save({"epoch": 3, "w": torch.zeros(2**20)}, path)
    with zipfile.ZipFile(path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in change(records).items():
            target.writestr(name, data)
    return path


def test_a_checkpoint_that_was_compressed_since_is_read_unless_it_expands_a_lot(tmp_path):
    noise = {"data": torch.rand(100)}
    torch.save(noise, tmp_path / "a.pth")
    repacked(tmp_path / "a.pth", lambda records: records, zipfile.ZIP_DEFLATED)
    assert load_checkpoint(tmp_path / "a.pth")["epoch"] == 3
    torch.save({"w": torch.zeros(2**23)}, tmp_path / "large.pth")
    with (
        zipfile.ZipFile(tmp_path / "large.pth") as source,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert os.path.getsize(tmp_path / "bomb.pth") < 10**5
    assert "claims to hold 33,5" in refusal(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda records: {"run/best.pth": b"x", "run/log.txt": b"y"},
            "unpack it and pass the file in it, such as run/best.pth",
        ),
        (lambda records: {"a.txt": b"x"}, "is a ZIP archive of other files: unpack it"),
        (lambda records: records | {"other/file": b"x"}, "is a ZIP archive of other files"),
        (lambda records: records | {next(iter(records)).partition("/")[0] + "/constants.pkl": b"x"}, "TorchScript"),
        (
            lambda records: records | {next(name for name in records if name.endswith("data.pkl")).upper(): b"x"},
            "is a ZIP archive of other files|two files of one name",
        ),
    ],
)
def test_an_archive_of_something_else_is_named(tmp_path, change, sentence):
    assert re.search(sentence, refusal(repacked(tmp_path / "a.pth", change)))


def test_a_record_that_claims_another_size_is_damage(tmp_path):
    path = repacked(tmp_path / "a.pth", lambda records: records)
    content = bytearray(path.read_bytes())
    size = struct.pack("<I", 4 * 2**20)
    content[content.rindex(size) : content.rindex(size) + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    refusal(path)


def test_the_checksum_is_the_one_that_torch_writes(tmp_path):
    values = torch.rand(50)
    written(tmp_path / "a.pth", {"w": values})
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        record = next(record for record in archive.infolist() if record.filename.endswith("/data/0"))
    assert record.CRC == zlib.crc32(values.numpy().tobytes())
