"""Modules without weights: capture needs shapes, not numbers."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def weightless(dtype: torch.dtype) -> Generator[None]:
    """Modules made inside have parameters without memory (on the meta device) and real buffers; `dtype` is the
    default dtype meanwhile.

    Replaces `nn.Module.register_parameter` inside the block, as torch has no such context of its own:
    `torch.device("meta")` would take the buffers' numbers too (torch 2.13; may go when it can leave buffers alone).
    """
    original, default = nn.Module.register_parameter, torch.get_default_dtype()

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        original(self, name, param)
        if param is not None and not param.is_meta:
            empty = nn.Parameter(param.detach().to("meta"), requires_grad=False)
            empty._is_hf_initialized = True  # type: ignore[attr-defined] - transformers 5 then draws no numbers for it
            self._parameters[name] = empty

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]
        torch.set_default_dtype(default)


def stand_in(module: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `module` on the CPU whose parameters are fake tensors of `mode`; buffers are copied. Shared
    parameters stay shared, and `module` is left as it is.

    Args:
        dtype: for floating parameters, None for their own. Buffers keep theirs: rotary frequencies stay exact.
    """
    memo: dict[int, object] = {}
    with mode:
        for parameter in module.parameters():
            wanted = dtype if dtype is not None and parameter.is_floating_point() else parameter.dtype
            fake = torch.empty(parameter.shape, dtype=wanted, device="cpu")
            memo[id(parameter)] = nn.Parameter(fake, requires_grad=False)
    twin = copy.deepcopy(module, memo)
    for part in twin.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.device.type != "cpu":
                part._buffers[name] = buffer.cpu()
    return twin.eval()
