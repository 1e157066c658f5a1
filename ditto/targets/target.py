"""What a target decides: an engine's inputs, how target-dependent operators are lowered, profiles, config files, and
who compiles."""

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
class LlmFacts:
    """What an LLM's config.json says of the model, under the names of TensorRT-LLM 0.19 (contract 1.4).

    Args:
        extra: keys that only some architectures have.
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
    """An engine of a language model: how its program is lowered, the passes over its network, and the optimisation
    profiles."""

    lower: Callable[[Program, WeightOf], Network]
    passes: tuple[NetworkPass, ...]
    profiles: tuple[Profile, ...]
    kv_length_step: int | None = None


@frozen
class Target(ABC):
    """One way to build and run engines.

    Args:
        name: as on the command line.
    """

    has_own_session: ClassVar[bool] = True
    """Whether Ditto's session runs the engines: it binds weights to inputs, and runs networks in parts."""

    packs_tokens: ClassVar[bool] = False
    """Whether language models take the tokens of all sequences one after another, not a row for each."""

    name: str

    @abstractmethod
    def check(self, config: TensorRTConfig, capabilities: Sequence[str]) -> None:
        """Check what can be checked before any work.

        Raises:
            MissingLibraryError: what this target compiles with is not installed.
            ConfigError: a setting that it does not have.
        """

    def check_limits(self, limits: Limits, prompt_rows: int) -> None:
        """Check limits that mean more to this target than to others.

        Args:
            prompt_rows: rows of image features that one request needs, 0 where that is not known.
        Raises:
            ConfigError: they do not hold together.
        """
        del limits, prompt_rows

    def adjusted(self, limits: Limits, dtype: torch.dtype) -> Limits:
        """Limits as this target's engines have them.

        Args:
            dtype: in which the engine computes.
        """
        del dtype
        return limits

    @abstractmethod
    def explicit_dtype(self, config: TensorRTConfig) -> torch.dtype | None:
        """The dtype to state explicitly where a weakly typed request cannot be passed on, else None."""

    @abstractmethod
    def llm_inputs(self, limits: Limits, hidden_size: int, dtype: torch.dtype) -> dict[str, TensorTypeHint]:
        """The inputs of the captured language model, in the order of its wrapper's forward."""

    @abstractmethod
    def llm_sizes(self, limits: Limits) -> dict[str, int]:
        """Sizes of a language model's named dimensions at which masks are looked at; `sequence` is the longest
        sequence."""

    @abstractmethod
    def lower_llm(self, program: Program, weight_of: WeightOf, facts: LlmFacts, limits: Limits) -> Network:
        """Describe a language model as a network, with the inputs that the target adds.

        Raises:
            UnsupportedOperator, UnsupportedFact: the model does something that the target cannot.
        """

    @abstractmethod
    def lower_vision(self, program: Program, weight_of: WeightOf) -> Network:
        """Describe a vision tower as a network.

        Raises:
            UnsupportedOperator, UnsupportedFact: the model does something that the target cannot.
        """

    def vision_passes(self, outside: bool) -> tuple[NetworkPass, ...]:
        """The passes over a vision tower's network, in order.

        Args:
            outside: the engine's weights are external.
        """
        del outside
        return SIMPLIFY

    def joins_vision(self, outside: bool) -> bool:
        """Whether linear layers of a vision tower that read the same tensor are to become one.

        Args:
            outside: the engine's weights are external.
        """
        del outside
        return True

    @abstractmethod
    def llm_profiles(self, limits: Limits, layers: int) -> tuple[Profile, ...]:
        """The optimisation profiles of a language model.

        Args:
            layers: of the model.
        """

    def apart(self, limits: Limits) -> tuple[LlmEngine, LlmEngine] | None:
        """Prefill and decode as two engines over the same weights, which then have to be outside; None where one
        engine does both."""
        del limits
        return None

    def vision_profiles(self, dimensions: Sequence[DynamicDimension], outside: bool) -> tuple[Profile, ...]:
        """The optimisation profiles of a vision tower: one, as every consumer expects.

        Args:
            outside: the engine's weights are external, so that more profiles cost no space.
        """
        del outside
        return (Profile(Phase.ENCODE, {dimension.name: dimension for dimension in dimensions}),)

    @abstractmethod
    def llm_config(self, network: Network, facts: LlmFacts, limits: Limits, dtype: str) -> LlmConfig:
        """What goes into llm/config.json."""

    @abstractmethod
    def vision_config(self, model_type: str, max_batch_size: int, output_shape: list[int], dtype: str) -> VisionConfig:
        """What goes into vision/config.json."""

    def settings(self) -> dict[str, Any]:
        """The target's own choices, for the manifest: what compiling elsewhere must know."""
        return {}

    @property
    @abstractmethod
    def cannot_compile(self) -> str | None:
        """Why this machine cannot compile engines of this target, so that `compile` is not to be called; None where
        it can."""

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
        """Build an engine, each part of its network into a file; returns the library that did, and its version.

        Raises:
            BuildError: the build failed.
        """
