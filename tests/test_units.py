"""Sizes are decimal everywhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ditto
from ditto.units import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2**30, "1.1 GB"), (10**13, "10000.0 GB")],
)
def test_sizes_are_said_in_decimal_units(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize("path", sorted(Path(ditto.__file__).parent.rglob("*.py")), ids=str)
def test_no_message_counts_otherwise(path):
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings are not said
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told]
    assert not [text for text in texts if isinstance(text, str) and re.search(r"\b[KMGT]iB\b", text)]
