"""Layers of attention, the KV cache and rotary position embedding.

B batch, S query positions, K key positions, H heads, G KV heads (H is a multiple of G), D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import ShapeError
from ditto.network.layer import Emitter, Layer
from ditto.network.spec import Spec, same_dtype


@frozen
class Attention(Layer):
    """softmax(query @ key^T) @ value per head; the query is already scaled.

    Inputs: query [B, H, S, D], key and value [B, G, K, D] of the same floating dtype, and, if not `causal`, optionally
    a bool mask [B, 1, S, K], true where a query attends to a key. Output: [B, H, S, D].

    Args:
        causal: query s attends to keys 0 to s.

    TensorRT: IAttention, padded form, decomposable if no fused kernel fits.
    """

    causal: bool = False

    @override
    def infer(self, query: Spec, key: Spec, value: Spec, mask: Spec | None = None) -> Spec:
        same_dtype(query.floating().of_rank(4), key.of_rank(4), value.of_rank(4))
        heads, kv_heads = query.shape[1], key.shape[1]
        if not (isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads == 0):
            raise ShapeError(f"{query} does not have a multiple of the heads of {key}")
        if key.shape != value.shape or query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
            raise ShapeError(f"query {query}, key {key} and value {value} do not fit")
        if mask is not None:
            if self.causal:
                raise ShapeError("causal attention accepts no mask")
            if mask != Spec((query.shape[0], 1, query.shape[2], key.shape[2]), torch.bool):
                raise ShapeError(f"mask {mask} does not fit query {query} and key {key}")
        return query

    @override
    def reference(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:  # keys behind the last one that is attended to change nothing, and may be most of a cache
            seen = mask.any(dim=2).any(dim=0).flatten().nonzero()
            count = int(seen[-1]) + 1 if len(seen) else key.shape[2]
            key, value, mask = key[:, :, :count], value[:, :, :count], mask[..., :count]
        group = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(group, dim=1) if group > 1 else x for x in (key, value))
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=self.causal, scale=1.0
        )

    @override
    def emit(self, to: Emitter, query: Any, key: Any, value: Any, mask: Any = None) -> Any:
        layer = to.made(to.net.add_attention(query, key, value, to.trt.AttentionNormalizationOp.SOFTMAX, self.causal))
        if mask is not None:
            layer.mask = mask
        layer.decomposable = True
        return layer.get_output(0)


@frozen
class KVCacheUpdate(Layer):
    """Write `update` into the KV cache, at an index of its own for each sequence.

    Inputs: cache [B, G, K, D], update [B, G, S, D], write_indices int32 [B]. Output: [B, G, K, D]; the engine binds it
    to the memory of the cache. The caller ensures that an index is at most K - S; TensorRT's behaviour is undefined
    beyond.

    TensorRT: IKVCacheUpdateLayer, LINEAR mode.
    """

    @override
    def infer(self, cache: Spec, update: Spec, write_indices: Spec) -> Spec:
        same_dtype(cache.floating().of_rank(4), update.of_rank(4))
        if cache.shape[:2] != update.shape[:2] or cache.shape[3] != update.shape[3]:
            raise ShapeError(f"update {update} does not fit cache {cache}")
        if write_indices != Spec(cache.shape[:1], torch.int32):
            raise ShapeError(f"write indices {write_indices} do not fit cache {cache}")
        return cache

    @override
    def reference(self, cache: Tensor, update: Tensor, write_indices: Tensor) -> Tensor:
        return self.overwrite(cache.clone(), update, write_indices)

    def overwrite(self, cache: Tensor, update: Tensor, write_indices: Tensor) -> Tensor:
        """The same in the memory of the cache."""
        count = update.shape[2]
        for row, start in enumerate(write_indices.tolist()):
            if not 0 <= start <= cache.shape[2] - count:
                raise ShapeError(f"row {row} writes {count} tokens at {start} of a cache of {cache.shape[2]}")
            cache[row, :, start : start + count] = update[row]
        return cache

    @override
    def emit(self, to: Emitter, cache: Any, update: Any, write_indices: Any) -> Any:
        layer = to.net.add_kv_cache_update(cache, update, write_indices, to.trt.KVCacheMode.LINEAR)
        return to.made(layer).get_output(0)


@frozen
class RotaryEmbedding(Layer):
    """Rotary position embedding of the first `width` columns of each head.

    Inputs: x [B, H, S, D], cos and sin [B, S, width / 2] of x's dtype. Pair j (a, b) of a token becomes
    (a cos[j] - b sin[j], b cos[j] + a sin[j]). Output: shape and dtype of x.

    Args:
        interleaved: pairs are columns (2j, 2j + 1); else (j, j + width / 2).
        width: rotated columns, even, at most D.

    Source: Su et al., RoFormer (arXiv:2104.09864), section 3.4.2. TensorRT: IRotaryEmbeddingLayer.
    """

    interleaved: bool
    width: int

    @override
    def infer(self, x: Spec, cos: Spec, sin: Spec) -> Spec:
        same_dtype(x.floating().of_rank(4), cos, sin)
        head = x.shape[3]
        if self.width % 2 or not isinstance(head, int) or self.width > head:
            raise ShapeError(f"cannot rotate {self.width} columns of {x}")
        if cos.shape != (x.shape[0], x.shape[2], self.width // 2) or sin != cos:
            raise ShapeError(f"cosines {cos} and sines {sin} do not fit {self.width} columns of {x}")
        return x

    @override
    def reference(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c, s = cos.unsqueeze(1), sin.unsqueeze(1)
        rotated, rest = x[..., : self.width], x[..., self.width :]
        if self.interleaved:
            a, b = rotated[..., 0::2], rotated[..., 1::2]
            rotated = torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)
        else:
            a, b = rotated.chunk(2, dim=-1)
            rotated = torch.cat((a * c - b * s, b * c + a * s), dim=-1)
        return torch.cat((rotated, rest), dim=-1) if rest.shape[-1] else rotated

    @override
    def emit(self, to: Emitter, x: Any, cos: Any, sin: Any) -> Any:
        return to.made(to.net.add_rotary_embedding(x, cos, sin, self.interleaved, self.width)).get_output(0)
