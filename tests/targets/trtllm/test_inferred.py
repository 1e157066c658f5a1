"""What is deduced says where it stands and how it can be checked."""

from __future__ import annotations

from ditto.targets.trtllm import inferred
from ditto.targets.trtllm.versions import NAMES


def test_every_deduction_says_where_it_stands_and_where_to_look():
    decoder_config = [deduction.fact for deduction in inferred.DEDUCTIONS]
    assert len(set(decoder_config)) == len(decoder_config)
    for deduction in inferred.DEDUCTIONS:
        assert deduction.section.split()[0] in ("LLM", "multimodal") and deduction.check


def test_context_attention_is_fused_in_half_precision_only():
    assert inferred.FUSED_CONTEXT_DTYPES == ("float16", "bfloat16")


def test_pools_are_parted_by_window_in_versions_after_0_19_only():
    assert tuple(name for name in NAMES if name not in ("0.18.2", "0.19.0")) == inferred.POOL_PER_WINDOW
