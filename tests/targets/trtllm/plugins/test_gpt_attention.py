"""The attention plugin's meaning is Hugging Face's attention, for prompts, chunks and generation in one batch."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ditto.errors import ShapeError
from ditto.network import Spec, symbol
from ditto.reference import TOLERANCE
from ditto.targets.trtllm.contract import attention_specs
from ditto.targets.trtllm.plugins import GPTAttention, attention_inputs
from ditto.targets.trtllm.rope import plugin_rope
from ditto.targets.trtllm.versions import version

HEADS, KV_HEADS, WIDTH, SIZE, LAYERS, LONGEST = 4, 2, 8, 4, 3, 32
ROPE = plugin_rope(10000.0, None, WIDTH, LONGEST)
PLUGIN = GPTAttention(
    trtllm="0.19.0",
    dtype=torch.float32,
    window=0,
    layer_idx=1,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_size=WIDTH,
    q_scaling=1.25,
    attn_logit_softcapping_scale=0.0,
    position_embedding_type=2,
    rotary_embedding_dim=WIDTH,
    rotary_embedding_base=10000.0,
    rotary_embedding_scale_type=0,
    rotary_embedding_scale=1.0,
    rotary_embedding_max_positions=LONGEST,
    tokens_per_block=SIZE,
    max_context_length=16,
    use_paged_context_fmha=1,
)


class Schedule:
    """Schedule of one attention layer: sequences with blocks of their own in a pool."""

    def __init__(self, plugin, window=LONGEST):
        self.plugin, self.window = plugin, window
        self.pool = torch.zeros(16, LAYERS, 2, KV_HEADS, SIZE, WIDTH, dtype=plugin.dtype)
        self.blocks = torch.randperm(16, generator=torch.Generator().manual_seed(0)).reshape(2, 8)

    def __call__(self, qkv, kinds, counts, totals, prompts):
        block = self.blocks[: len(kinds)] * LAYERS * 2
        offsets = torch.stack((block, block + 1), dim=1)[None].int()
        given = {
            "sequence_length": torch.tensor(totals, dtype=torch.int32),
            "host_past_key_value_lengths": torch.tensor(totals, dtype=torch.int32) - torch.tensor(kinds),
            "host_max_attention_window_sizes": torch.full((LAYERS,), self.window, dtype=torch.int32),
            "host_sink_token_length": torch.zeros(1, dtype=torch.int32),
            "context_lengths": torch.tensor(prompts, dtype=torch.int32),
            "cache_indirection": torch.zeros(len(kinds), 1, LONGEST, dtype=torch.int32),
            "host_request_types": torch.tensor(kinds, dtype=torch.int32),
            "kv_cache_block_offsets": offsets,
            "host_kv_cache_block_offsets": offsets,
            "host_kv_cache_pool_pointers": torch.tensor([[self.pool.data_ptr(), 0]]),
            "host_kv_cache_pool_mapping": torch.tensor([[0, layer] for layer in range(LAYERS)], dtype=torch.int32),
            "rotary_inv_freq": ROPE.inv_freq,
            "rotary_cos_sin": ROPE.cos_sin,
            "host_context_lengths": torch.tensor(prompts, dtype=torch.int32),
            "host_runtime_perf_knobs": torch.zeros(16, dtype=torch.int64),
            "host_context_progress": torch.zeros(1, dtype=torch.int64),
        }
        assert sum(counts) == len(qkv)
        return self.plugin.reference(qkv, *attention_inputs(self.plugin, given))


def _rows(length, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, (HEADS + 2 * KV_HEADS) * WIDTH, generator=generator).to(dtype)


def _wanted(qkv, rotated=True, window=LONGEST):
    """Hugging Face's rotation and torch's attention of one whole sequence."""
    length = len(qkv)
    split = qkv.reshape(1, length, -1, WIDTH).transpose(1, 2)
    query, key, value = split.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    if rotated:
        angles = torch.outer(torch.arange(length).float(), 10000.0 ** -(torch.arange(0, WIDTH, 2) / WIDTH))
        table = torch.cat((angles, angles), -1)[None]
        query, key = apply_rotary_pos_emb(query, key, table.cos().to(qkv.dtype), table.sin().to(qkv.dtype))
    ones = torch.ones(length, length, dtype=torch.bool)
    keys, values = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (key, value))
    scale = 1 / (1.25 * WIDTH**0.5)
    result = scaled_dot_product_attention(query, keys, values, attn_mask=ones.tril() & ~ones.tril(-window), scale=scale)
    return result.transpose(1, 2).reshape(length, HEADS * WIDTH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rotated", [True, False])
def test_prompts_chunks_and_generation_are_one_attention(dtype, rotated):
    plugin = evolve(PLUGIN, dtype=dtype, position_embedding_type=2 if rotated else 0)
    calls, long, short = Schedule(plugin), _rows(14, 0, dtype), _rows(9, 1, dtype)
    first = calls(torch.cat((long[:5], short[:7])), [0, 0], [5, 7], [5, 7], [5, 7])
    second = calls(torch.cat((long[5:13], short[7:8])), [0, 1], [8, 1], [13, 8], [8, 7])
    third = calls(torch.cat((long[13:], short[8:])), [1, 1], [1, 1], [14, 9], [13, 7])
    found_long = torch.cat((first[:5], second[:8], third[:1]))
    found_short = torch.cat((first[5:], second[8:], third[1:]))
    assert_close(found_long, _wanted(long, rotated), **TOLERANCE[dtype])
    assert_close(found_short, _wanted(short, rotated), **TOLERANCE[dtype])
    assert not calls.pool[:, [0, 2]].any(), "another layer's part of the pool is left alone"


def test_the_window_is_the_runtimes():
    calls, rows = Schedule(PLUGIN, window=3), _rows(8, 2)
    first = calls(rows[:7], [0], [7], [7], [7])
    last = calls(rows[7:], [1], [1], [8], [7])
    assert_close(torch.cat((first, last)), _wanted(rows, window=3), **TOLERANCE[torch.float32])


def test_a_soft_cap_bounds_scores():
    rows = _rows(5, 3) * 4
    loose, tight = (
        Schedule(evolve(PLUGIN, attn_logit_softcapping_scale=cap))(rows, [0], [5], [5], [5]) for cap in (1e6, 0.5)
    )
    assert_close(loose, _wanted(rows), rtol=1e-3, atol=1e-3)
    assert (tight - loose).abs().max() > 0.05


def test_pairs_may_lie_side_by_side():
    order = torch.arange(WIDTH).reshape(2, -1).T.flatten()
    rows = _rows(6, 4)
    turned = rows.reshape(6, -1, WIDTH).clone()
    turned[:, : HEADS + KV_HEADS] = turned[:, : HEADS + KV_HEADS][..., order]
    found = Schedule(evolve(PLUGIN, position_embedding_type=1))(turned.reshape(6, -1), [0], [6], [6], [6])
    assert_close(found, _wanted(rows), **TOLERANCE[torch.float32])


def test_lengths_that_do_not_add_up_are_refused():
    with pytest.raises(ShapeError, match="the lengths add up to 4 tokens, there are 5"):
        Schedule(PLUGIN)(_rows(5, 0), [0], [5], [4], [4])


def test_the_fields_of_each_version():
    """Contract, LLM 3.1: values of a plain Llama."""
    fields = {field.name: (field.type, field.values[0]) for field in PLUGIN.fields()}
    assert len(fields) == 58
    for name, value in {
        "layer_idx": ("int32", 1),
        "num_kv_heads_origin": ("int32", KV_HEADS),
        "unidirectional": ("int32", 1),
        "q_scaling": ("float32", 1.25),
        "position_embedding_type": ("int8", 2),
        "vision_start": ("int32", -1),
        "mask_type": ("int32", 1),
        "type_id": ("int32", 0),
        "remove_input_padding": ("int8", 1),
        "paged_kv_cache": ("int32", 1),
        "tokens_per_block": ("int32", SIZE),
        "use_cache": ("int32", 1),
        "cp_size": ("int32", 1),
        "rotary_embedding_short_m_scale": ("float32", 1.0),
        "rotary_embedding_original_max_positions": ("int32", 1024),
        "spec_decoding_max_generation_length": ("int32", 1),
    }.items():
        assert fields[name] == value, name
    old = {field.name: field.values[0] for field in evolve(PLUGIN, trtllm="0.18.2").fields()}
    assert old["layer_idx_in_cache_pool"] == 1 and "fuse_fp4_quant" not in old


def _specs(plugin):
    named = attention_specs(LAYERS, version(plugin.trtllm))
    named["rotary_inv_freq"], named["rotary_cos_sin"] = (Spec.of(x) for x in (ROPE.inv_freq, ROPE.cos_sin))
    return [named[name] for name in plugin.input_names[1:]]


def test_a_plain_llama_has_seventeen_inputs_in_the_contracts_order():
    assert PLUGIN.input_names == (
        "qkv",
        "sequence_length",
        "host_past_key_value_lengths",
        "host_max_attention_window_sizes",
        "host_sink_token_length",
        "context_lengths",
        "cache_indirection",
        "host_request_types",
        "kv_cache_block_offsets",
        "host_kv_cache_block_offsets",
        "host_kv_cache_pool_pointers",
        "host_kv_cache_pool_mapping",
        "rotary_inv_freq",
        "rotary_cos_sin",
        "host_context_lengths",
        "host_runtime_perf_knobs",
        "host_context_progress",
    )
    assert len(evolve(PLUGIN, position_embedding_type=0).input_names) == 15


def test_the_output_has_a_row_of_heads_for_each_token():
    qkv = Spec((symbol("tokens"), (HEADS + 2 * KV_HEADS) * WIDTH), torch.float32)
    assert PLUGIN.infer(qkv, *_specs(PLUGIN)) == Spec((symbol("tokens"), HEADS * WIDTH), torch.float32)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec((5, 60), torch.float32), r"is not \[tokens, 64\]"),
        (Spec((5, 64), torch.float16), r"is not \[tokens, 64\]"),
        (Spec((1, 5, 64), torch.float32), "needs rank 2"),
    ],
)
def test_another_qkv_is_refused(spec, message):
    with pytest.raises(ShapeError, match=message):
        PLUGIN.infer(spec, *_specs(PLUGIN))


def test_missing_and_mistyped_inputs_are_refused():
    qkv, specs = Spec((5, 64), torch.float32), _specs(PLUGIN)
    with pytest.raises(ShapeError, match="GPTAttention takes 17 inputs here, got 16"):
        PLUGIN.infer(qkv, *specs[:-1])
    with pytest.raises(ShapeError, match="GPTAttention's host_context_progress has another dtype"):
        PLUGIN.infer(qkv, *specs[:-1], Spec((1,), torch.int32))
