"""Paged KV cache on the runtime's side: memory pools and blocks of sequences.

A pool serves the layers that have the same number of KV heads and, in newer versions, the same window. A block holds
`tokens_per_block` tokens of one sequence for all of a pool's layers; every pool uses the same block numbers.

Source: contract, LLM 2.1 and 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from ditto.errors import ShapeError
from ditto.network import Network
from ditto.targets.trtllm import inferred
from ditto.targets.trtllm.plugins import GPTAttention
from ditto.targets.trtllm.versions import version


@frozen
class CacheLayout:
    """KV cache layout that the attention layers of a network require.

    Args:
        kv_heads, windows: of each layer; windows are all 0 where layers of different windows share a pool.
        tokens_per_block, head_size, dtype: of all layers.
        maps_places: whether the mapping contains each layer's place in its pool.
    """

    kv_heads: tuple[int, ...]
    windows: tuple[int, ...]
    tokens_per_block: int
    head_size: int
    dtype: torch.dtype
    maps_places: bool = True

    @staticmethod
    def of(network: Network) -> CacheLayout:
        """Layout for the attention layers of a network.

        Raises:
            ShapeError: there are none, their layer indices are not 0, 1, ..., or one cache cannot serve them all.
        """
        found = sorted(
            (node.layer for node in network.nodes if isinstance(node.layer, GPTAttention)),
            key=lambda layer: layer.layer_idx,
        )
        numbers = [layer.layer_idx for layer in found]
        shared = {(layer.tokens_per_block, layer.head_size, layer.dtype, layer.trtllm) for layer in found}
        if numbers != list(range(len(found))) or len(shared) != 1:
            raise ShapeError(
                f"attentions of layers {numbers} with (tokens per block, head width, dtype, version) "
                f"{sorted(map(str, shared))} cannot share a KV cache"
            )
        per_block, width, dtype, name = shared.pop()
        known = version(name)
        by_window = known.name in inferred.POOL_PER_WINDOW
        windows = tuple(layer.window if by_window else 0 for layer in found)
        kv_heads = tuple(layer.num_kv_heads for layer in found)
        return CacheLayout(kv_heads, windows, per_block, width, dtype, known.maps_places)

    @property
    def pools(self) -> tuple[int, ...]:
        """Number of KV heads of each pool's layers."""
        return tuple(heads for heads, _ in self._pools())

    def layers_of(self, pool: int) -> int:
        """Number of layers that a pool serves."""
        return self._kinds().count(self._pools()[pool])

    def mapping(self) -> Tensor:
        """Each layer's pool and its place among the pool's layers, int32 [layers, 2].

        Without `maps_places`: the pool alone, int32 [layers].
        """
        kinds, pools = self._kinds(), self._pools()
        pairs = [[pools.index(kind), kinds[:layer].count(kind)] for layer, kind in enumerate(kinds)]
        mapping = torch.tensor(pairs, dtype=torch.int32)
        return mapping if self.maps_places else mapping[:, 0].contiguous()

    def _kinds(self) -> list[tuple[int, int]]:
        """KV heads and window of each layer, which are the same throughout a pool."""
        return list(zip(self.kv_heads, self.windows, strict=True))

    def _pools(self) -> list[tuple[int, int]]:
        return list(dict.fromkeys(self._kinds()))


class BlockPools:
    """Memory of the pools, and the blocks that each sequence holds.

    Memory without a token is NaN, as is the block of unused offsets, so that reads of uninitialised blocks surface as
    NaN.

    Args:
        layout: layout of the cache.
        sequences: maximum number of sequences held at once.
        max_tokens: maximum number of tokens of one sequence.
    """

    def __init__(self, layout: CacheLayout, sequences: int, max_tokens: int) -> None:
        self.layout = layout
        self.blocks_per_sequence = -(-max_tokens // layout.tokens_per_block)
        blocks = sequences * self.blocks_per_sequence
        self.memory = [
            torch.full(
                (blocks + 1, layout.layers_of(pool), inferred.HALF_BLOCKS)
                + (heads, layout.tokens_per_block, layout.head_size),
                float("nan"),
                dtype=layout.dtype,
            )
            for pool, heads in enumerate(layout.pools)
        ]
        self._unused_block = blocks
        self._free = list(range(blocks))
        self._held: dict[int, list[int]] = {}

    def hold(self, sequence: int, tokens: int) -> None:
        """Allocate blocks to a sequence for its first `tokens` tokens.

        Raises:
            ShapeError: the tokens exceed the limit of a sequence, or no blocks are free.
        """
        held = self._held.setdefault(sequence, [])
        missing = -(-tokens // self.layout.tokens_per_block) - len(held)
        if len(held) + missing > self.blocks_per_sequence or missing > len(self._free):
            raise ShapeError(f"no room in the KV cache for {tokens} tokens of sequence {sequence}")
        for _ in range(missing):
            held.append(self._free.pop())

    def release(self, sequence: int) -> None:
        """Free the blocks of a sequence."""
        blocks = self._held.pop(sequence, [])
        for memory in self.memory:
            memory[blocks] = float("nan")
        self._free += blocks

    def offsets(self, sequences: Sequence[int]) -> Tensor:
        """Block offsets, in half-blocks of each pool (contract 4.5).

        Returns:
            int32 [pools, sequences, 2, blocks per sequence].
        """
        numbers = torch.full((len(sequences), self.blocks_per_sequence), self._unused_block, dtype=torch.int32)
        for row, sequence in enumerate(sequences):
            held = self._held.get(sequence, [])
            numbers[row, : len(held)] = torch.tensor(held, dtype=torch.int32)
        kinds = torch.arange(inferred.HALF_BLOCKS, dtype=torch.int32)[:, None]
        return torch.stack(
            [numbers[:, None] * (memory.shape[1] * inferred.HALF_BLOCKS) + kinds for memory in self.memory]
        )

    def pointers(self) -> Tensor:
        """Addresses of each pool's primary and secondary memory, int64 [pools, 2].

        There is no secondary memory: its address is 0.
        """
        return torch.tensor([[memory.data_ptr(), 0] for memory in self.memory], dtype=torch.int64)
