"""Paged KV cache in CPU memory, addressed as by the attention plugin.

A pool is one contiguous memory region. A block holds `tokens_per_block` tokens of one sequence for every layer of the
pool: per layer a half-block of keys and one of values, each [G, tokens_per_block, D].

Source: contract, LLM 4.5.
"""

from __future__ import annotations

import ctypes

import torch
from attrs import frozen
from torch import Tensor

from ditto.targets.trtllm import inferred


@frozen(eq=False)
class PagedCache:
    """One layer's view of a pool.

    Args:
        offsets: int32 [B, 2, blocks], offsets of half-blocks of keys and of values.
        base: address of the layer's data in the pool's first block.
        half: shape of a half-block, (G, tokens_per_block, D).
        dtype: dtype of keys and values.
    """

    offsets: Tensor
    base: int
    half: tuple[int, int, int]
    dtype: torch.dtype

    @staticmethod
    def of_layer(
        offsets: Tensor, pointers: Tensor, mapping: Tensor, half: tuple[int, int, int], dtype: torch.dtype
    ) -> PagedCache:
        """View of one layer.

        Args:
            offsets: int32 [pools, B, 2, blocks].
            pointers: int64 [pools, 2], addresses of the primary and the secondary pool.
            mapping: int32 [2], the layer's pool and its place in it.
        """
        pool, place = (int(number) for number in mapping)
        half_bytes = half[0] * half[1] * half[2] * dtype.itemsize
        base = int(pointers[pool, 0]) + place * inferred.HALF_BLOCKS * half_bytes
        return PagedCache(offsets[pool], base, half, dtype)

    def write(self, sequence: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [G, tokens, D] at a sequence's positions from `start` on."""
        size, end = self.half[1], start + keys.shape[1]
        for block in range(start // size, -(-end // size)):
            first, last = max(start, block * size), min(end, (block + 1) * size)
            for kind, rows in enumerate((keys, values)):
                memory = self._half_block(sequence, kind, block)
                memory[:, first - block * size : last - block * size] = rows[:, first - start : last - start]

    def read(self, sequence: int, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values [G, count, D] of a sequence's first positions."""
        blocks = range(-(-count // self.half[1]))
        keys, values = (
            torch.cat([self._half_block(sequence, kind, block) for block in blocks], dim=1)[:, :count]
            for kind in (0, 1)
        )
        return keys, values

    def _half_block(self, sequence: int, kind: int, block: int) -> Tensor:
        count = self.half[0] * self.half[1] * self.half[2]
        address = self.base + int(self.offsets[sequence, kind, block]) * count * self.dtype.itemsize
        memory = (ctypes.c_uint8 * (count * self.dtype.itemsize)).from_address(address)
        return torch.frombuffer(memory, dtype=self.dtype).reshape(self.half)


def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float, window: int) -> Tensor:
    """Causal attention of a sequence's last tokens over all its keys (contract 4.3).

    Softmax is computed in float32.

    Args:
        query: [H, tokens, D], queries of the sequence's last positions.
        keys, values: [G, positions, D].
        scale: factor of the attention scores.
        softcap: soft-cap of the scores, 0 for none.
        window: maximum number of keys that a token attends to, its own included.
    Returns:
        float32 [H, tokens, D].
    """
    group = query.shape[0] // keys.shape[0]
    keys, values = (x.float().repeat_interleave(group, dim=0) for x in (keys, values))
    scores = query.float() @ keys.transpose(-1, -2) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    total, count = keys.shape[1], query.shape[1]
    distance = torch.arange(total - count, total)[:, None] - torch.arange(total)[None, :]
    scores = scores.masked_fill((distance < 0) | (distance >= window), float("-inf"))
    return scores.softmax(-1) @ values
