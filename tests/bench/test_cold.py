"""A new process makes a first token, and its failure is told."""

from __future__ import annotations

import pytest

from ditto.bench.cold import cold_seconds


def test_a_tree_in_a_new_process(saved_tree):
    assert 0.5 < cold_seconds("tree", str(saved_tree.root), "reference") < 240


def test_a_model_in_a_new_process(saved_llava):
    assert 0.5 < cold_seconds("model", str(saved_llava), "float32") < 240


def test_a_failure_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ended with 1"):
        cold_seconds("tree", str(tmp_path), "reference")
