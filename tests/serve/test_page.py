"""The page at `/`, in a browser: keyboard, image, streamed answer, errors, widths and colours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ditto.serve.page import page
from tests.support.browser import ENTER, TAB, browser, programs

NEEDS_CHROMIUM = pytest.mark.skipif(None in programs(), reason="chromium and chromedriver are not installed")
SHOTS = os.environ.get("DITTO_SCREENSHOTS")  # a directory to keep screenshots in


@pytest.fixture(scope="module")
def tab(server, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        tab.call("url", url=f"{server}/")
        yield tab


def text(tab, ident):
    return tab.run(f"return document.getElementById('{ident}').textContent")


@NEEDS_CHROMIUM
def test_an_image_is_asked_about_with_the_keyboard_alone(tab, hugging_face, images):
    order = []
    for _ in range(4):
        tab.keys(TAB)
        order.append(tab.run("return document.activeElement.id"))
    assert order == ["image", "question", "key", "send"]
    tab.type("image", str(images[3]))
    tab.wait("return !document.getElementById('preview').hidden")
    tab.type("key", "first")
    tab.run(
        "window.parts = 0; new MutationObserver(() => window.parts++).observe("
        "document.getElementById('answer'), {childList: true})"
    )
    tab.type("question", "Describe this image." + ENTER)
    tab.wait("return document.getElementById('figures').textContent.includes('tokens per second')")
    tokens = hugging_face.tokens(images[3], "USER: <image>\nDescribe this image. ASSISTANT:")
    wanted = hugging_face.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert text(tab, "answer") == wanted and text(tab, "error") == ""
    assert text(tab, "figures").startswith(f"{len(tokens)} tokens in ")
    assert tab.run("return window.parts") > 3  # it came in pieces


@NEEDS_CHROMIUM
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(tab, width, dark):
    tab.width(width)
    tab.dark(dark)
    if SHOTS:
        tab.shot(Path(SHOTS) / f"{width}-{'dark' if dark else 'light'}.png")
    assert tab.run("return document.documentElement.scrollWidth <= window.innerWidth")
    back, front = tab.run(
        "const brightness = (colour) => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);"
        "const style = getComputedStyle(document.body);"
        "return [brightness(style.backgroundColor), brightness(style.color)]"
    )
    assert abs(back - front) > 500 and (back < front) == dark


@NEEDS_CHROMIUM
def test_an_error_is_said_and_nothing_comes_from_elsewhere(tab, server):
    tab.run("document.getElementById('key').value = 'wrong'; document.getElementById('ask').requestSubmit()")
    assert tab.wait("return document.getElementById('error').textContent") == "The API key is missing or wrong."
    assert not tab.run("return document.getElementById('send').disabled")
    asked = tab.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked and all(name.startswith((f"{server}/", "data:")) for name in asked)
    blocked = [entry["message"] for entry in tab.call("se/log", type="browser") if "Security" in entry["message"]]
    assert blocked == []
    labels = tab.run("return [...document.querySelectorAll('input, textarea')].map((field) => field.labels.length)")
    assert labels == [1, 1, 1]


def test_a_name_cannot_end_the_script():
    body = page('</script><script>alert("1")').body.decode()
    assert body.count("<script>") == body.count("</script>") == 1
    assert 'MODEL = "\\u003c/script>\\u003cscript>alert(\\"1\\")"' in body
