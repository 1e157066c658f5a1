"""The page of supported models says what was found of each."""

from __future__ import annotations

import pytest
import torch
from attrs import asdict

from benchmarks import supported
from benchmarks.causal_classes import Outcome
from benchmarks.supported import held, held_causal, level, page, part_of


def test_a_model_with_a_family_is_verified_for_the_targets_that_run_it():
    found = asdict(held("llava"))
    assert level(found) == "verified for both targets"
    assert set(found["targets"]["trtllm"]) == {"features", "logits"}
    assert max(found["targets"]["tensorrt-rtx"].values()) < 1e-5


def test_a_model_without_one_is_refused_with_the_reason():
    found = asdict(held("mllama"))
    assert level(found) == "refused"
    assert "its decoder reads images by cross-attention" in found["reasons"]["family"]


def test_the_page_lists_the_refused_last():
    known = {name: asdict(held(name)) for name in ("mllama", "llava")}
    lines = page(known, {}).splitlines()
    (first, second) = (line for line in lines if line.startswith("| `"))
    assert first.startswith("| `llava`")
    assert second.startswith("| `mllama`")
    assert "1 refused" in lines[4]


def test_a_causal_class_is_held_for_both_targets():
    found = asdict(held_causal("llama"))
    assert level(found) == "verified for both targets"
    assert 0 < found["targets"]["trtllm"]["logits"] < 1e-5


def test_a_causal_class_of_one_target_says_why_not_the_other():
    found = asdict(held_causal("bloom"))
    assert level(found) == "verified"
    assert "TensorRT-LLM: attention scores get a bias by distance" in page({}, {"bloom": found})


def test_a_refused_causal_class_says_why_once():
    found = asdict(held_causal("rwkv"))
    assert level(found) == "refused"
    assert list(found["reasons"]) == ["model"]


def test_a_causal_class_that_differs_is_no_result(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supported, "answers", lambda *_: [torch.zeros(5, 512)] * 2)
    monkeypatch.setattr(supported, "check_model", lambda *_: Outcome("WRONG", 0.5))
    with pytest.raises(AssertionError, match="llama for tensorrt-rtx: WRONG"):
        held_causal("llama")


def test_parts_hold_every_type_once():
    types = [str(number) for number in range(10)]
    parts = [part_of(types, f"{number}/4") for number in range(1, 5)]
    assert sorted(name for part in parts for name in part) == types
