"""A page in a browser, as wide as a phone and as a desktop, light and dark; where Chromium is installed."""

import html
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from util.pages.charts import bars, histogram, lines
from util.pages.page import Page, picture_html
from util.pages.pictures import jpeg_uri

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1200)
MEASURE = """
<script>addEventListener("load", () => {
    const found = [...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument, style = frame.contentWindow.getComputedStyle(page.body);
        return {
            wide: page.documentElement.scrollWidth,
            paper: style.backgroundColor,
            ink: style.color,
            charts: [...page.querySelectorAll(".charts .chart")].map(one => one.getBoundingClientRect().width),
            images: [...page.images].map(image => image.naturalWidth),
            heads: [...page.querySelectorAll("th")].filter(head => !head.textContent.includes(" ")).map(head => {
                const text = page.createRange();
                text.selectNodeContents(head);
                return text.getClientRects().length;  // lines
            }),
            loaded: frame.contentWindow.performance.getEntriesByType("resource")
                .filter(entry => !entry.name.startsWith("data:")).length,
        };
    });
    document.title = JSON.stringify(found);
})</script>
"""


def a_page() -> str:
    page = Page("Report of a run with a name of many letters_" * 4, "evaluated")
    page.figures(dict.fromkeys(("AP", "AP50", "images", "objects", "best F1"), 12345.6))
    for name in ("Curves", "Classes", "Run"):
        page.heading(name)
    page.charts(
        lines({"training": (range(9), range(9))}, title="loss"),
        histogram({"boxes": range(9)}, title="sizes"),
        bars(["a long name of a class " * 3, "b"], {"AP": [0.5, 0.25]}, title="AP"),
    )
    page.table([f"column {k}" for k in range(12)], [["a cell with words"] * 12] * 3)
    page.table(["part", "fingerprint", "annotations", "remarks"], [["train images", "2:89d35333", "/a/path" * 9, ""]])
    page.code("python main.py --coco_path " + "/a/long/path" * 30)
    page.facts({"a_setting_of_a_long_name": "/a/long/path" * 30})
    picture = Image.new("RGB", (1600, 200), "red")
    page.gallery([picture_html(jpeg_uri(picture), "a photograph")] * 2)
    page.picture(jpeg_uri(picture, max_side=1600), "a figure", drawn=True)
    return page.html()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_a_phone_and_a_desktop_in_light_and_dark(tmp_path, dark):
    frames = [f'<iframe width="{width}" height="800" srcdoc="{html.escape(a_page())}"></iframe>' for width in WIDTHS]
    (tmp_path / "frames.html").write_text(f"<!doctype html>{''.join(frames)}{MEASURE}", encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom"]
    url = (tmp_path / "frames.html").as_uri()
    shown = subprocess.run([*command, url], capture_output=True, text=True, timeout=300, check=True).stdout
    measured = json.loads(html.unescape(re.search("<title>(.*?)</title>", shown)[1]))
    for width, found in zip(WIDTHS, measured, strict=True):
        assert width - 20 < found["wide"] <= width, f"the page is {found['wide']} wide on a screen of {width}"
        assert all(found["images"]) and len(found["images"]) == 3
        assert found["loaded"] == 0
        assert found["heads"] == [1] * 4, "a word is broken"
        paper, ink = (sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("paper", "ink"))
        assert (paper < 100 and ink > 600) if dark else (paper > 700 and ink < 150)
    phone, desktop = (found["charts"] for found in measured)
    assert len(phone) == 3 and min(phone) > 280 and min(desktop) > 280
