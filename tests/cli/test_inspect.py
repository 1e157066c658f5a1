"""`ditto inspect`: text, one JSON object, or a page that needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from ditto import LlmBuilder
from ditto.cli.main import main
from tests.support.models import llama


def test_text_says_what_the_tree_holds(llava_tree, capsys):
    assert main(["inspect", str(llava_tree.root)]) == 0
    shown = capsys.readouterr().out
    for wanted in ("llm/rank0.engine", "tensorrt_rtx", "past_key_#", "prefill: ", "num_key_value_heads", "compile llm"):
        assert wanted in shown
    assert "self_attn" not in shown


def test_text_says_in_how_many_parts_an_engine_is(tmp_path, capsys):
    model = LlmBuilder.from_model(llama()).with_target("tensorrt-rtx").with_optimize("latency").with_tuning("9.0")
    model.build(tmp_path / "tree")
    assert main(["inspect", str(tmp_path / "tree")]) == 0
    assert re.search(r"engine +[\d.]+ MB in 3 parts, float32", capsys.readouterr().out)


def test_layers_come_with_their_modules(llava_tree, capsys):
    assert main(["inspect", str(llava_tree.root), "--layers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if line.endswith("lm_head")]
    assert "MatrixMultiply(transpose_y=True)" in head
    assert "float32[batch, 1, 128]" in head


def test_json_is_one_object(llava_tree, capsys):
    assert main(["inspect", str(llava_tree.root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"root", "manifest", "facts", "engines"}
    assert report["engines"]["llm"]["layers"][0]["name"]


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_holds_everything_and_loads_nothing(llava_tree, tmp_path, capsys):
    file = tmp_path / "a page.html"
    assert main(["inspect", str(llava_tree.root), "--html", str(file)]) == 0
    assert capsys.readouterr().out == ""
    page = _Page(file.read_text(encoding="utf-8"))
    text = " ".join(page.words)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\(", file.read_text(encoding="utf-8"))
    for name in ("vision", "llm"):
        for node in json.loads((llava_tree.directory(name) / "network.json").read_text())["nodes"]:
            assert node["module"] in text
    for name in llava_tree.manifest.files:
        assert name in text


def test_verify_hashes_everything(llava_tree, monkeypatch):
    from ditto import EngineTree

    checked = []
    monkeypatch.setattr(EngineTree, "check", lambda tree, names=None: checked.append(names))
    assert main(["inspect", str(llava_tree.root), "--verify"]) == 0
    assert None in checked


@pytest.mark.parametrize("arguments", [["{tmp}"], ["{tree}", "--html", "{tmp}/no/page.html"]])
def test_bad_input_is_one_message(llava_tree, tmp_path, capsys, arguments):
    assert main(["inspect", *(part.format(tmp=tmp_path, tree=llava_tree.root) for part in arguments)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_names_are_not_broken_inside_words_and_small_screens_scroll_tables_only(llava_tree, tmp_path):
    file = tmp_path / "page.html"
    assert main(["-q", "inspect", str(llava_tree.root), "--html", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", style)
    broken = [rule for rule, content in rules if "overflow-wrap: anywhere" in content]
    assert broken and not any(re.search(r"\bth\b", rule) for rule in broken)
    assert "@media (max-width: 640px)" in style
    for before in re.findall(r"(.{0,40})<table(?! class=pairs)", text):
        assert before.endswith("<div class=wide>")
