"""Text models as packed networks: prompts, chunks and generation in one batch give Hugging Face's logits."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM, Phi3Config, Phi3ForCausalLM

from ditto.errors import UnsupportedFeature
from ditto.network.layers import Constant
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.targets.trtllm.plugins import GPTAttention
from tests.support.models import LONGROPE, TEXT, TEXT_MODELS, TRANSFORMERS_5, llama, made, rope
from tests.support.packed import MAX_SEQ_LEN, PackedCalls, packed_network, packed_text_model

LONG, SHORT, OTHER = ([3 + (7 * i + seed) % 120 for i in range(n)] for seed, n in ((0, 13), (5, 4), (11, 9)))


def calls(told):
    return PackedCalls(told.network, told.constants, MAX_SEQ_LEN)


def logits(told, row):
    """Hugging Face's logits of every position of a row."""
    with torch.no_grad():
        return told.model(input_ids=torch.tensor([row])).logits[0].float()


def close(found, wanted, dtype=torch.float32):
    return relative_error(found, torch.stack(wanted)) < RELATIVE_ERROR[dtype]


@pytest.mark.drawn(5)
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_prompts_and_generation_in_one_batch_give_hugging_faces_logits(name):
    check_generation(packed_text_model(name))


class _Flat(nn.Module):
    """An MLP that sees its tokens one after another, whatever their rows."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, x):
        return self.mlp(x.reshape(-1, x.shape[-1])).view(x.shape)


def _flat_llama():
    model = llama()
    for layer in model.model.layers:
        layer.mlp = _Flat(layer.mlp)
    return model


def _opt(**settings):
    sizes = {name: size for name, size in TEXT.items() if name not in ("intermediate_size", "num_key_value_heads")}
    return made(OPTForCausalLM, OPTConfig(**sizes, ffn_dim=96, word_embed_proj_dim=64, **settings))


FLAT = {"llama": _flat_llama}
if TRANSFORMERS_5:  # before, OPT's attention was its own
    FLAT |= {"opt": _opt, "opt, norms behind": lambda: _opt(do_layer_norm_before=False)}


@pytest.mark.parametrize("model", FLAT.values(), ids=FLAT)
def test_blocks_that_flatten_their_tokens_generate_as_others_do(model):
    check_generation(packed_network(model()))


class _NoAttention(nn.Module):
    def forward(self, hidden_states, **_):
        return hidden_states, None


def test_a_layer_that_is_not_run_has_no_cache():
    model = llama()
    model.config.cross_attention_layers = [1]
    model.model.layers[1].self_attn = _NoAttention()
    told = r"attentions of layers \[0\] have a KV cache, and TensorRT-LLM makes one for each of the model's 2 layers"
    with pytest.raises(UnsupportedFeature, match=told):
        packed_network(model)


def check_generation(told):
    """Two prompts, six tokens after each, and a prompt between them."""
    runtime = calls(told)
    rows = {"long": LONG + [20, 21, 22, 23, 24, 25], "short": SHORT + [30, 31, 32, 33, 34, 35]}
    wanted = {name: logits(told, row) for name, row in rows.items()}
    prompts = {"long": len(LONG), "short": len(SHORT)}
    found = runtime.call([("long", LONG, 0, 0), ("short", SHORT, 0, 0)])
    assert close(found, [wanted[name][prompts[name] - 1] for name in rows])
    for step in range(6):
        at = {name: prompts[name] + step for name in rows}
        given = [(name, row[at[name] : at[name] + 1], at[name], prompts[name]) for name, row in rows.items()]
        joining = [("other", OTHER, 0, 0)] if step == 3 else []
        found = runtime.call([*joining, *given])
        expected = [wanted[name][at[name]] for name in rows]
        assert close(found, [logits(told, OTHER)[-1], *expected] if joining else expected), step


def test_a_prompt_in_chunks_is_the_whole_prompt():
    """In half precision only: without it the plugin does not read the cache for prompts."""
    told = packed_text_model("mistral with a window", torch.float16)
    runtime = calls(told)
    runtime.call([("long", LONG[:5], 0, 0)])
    found = runtime.call([("long", LONG[5:], 5, 0), ("short", SHORT, 0, 0)])
    assert close(found, [logits(told, LONG)[-1], logits(told, SHORT)[-1]], torch.float16)


def attentions(told):
    return [node.layer for node in told.network.nodes if isinstance(node.layer, GPTAttention)]


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_rope_of_a_known_kind_is_the_plugins(name):
    told = packed_text_model(name)
    kinds = {"llama with llama3 rope scaling": (4, 4.0), "llama with linear rope scaling": (1, 2.0)}
    for layer in attentions(told):
        assert layer.has_rope and layer.rotary_embedding_dim == layer.head_size
        assert (layer.rotary_embedding_scale_type, layer.rotary_embedding_scale) == kinds.get(name, (0, 1.0))
        assert layer.rotary_embedding_max_positions == 64


def test_each_layer_keeps_its_own_window_and_the_score_its_own_scale():
    layers = attentions(packed_text_model("gemma2 with soft-caps and windows"))
    assert [layer.window for layer in layers] == [5, 0]
    assert [layer.layer_idx for layer in layers] == [0, 1]
    for layer in layers:
        assert layer.attn_logit_softcapping_scale == 3.0
        # Gemma-2 scales by query_pre_attn_scalar ** -0.5, the plugin by 1 / (q_scaling * sqrt(D)).
        assert layer.q_scaling == pytest.approx(24**0.5 / 32**0.5)


GRAPH_ROPE = {
    "yarn": rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    "longrope": {**rope(**LONGROPE), "original_max_position_embeddings": 32},
    "a base that the configuration does not state": None,
}


@pytest.mark.parametrize("kind", GRAPH_ROPE)
def test_rope_that_the_plugin_is_not_trusted_with_stays_in_the_graph(kind):
    model = llama(**(GRAPH_ROPE[kind] or {}))
    if GRAPH_ROPE[kind] is None:
        model.model.rotary_emb.inv_freq.mul_(0.5)
    told = packed_network(model)
    assert not any(layer.has_rope for layer in attentions(told))
    assert {layer.position_embedding_type for layer in attentions(told)} == {0}
    runtime = calls(told)
    runtime.call([("long", LONG[:-1], 0, 0)])
    found = runtime.call([("short", SHORT, 0, 0), ("long", LONG[-1:], len(LONG) - 1, len(LONG) - 1)])
    assert close(found, [logits(told, SHORT)[-1], logits(told, LONG)[-1]])


def test_scaling_that_only_longer_sequences_show_is_none_for_the_plugin():
    told = packed_network(llama(**rope(rope_type="dynamic", factor=2.0)))
    assert {layer.rotary_embedding_scale_type for layer in attentions(told)} == {0}
    assert all(layer.has_rope for layer in attentions(told))
    found = calls(told).call([("long", LONG, 0, 0)])
    assert close(found, [logits(told, LONG)[-1]])


def test_heads_that_are_rotated_in_part():
    partial = {"partial_rotary_factor": 0.5}
    config = Phi3Config(**TEXT, **partial, **(rope(**partial) if TRANSFORMERS_5 else rope()))
    told = packed_network(made(Phi3ForCausalLM, config))
    assert [layer.rotary_embedding_dim for layer in attentions(told)] == [8, 8]
    found = calls(told).call([("long", LONG, 0, 0)])
    assert close(found, [logits(told, LONG)[-1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_logits_close_to_hugging_faces(dtype):
    told = packed_text_model("llama", dtype)
    found = calls(told).call([("long", LONG, 0, 0), ("short", SHORT, 0, 0)])
    assert found.dtype == torch.float32
    assert close(found, [logits(told, LONG)[-1], logits(told, SHORT)[-1]], dtype)


def test_without_the_gemm_plugin_tensorrt_multiplies():
    told = packed_text_model("qwen2", gemm_plugin=False)
    kinds = {type(node.layer).__name__ for node in told.network.nodes}
    assert "Gemm" not in kinds and "MatrixMultiply" in kinds
    found = calls(told).call([("long", LONG, 0, 0)])
    assert close(found, [logits(told, LONG)[-1]])


def test_rows_of_the_table_are_counted_from_each_requests_own_part():
    model = llama()
    told = packed_network(model, rows=4)
    table = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    found = calls(told).call([("a", [5, 128, 129, 7], 0, 0), ("b", [128, 9], 0, 0)], table)
    embedded = model.get_input_embeddings()
    rows = (torch.stack([embedded.weight[5], table[0], table[1], embedded.weight[7]]),)
    rows += (torch.stack([table[2], embedded.weight[9]]),)
    with torch.no_grad():
        expected = [model(inputs_embeds=row[None]).logits[0, -1] for row in rows]
    assert close(found, expected)


def test_a_layer_that_comes_twice_is_refused():
    model = llama()
    model.model.layers[1].self_attn.layer_idx = 0
    with pytest.raises(UnsupportedFeature, match="two attentions say that they are layer 0"):
        packed_network(model)


def test_a_block_has_the_layers_of_tensorrt_llms_own_llama():
    """Contract, LLM 6: 2 norms of 8, 4 Gemm, 1 GPTAttention, 2 residual sums; SwiGLU: 2 slices, a sigmoid, 2 products.
    Sizes of its slices are computed once per network, not per block."""
    told = packed_network(llama(num_hidden_layers=3).half())
    inside = [node for node in told.network.nodes if "layers.1." in node.place.module + "."]
    assert Counter(type(node.layer).__name__ for node in inside if not isinstance(node.layer, Constant)) == {
        "Gemm": 4,
        "GPTAttention": 1,
        "Cast": 2 * 2,
        "ElementWise": 2 * 4 + 2 + 2,
        "Reduce": 2,
        "Unary": 2,
        "Slice": 2,
        "Activation": 1,
    }
