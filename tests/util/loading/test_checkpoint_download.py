"""Checkpoints from an address: torch.hub's cache, the hash in the name, errors."""

import pytest

from tests.helpers.checkpoint_files import Canary, published_checkpoint, serve, small_model
from util.checkpoint import CheckpointError, load_checkpoint

pytest_plugins = ["tests.helpers.file_server"]  # the fixture `server`


def test_an_address_is_downloaded_once_and_its_hash_checked(server):
    address, folder, requests = server
    name = serve(folder, published_checkpoint(small_model()))
    for _ in range(2):
        loaded = load_checkpoint(f"{address}/{name}")
    assert loaded["args"]["output_dir"] == "out/run"
    assert requests == [f"/{name}"]


def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(server, tmp_path):
    address, folder, _ = server
    name = serve(folder, {"model": {}}, good_hash=False)
    with pytest.raises(CheckpointError, match="does not match the hash in its name"):
        load_checkpoint(f"{address}/{name}")
    assert not list((tmp_path / "hub").rglob("*.pth"))


def test_a_download_that_would_run_code_is_refused(server, tmp_path):
    address, folder, _ = server
    name = serve(folder, {"model": Canary(tmp_path / "canary")})
    with pytest.raises(CheckpointError, match="is not run"):
        load_checkpoint(f"{address}/{name}")
    assert not (tmp_path / "canary").exists()


def test_a_missing_file_is_an_error_with_advice(server):
    with pytest.raises(CheckpointError, match="absent.pth could not be downloaded .*404.*pass its path"):
        load_checkpoint(f"{server[0]}/absent.pth")


@pytest.mark.parametrize("address", ["http://", "https://host", "http://host/", "https:///"])
def test_an_address_without_a_file_name_is_refused(address):
    with pytest.raises(CheckpointError, match=f"the address {address} contains no file name"):
        load_checkpoint(address)  # torch would take the cache's folder for the file


@pytest.mark.parametrize("text", ["half a page", ""])
def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path, text):
    address, folder, _ = server
    name = serve(folder, {"epoch": 3})
    cached = tmp_path / "hub" / "checkpoints" / name
    cached.parent.mkdir(parents=True)
    cached.write_text(text)
    assert load_checkpoint(f"{address}/{name}") == {"epoch": 3}


def test_a_download_that_is_no_checkpoint_is_not_kept_so_that_a_retry_works(server, tmp_path):
    address, folder, _ = server
    (folder / "run.pth").write_text("<html>the server is being repaired</html>")
    with pytest.raises(CheckpointError, match="is text .*: try again to download it again"):
        load_checkpoint(f"{address}/run.pth")
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())
    serve(folder, {"epoch": 4}, name="run.pth")
    assert load_checkpoint(f"{address}/run.pth") == {"epoch": 4}


def test_two_runs_whose_files_have_one_name_stay_apart(server):
    address, folder, _ = server
    for epoch, run in enumerate(("a", "b")):
        (folder / run).mkdir()
        serve(folder / run, {"epoch": epoch}, name="checkpoint.pth")
    addresses = [f"{address}/a/checkpoint.pth", f"{address}/b/checkpoint.pth", f"{address}/b/checkpoint.pth?token=1"]
    assert [load_checkpoint(each)["epoch"] for each in addresses] == [0, 1, 1]
    assert load_checkpoint(addresses[0])["epoch"] == 0
