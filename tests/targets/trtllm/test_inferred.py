"""What is deduced is held, where it can be, against TensorRT itself."""

from __future__ import annotations

import torch

from ditto.bindings import load_native
from ditto.targets.trtllm import inferred


def test_dtypes_have_tensorrts_own_numbers():
    names = {torch.float32: "FLOAT", torch.float16: "HALF", torch.bfloat16: "BF16"}
    kinds = load_native("tensorrt_rtx").module.DataType
    assert {dtype: int(getattr(kinds, name)) for dtype, name in names.items()} == inferred.TYPE_ID


def test_every_deduction_says_where_it_stands_and_where_to_look():
    facts = [deduction.fact for deduction in inferred.DEDUCTIONS]
    assert len(set(facts)) == len(facts)
    for deduction in inferred.DEDUCTIONS:
        assert deduction.section.split()[0] in ("LLM", "multimodal") and deduction.check


def test_context_attention_is_fused_in_half_precision_only():
    assert inferred.FUSED_CONTEXT_DTYPES == ("float16", "bfloat16")
