"""GPTAttention: plugin for attention, rotary embedding and paged KV cache.

T packed tokens of all sequences, prompts ("context") first; B sequences; H heads, G KV heads, D head width; L
attention layers.

Source: contract, LLM 3.1 and 4.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.plugin import Plugin, PluginField
from ditto.network.spec import Spec
from ditto.targets.trtllm.contract import TYPE_ID
from ditto.targets.trtllm.paged import PagedCache, attend
from ditto.targets.trtllm.sequences import sequences
from ditto.targets.trtllm.versions import version

# Inputs in order (contract 3.1): those of every Ditto engine, the two of rope, and the last three.
BASE_INPUTS = (
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
)
ROPE_INPUTS = ("rotary_inv_freq", "rotary_cos_sin")
LAST_INPUTS = ("host_context_lengths", "host_runtime_perf_knobs", "host_context_progress")

LEARNED_ABSOLUTE, ROPE_GPTJ, ROPE_GPT_NEOX = 0, 1, 2
SCALE_TYPES = {"default": 0, "linear": 1, "llama3": 4}
CAUSAL_MASK = 1


@frozen(kw_only=True)
class GPTAttention(Plugin):
    """Causal attention of packed tokens over a paged KV cache.

    Inputs: qkv [T, (H + 2 G) D], then `BASE_INPUTS`, with rope `ROPE_INPUTS`, then `LAST_INPUTS`. Output [T, H D].

    Args:
        trtllm: the TensorRT-LLM version, which determines the fields.
        window: number of keys that a token attends to, 0 for all. Not a field of the plugin: config.json passes it to
            the runtime, which binds it as `host_max_attention_window_sizes`.
        everything else: the field of that name in the plugin's creator; fields with a fixed value have a default.
    """

    creator: ClassVar[str] = "GPTAttention"
    layer_name: ClassVar[str] = "causal_attn"
    namespace: ClassVar[str] = "tensorrt_llm"

    trtllm: str
    dtype: torch.dtype
    window: int
    layer_idx: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    q_scaling: float
    attn_logit_softcapping_scale: float
    position_embedding_type: int
    rotary_embedding_dim: int
    rotary_embedding_base: float
    rotary_embedding_scale_type: int
    rotary_embedding_scale: float
    rotary_embedding_max_positions: int
    tokens_per_block: int
    max_context_length: int
    use_paged_context_fmha: int
    vision_start: int = -1
    vision_length: int = -1
    unidirectional: int = 1
    rotary_embedding_short_m_scale: float = 1.0
    rotary_embedding_long_m_scale: float = 1.0
    rotary_embedding_original_max_positions: int = 1024
    tp_size: int = 1
    tp_rank: int = 0
    unfuse_qkv_gemm: int = 0
    context_fmha_type: int = 1
    kv_cache_quant_mode: int = 0
    remove_input_padding: int = 1
    mask_type: int = CAUSAL_MASK
    block_sparse_block_size: int = 64
    block_sparse_homo_head_pattern: int = 0
    block_sparse_num_local_blocks: int = 16
    block_sparse_vertical_stride: int = 8
    paged_kv_cache: int = 1
    qkv_bias_enabled: int = 0
    do_cross_attention: int = 0
    max_distance: int = 0
    pos_shift_enabled: int = 0
    dense_context_fmha: int = 0
    use_fp8_context_fmha: int = 0
    has_full_attention_mask: int = 0
    use_cache: int = 1
    is_spec_decoding_enabled: int = 0
    spec_decoding_is_generation_length_variable: int = 0
    spec_decoding_max_generation_length: int = 1
    is_mla_enabled: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    fuse_fp4_quant: int = 0
    skip_attn: int = 0
    cp_size: int = 1
    cp_rank: int = 0
    cp_group: int = 0
    use_logn_scaling: int = 0

    @property
    def type_id(self) -> int:
        """TensorRT's number for the dtype."""
        return TYPE_ID[self.dtype]

    @property
    def num_kv_heads_origin(self) -> int:
        """KV heads before tensor parallelism."""
        return self.num_kv_heads

    @property
    def layer_idx_in_cache_pool(self) -> int:
        """The layer's place in its pool; versions with this field have one pool."""
        return self.layer_idx

    @property
    def has_rope(self) -> bool:
        """Whether the plugin applies rope to queries and keys."""
        return self.position_embedding_type in (ROPE_GPTJ, ROPE_GPT_NEOX)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return ("qkv", *BASE_INPUTS, *(ROPE_INPUTS if self.has_rope else ()), *LAST_INPUTS)

    @override
    def fields(self) -> tuple[PluginField, ...]:
        wanted = version(self.trtllm).gpt_attention
        return tuple(PluginField(name, kind, (getattr(self, name),)) for name, kind in wanted)

    @override
    def infer(self, qkv: Spec, *more: Spec) -> Spec:
        if len(more) + 1 != len(self.input_names):
            raise ShapeError(f"GPTAttention takes {len(self.input_names)} inputs here, got {len(more) + 1}")
        width = (self.num_heads + 2 * self.num_kv_heads) * self.head_size
        if qkv.floating().of_rank(2).shape[1] != width or qkv.dtype != self.dtype:
            raise ShapeError(f"qkv {qkv} is not [tokens, {width}] of {self.dtype}")
        for name, spec in zip(self.input_names[1:], more, strict=True):
            self._check_input(name, spec)
        return qkv.with_shape((qkv.shape[0], self.num_heads * self.head_size))

    def _check_input(self, name: str, spec: Spec) -> None:
        dtypes = {
            "host_kv_cache_pool_pointers": torch.int64,
            "host_runtime_perf_knobs": torch.int64,
            "host_context_progress": torch.int64,
            "rotary_inv_freq": torch.float32,
            "rotary_cos_sin": torch.float32,
        }
        if spec.dtype != dtypes.get(name, torch.int32):
            raise ShapeError(f"GPTAttention's {name} has another dtype than {spec}")

    @override
    def reference(self, qkv: Tensor, *more: Tensor) -> Tensor:
        given = dict(zip(self.input_names[1:], more, strict=True))
        located = given["host_kv_cache_pool_mapping"][self.layer_idx]
        if not version(self.trtllm).maps_places:
            located = torch.stack((located, torch.tensor(self.layer_idx_in_cache_pool)))
        cache = PagedCache.of_layer(
            given["kv_cache_block_offsets"],
            given["host_kv_cache_pool_pointers"],
            located,
            (self.num_kv_heads, self.tokens_per_block, self.head_size),
            self.dtype,
        )
        window = int(given["host_max_attention_window_sizes"][self.layer_idx])
        scale = 1.0 / (self.q_scaling * math.sqrt(self.head_size))
        rows = qkv.reshape(len(qkv), self.num_heads + 2 * self.num_kv_heads, self.head_size)
        results: list[Tensor] = []
        for number, part in enumerate(sequences(given, len(qkv), bool(self.use_paged_context_fmha))):
            own = rows[part.start : part.start + part.count].transpose(0, 1)
            query, key, value = own.split([self.num_heads, self.num_kv_heads, self.num_kv_heads])
            if self.has_rope:
                query, key = (self._rotated(x, given["rotary_cos_sin"], part.past) for x in (query, key))
            cache.write(number, part.past, key, value)
            keys, values = cache.read(number, part.total)
            found = attend(query, keys, values, scale, self.attn_logit_softcapping_scale, window)
            results.append(found.transpose(0, 1).reshape(part.count, self.num_heads * self.head_size))
        return torch.cat(results).to(qkv.dtype)

    def _rotated(self, x: Tensor, cos_sin: Tensor, first: int) -> Tensor:
        """Rotate x [heads, tokens, D] in float32 (contract 4.4).

        The tokens are at positions from `first` on.
        """
        half = self.rotary_embedding_dim // 2
        table = cos_sin.reshape(-1, half, 2)[first : first + x.shape[1]]
        c, s = table[..., 0], table[..., 1]
        rotated, rest = x[..., : 2 * half].float(), x[..., 2 * half :]
        if self.position_embedding_type == ROPE_GPTJ:
            a, b = rotated[..., 0::2], rotated[..., 1::2]
            rotated = torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)
        else:
            a, b = rotated.chunk(2, dim=-1)
            rotated = torch.cat((a * c - b * s, b * c + a * s), dim=-1)
        return torch.cat((rotated.to(x.dtype), rest), dim=-1)


def attention_inputs(layer: GPTAttention, given: dict[str, Any]) -> list[Any]:
    """The plugin's inputs after qkv, in order, selected by name."""
    return [given[name] for name in layer.input_names[1:]]
