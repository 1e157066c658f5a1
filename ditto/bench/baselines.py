"""Baselines: Hugging Face on the same weights, eager and compiled.

B rows, S tokens of a prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from ditto.bench.system import System
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.verify.inputs import Prompts
from ditto.verify.model import image_features
from ditto.verify.reference_outputs import plain_settings

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


class EagerBaseline(System):
    """Hugging Face's own image embeddings and its eager `generate`.

    Args:
        preprocessor: of the tree whose items it encodes; None without images.
    """

    name = "hugging face"

    def __init__(self, model: Any, device: torch.device, preprocessor: Preprocessor | None = None) -> None:
        self.model, self.device, self.dtype = model, device, model.dtype
        self.preprocessor = preprocessor
        self._no_token = model.config.get_text_config().vocab_size

    @override
    @torch.no_grad()
    def features(self, items: Sequence[EncoderItem]) -> object:
        assert self.preprocessor is not None
        return image_features(self.model, _moved(self.preprocessor.model_inputs(items), self.device, self.dtype))

    @override
    @torch.no_grad()
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        ids, pixels = _placed(prompts, self.device, self.dtype)
        with plain_settings(self.model):
            made = self.model.generate(
                input_ids=ids,
                max_new_tokens=new_tokens,
                eos_token_id=self._no_token,
                do_sample=False,
                pad_token_id=0,
                **{"attention_mask": torch.ones_like(ids), **pixels},
            )
        return [tuple(row) for row in made[:, ids.shape[1] :].tolist()]


class CompiledBaseline(System):
    """A static KV cache, and `torch.compile` for image embeddings and the step of one token, as CUDA graphs on a GPU.

    Prompts run eagerly, as they do in Hugging Face's own use of a static cache. Tokens stay on the device until the
    end: nothing here waits for the host.
    """

    name = "hugging face, compiled"

    def __init__(
        self,
        model: Any,
        device: torch.device,
        preprocessor: Preprocessor | None = None,
        compiled: Compile | None = None,
    ) -> None:
        self.model, self.device, self.dtype = model, device, model.dtype
        compiled = compiled or torch.compile(mode="reduce-overhead")
        self._preprocessor, self._vision = preprocessor, compiled(partial(image_features, model))
        self._step = compiled(self._one_token)
        self._caches: dict[tuple[int, int], Any] = {}
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"  # renamed in transformers 5

    @override
    @torch.no_grad()
    def features(self, items: Sequence[EncoderItem]) -> object:
        assert self._preprocessor is not None
        return self._vision(_moved(self._preprocessor.model_inputs(items), self.device, self.dtype))

    @override
    @torch.no_grad()
    def answer(self, prompts: Prompts, new_tokens: int) -> list[tuple[int, ...]]:
        ids, pixels = _placed(prompts, self.device, self.dtype)
        rows, length = ids.shape
        cache = self._cache(rows, -(-(length + new_tokens) // 256) * 256)
        positions = torch.arange(length + new_tokens, device=self.device)
        token = self._forward(ids, positions[:length], cache, **pixels).argmax(-1)
        made = [token]
        for index in range(length, length + new_tokens - 1):
            # Clones: CUDA graphs give their output's memory away with the next replay.
            token = self._step(token.clone(), positions[index : index + 1].clone(), cache).clone()
            made.append(token)
        return [tuple(row) for row in torch.cat(made, 1).tolist()]

    def _cache(self, rows: int, capacity: int) -> Any:
        from transformers import StaticCache

        if (rows, capacity) not in self._caches:
            config = self.model.config.get_text_config()
            places = {"max_batch_size": rows, "device": self.device, "dtype": self.dtype}
            self._caches[rows, capacity] = StaticCache(config=config, max_cache_len=capacity, **places)
        cache = self._caches[rows, capacity]
        cache.reset()
        return cache

    def _one_token(self, ids: Tensor, position: Tensor, cache: Any) -> Tensor:
        return self._forward(ids, position, cache).argmax(-1)

    def _forward(self, ids: Tensor, positions: Tensor, cache: Any, **pixels: Tensor) -> Tensor:
        """Logits of the last token: [B, 1, V]."""
        given = {self._cache_name: cache, "cache_position": positions, "use_cache": True, "logits_to_keep": 1}
        places = positions[None].expand(len(ids), -1)
        return self.model(input_ids=ids, position_ids=places, **given, **pixels).logits


def _placed(prompts: Prompts, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    given = {**prompts.inputs, **prompts.token_inputs}
    return prompts.ids.to(device), _moved(given, device, dtype)


def _moved(inputs: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
