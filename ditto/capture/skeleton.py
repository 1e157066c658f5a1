"""Modules without weights: capture needs shapes, not values."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def weightless(dtype: torch.dtype) -> Generator[None]:
    """Context in which new modules have parameters on the meta device, and real buffers.

    `dtype` is the default dtype inside. Replaces `nn.Module.register_parameter`, because torch 2.13 lacks such a
    context: `torch.device("meta")` would drop the values of buffers, too. Remove it when torch can exclude buffers.
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
    """A copy of `module` on the CPU whose parameters are fake tensors of `mode`.

    Buffers are copied, shared parameters stay shared, and `module` is not modified.

    Args:
        dtype: of floating parameters, None to keep their own. Buffers keep theirs, so rotary frequencies stay exact.
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


def config_in_dtype(config: Any, dtype: torch.dtype) -> Any:
    """Copy of a configuration, nested ones included, with `dtype` as its dtype."""
    config = copy.deepcopy(config)
    nested = [value for value in vars(config).values() if hasattr(value, "model_type")]
    for part in (config, *nested):
        if "dtype" in vars(part) or hasattr(type(part), "dtype"):
            part.dtype = dtype
        else:
            part.torch_dtype = dtype
    return config
