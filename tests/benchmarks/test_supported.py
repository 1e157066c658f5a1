"""The page of supported models says what was found of each."""

from __future__ import annotations

from attrs import asdict

from benchmarks.supported import held, level, page, part_of


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
    lines = page(known).splitlines()
    assert lines[-1].startswith("| `mllama`")
    assert "1 refused" in lines[2]


def test_parts_hold_every_type_once():
    types = [str(number) for number in range(10)]
    parts = [part_of(types, f"{number}/4") for number in range(1, 5)]
    assert sorted(name for part in parts for name in part) == types
