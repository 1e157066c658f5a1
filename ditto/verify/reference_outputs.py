"""Reference outputs: Hugging Face's values for a prompt.

S tokens of a prompt, N new ones, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from attrs import define, evolve, frozen
from torch import Tensor, nn

from ditto.builders.decoder_config import image_token_id
from ditto.verify.inputs import Prompts
from ditto.verify.model import image_features


@frozen(eq=False)
class ReferenceOutputs:
    """Reference outputs for one prompt, on the CPU.

    Args:
        features: image embeddings, float32 [rows, width]; None without an image.
        logits: float32 [N, V]: after the prompt, and after each new token but the last.
        tokens: greedy tokens, end token included.
    """

    features: Tensor | None
    logits: Tensor
    tokens: tuple[int, ...]


@torch.no_grad()
def greedy(model: Any, prompt: Prompts, new_tokens: int) -> tuple[int, ...]:
    """Greedy tokens of `generate` for one prompt.

    The model's other generation settings (penalties, beams, suppressed words) are ignored.
    """
    ids = prompt.ids.to(model.device)
    with plain_settings(model):
        output = model.generate(
            input_ids=ids,
            max_new_tokens=new_tokens,
            do_sample=False,
            **{"attention_mask": torch.ones_like(ids), **_inputs(model, prompt)},
        )
    return tuple(output[0, ids.shape[1] :].tolist())


@contextmanager
def plain_settings(model: Any) -> Generator[None]:
    """Context in which the model's generation settings hold only its special tokens."""
    own = model.generation_config
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = type(own)(**{name: getattr(own, name) for name in special})
    try:
        yield
    finally:
        model.generation_config = own


@torch.no_grad()
def look(model: Any, prompt: Prompts, tokens: Sequence[int]) -> ReferenceOutputs:
    """The model's reference outputs for one prompt followed by `tokens`."""
    features = image_features(model, _inputs(model, evolve(prompt, token_inputs={}))) if prompt.items else None
    if features is not None and image_token_id(model.config) in tokens[:-1]:
        logits = _in_two_calls(model, prompt, tokens[:-1])
    else:
        ids = torch.cat([prompt.ids, torch.tensor([list(tokens[:-1])], dtype=torch.int64)], 1).to(model.device)
        inputs = _inputs(model, prompt, len(tokens) - 1)
        # Some models give all logits whatever is asked.
        logits = model(input_ids=ids, **inputs, use_cache=False, logits_to_keep=len(tokens)).logits[:, -len(tokens) :]
    features = None if features is None else features.float().cpu()
    return ReferenceOutputs(features, logits[0].float().cpu(), tuple(tokens))


def _in_two_calls(model: Any, prompt: Prompts, answer: Sequence[int]) -> Tensor:
    """Logits after a prompt with images and after each token of an answer: [1, 1 + N, V].

    An image token in the answer is an ordinary token, as in `generate`, which passes images with the prompt only.
    """
    first = model(input_ids=prompt.ids.to(model.device), **_inputs(model, prompt), use_cache=True, logits_to_keep=1)
    cache = {"cache": first.cache} if hasattr(first, "cache") else {"past_key_values": first.past_key_values}
    ids = torch.tensor([list(answer)], dtype=torch.int64, device=model.device)
    return torch.cat([first.logits[:, -1:], model(input_ids=ids, **cache, use_cache=True).logits], dim=1)


@define
class Seen:
    """Input and output of a module in its only call; None if not a tensor."""

    input: Tensor | None = None
    output: Tensor | None = None
    calls: int = 0


@torch.no_grad()
def modules(model: Any, prompt: Prompts) -> Mapping[str, Seen]:
    """Input and output of each module called once for a prompt, by module path."""
    seen: dict[str, Seen] = {}
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if path:
                record = seen.setdefault(path, Seen())
                hook = module.register_forward_hook(_recorder(record), with_kwargs=True)
                hooks.callback(hook.remove)
        model(input_ids=prompt.ids.to(model.device), use_cache=False, **_inputs(model, prompt))
    return {path: record for path, record in seen.items() if record.calls == 1}


def _recorder(record: Seen) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        del module
        record.calls += 1
        if record.calls == 1:
            record.input = _tensor((*args, *kwargs.values()))
            record.output = _tensor(output if isinstance(output, (tuple, list)) else (output,))

    return hook


def _tensor(values: Sequence[Any]) -> Tensor | None:
    first = next(iter(values), None)
    return first.detach().cpu() if isinstance(first, Tensor) and first.is_floating_point() else None


def _inputs(model: Any, prompt: Prompts, more: int = 0) -> dict[str, Tensor]:
    """The model's inputs for a prompt, except for its tokens.

    Args:
        more: text tokens that follow the prompt.
    """
    given = {
        **prompt.inputs,
        **{name: _padded(tensor, more, prompt.next_type) for name, tensor in prompt.token_inputs.items()},
    }
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in given.items()
    }


def _padded(tensor: Tensor, more: int, value: int) -> Tensor:
    return torch.nn.functional.pad(tensor, (0, more), value=value)
