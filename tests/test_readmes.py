"""README.md and README.zh.md are in step: block by block the same commands, pictures, numbers, names and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.helpers.paths import REPOSITORY
from tests.lesson.glossary import contains, read_terms
from tests.test_docs import FENCED, SPAN, problems

ENGLISH, CHINESE = (REPOSITORY / name for name in ("README.md", "README.zh.md"))
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMENT = re.compile(r"(?:^|[ \t])[ \t]*#.*$", re.MULTILINE)
FIRST_SCREEN = 25  # lines


class Block(NamedTuple):
    """A heading, paragraph, list item, table row, picture or fence."""

    line: int
    kind: str
    text: str

    def facts(self) -> dict[str, object]:
        """What is the same in every language."""
        prose = LINK.sub("]", SPAN.sub("", self.text))
        parts = prose.split("|") if self.kind == "row" else [prose]
        return {
            "kind": self.kind,
            "numbers": [sorted(NUMBER.findall(part)) for part in parts],
            "names in code": sorted(" ".join(span.split()) for span in SPAN.findall(self.text)),
            "links": sorted("#" if link.startswith("#") else link for link in LINK.findall(self.text)),
        }

    def code(self) -> list[str]:
        """A fence without its comments."""
        return [line.rstrip() for line in COMMENT.sub("", self.text).splitlines()]


def blocks(text: str) -> list[Block]:
    """The blocks of a Markdown text in order."""
    found: list[Block] = []
    fenced = open_ended = False
    for number, line in enumerate(text.splitlines(), start=1):
        kind = kind_of(line)
        if fenced or open_ended and kind == "paragraph":
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line}")
            fenced = fenced and kind != "fence"
            continue
        if kind:
            found.append(Block(number, kind, line))
        fenced, open_ended = kind == "fence", kind in ("paragraph", "item")
    return found


def kind_of(line: str) -> str:
    starts = {"```": "fence", "|": "row", "#": "heading", "- ": "item", "![": "picture"}
    return next((kind for start, kind in starts.items() if line.startswith(start)), "paragraph" if line.strip() else "")


def out_of_step(english: str, chinese: str) -> Iterator[str]:
    """Where the two texts differ in something that no language changes."""
    english, chinese = blocks(english), blocks(chinese)
    for ours, theirs in list(zip(english, chinese))[1:]:  # the first leads to the other language
        where = f"README.md:{ours.line} and README.zh.md:{theirs.line}"
        if ours.kind != theirs.kind:
            yield f"{where}: {ours.kind} {ours.text[:60]!r} beside {theirs.kind} {theirs.text[:60]!r}"
            return  # whatever follows is shifted
        if ours.kind == "fence":
            yield from different_code(ours, theirs, where)
            continue
        for name, value in ours.facts().items():
            if value != theirs.facts()[name]:
                yield f"{where}: {name} {value} beside {theirs.facts()[name]}"
    if len(english) != len(chinese):
        yield "one of README.md and README.zh.md ends before the other"


def different_code(ours: Block, theirs: Block, where: str) -> Iterator[str]:
    """Lines of two fences that differ without their comments, and numbers that differ in the comments."""
    if len(ours.code()) != len(theirs.code()):
        yield f"{where}: {len(ours.code())} lines beside {len(theirs.code())}"
        return
    if sorted(NUMBER.findall(ours.text)) != sorted(NUMBER.findall(theirs.text)):
        yield f"{where}: other numbers"
    for row, (a, b) in enumerate(zip(ours.code(), theirs.code())):
        if a != b:
            yield f"README.md:{ours.line + row} and README.zh.md:{theirs.line + row}: {a!r} beside {b!r}"


def read() -> tuple[str, str]:
    return ENGLISH.read_text(encoding="utf-8"), CHINESE.read_text(encoding="utf-8")


def test_the_readmes_are_in_step():
    assert "\n".join(out_of_step(*read())) == ""


def test_what_the_chinese_readme_names_exists():
    assert list(problems(read()[1], REPOSITORY)) == []


def test_the_first_line_of_each_leads_to_the_other_and_the_first_screen_to_the_lesson():
    for text, other in zip(read(), ("README.zh.md", "README.md")):
        first, *_ = text.splitlines()
        assert LINK.findall(first) == [other]
        assert "](docs/lesson/README.md)" in "\n".join(text.splitlines()[:FIRST_SCREEN])


def test_the_chinese_readme_uses_the_terms_of_the_glossary():
    prose = LINK.sub("]", SPAN.sub("", FENCED.sub("", read()[1])))
    slips = [(form, term.zh) for term in read_terms() for form in term.not_zh if contains(prose, form, [])]
    assert slips == [], "(what it says, what the glossary has)"


SAMPLE_ENGLISH = """[中文](README.zh.md)

# Title
Trained in 300 epochs, AP50 0.953
([all](docs/all.md)).
![A picture](a.png)
```
make demo SEED=2   # 15 epochs
make test
```
| step | here |
|---|---|
| two images | **2.38 s**, `plain` |
"""
SAMPLE_CHINESE = """[English](README.md)

# 标题
AP50 0.953，训练了 300 轮（[全部](docs/all.md)）。
![图片](a.png)
```
make demo SEED=2   # 15 轮
make test
```
| 一步 | 这里 |
|---|---|
| 两张图像 | **2.38 秒**，`plain` |
"""


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        ("2.38 s", "2.39 s", "README.md:13 and README.zh.md:12: numbers .*2.39.* beside .*2.38"),
        ("| two images | **2.38 s**", "| 2.38 images | two", "README.md:13 and README.zh.md:12: numbers"),
        ("0.953", "0.954", "README.md:4 and README.zh.md:4: numbers .*0.954.* beside .*0.953"),
        ("SEED=2", "SEED=3", "README.md:8 and README.zh.md:7: 'make demo SEED=3' beside 'make demo SEED=2'"),
        ("make test\n", "", "README.md:7 and README.zh.md:6: 3 lines beside 4"),
        ("make test", "make tests", "README.md:9 and README.zh.md:8: 'make tests' beside 'make test'"),
        ("# 15 epochs", "# 16 epochs", "README.md:7 and README.zh.md:6: other numbers"),
        ("a.png", "b.png", "README.md:6 and README.zh.md:5: links .*b.png.* beside .*a.png"),
        ("docs/all.md", "docs/any.md", "README.md:4 and README.zh.md:4: links"),
        ("`plain`", "`fast`", "README.md:13 and README.zh.md:12: names in code"),
        ("![A picture](a.png)\n", "", "README.md:6 and README.zh.md:5: fence .* beside picture"),
        ("| two images | **2.38 s**, `plain` |\n", "", "ends before the other"),
    ],
)
def test_a_change_of_one_readme_alone_is_named_with_its_lines(here, there, message):
    assert list(out_of_step(SAMPLE_ENGLISH, SAMPLE_CHINESE)) == []
    found = list(out_of_step(SAMPLE_ENGLISH.replace(here, there), SAMPLE_CHINESE))
    assert re.search(message, found[-1]) and len(found) <= 2
