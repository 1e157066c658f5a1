"""The plugin-free target's inputs, profiles and configuration."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import nn

from ditto.bindings import is_installed
from ditto.builders import LlmBuilder
from ditto.builders.pipeline import describe_all
from ditto.configs import Limits, TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags
from ditto.engine import Phase
from ditto.errors import MissingLibraryError
from ditto.network.layers import ElementWise, RotaryEmbedding
from ditto.network.weight import Stored
from ditto.passes import run_passes
from ditto.targets import target
from ditto.targets.tensorrt.tuning import H200, TUNINGS
from tests.support.models import llama
from tests.support.programs import captured
from tests.support.witness.comparison import described_disaggregated

LIMITS = Limits(
    max_batch_size=4, max_input_len=32, max_seq_len=64, max_num_tokens=128, max_prompt_embedding_table_size=16
)
RTX = target("tensorrt-rtx")


def test_inputs_share_their_dimensions():
    inputs = RTX.llm_inputs(LIMITS, 8, torch.float16)
    assert list(inputs) == ["input_ids", "position_ids", "last_token_ids", "prompt_embedding_table"]
    batch, sequence = inputs["input_ids"].shape
    assert (batch.max, sequence.max) == (4, 32)
    assert inputs["position_ids"].shape == (batch, sequence)
    assert inputs["prompt_embedding_table"].dtype == torch.float16


def test_a_text_model_has_no_prompt_table():
    without = Limits(max_batch_size=4, max_input_len=32, max_seq_len=64, max_num_tokens=128)
    assert "prompt_embedding_table" not in RTX.llm_inputs(without, 8, torch.float16)
    assert all("prompt_rows" not in profile.ranges for profile in RTX.llm_profiles(without, 2))


def test_prefill_and_decode_have_a_profile_each():
    prefill, decode = RTX.llm_profiles(LIMITS, 2)
    assert (prefill.phase, decode.phase) == (Phase.PREFILL, Phase.DECODE)
    assert (prefill.ranges["sequence"].min, prefill.ranges["sequence"].max) == (1, 32)
    assert (decode.ranges["sequence"].min, decode.ranges["sequence"].max) == (1, 1)


def test_usual_prompts_have_profiles_with_static_shapes_beside_the_one_for_all():
    prefill, _ = RTX.apart(evolve(LIMITS, opt_input_len=24))
    labels = ["prefill", *(f"prefill batch={rows} sequence=24" for rows in (1, 2, 4))]
    assert [profile.label() for profile in prefill.profiles] == labels
    for rows, profile in zip((1, 2, 4), prefill.profiles[1:], strict=True):
        fixed = {name: (range_.min, range_.opt, range_.max) for name, range_ in profile.ranges.items()}
        assert fixed == {"batch": (rows,) * 3, "sequence": (24,) * 3, "prompt_rows": (1, 8, 16)}


def test_without_a_usual_prompt_there_is_one_profile_for_all():
    prefill, decode = RTX.apart(LIMITS)
    assert [profile.label() for profile in prefill.profiles] == ["prefill"]
    assert [profile.label() for profile in decode.profiles] == [f"decode batch={rows}" for rows in (1, 2, 4)]


@pytest.mark.parametrize(
    ("usual", "longest", "slots"),
    [(640, 4096, (768, 1024)), (767, 4096, (768, 1024)), (768, 4096, (1024, 1280)), (600, 700, (700,))],
)
def test_decode_has_static_shapes_for_the_slots_behind_a_usual_prompt(usual, longest, slots):
    limits = evolve(LIMITS, max_batch_size=2, max_input_len=usual, opt_input_len=usual, max_seq_len=longest)
    _, decode = RTX.apart(limits)
    wanted = [(rows, count) for rows in (1, 2) for count in (None, *slots)]
    assert [(profile.size("batch"), profile.size("kv_length")) for profile in decode.profiles] == wanted
    anything = decode.profiles[0].ranges["kv_length"]
    assert (anything.min, anything.max) == (1, longest)
    assert min(-(-(usual + 1) // decode.kv_length_step) * decode.kv_length_step, longest) == slots[0]


@pytest.mark.parametrize(
    ("flags", "wanted"), [({"fp16": True}, torch.float16), ({"bf16": True}, torch.bfloat16), ({}, None)]
)
def test_a_weakly_typed_request_becomes_an_explicit_dtype(flags, wanted):
    weak = TensorRTConfig(
        network_creation_flags=TensorRTNetworkCreationFlags(strongly_typed=False),
        builder_config=TensorRTBuilderConfig(**flags),
    )
    assert RTX.explicit_dtype(weak) == wanted
    assert RTX.explicit_dtype(TensorRTConfig()) is None


@pytest.mark.skipif(is_installed("tensorrt"), reason="TensorRT is installed")
def test_a_missing_library_is_said_before_any_work():
    with pytest.raises(MissingLibraryError, match="TensorRT is not installed"):
        target("tensorrt").check(TensorRTConfig(), ())


@pytest.mark.parametrize(
    ("name", "outside", "in_halves", "joined"),
    [("tensorrt-rtx", True, 1, True), ("tensorrt-rtx", False, 0, False), ("tensorrt", True, 0, True)],
)
def test_products_have_the_forms_that_the_library_is_fast_at(name, outside, in_halves, joined):
    module, chosen = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), target(name)  # more columns than inputs
    program = captured(module, {"x": torch.randn(2, 5, 4)}, None, ("y",))
    network = chosen.lower_vision(program, lambda key: Stored(key, *_facts(module.get_parameter(key))))
    network = run_passes(network, chosen.vision_passes(outside))
    added = [node for node in network.nodes if node.layer == ElementWise("SUM")]
    assert len(added) == 1 + in_halves
    assert chosen.joins_vision(outside) == joined


def _facts(tensor):
    return tuple(tensor.shape), tensor.dtype


@pytest.mark.parametrize(("name", "layers"), [("tensorrt-rtx", 0), ("tensorrt", 4)])
def test_rope_of_prompts_has_the_form_that_the_library_is_fast_at(name, layers):
    builder = LlmBuilder.from_model(llama()).with_max_seq_len(40).with_max_input_len(30)
    job = builder.with_target(name).with_weights("external").job(target(name))
    networks = {part: network for part, (_, network) in describe_all(job).items()}
    counts = {
        part: sum(isinstance(node.layer, RotaryEmbedding) for node in network.nodes)
        for part, network in networks.items()
    }
    assert counts == {"llm": layers, "decode": 4}


@pytest.mark.parametrize("tied", [False, True])
def test_prompts_and_steps_take_their_matrices_in_one_form(monkeypatch, tied):
    """External weights lie on the GPU once for both."""
    monkeypatch.setitem(TUNINGS, "9.0", evolve(H200, split_k_shortest=1))
    networks = described_disaggregated(LlmBuilder.from_model(llama(tie_word_embeddings=tied)))
    prompts, steps = (
        {constant.weight for constant in networks[name][0].constants() if math.prod(constant.weight.shape) >= 32 * 32}
        for name in ("llm", "decode")
    )
    assert len([weight for weight in steps if "down_proj" in str(weight)]) == 2
    assert steps <= prompts
