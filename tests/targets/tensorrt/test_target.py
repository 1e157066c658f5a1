"""The plugin-free target's inputs, profiles and configuration."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import nn

from ditto.bindings import is_installed
from ditto.builders import LlmBuilder
from ditto.configs import Limits, TensorRTBuilderConfig, TensorRTConfig, TensorRTNetworkCreationFlags
from ditto.configs.build import PRESETS, BuildSettings
from ditto.errors import MissingLibraryError
from ditto.network.layers import ElementWise, RotaryEmbedding
from ditto.network.weight import Stored
from ditto.passes import run_passes
from ditto.passes.spec import passes_of
from ditto.targets import target
from ditto.targets.tensorrt.tuning import H200, TUNINGS
from tests.support.describing import engines_of, language_part, vision_part
from tests.support.models import llama
from tests.support.optimizing import PORTABLE
from tests.support.programs import captured
from tests.support.witnessed import described_disaggregated

LIMITS = Limits(
    max_batch_size=4, max_input_len=32, max_seq_len=64, max_num_tokens=128, max_prompt_embedding_table_size=16
)
RTX = target("tensorrt-rtx")


def specs(limits, settings=PORTABLE):
    return RTX.specs(language_part(limits), settings)


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
    assert all("prompt_rows" not in profile.ranges for profile in specs(without)[0].profiles)


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
        target("tensorrt").check(BuildSettings())


@pytest.mark.parametrize(
    ("name", "preset", "in_halves", "joined"),
    [
        ("tensorrt-rtx", "latency", 1, True),
        ("tensorrt-rtx", "portable", 0, False),
        ("tensorrt-rtx", "size", 0, False),
        ("tensorrt", "latency", 0, True),
    ],
)
def test_products_have_the_forms_that_the_library_is_fast_at(name, preset, in_halves, joined):
    module, chosen = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), target(name)  # more columns than inputs
    program = captured(module, {"x": torch.randn(2, 5, 4)}, None, ("y",))
    part = evolve(vision_part(), weight_of=lambda key: Stored(key, *_facts(module.get_parameter(key))))
    settings = BuildSettings(**PRESETS[preset], compute_capabilities=("9.0",))
    (spec,) = chosen.specs(part, settings)
    network = run_passes(chosen.lower(part, program, spec), passes_of(spec.passes))
    added = [node for node in network.nodes if node.layer == ElementWise("SUM")]
    assert len(added) == 1 + in_halves
    assert chosen.joins_projections(part, settings) == joined


def _facts(tensor):
    return tuple(tensor.shape), tensor.dtype


@pytest.mark.parametrize(("name", "layers"), [("tensorrt-rtx", 0), ("tensorrt", 4)])
def test_rope_of_prompts_has_the_form_that_the_library_is_fast_at(name, layers):
    builder = LlmBuilder.from_model(llama()).with_max_seq_len(40).with_max_input_len(30)
    engines = engines_of(builder.with_optimize("latency").with_compute_capabilities("9.0"), target(name))
    counts = {
        part: sum(isinstance(node.layer, RotaryEmbedding) for node in engine.network.nodes)
        for part, engine in engines.items()
    }
    assert counts == {"llm": layers, "llm-decode": 4}


@pytest.mark.parametrize("tied", [False, True])
def test_prompts_and_steps_take_their_matrices_in_one_form(monkeypatch, tied):
    """External weights lie on the GPU once for both."""
    monkeypatch.setitem(TUNINGS, "9.0", evolve(H200, split_k_shortest=1))
    networks = described_disaggregated(LlmBuilder.from_model(llama(tie_word_embeddings=tied)))
    prompts, steps = (
        {constant.weight for constant in networks[name][0].constants() if math.prod(constant.weight.shape) >= 32 * 32}
        for name in ("llm", "llm-decode")
    )
    assert len([weight for weight in steps if "down_proj" in str(weight)]) == 2
    assert steps <= prompts
