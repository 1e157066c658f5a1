"""Dumps are numbered texts, one for each stage that changed something; nobody pays who does not want them."""

from __future__ import annotations

import itertools

import pytest

from ditto.cli.main import main
from ditto.dumps import dump, dumping, dumping_part
from ditto.errors import OutputError
from ditto.network import load, network_text
from tests.support.models import llama


def test_nothing_is_made_where_nobody_listens():
    dump("export", lambda: pytest.fail("made"))
    with dumping(None), dumping_part("llm"):
        dump("export", lambda: pytest.fail("made"))


def test_texts_are_numbered_in_their_order(tmp_path):
    with dumping(tmp_path / "new"):
        for part in ("vision", "llm"):
            with dumping_part(part):
                dump("export", lambda: "one")
                dump("rewrite", lambda: "two")
    assert sorted(path.name for path in (tmp_path / "new" / "llm").iterdir()) == ["00 export.txt", "01 rewrite.txt"]
    assert (tmp_path / "new" / "vision" / "01 rewrite.txt").read_text() == "two"


def test_a_directory_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="is not empty"), dumping(tmp_path):
        pass


def test_a_build_dumps_the_graph_after_every_stage_that_changed_it(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    command = ["-q", "build", str(tmp_path / "model"), "--target", "tensorrt-rtx"]
    for name in ("first", "second"):
        assert main([*command, "-o", str(tmp_path / "tree"), "--dump", str(tmp_path / name)]) == 0
    files = sorted((tmp_path / "first" / "llm").iterdir())
    names = [path.name[3:] for path in files]
    assert names[0] == "captured.txt" and names[-1] == "dead layers of llm.txt"
    assert names.index("fuse projections.txt") < names.index("network of llm.txt")
    texts = [path.read_text() for path in files]
    assert all(before != after for before, after in itertools.pairwise(texts))
    assert texts == [(tmp_path / "second" / "llm" / path.name).read_text() for path in files]
    tree = tmp_path / "tree"
    network = load(tree / "network.json", tree / "network.safetensors")
    assert texts[-1] == network_text(network)
    linear = next(line for line in texts[0].splitlines() if "aten.linear" in line)
    assert "self_attn.q_proj" in linear and "float32[batch, sequence, 64]" in linear
