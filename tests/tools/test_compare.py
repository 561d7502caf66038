"""Comparing runs: folders, checkpoints, unfinished, older and published ones; tables, page and picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tools.compare import run
from tools.comparing.runs import read_run, short_names
from tools.comparing.tables import class_values, settings_table, with_changes
from util.checkpoint import load_checkpoint, save_checkpoint

NAMES = ("cell", "platelet")
SETTINGS = {"lr": 1e-4, "epochs": 3, "train_sizes": [96], "output_dir": "somewhere", "masks": False}


def line(epoch: int, ap: float | None, **more) -> dict:
    """A record of the log; evaluated if it has an AP."""
    tested = {} if ap is None else {"test_coco_eval_bbox": [ap, ap + 0.1, *[ap] * 9, -1.0], "test_loss": 2.0}
    return {"train_loss": 3.0 - epoch, "train_lr": 1e-4, **tested, "epoch": epoch, **more}


def write_run(
    folder: Path, aps: list[float | None], names: tuple[str, ...] = NAMES, ids: tuple[int, ...] = (1, 2), **settings
) -> Path:
    """A run whose evaluations have these APs; its last class has half the AP, and the thresholds an F1 twice the AP."""
    (folder / "eval").mkdir(parents=True)
    log = [line(epoch, ap) for epoch, ap in enumerate(aps)]
    (folder / "log.txt").write_text("".join(f"{json.dumps(record)}\n" for record in log))
    last = [ap for ap in aps if ap is not None][-1:]
    for epoch, record in enumerate(log):
        ap = aps[epoch]
        classes = [{"id": i, "objects": 20, "threshold": 0.4, "f1": 2 * (ap or 0)} for i in ids]
        content = {
            "model": {"a": torch.zeros(2)},
            "args": SETTINGS | settings,
            "epoch": epoch,
            "record": record,
            "categories": [{"id": i, "name": name} for i, name in zip(ids, names)],
            "thresholds": None if ap is None else {"overall": None, "classes": classes},
        }
        save_checkpoint(folder / f"checkpoint{epoch:04}.pth", content)
    save_checkpoint(folder / "checkpoint.pth", content)
    rows = [{"id": i, "name": n, "AP": last[0] / (k + 1)} for k, (i, n) in enumerate(zip(ids, names))] if last else []
    absent = {"id": 90, "name": "absent", "AP": -1.0}
    found = {"epoch": len(aps) - 1, "per_class": [*rows, absent], "numbers": {"AP": last[0]} if last else {}}
    (folder / "eval" / "per_class.json").write_text(json.dumps(found))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "base", [0.2, 0.4, 0.3]), write_run(tmp_path / "new", [0.3, 0.5], lr=2e-4)


def rows_of(said: str) -> dict[str, list[str]]:
    """First word → the cells of each row that was printed."""
    return {line.split("  ")[0]: [cell.strip() for cell in line.split("  ")[1:] if cell] for line in said.splitlines()}


def test_settings_scores_and_classes_are_beside_each_other(pair, capsys):
    assert run([str(folder) for folder in pair]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["1"] == ["base", "3 of 3 epochs"] and rows["2"] == ["new", "2 of 3 epochs, unfinished"]
    assert rows["lr"] == ["0.0001", "0.0002"] and "output_dir" not in rows and "epochs" not in rows
    assert rows["best epoch"] == ["1", "1"]
    assert rows["AP"] == ["0.400", "0.500 +0.100"] and rows["AP50"] == ["0.500", "0.600 +0.100"]
    assert "ARl" not in rows, "-1 is no score"
    assert rows["train loss, last epoch"] == ["1.0000", "2.0000 +1.0000"]
    assert rows["cell"] == ["0.300", "0.500 +0.200"] and rows["platelet"] == ["0.150", "0.250 +0.100"]
    assert "absent" not in rows


def test_of_a_checkpoint_nothing_later_is_used(pair, capsys):
    assert run([str(pair[0] / "checkpoint0000.pth"), str(pair[0] / "checkpoint0001.pth")]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["1"] == ["checkpoint0000.pth", "1 of 3 epochs"]
    assert rows["AP"] == ["0.200", "0.400 +0.200"] and rows["best epoch"] == ["0", "1"]
    assert rows["cell"] == ["0.400", "0.800 +0.400"], "F1, since AP is that of a later epoch"


def test_a_checkpoint_beside_the_log_of_another_run_has_only_its_own_record(pair, tmp_path):
    stray = pair[1] / "stray.pth"
    stray.write_bytes((pair[0] / "checkpoint0001.pth").read_bytes())
    found = read_run(str(stray))
    assert found.curves["AP"] == {1.0: 0.4} and "AP" not in found.classes["cell"]


def test_the_epoch_without_an_evaluation_is_not_compared(tmp_path, capsys):
    one, other = write_run(tmp_path / "a", [None]), write_run(tmp_path / "b", [0.1, None])
    assert run([str(one), str(other)]) == 0
    said = capsys.readouterr().out
    assert "it was not evaluated yet" in said and rows_of(said)["AP"] == ["–", "0.100"]
    assert run([str(one), str(one)]) == 0
    assert "scores: none" in capsys.readouterr().out


def test_a_run_that_a_limit_ended_is_not_unfinished(tmp_path):
    for setting, entry in (("early_stop", "waited"), ("max_steps", "step")):
        folder = write_run(tmp_path / setting, [0.1], **{setting: 5})
        assert read_run(str(folder)).state() == "1 of 3 epochs, unfinished"
        save_checkpoint(folder / "checkpoint.pth", load_checkpoint(folder / "checkpoint.pth") | {entry: 5})
        assert read_run(str(folder)).state() == f"1 of 3 epochs, ended by --{setting}"


def test_older_runs_have_the_defaults_of_settings_that_they_lack(pair, tmp_path, capsys):
    published = tmp_path / "published"
    published.mkdir()
    args = argparse.Namespace(**{name: value for name, value in SETTINGS.items() if name != "lr"}, coco_path="/data")
    torch.save({"model": {"a": torch.zeros(2)}, "args": args, "epoch": 0}, published / "checkpoint.pth")
    (published / "log.txt").write_text(json.dumps(line(0, 0.1)) + "\n")
    assert run([str(pair[1]), str(published)]) == 0
    said = capsys.readouterr().out
    assert rows_of(said)["lr"] == ["0.0002", "0.0001*"] and "*: not saved by this run, the default" in said
    assert "coco_path" not in said, "what the other run has is unknown"


def test_a_run_without_a_readable_checkpoint_is_compared_by_its_log(pair, capsys):
    for path in pair[1].glob("*.pth"):
        path.write_bytes(path.read_bytes()[:100])
    assert run([str(folder) for folder in pair]) == 0
    said = capsys.readouterr().out
    assert "checkpoint.pth is truncated or damaged" in said and "its settings are unknown" in said
    assert rows_of(said)["AP"] == ["0.400", "0.500 +0.100"] and "settings that differ: none" in said


def test_the_folder_of_an_evaluation_is_a_run_too(pair, tmp_path, capsys):
    (tmp_path / "evaluated" / "eval").mkdir(parents=True)
    content = {"epoch": None, "numbers": {"AP": 0.7, "APl": -1}, "per_class": [{"id": 1, "name": "Cell", "AP": 0.6}]}
    (tmp_path / "evaluated" / "eval" / "per_class.json").write_text(json.dumps(content))
    assert run([str(pair[0]), str(tmp_path / "evaluated")]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["2"][1].startswith("an evaluation") and rows["AP"] == ["0.400", "0.700 +0.300"]
    assert rows["Cell" if "Cell" in rows else "cell"] == ["0.300", "0.600 +0.300"]


def test_panoptic_runs_are_compared_by_their_quality(tmp_path, capsys):
    for name, pq in (("a", 0.4), ("b", 0.3)):
        write_run(tmp_path / name, [0.5])
        more = {f"test_PQ_{kind}": {"pq": pq, "sq": 0.8, "rq": 0.6, "n": 5} for kind in ("all", "th", "st")}
        record = line(0, 0.5, test_coco_eval_masks=[0.2] * 12, train_loss_mask=1.0, **more)
        (tmp_path / name / "log.txt").write_text(json.dumps(record) + "\n")
    assert run([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "curves.png")]) == 0
    said = capsys.readouterr().out
    assert rows_of(said)["PQ"] == ["0.400", "0.300 -0.100"] and rows_of(said)["mask AP"] == ["0.200", "0.200 +0.000"]
    assert "with the best PQ" in said
    assert Image.open(tmp_path / "curves.png").height > 1000, "three rows of panels"


def test_classes_are_found_again_by_name_else_by_id(tmp_path):
    one = read_run(str(write_run(tmp_path / "a", [0.2], ("White Cell", "x"), (1, 2))))
    other = read_run(str(write_run(tmp_path / "b", [0.4], ("y", "white-cell"), (1, 5))))
    values = {name: pair for name, pair in class_values([one, other], "AP")}
    assert values["White Cell"] == [0.2, 0.2] and values["x"] == [0.1, None] and values["y"] == [None, 0.4]
    same = read_run(str(write_run(tmp_path / "c", [0.2], ("x", "x"), (1, 2))))
    assert set(same.classes) == {1, 2}, "two classes of one name"


def test_the_classes_that_lost_most_come_first(tmp_path):
    one = read_run(str(write_run(tmp_path / "a", [0.8])))
    other = read_run(str(write_run(tmp_path / "b", [0.4])))
    assert [name for name, _ in class_values([one, other], "AP")] == ["cell", "platelet"]
    assert [name for name, _ in class_values([other, one], "AP")] == ["platelet", "cell"]


def test_changes_are_those_of_the_numbers_that_are_shown():
    assert with_changes([0.1004, 0.1006, 0.1], 3) == ["0.100", "0.101 +0.001", "0.100 +0.000"]
    assert with_changes([0.5, None, 0.25], 2) == ["0.50", "–", "0.25 -0.25"]
    assert with_changes([None, 0.5], 2) == ["–", "0.50"]


def test_a_setting_is_the_same_in_any_form_of_its_number(tmp_path):
    runs = [read_run(str(write_run(tmp_path / str(n), [0.1], lr=lr))) for n, lr in enumerate((1, 1.0))]
    assert settings_table(runs).rows == []
    runs[0].settings = {"odd": 10**5000, "lr": [float("nan"), "\x1b[31m" * 50]}
    rows = {row[0]: row[1:] for row in settings_table(runs).rows}
    assert "odd" not in rows, "one run has it and the other is unknown"
    assert "\x1b" not in rows["lr"][0] and len(rows["lr"][0]) <= 61


def test_names_from_files_are_escaped_and_cut(tmp_path, capsys):
    evil = ("\x1b[31mred\n<script>alert(1)</script>", "long " * 50)
    folders = [str(write_run(tmp_path / name, [0.2], evil)) for name in ("a", "b" + "x" * 100)]
    assert run([*folders, "--out", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\\x1b" in said and max(map(len, said.splitlines())) <= 200
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html


def evaluated_on(run: Path, text: str) -> None:
    data = {"val": {"images": 87, "fingerprint": text}}
    (run / "eval" / "run.json").write_text(json.dumps({"data": data}))


@pytest.mark.parametrize(("texts", "said"), [("aa", False), ("ab", True), ("a", False), ("", False)])
def test_scores_on_different_data_are_said_not_to_compare(pair, tmp_path, capsys, texts, said):
    for folder, text in zip(pair, texts):
        evaluated_on(folder, f"2:{text}")
    assert run([*map(str, pair), "--out", str(tmp_path / "page.html")]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    for shown in (printed, page):
        assert ("evaluated on different data, so their scores do not tell which one is better" in shown) == said
        assert ("87 (2:b)" in shown) == said


def test_a_page_without_remarks_has_no_column_for_them(pair, tmp_path):
    for remark in (False, True):
        if remark:
            (pair[1] / "checkpoint.pth").write_text("damaged")
        run([*map(str, pair), "--out", str(tmp_path / "page.html")])
        assert ("<th>remarks</th>" in (tmp_path / "page.html").read_text()) == remark


def test_the_page_holds_all_tables_and_curves(pair, tmp_path, capsys):
    assert run([*map(str, pair), "--out", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text()
    for part in ("Settings that differ", "AP of each class", "0.500 +0.100", "2 of 3 epochs", "<svg", "train loss"):
        assert part in html
    assert "http:" not in html and "https:" not in html


def test_many_runs_come_below_each_other(tmp_path, capsys):
    folders = [str(write_run(tmp_path / f"run with a long name {n}", [n / 20])) for n in range(12)]
    assert run([*folders, "--out", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 120 and "0.550 +0.550" in said and "12 run with" in said


def test_many_classes_are_cut_on_the_terminal(tmp_path, capsys):
    names, ids = tuple(f"class {n}" for n in range(100)), tuple(range(1, 101))
    folders = [str(write_run(tmp_path / name, [ap], names, ids)) for name, ap in (("a", 0.2), ("b", 0.4))]
    assert run(folders) == 0
    said = capsys.readouterr().out
    assert "… 60 more …" in said and said.count("\nclass ") == 1 + 40, "the head and the rows"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no run nowhere"),
        (["{empty}"], "holds no run, neither log.txt nor a checkpoint"),
        (["{text}"], "text.pth is text"),
        (["{bare}"], "has no weights under `model`"),
        (["{run}", "--out", "a.txt"], "a.txt must end in .html"),
        (["{run}", "--out", "{empty}/none/../../file.txt/a.png"], "file.txt"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path, capsys, arguments, sentence):
    places = {"run": write_run(tmp_path / "run", [0.1]), "empty": tmp_path / "empty", "text": tmp_path / "text.pth"}
    places["bare"] = tmp_path / "bare.pth"
    (tmp_path / "empty" / "none").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("a file")
    places["text"].write_text("hello")
    torch.save({"epoch": 3}, places["bare"])
    command = [str(places["run"]), *(argument.format(**places) for argument in arguments)]
    assert run(command) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and sentence in said.err


def test_without_curves_there_is_no_picture(tmp_path, capsys):
    for name in ("a", "b"):
        write_run(tmp_path / name, [None])
        (tmp_path / name / "log.txt").unlink()
        checkpoint = {"model": {"a": torch.zeros(2)}, "args": SETTINGS, "epoch": 0}
        for path in (tmp_path / name).glob("*.pth"):
            save_checkpoint(path, checkpoint)
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert run([*folders, "--out", str(tmp_path / "x.png")]) == 1
    assert "none of the runs has a log" in capsys.readouterr().err and not (tmp_path / "x.png").exists()
    assert run([*folders, "--out", str(tmp_path / "x.html")]) == 0


def test_one_run_is_no_comparison(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run([str(write_run(tmp_path / "a", [0.1]))])
    assert ended.value.code == 2 and "pass two runs or more" in capsys.readouterr().err


def test_odd_content_of_the_files_is_left_out(pair, capsys):
    (pair[0] / "eval" / "per_class.json").write_text('{"per_class": [5, {"id": "1"}]}')
    with (pair[0] / "log.txt").open("a") as file:
        file.write('{"epoch": 5, "test_coco_eval_bbox": ["a", {}], "train_loss": "\x1b"}\nbroken\n')
    assert run([str(folder) for folder in pair]) == 0
    said = capsys.readouterr().out
    assert "per_class.json cannot be used" in said and "\x1b" not in said


def test_names_are_as_short_as_their_differences_allow():
    assert short_names(["out/a", "out/b/"]) == ["a", "b"]
    assert short_names(["a/checkpoint.pth", "b/checkpoint.pth"]) == ["a/checkpoint.pth", "b/checkpoint.pth"]
    assert short_names(["a", "a"]) == ["a", "a"]
