"""Engine calls with static shapes, replayed as CUDA graphs."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ditto.runtime.activation_arena import aligned
from ditto.runtime.execution import Execution
from ditto.runtime.graphs import GraphedCallable


class StaticCall:
    """An engine call with static shapes and memory, replayed as CUDA graphs from its third use.

    There is one graph for each stage of the execution: the GPU begins the first while the host launches the next.

    Args:
        bound: tensors of all inputs and outputs.
    """

    def __init__(self, execution: Execution, bound: Mapping[str, Tensor]) -> None:
        self.bound = bound
        execution.bind(bound)
        self._stages = [GraphedCallable(stage, plain_times=2) for stage in execution.stages]

    def __call__(self, given: Mapping[str, Tensor]) -> None:
        """Run with new input values; each tensor fills an input or the beginning of one."""
        for name, tensor in given.items():
            self.bound[name][: len(tensor)].copy_(tensor, non_blocking=True)
        for stage in self._stages:
            stage()

    @property
    def is_recorded(self) -> bool:
        """Whether it is replayed."""
        return all(stage.is_recorded for stage in self._stages)


class StaticPrefill:
    """Prefill of a fixed number of prompts of a fixed length, into fixed rows of a KV cache.

    Args:
        execution: on a profile for exactly this number and length.
        count, length: number and length of the prompts; shorter ones are padded with token `pad`.
        bound: tensors of all inputs and outputs other than tokens; with positions only if they are not the indices of
            the tokens.
    """

    def __init__(self, execution: Execution, count: int, length: int, pad: int, bound: Mapping[str, Tensor]) -> None:
        self._length, self._pad, self._logits = length, pad, bound["logits"]
        # Token ids, then the index of each row's last token: one copy transfers both.
        self._places = aligned(count * length * 4) // 4
        device = self._logits.device
        self._sent = torch.zeros(self._places + count, dtype=torch.int32, device=device)
        own = {
            "input_ids": self._sent[: count * length].view(count, length),
            "position_ids": torch.arange(length, dtype=torch.int32, device=device).repeat(count, 1),
            "last_token_ids": self._sent[self._places :],
            "write_indices": torch.zeros(count, dtype=torch.int32, device=device),
        }
        self._call = StaticCall(execution, {**own, **bound})

    @property
    def is_recorded(self) -> bool:
        """Whether it is replayed."""
        return self._call.is_recorded

    def __call__(self, prompts: Sequence[Sequence[int]], given: Mapping[str, Tensor]) -> Tensor:
        """Logits after each prompt.

        Args:
            given: new values of inputs in `bound`.
        """
        sent = array("i")
        for ids in prompts:
            sent.extend(ids)
            sent.extend(itertools.repeat(self._pad, self._length - len(ids)))
        sent.extend(itertools.repeat(0, self._places - len(sent)))
        sent.extend(len(ids) - 1 for ids in prompts)
        self._sent.copy_(torch.frombuffer(sent, dtype=torch.int32), non_blocking=True)
        self._call(given)
        return self._logits
