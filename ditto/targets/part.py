"""Parts of a model that become engines: what builders hand to targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import Factory, fields, frozen
from torch import nn
from typing_extensions import override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.configs import Limits
from ditto.engine import Assembly, DecoderSizes
from ditto.errors import ModelError
from ditto.network.dims import evaluate
from ditto.network.graph import Network
from ditto.network.weight import TensorSource, Weight
from ditto.ops.spans import SpanRule

WeightOf = Callable[[str], Weight]


@frozen(kw_only=True)
class DecoderConfig(DecoderSizes):
    """Decoder configuration, with the key names of TensorRT-LLM 0.19 (contract 1.4).

    Args:
        extra: keys of some architectures only.
    """

    architecture: str
    hidden_act: str
    norm_epsilon: float
    position_embedding_type: str
    rotary_embedding_dim: int
    qk_layernorm: bool
    extra: dict[str, Any]

    @property
    def sizes(self) -> DecoderSizes:
        """The sizes alone."""
        return DecoderSizes(**{each.name: getattr(self, each.name) for each in fields(DecoderSizes)})


@frozen(kw_only=True)
class ModelPart:
    """A part of a model, ready to be captured.

    Args:
        name: `vision` or `llm`.
        wrapper: module that is captured; `prefix` is its prefix of the user's module paths.
        inputs, output_names: inputs and output names of the wrapper.
        dtype: dtype of floating-point parameters.
        sizes: largest values of named dimensions over an engine's lifetime.
        weight_of: the weight of a parameter, by its name in the wrapper.
        tensors: provider of the checkpoint's values.
        keeps_weights: the tree keeps the weights, because the model is not on disk.
        files: weights that a session needs beside the engine, by safetensors file and name.
        positions: name of the input with token positions; None without one.
        spans: what the input of span ids means; None without one.
        attentions: number of self-attention layers, each with a KV cache; None without KV caches.
    """

    name: str
    wrapper: nn.Module
    prefix: str = ""
    inputs: Mapping[str, TensorTypeHint]
    output_names: tuple[str, ...]
    dtype: torch.dtype
    sizes: Mapping[str, int]
    weight_of: WeightOf
    tensors: TensorSource
    keeps_weights: bool
    positions: str | None = None
    spans: SpanRule | None = None
    attentions: int | None = None
    files: Mapping[str, Mapping[str, Weight]] = Factory(dict)

    @property
    def dtype_name(self) -> str:
        """Name of the dtype, e.g. `float16`."""
        return str(self.dtype).removeprefix("torch.")

    def cache_bytes(self, network: Network | None = None) -> int:
        """Size of the KV cache and other states at the chosen limits.

        Args:
            network: whose states count; without any there, keys and values by the configuration.
        """
        del network
        return 0

    @property
    def decoder_sizes(self) -> DecoderSizes | None:
        """Sizes of the decoder; None without one."""
        return None

    def check(self, network: Network) -> None:
        """Check the network that the part was lowered to.

        Raises:
            ModelError: it is not what the other parts of the model expect.
        """
        del network


@frozen(kw_only=True)
class LanguagePart(ModelPart):
    """A language model.

    Args:
        decoder: its configuration.
        limits: the engine's limits, adjusted to the target.
    """

    decoder: DecoderConfig
    limits: Limits

    @override
    def cache_bytes(self, network: Network | None = None) -> int:
        """Bytes of the states of a full batch at the maximum sequence length."""
        decoder, limits = self.decoder, self.limits
        if network is not None and network.shared:
            states = [network.inputs[name] for name in network.shared.values()]
            sizes = {"batch": limits.max_batch_size}
            return sum(evaluate(state.numel, sizes) * state.dtype.itemsize for state in states)
        values = 2 * decoder.num_hidden_layers * decoder.num_key_value_heads * decoder.head_size
        return values * self.dtype.itemsize * limits.max_batch_size * limits.max_seq_len

    @property
    @override
    def decoder_sizes(self) -> DecoderSizes:
        return self.decoder.sizes


@frozen(kw_only=True)
class VisionPart(ModelPart):
    """A vision tower with its projector.

    Args:
        model_type: Hugging Face's name of the family, as TensorRT-LLM's multimodal runner expects it.
        max_images: images per call.
        tokens_per_image: image tokens that the language model expects of an image, or the embeddings of a tile; None if
            they are unknown.
        assembly: how the embeddings of tiles become those of an image; None if they are those of an image.
    """

    model_type: str
    max_images: int
    tokens_per_image: int | None
    assembly: Assembly | None = None

    @property
    def dimensions(self) -> tuple[DynamicDimension, ...]:
        """Dynamic dimensions of the inputs."""
        return tuple({size.name: size for hint in self.inputs.values() for size in hint.dynamic.values()}.values())

    @override
    def check(self, network: Network) -> None:
        rows = network.value(next(iter(network.outputs.values()))).spec.shape[1]
        if self.tokens_per_image not in (None, rows):
            raise ModelError(
                f"the vision tower makes {rows} image tokens of an image, {self.tokens_per_image} were expected",
                remedy="state the tokens that it puts before the patches in the family's vision wrapper",
            )
