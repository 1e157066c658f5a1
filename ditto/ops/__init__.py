"""Semantic operators, as torch custom ops: the eager function defines the result, the fake its shape.

B batch, S query positions, K key positions, H heads, G KV heads (H is a multiple of G), D head width.
"""

from ditto.ops.attention import attention
from ditto.ops.experts import expert_linear, expert_sum
from ditto.ops.norm import rms_norm
from ditto.ops.packed import packed_attention, packed_last_tokens
from ditto.ops.prompt_table import prompt_rows
from ditto.ops.rope import rope
from ditto.ops.states import causal_conv, linear_attention
from ditto.ops.tokens import last_tokens

__all__ = [
    "attention",
    "causal_conv",
    "expert_linear",
    "expert_sum",
    "last_tokens",
    "linear_attention",
    "packed_attention",
    "packed_last_tokens",
    "prompt_rows",
    "rms_norm",
    "rope",
]
