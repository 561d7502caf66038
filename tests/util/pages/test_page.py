"""A page holds what it was given, escaped, and asks for nothing from outside."""

from html.parser import HTMLParser

import pytest

from util.pages.markup import Html, number, text_html
from util.pages.page import Page, picture_html

HOSTILE = "<img src=http://x.invalid onerror=alert(1)>\"'&\u202e\x1b[31m\ud800"
VOID = {"meta", "img"}


class Elements(HTMLParser):
    """The elements of a page; fails if one is closed that was not opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text.append(data)


def test_every_text_is_escaped():
    page = Page(HOSTILE, HOSTILE)
    page.heading(HOSTILE)
    page.subheading(HOSTILE)
    page.paragraph(HOSTILE)
    page.note(HOSTILE, "bad", HOSTILE)
    page.bullets([HOSTILE])
    page.code(HOSTILE)
    page.facts({HOSTILE: HOSTILE})
    page.figures({HOSTILE: HOSTILE})
    page.table([HOSTILE], [[HOSTILE]], HOSTILE)
    page.picture(Html("data:image/png;base64,"), HOSTILE, alt=HOSTILE)
    with page.folded(HOSTILE):
        page.paragraph(HOSTILE)
    html = page.html()
    assert not any(letter in html for letter in "\u202e\x1b\ud800")
    elements = Elements(html)
    assert elements.open == []
    assert [a["src"] for tag, a in elements.found if tag == "img"] == ["data:image/png;base64,"]
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert sum("onerror=alert(1)" in text for text in elements.text) >= 15


def test_nothing_comes_from_outside():
    page = Page("Report")
    for name in ("one", "two", "three"):
        page.heading(name)
    elements = Elements(page.html())
    assert "script" not in {tag for tag, _ in elements.found}
    links = [a[name] for _, a in elements.found for name in ("src", "href") if name in a]
    assert links == ["#s1", "#s2", "#s3"]
    assert any(a.get("http-equiv") == "Content-Security-Policy" for tag, a in elements.found if tag == "meta")


def test_a_command_keeps_its_line_breaks():
    page = Page("Report")
    page.code("python main.py \\\n  --lr 1e-4")
    assert "main.py \\\n  --lr" in page.html()


def test_only_markup_is_added_as_it_is():
    page = Page("Report")
    with pytest.raises(TypeError, match="paragraph"):
        page.add("<b>bold</b>")
    page.add(Html("<b>bold</b>"))
    assert "<b>bold</b>" in page.html()


def test_a_fold_is_closed_when_its_content_fails():
    page = Page("Report")
    with pytest.raises(KeyError), page.folded("more"):
        raise KeyError
    assert Elements(page.html()).open == []


def test_a_column_of_numbers_is_aligned_and_a_missing_one_is_a_dash():
    page = Page("Report")
    page.table(["class", "AP"], [["cat", 0.12345], ["dog", None]])
    cells = [(a.get("class"), tag) for tag, a in Elements(page.html()).found if tag == "td"]
    assert cells == [(None, "td"), ("n", "td")] * 2
    assert ">0.123<" in page.html() and ">–<" in page.html()


def test_the_size_counts_the_bytes():
    page = Page("Report")
    empty = len(page.html().encode())
    page.paragraph("ネコ" * 100)
    page.add(picture_html(Html("data:,"), "cat"))
    assert len(page.html().encode()) - empty == page.size + 2  # line breaks between the parts


def test_a_page_replaces_the_last_one(tmp_path):
    page = Page("Report of 猫")
    page.write(tmp_path / "a" / "report.html")
    assert (tmp_path / "a" / "report.html").read_text(encoding="utf-8") == page.html()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]


def test_a_long_text_is_cut():
    assert len(text_html("x" * 10_000)) == 2000
    assert len(text_html("x\n" * 10_000, 100, keep="\n")) == 100


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (5, "5"), (1234567, "1,234,567"), (0.0, "0"), (0.12345, "0.123"),
        (12.345, "12.3"), (1234.5, "1,234"), (1.5e-5, "1.5e-05"), (-0.5, "-0.500"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, shown):
    assert number(value) == shown
