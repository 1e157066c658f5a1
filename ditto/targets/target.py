"""Interface of targets: engine inputs, target-specific lowerings, profiles, config files and compilation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import frozen

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.configs import Limits, TensorRTConfig
from ditto.engine import Phase, Profile
from ditto.engine.config import LlmConfig, VisionConfig
from ditto.network.graph import Network
from ditto.network.weight import TensorSource, Weight
from ditto.passes import SIMPLIFY, NetworkPass
from ditto.program import Program

WeightOf = Callable[[str], Weight]


@frozen(kw_only=True)
class DecoderConfig:
    """Decoder configuration, with the key names of TensorRT-LLM 0.19 (contract 1.4).

    Args:
        extra: keys of some architectures only.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    hidden_act: str
    norm_epsilon: float
    max_position_embeddings: int
    position_embedding_type: str
    rotary_embedding_dim: int
    qk_layernorm: bool
    extra: dict[str, Any]


@frozen
class LlmEngine:
    """Lowering, network passes and optimization profiles of a language model engine."""

    lower: Callable[[Program, WeightOf], Network]
    passes: tuple[NetworkPass, ...]
    profiles: tuple[Profile, ...]
    kv_length_step: int | None = None


@frozen
class Target(ABC):
    """One way to compile and run engines.

    Args:
        name: the name on the command line.
    """

    has_own_session: ClassVar[bool] = True
    """Whether Ditto's session runs the engines: it supports external weights and partitioned networks."""

    packs_tokens: ClassVar[bool] = False
    """Whether the tokens of all sequences are packed into one row, rather than one padded row each."""

    name: str

    @abstractmethod
    def check(self, config: TensorRTConfig, capabilities: Sequence[str]) -> None:
        """Check settings before any work.

        Raises:
            MissingLibraryError: the library that this target compiles with is not installed.
            ConfigError: the target lacks a setting.
        """

    def check_limits(self, limits: Limits, prompt_rows: int) -> None:
        """Check limits against the constraints of this target.

        Args:
            prompt_rows: image tokens that one request needs, 0 if unknown.
        Raises:
            ConfigError: the limits are inconsistent.
        """
        del limits, prompt_rows

    def adjusted(self, limits: Limits, dtype: torch.dtype) -> Limits:
        """Adjust limits to those of this target's engines.

        Args:
            dtype: compute dtype of the engine.
        """
        del dtype
        return limits

    @abstractmethod
    def explicit_dtype(self, config: TensorRTConfig) -> torch.dtype | None:
        """Dtype to state explicitly if a weakly typed request is not supported by the library, else None."""

    @abstractmethod
    def llm_inputs(self, limits: Limits, hidden_size: int, dtype: torch.dtype) -> dict[str, TensorTypeHint]:
        """Inputs of the captured language model, in the order of its wrapper's forward."""

    @abstractmethod
    def llm_sizes(self, limits: Limits) -> dict[str, int]:
        """Sizes of the named dimensions at which masks are classified; `sequence` is the maximum length."""

    @abstractmethod
    def lower_llm(
        self, program: Program, weight_of: WeightOf, decoder_config: DecoderConfig, limits: Limits
    ) -> Network:
        """Lower a language model to a network, with the inputs that the target adds.

        Raises:
            UnsupportedOperator, UnsupportedFeature: the model needs something that the target does not support.
        """

    @abstractmethod
    def lower_vision(self, program: Program, weight_of: WeightOf) -> Network:
        """Lower a vision tower to a network.

        Raises:
            UnsupportedOperator, UnsupportedFeature: the model needs something that the target does not support.
        """

    def vision_passes(self, outside: bool) -> tuple[NetworkPass, ...]:
        """Passes over the network of a vision tower, in order.

        Args:
            outside: the engine's weights are external.
        """
        del outside
        return SIMPLIFY

    def joins_vision(self, outside: bool) -> bool:
        """Whether to join linear layers of a vision tower that read the same tensor.

        Args:
            outside: the engine's weights are external.
        """
        del outside
        return True

    @abstractmethod
    def llm_profiles(self, limits: Limits, layers: int) -> tuple[Profile, ...]:
        """Optimization profiles of a language model.

        Args:
            layers: number of layers.
        """

    def apart(self, limits: Limits) -> tuple[LlmEngine, LlmEngine] | None:
        """Prefill and decode as separate engines that share external weights.

        None if the target has one engine for both.
        """
        del limits
        return None

    def vision_profiles(self, dimensions: Sequence[DynamicDimension], outside: bool) -> tuple[Profile, ...]:
        """Optimization profiles of a vision tower: by default a single one, as every consumer expects.

        Args:
            outside: the engine's weights are external, so additional profiles take no space.
        """
        del outside
        return (Profile(Phase.ENCODE, {dimension.name: dimension for dimension in dimensions}),)

    @abstractmethod
    def llm_config(self, network: Network, decoder_config: DecoderConfig, limits: Limits, dtype: str) -> LlmConfig:
        """Content of llm/config.json."""

    @abstractmethod
    def vision_config(self, model_type: str, max_batch_size: int, output_shape: list[int], dtype: str) -> VisionConfig:
        """Content of vision/config.json."""

    def settings(self) -> dict[str, Any]:
        """Settings of the target for the manifest, needed to compile on another machine."""
        return {}

    @property
    @abstractmethod
    def cannot_compile(self) -> str | None:
        """Reason why this machine cannot compile for this target; None if it can.

        Do not call `compile` if there is a reason.
        """

    @abstractmethod
    def compile(
        self,
        parts: Sequence[Network],
        profiles: Sequence[Profile],
        source: TensorSource,
        config: TensorRTConfig,
        capabilities: Sequence[str],
        paths: Sequence[Path],
    ) -> str:
        """Build an engine, with one file for each part of its network.

        Returns:
            The name and version of the library that compiled it.

        Raises:
            BuildError: the build failed.
        """
