"""The collector: a wrong page fails, and the message names the line."""

import traceback

import pytest

from tests.lesson.pages import CHAPTERS, equal, fences, run_page

PAGE = """# A page

```python
x = 1 / 3
print(f"{x:.2f} of [1, 2]")
print(True)
```

```text
0.33 of [1, 2]
True
```

Prose.

```text
not an output
```

```python
print(x > 0)
```
```text
True
```
"""


@pytest.fixture
def run(tmp_path):
    def run(text: str) -> None:
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        run_page(path)

    return run


def test_a_right_page_passes(run):
    run(PAGE)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("0.33", "0.35", 10),  # two units
        ("[1, 2]\nTrue", "[1, 3]\nTrue", 10),  # an integer
        ("0.33 of", "0.33 in", 10),
        ("[1, 2]\nTrue", "[1, 2]\nFalse", 11),
        ("[1, 2]\nTrue", "[1, 2]", 11),  # prints more than the page shows
        ("[1, 2]\nTrue", "[1, 2]\nTrue\nTrue", 12),  # prints less
        ("```text\n0.33", "and\n\n```text\n0.33", 4),  # the output is not right behind its snippet
        ("```\n```text\nTrue\n```\n", "```\n", 21),  # the output is not shown
    ],
)
def test_a_wrong_output_fails_with_its_line(run, old, new, line):
    assert old in PAGE
    with pytest.raises(AssertionError, match=rf"page\.md:{line}: the page shows"):
        run(PAGE.replace(old, new, 1))


def test_an_exception_points_into_the_page(run):
    with pytest.raises(ZeroDivisionError) as caught:
        run(PAGE.replace("print(x > 0)", "\nprint(x / 0)"))
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert last.filename.endswith("page.md") and (last.lineno, last.line) == (22, "print(x / 0)")


def test_names_of_one_page_do_not_reach_another(run):
    run(PAGE)
    with pytest.raises(NameError):
        run("```python\nprint(x)\n```\n")


def test_fences_know_their_lines():
    found = list(fences(PAGE))
    assert [(fence.kind, fence.line, fence.follows) for fence in found] == [
        ("python", 3, False),
        ("text", 9, True),
        ("text", 16, False),
        ("python", 20, True),
        ("text", 23, True),
    ]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        ("0.34", "0.33"),
        ("tensor([-0.001,  0.2])", "tensor([0.000, 0.2])"),
        ("4.1e-06", "4e-06"),
        ("torch.Size([2, 96])", "torch.Size([2, 96])"),
        ("nan True", "nan  True"),
    ],
)
def test_equal_lines(got, wanted):
    assert equal(got, wanted)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [("0.35", "0.33"), ("3", "2"), ("2.0", "2"), ("6e-06", "4e-06"), ("-0.5", "0.5"), ("a 1", "b 1"), ("1 2", "1")],
)
def test_unequal_lines(got, wanted):
    assert not equal(got, wanted)


def test_chapters_are_numbered():
    assert [int(name[:2]) for name in CHAPTERS] == list(range(16))
