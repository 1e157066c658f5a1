"""Patches of torch.export that produce the same program with 40 % less work.

They replace private functions of torch, so they apply only to the versions with which they were tested. Remove a patch
when torch is as fast without it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from traceback import FrameSummary, StackSummary
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import proxy
from torch.fx.experimental import proxy_tensor

TESTED = "2.13."
"""Prefixes of the torch versions that are patched."""

_LINEAR = torch.ops.aten.linear.default
_TAKEN = threading.RLock()


@contextmanager
def export_patches() -> Generator[None]:
    """Context manager that patches torch for one thread at a time; other versions are not patched."""
    if not torch.__version__.startswith(TESTED):
        yield
        return
    with _TAKEN, ExitStack() as stack:
        stack.enter_context(_linear_layers_by_rule())
        # A node's `tensor_meta` repeats its `val`, and is computed from the memory format of every result.
        stack.enter_context(replaced(proxy_tensor, "_extract_tensor_metadata", lambda *_, **__: None))
        # Of about 80 stack frames of a node, torch eventually keeps only those of forward methods.
        stack.enter_context(replaced(proxy, "CapturedTraceback", _ForwardFrames))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Generator[None]:
    """Context manager that replaces an attribute."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def _linear_layers_by_rule() -> Generator[None]:
    """Compute the output shape of a linear layer by a rule.

    Torch derives it from a matrix multiplication between two views, which needs much symbolic arithmetic.
    """
    if DispatchKey.CompositeImplicitAutograd in _LINEAR.py_kernels:
        yield
        return
    _LINEAR.py_impl(DispatchKey.CompositeImplicitAutograd)(_linear)
    try:
        yield
    finally:
        del _LINEAR.py_kernels[DispatchKey.CompositeImplicitAutograd]
        _LINEAR._dispatch_cache.clear()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    parts = (x, weight) if bias is None else (x, weight, bias)
    fake = all(isinstance(part, FakeTensor) and part.dtype == x.dtype for part in parts)
    fits = weight.dim() == 2 and x.shape[-1:] == weight.shape[1:] and (bias is None or bias.shape == weight.shape[:1])
    if fake and fits:
        return x.new_empty((*x.shape[:-1], weight.shape[0]))
    return _LINEAR._op_dk(DispatchKey.CompositeImplicitAutograd, x, weight, bias)  # real tensors and invalid arguments


class _ForwardFrames:
    """Replacement of torch's `CapturedTraceback`: the frames of forward methods only, outermost first."""

    def __init__(self, frames: list[FrameSummary]) -> None:
        self.frames = frames

    @staticmethod
    def extract(**_: object) -> _ForwardFrames:
        found: list[FrameSummary] = []
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name == "forward":
                found.append(FrameSummary(frame.f_code.co_filename, frame.f_lineno, "forward", lookup_line=False))
            frame = frame.f_back
        return _ForwardFrames(found[::-1])

    def summary(self) -> StackSummary:
        return StackSummary.from_list(self.frames)
