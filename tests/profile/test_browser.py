"""A browser shows the page at both widths without a sideways scroll; skips where there is none."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from recsys_had.profile import page

# A frame is as wide as it is told, which a headless window is not; it measures itself when loaded.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><title>waiting</title>
<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const inside = frame.contentDocument;
  inside.querySelectorAll("details").forEach(one => {{ one.open = true; }});
  const wide = [...inside.querySelectorAll("body *")].filter(one =>
    !one.closest(".scroll") && one.getBoundingClientRect().right > {width} + 1);
  const bad = wide.map(one => one.tagName + ": " + one.textContent.slice(0, 40));
  const root = inside.documentElement;
  document.title = JSON.stringify({{
    scrolls: root.scrollWidth > root.clientWidth, bad, width: root.clientWidth,
    charts: inside.querySelectorAll(".chart svg").length,
    flat: [...inside.querySelectorAll(".chart svg")].filter(one => one.clientHeight < 50).length,
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no chromium, chromium-browser or google-chrome on PATH to look at the page with")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(made, browser: str, tmp_path: Path, width: int) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page(made.profile), quote=True)))
    # As root, in a container, Chromium has no sandbox of its own.
    words = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/b",
    ]
    words += ["--window-size=1400,1000", "--virtual-time-budget=10000", "--dump-dom"]
    done = subprocess.run(
        [*words, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    found = json.loads(html.unescape(title[1]))
    assert (found["scrolls"], found["bad"], found["flat"]) == (False, [], 0)
    assert found["charts"] > 6
    assert width - 20 <= found["width"] <= width
