"""A prompt and one more token through a described decoder, beside Hugging Face."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ditto.network import Network
from ditto.network.dims import evaluate
from ditto.reference import Constants, run

LENGTHS = (11, 7)


def eager(model: Any) -> Any:
    """The model with attention written out: other implementations drop soft-caps."""
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
        return model
    for part in model.modules():  # transformers before 4.53 has a configuration for each part of a LLaVA
        if hasattr(getattr(part, "config", None), "_attn_implementation"):
            part.config._attn_implementation = "eager"
    return model


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """A copy of a model with its parameters in `dtype`; buffers stay exact, as with `from_pretrained(dtype=...)`."""
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data = parameter.data.to(dtype)
    return twin


def continued(network: Network, constants: Constants, *models: Any, seed: int = 0) -> list[tuple[Tensor, ...]]:
    """Logits of the last tokens of two rows of different lengths, after prefill and after one step of decoding:
    (the network's, each model's) for each."""
    torch.manual_seed(seed)
    width, batch = max(LENGTHS), len(LENGTHS)
    ids = torch.randint(4, 120, (batch, width), dtype=torch.int32)
    following = torch.randint(4, 120, (batch, 1), dtype=torch.int32)
    lengths = torch.tensor(LENGTHS, dtype=torch.int32)
    caches = {
        name: torch.randn([evaluate(dim, {"batch": batch}) for dim in spec.shape]).to(spec.dtype)  # garbage, not zeros
        for name, spec in network.inputs.items()
        if name.startswith("past_")
    }
    prefill = {
        "input_ids": ids,
        "position_ids": torch.arange(width, dtype=torch.int32).repeat(batch, 1),
        "last_token_ids": lengths - 1,
        "write_indices": torch.zeros_like(lengths),
    }
    first = run(network, {**prefill, **caches}, constants)
    caches = {past: first[present] for present, past in network.shared.items()}
    decode = {
        "input_ids": following,
        "position_ids": lengths[:, None],
        "last_token_ids": torch.zeros_like(lengths),
        "write_indices": lengths,
    }
    second = run(network, {**decode, **caches}, constants)
    results: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for row, length in enumerate(LENGTHS):
            prompt = ids[row : row + 1, :length].long()
            whole = torch.cat([prompt, following[row : row + 1].long()], dim=1)
            for found, tokens in ((first, prompt), (second, whole)):
                wanted = (eager(model)(input_ids=tokens).logits[0, -1].float() for model in models)
                results.append((found["logits"][row], *wanted))
    return results
