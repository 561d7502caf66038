"""The pages of the two languages are in step, keep their form, use the glossary's terms, and name what exists."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers.paths import REPOSITORY
from tests.lesson.glossary import Term, contains, read_terms, slips
from tests.lesson.pages import CHAPTERS, LANGUAGES, LESSON, fences
from tests.test_docs import problems

PARTS = {
    "en": "What you can do afterwards, Shapes, Experiments, Exercise, The belief it corrects, Proof".split(", "),
    "zh": "学完之后, 形状, 实验, 练习, 纠正一个误解, 依据".split(", "),
}
NAMES = {"en": "English", "zh": "中文"}
ANSWER = {"en": "Answer", "zh": "答案"}
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
TARGET = re.compile(r"\]\([^)]*\)")
HAN_OR_STOP = r"[\u3400-\u9fff\u3000-\u303f\uff00-\uffef]"
TEST = re.compile(r"`(tests/[\w./-]+\.py)::(\w+)`\]\(([^)]+)\)")
NAMED = re.compile(r"tests/[\w./-]+\.py::\w+")


def read(language: str, chapter: str) -> str:
    return (LESSON / language / f"{chapter}.md").read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without code, formulas, line breaks and the targets of links."""
    return " ".join(FORMULA.sub(" ", TARGET.sub("]", CODE.sub(" ", FENCED.sub("", page)))).split())


def headings(page: str) -> list[str]:
    return re.findall(r"^#+ .+", FENCED.sub("", page), re.MULTILINE)


def pictures(page: str) -> list[str]:
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)


def formula_slips(page: str) -> list[str]:
    """Inline formulas that a code host does not render: directly behind or before a letter or 汉字."""
    text = CODE.sub("``", FENCED.sub("", page))
    text = re.sub(r"\$\$.*?\$\$", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    return [
        match[0]
        for match in re.finditer(r".?\$[^$\n]+\$.?", text)
        if re.match(r"\w", match[0]) or re.search(r"\w$", match[0])
    ]


def broken_lines(page: str) -> list[str]:
    """汉字 before and behind a line break within a paragraph."""
    return re.findall(rf"{HAN_OR_STOP}\n *{HAN_OR_STOP}", re.sub(r"^#.*\n", "", FENCED.sub("", page), flags=re.M))


def missing_tests(page: str) -> Iterator[str]:
    """Tests that a page names and that do not exist, or that it does not link to."""
    linked = {f"{path}::{name}": target for path, name, target in TEST.findall(page)}
    for named in NAMED.findall(page):
        path, _, name = named.partition("::")
        file = REPOSITORY / path
        if not file.exists() or name not in {
            node.name
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }:
            yield f"{named} does not exist"
        elif linked.get(named) != f"../../../{path}":
            yield f"{named} is not linked to its file"


def titles(language: str) -> list[str]:
    """The chapters' titles in the index."""
    return re.findall(rf"\[([^\]]+)\]\({language}/", read(".", "README"))


def links_of(number: int, language: str) -> str:
    """The line under a page's title: the pages before and behind it, the other language, the index."""
    names = [f"{index}. {title}" for index, title in enumerate(titles(language))]
    links = [f"[← {names[number - 1]}]({CHAPTERS[number - 1]}.md)"] if number else []
    links += [f"[{names[number + 1]} →]({CHAPTERS[number + 1]}.md)"] if number + 1 < len(CHAPTERS) else []
    other, index = ("en", "课程目录") if language == "zh" else ("zh", "Lesson index")
    return " · ".join([*links, f"[{NAMES[other]}](../{other}/{CHAPTERS[number]}.md)", f"[{index}](../README.md)"])


def in_lesson(problem: str) -> bool:
    """True if a path that is not in the root of the repository is in the folder of the lesson."""
    return problem.startswith("path ") and (LESSON / problem.removeprefix("path ")).exists()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_languages_are_in_step(chapter):
    zh, en = (read(language, chapter) for language in ("zh", "en"))
    snippets, outputs = {}, {}
    for language, page in (("zh", zh), ("en", en)):
        found = list(fences(page))
        assert {fence.kind for fence in found} <= {"python", "text", "bash"}
        snippets[language] = [ast.dump(ast.parse(fence.text)) for fence in found if fence.kind == "python"]
        outputs[language] = [fence.text for fence in found if fence.kind == "text" and fence.follows]
    assert snippets["zh"] == snippets["en"]
    assert outputs["zh"] == outputs["en"]
    assert pictures(zh) == pictures(en) != []
    assert [heading.split()[0] for heading in headings(zh)] == [heading.split()[0] for heading in headings(en)]
    assert NAMED.findall(zh) == NAMED.findall(en) != []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_page_keeps_the_form(chapter, language):
    page = read(language, chapter)
    number = CHAPTERS.index(chapter)
    assert page.startswith(f"# {number}. ")
    assert [heading[3:] for heading in headings(page) if heading.startswith("## ")] == PARTS[language]
    assert page.splitlines()[2] == links_of(number, language)
    assert f"<details><summary>{ANSWER[language]}</summary>\n\n" in page and "\n\n</details>" in page
    assert len(page.splitlines()) <= 350


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_page_names_exists(chapter, language):
    page = read(language, chapter)
    assert [problem for problem in problems(page, LESSON / language) if not in_lesson(problem)] == []
    assert list(missing_tests(page)) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_formulas_stand_apart(chapter, language):
    assert formula_slips(read(language, chapter)) == []


@pytest.mark.parametrize("page", [*CHAPTERS, "README"])
def test_chinese_lines_do_not_break(page):
    """A line break would show as a space between two 汉字."""
    text = read(".", page) if page == "README" else read("zh", page)
    assert broken_lines(text) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_terms_are_the_glossarys(chapter):
    en, zh = (prose(read(language, chapter)) for language in ("en", "zh"))
    assert list(slips(en, zh, read_terms())) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_snippets_are_lint_free_and_formatted(language, tmp_path):
    for chapter in CHAPTERS:
        found = fences(read(language, chapter))
        whole: list[str] = []  # all snippets at the lines of the page
        for fence in found:
            if fence.kind == "python":
                whole += [""] * (fence.line - len(whole)) + fence.text.splitlines()
                (tmp_path / f"{chapter}_line_{fence.line}.py").write_text(fence.text, encoding="utf-8")
        (tmp_path / f"{chapter}.py").write_text("\n".join(whole) + "\n", encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--config", str(REPOSITORY / "pyproject.toml"), "--no-cache"]
    pages = [str(tmp_path / f"{chapter}.py") for chapter in CHAPTERS]
    single = [str(path) for path in tmp_path.glob("*_line_*.py")]
    commands = ["check", *options, "--ignore", "E402,W391,W292", *pages], ["format", "--check", *options, *single]
    for command in commands:
        result = subprocess.run([*ruff, *command], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_index_names_every_page():
    index = (LESSON / "README.md").read_text(encoding="utf-8")
    pages = {f"{language}/{chapter}.md" for language in LANGUAGES for chapter in CHAPTERS}
    assert [problem for problem in problems(index, LESSON) if not in_lesson(problem)] == []
    assert pages <= set(re.findall(r"\]\(([^)]+)\)", index))


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_sixteen_pages(language):
    assert sorted(path.name for path in (LESSON / language).iterdir()) == [f"{chapter}.md" for chapter in CHAPTERS]


def test_every_term_is_used():
    en, zh = ("".join(prose(read(language, chapter)) for chapter in CHAPTERS) for language in ("en", "zh"))
    terms = read_terms()
    assert [term for term in terms if not (contains(en, term.en, []) and contains(zh, term.zh, []))] == []


def test_the_glossary_has_each_term_once():
    terms = read_terms()
    assert len(terms) > 30
    for forms in ([term.en for term in terms], [term.zh for term in terms]):
        assert len(set(forms)) == len(forms)


@pytest.mark.parametrize(
    ("en", "zh", "count"),
    [
        ("A query.", "一个查询。", 0),
        ("Two queries and their batches.", "两个查询和批次。", 0),
        ("A query.", "一个向量。", 1),
        ("The vector.", "匈牙利算法。", 1),
        ("The padding\nmask.", "填充掩码。", 0),
        ("The padding mask.", "填充。", 1),  # the shorter term alone is not enough
        ("A positional encoding.", "位置编码。", 2),
        ("A batch.", "批次的掩膜。", 1),
    ],
)
def test_terms_out_of_step_are_seen(en, zh, count):
    assert len(list(slips(en, zh, read_terms()))) == count


def test_plural_and_longer_terms():
    terms = [Term("loss", "损失", [], []), Term("auxiliary loss", "辅助损失", [], [])]
    assert list(slips("Auxiliary losses.", "辅助损失。", terms)) == []
    assert len(list(slips("Auxiliary losses and a loss.", "辅助损失。", terms))) == 1


@pytest.mark.parametrize("text", ["角度$x$ 是", "角度 $x$是", "a$x$", "面积 $x$，边长$y$ 。"])
def test_a_formula_without_space_is_seen(text):
    assert len(formula_slips(text)) == 1


@pytest.mark.parametrize(
    "text", ["角度 $x$ 是 $y$，而 $z$。", "（$x$）", "`a$b$c`", "$$\nx\n$$", "```bash\necho a$b c$d\n```\n"]
)
def test_a_formula_with_space_passes(text):
    assert formula_slips(text) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [("一行\n二行", 1), ("- 一行。\n  二行", 1), ("一行\n\n二行", 0), ("# 一\n二行", 0), ("一\n- 二", 0)],
)
def test_a_break_between_characters_is_seen(text, count):
    assert len(broken_lines(text)) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[`tests/lesson/test_sync.py::test_plural_and_longer_terms`](../../../tests/lesson/test_sync.py)", 0),
        ("[`tests/lesson/test_sync.py::test_absent`](../../../tests/lesson/test_sync.py)", 1),
        ("[`tests/lesson/test_absent.py::test_absent`](../../../tests/lesson/test_absent.py)", 1),
        ("`tests/lesson/test_sync.py::test_plural_and_longer_terms`", 1),
    ],
)
def test_named_tests_exist(text, count):
    assert len(list(missing_tests(text))) == count
