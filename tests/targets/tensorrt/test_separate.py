"""Prefill and decode as two networks: what Hugging Face computes, over one cache of which decode sees the live part."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto import LlmBuilder
from ditto.network.layers import Attention, MatrixMultiply
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from ditto.targets.tensorrt.tuning import H200, TUNINGS
from tests.support.describing import engines_of
from tests.support.layers import emitted
from tests.support.models import TEXT_MODELS
from tests.support.recorder.emitting import Zeros
from tests.support.witnessed import eager, logits

CAPACITY, PROMPT = 40, 11
NAMES = [
    "llama",
    "llama with one KV head per query head",
    "llama with a single KV head",
    "mistral with a window",
    "gemma2 with soft-caps and windows",
]


@pytest.fixture(scope="module", params=[(name, form) for form in ("sums", "products") for name in NAMES], ids=str)
def parts(request):
    name, form = request.param
    model = TEXT_MODELS[name]()
    builder = LlmBuilder.from_model(model).with_target("tensorrt-rtx").with_optimize("latency").with_batch(2)
    builder = builder.with_tuning("9.0").with_max_seq_len(CAPACITY).with_max_input_len(CAPACITY - 1)
    rows = 1 if form == "products" else 1 << 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TUNINGS, "9.0", evolve(H200, decode_products_from=rows, decode_products_group=1))
        engines = engines_of(builder)
    assert {engine.spec.decode_attention for engine in engines.values()} == {form}
    networks = {name: engine.network for name, engine in engines.items()}
    return model, networks, {name: Constants(each.network, each.part.tensors) for name, each in engines.items()}


def caches(network, fill):
    return {
        past: torch.full([2 if str(dim) == "batch" else dim for dim in network.inputs[past].shape], fill)
        for past in network.shared.values()
    }


def prefilled(parts, rows):
    _, networks, constants = parts
    network = networks["llm"]
    inputs = {
        "input_ids": rows.int(),
        "position_ids": torch.arange(rows.shape[1], dtype=torch.int32).expand_as(rows).contiguous(),
        "last_token_ids": torch.full((2,), rows.shape[1] - 1, dtype=torch.int32),
        "write_indices": torch.zeros(2, dtype=torch.int32),
    }
    outputs = run(network, {**inputs, **caches(network, 3.0)}, constants["llm"])
    return outputs.pop("logits"), {past: outputs[present] for present, past in network.shared.items()}


def stepped(parts, tokens, kept, live):
    _, networks, constants = parts
    written = torch.full((2,), PROMPT, dtype=torch.int32)
    inputs = {
        "input_ids": tokens[:, None].int(),
        "position_ids": written[:, None],
        "write_indices": written,
        "cache_slots": torch.arange(live, dtype=torch.int32),
    }
    return run(networks["llm-decode"], {**inputs, **kept}, constants["llm-decode"])["logits"]


def tokens():
    return torch.randint(3, 128, (2, PROMPT + 1), generator=torch.Generator().manual_seed(4))


def test_a_prompt_and_a_step_compute_what_hugging_face_computes(parts):
    rows = tokens()
    before, after = logits(eager(parts[0]), list(rows))
    found, kept = prefilled(parts, rows[:, :-1])
    assert relative_error(found, before) <= RELATIVE_ERROR[torch.float32]
    assert relative_error(stepped(parts, rows[:, -1], kept, CAPACITY), after) <= RELATIVE_ERROR[torch.float32]


def test_decode_reads_live_slots_only_and_of_them_only_what_is_written(parts):
    rows = tokens()
    _, kept = prefilled(parts, rows[:, :-1])
    wanted = stepped(parts, rows[:, -1], kept, PROMPT + 1)
    for past, cache in kept.items():
        axis = 2  # of the slots, in both forms
        assert cache.shape[axis] == CAPACITY, past
        cache.narrow(axis, PROMPT + 1, CAPACITY - PROMPT - 1).fill_(float("nan"))
    torch.testing.assert_close(stepped(parts, rows[:, -1], kept, PROMPT + 1), wanted, rtol=0, atol=0)


def test_values_lie_as_the_form_of_decode_reads_them(parts):
    model, networks, _ = parts
    kinds = [type(node.layer) for node in networks["llm-decode"].nodes]
    assert Attention not in kinds
    in_sums = str(networks["llm-decode"].inputs["past_value_0"]).endswith(", 1]")
    config = model.config
    heads, width = config.num_key_value_heads, config.head_dim
    for network in networks.values():
        assert str(network.inputs["past_key_0"]) == f"float32[batch, {heads}, {CAPACITY}, {width}]"
        values = f"{heads * width}, {CAPACITY}, 1" if in_sums else f"{heads}, {CAPACITY}, {width}"
        assert str(network.inputs["past_value_0"]) == f"float32[batch, {values}]"
    products = sum(kind is MatrixMultiply for kind in kinds) - (0 if in_sums else 2 * config.num_hidden_layers)
    # Two more where attention is written out.
    more = config.num_hidden_layers * (2 if "gemma" in config.model_type else 0)
    assert products == sum(isinstance(node.layer, MatrixMultiply) for node in networks["llm"].nodes) - more


def test_decode_takes_no_choice_of_tokens(parts):
    _, networks, _ = parts
    assert "last_token_ids" in networks["llm"].inputs
    assert "last_token_ids" not in networks["llm-decode"].inputs
    assert "cache_slots" not in networks["llm"].inputs


def test_tensorrt_agrees_with_every_shape_and_dtype(parts):
    _, networks, _ = parts
    for network in networks.values():
        emitted(network, Zeros(network))
