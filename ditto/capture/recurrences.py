"""Capture of recurrences over the tokens of a sequence as one operator, whatever class the model uses.

Models of transformers 5 call functions of their module by name, which loop over tokens or chunks of them; torch.export
cannot capture that. Around them, and in the operator's arguments, everything stays the model's own code.

B batch, S tokens, H heads, G groups of heads, K rows and V columns of a state.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.functional import silu, softplus

from ditto import ops
from ditto.capture.export_patches import replaced
from ditto.errors import UnsupportedFeature

_TAKEN = threading.RLock()


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """GatedDeltaNet's rule, as in Qwen3-Next; Kimi's, with a decay of each row.

    Args:
        query, key: [B, S, G, K].
        value: [B, S, H, V].
        g: [B, S, H], or [B, S, H, K].
        beta: [B, S, H].
    Returns:
        [B, S, H, V] in the query's dtype, and no state.
    """
    _refuse_state(initial_state, output_final_state)
    dtype, group = query.dtype, value.shape[2] // key.shape[2]
    query, key, value, g, beta = (x.float() for x in (query, key, value, g, beta))
    if use_qk_l2norm_in_kernel:
        query, key = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (query, key))
    query = query * query.shape[-1] ** -0.5
    if group > 1:
        query, key = (x.repeat_interleave(group, dim=2) for x in (query, key))
    decay = g.unsqueeze(-1) if g.dim() == 3 else g
    return ops.linear_attention(query, key, value, decay, beta, 0).to(dtype), None


def state_space_dual(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,  # noqa: N803 - the names of transformers
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    chunk_size: int,
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **_: Any,
) -> Tensor:
    """Mamba 2's scan.

    Args:
        hidden_states: [B, S, H, V].
        dt: [B, S, H].
        A, D: [H].
        B, C: [B, S, G, K].
    Returns:
        float32 [B, S, H, V].
    """
    del chunk_size
    _refuse_state(initial_states, return_final_states)
    if z is not None:
        raise UnsupportedFeature("a gate inside of Mamba's scan")
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    if dt_softplus:
        dt = softplus(dt)
    low, high = dt_limit
    if low > 0 or not dt_softplus:
        dt = dt.clamp(min=low)
    if high < float("inf"):
        dt = dt.clamp(max=high)
    group = hidden_states.shape[2] // B.shape[2]
    key, query = (x.float().repeat_interleave(group, dim=2) if B.shape[2] > 1 else x.float() for x in (B, C))
    values, steps = hidden_states.float(), dt.float()
    results = ops.linear_attention(query, key, values * steps.unsqueeze(-1), (A.float() * steps).unsqueeze(-1), None, 0)
    return results if D is None else results + D.unsqueeze(-1) * values


def selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,  # noqa: N803 - the names of transformers
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **_: Any,
) -> Tensor:
    """Mamba 1's scan: one column of state for each of H channels.

    Args:
        hidden_states, dt, z: [B, H, S].
        A: [H, K].
        B, C: [B, K, S].
        D: [H].
    Returns:
        [B, H, S].
    """
    _refuse_state(None, return_last_state)
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype).unsqueeze(-1)
    if delta_softplus:
        dt = softplus(dt)
    steps, values = dt.transpose(1, 2).unsqueeze(-1).float(), hidden_states.transpose(1, 2).unsqueeze(-1).float()
    key, query = (x.transpose(1, 2).unsqueeze(2).float() for x in (B, C))
    results = ops.linear_attention(query, key, steps * values, steps * A.float(), None, 0)
    scanned = results.squeeze(-1).transpose(1, 2)
    if D is not None:
        scanned = scanned + hidden_states * D.unsqueeze(-1)
    return scanned if z is None else scanned * silu(z)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "chunk_kimi_delta_attention": gated_delta_rule,
    "mamba2_chunk_scan": state_space_dual,
    "mamba_selective_scan": selective_scan,
    "torch_chunk_gated_delta_rule": gated_delta_rule,
}


@contextmanager
def semantic_recurrences(module: nn.Module) -> Generator[None]:
    """Context manager in which the Hugging Face models inside `module` use Ditto's functions while being captured."""
    names = {type(part).__module__ for part in module.modules()}
    with _TAKEN, ExitStack() as stack:
        for owner in (sys.modules[name] for name in sorted(names) if name.startswith("transformers.")):
            for name, function in _FUNCTIONS.items():
                original = getattr(owner, name, None)
                if original is not None:
                    stack.enter_context(replaced(owner, name, partial(_captured, function, original)))
        yield


def _captured(function: Callable[..., Any], original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function while a model is captured; the original one for a model that another thread runs."""
    is_captured = any(isinstance(given, FakeTensor) for given in (*args, *kwargs.values()))
    return (function if is_captured else original)(*args, **kwargs)


def _refuse_state(given: Tensor | None, wanted: bool) -> None:
    if given is not None or wanted:
        raise UnsupportedFeature("the model is captured with a cache of its own")
