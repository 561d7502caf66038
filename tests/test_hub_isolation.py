"""`torch.hub.load` in a process with other modules named like ours: they stay, ours leave no trace, models work."""

import builtins
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import hubconf
import models.detr
from tests.helpers import hub_guest
from tests.helpers.processes import HANGS

REPOSITORY = Path(hubconf.__file__).resolve().parent


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """The facts that `hub_guest.main` found in a separate process."""
    folder = tmp_path_factory.mktemp("guest")
    hub_guest.write_foreign_packages(folder / "foreign")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, hub_guest.__file__, str(REPOSITORY), str(folder / "foreign"), str(folder / "facts.json")]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "facts.json").read_text())


def test_modules_and_path_are_restored(facts):
    assert facts["left beside others"] == []


def test_the_predictor_works_and_leaves_no_trace(facts):
    assert facts["predictor"] == [120, 2, True]
    assert facts["left by the predictor"] == []


def test_a_process_without_such_modules_gets_none_of_ours(facts):
    assert facts["left alone"] == []


def test_the_other_modules_can_still_be_imported(facts):
    assert set(facts["owners"]) == {"foreign"}


def test_the_model_runs_on_a_tensor_and_on_a_list(facts):
    assert facts["uses"]["shape"] == [1, 12, 4] and facts["uses"]["list"]


def test_the_model_can_be_deep_copied(facts):
    assert facts["uses"]["copy"]


def test_weights_can_be_saved_and_loaded_into_a_second_model(facts):
    assert facts["uses"]["weights"]


def test_torchscript_compiles_the_models_of_both_loads(facts):
    assert facts["scripts"] == [True, True]


# --- In this process, which has our packages --------------------------------------------------------------------------


@pytest.fixture
def keep_modules():
    """Restore sys.modules and sys.path after the test."""
    before, path = dict(sys.modules), sys.path[:]
    yield
    sys.modules.clear()
    sys.modules.update(before)
    sys.path[:] = path


def make_foreign(*names: str) -> dict[str, types.ModuleType]:
    """Replace all modules of our packages by modules with these names, without a file or a spec."""
    for name in [name for name in sys.modules if name.split(".")[0] in {"models", "util"}]:
        del sys.modules[name]
    made = {name: types.ModuleType(name) for name in names}
    sys.modules.update(made)
    return made


def test_our_packages_are_shared():
    loaded = torch.hub.load(str(REPOSITORY), "detr_tiny_shapes", source="local")
    assert type(loaded) is models.detr.DETR
    assert type(hubconf.detr_tiny_shapes()) is models.detr.DETR


def test_a_plain_import_shares_its_packages_with_the_process(keep_modules):
    make_foreign()
    del sys.modules["hubconf"]
    plain = __import__("hubconf")
    assert type(plain.detr_tiny_shapes()) is sys.modules["models.detr"].DETR


@pytest.mark.parametrize("names", [("models",), ("util", "util.misc"), ("models", "models.detr", "util")])
def test_a_plain_import_works_with_other_modules_of_these_names(keep_modules, names):
    made = make_foreign(*names)
    path = sys.path[:]
    del sys.modules["hubconf"]
    model = __import__("hubconf").detr_tiny_shapes()
    assert type(model).__name__ == "DETR" and type(model) is not models.detr.DETR
    left = {name: module for name, module in sys.modules.items() if name.split(".")[0] in {"models", "util"}}
    assert left == made and sys.path == path


def test_a_blocked_name_stays_blocked(keep_modules):
    make_foreign()
    sys.modules["util"] = None
    torch.hub.load(str(REPOSITORY), "detr_tiny_shapes", source="local")
    assert sys.modules["util"] is None and "models" not in sys.modules


def test_a_failed_import_leaves_no_trace(keep_modules, tmp_path):
    made = make_foreign("models", "util")
    shutil.copy(REPOSITORY / "hubconf.py", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("import models.part\nraise ImportError('half a checkout')\n")
    (tmp_path / "models" / "part.py").write_text("")
    path = sys.path[:]
    with pytest.raises(ImportError, match="half a checkout"):
        torch.hub.load(str(tmp_path), "detr_tiny_shapes", source="local")
    assert {name for name in sys.modules if name.split(".")[0] in {"models", "util"}} == set(made)
    assert all(sys.modules[name] is module for name, module in made.items()) and sys.path == path


def test_nothing_is_imported_once_the_model_is_built(keep_modules, monkeypatch):
    make_foreign("models", "util")
    model, postprocessor = torch.hub.load(
        str(REPOSITORY), "detr_tiny_shapes", source="local", return_postprocessor=True
    )
    imported = []
    real = builtins.__import__

    def record(name, *args, **kwargs):
        imported.append(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", record)
    with torch.no_grad():
        postprocessor(model.eval()([torch.rand(3, 64, 64)]), torch.tensor([[64, 64]]))
    monkeypatch.undo()
    assert not {name for name in imported if name.split(".")[0] in {"models", "util"}}


def test_the_predictor_without_its_packages_says_what_to_install(keep_modules, monkeypatch):
    make_foreign()
    for name in [name for name in sys.modules if name.split(".")[0] in {"prediction", "datasets", "pycocotools"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match="pycocotools.*which the predictor needs: pip install -r .*requirements.txt"):
        torch.hub.load(str(REPOSITORY), "predictor", source="local", checkpoint="none.pth")
    assert type(torch.hub.load(str(REPOSITORY), "detr_tiny_shapes", source="local")).__name__ == "DETR"
