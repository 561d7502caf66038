"""`python -m tools.report`: the page of a run, made anew."""

from tests.training.report.samples import write_run
from tools.report import run


def test_the_page_is_written_into_the_run_or_elsewhere(tmp_path, capsys):
    folder = write_run(tmp_path)
    assert run([str(folder)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert run([str(folder), "--out", str(tmp_path / "page.html"), "--images", str(tmp_path / "images")]) == 0
    first, second = (path.read_text(encoding="utf-8") for path in (folder / "report.html", tmp_path / "page.html"))
    assert first == second and "data:image/jpeg" in first


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, capsys):
    folder = write_run(tmp_path)
    for arguments, said in (
        ([str(tmp_path / "none")], "is no folder"),
        ([str(tmp_path / "images")], "neither log.txt nor an evaluation"),
        ([str(folder), "--images", str(tmp_path / "none")], "--images"),
        ([str(folder), "--out", str(tmp_path)], "is a folder"),
    ):
        assert run(arguments) == 1
        sentence = capsys.readouterr().err
        assert said in sentence and sentence.count("\n") == 1
