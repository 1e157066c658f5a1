"""Interface of targets: engine inputs, specifications, lowering, config files and compilation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import frozen

from ditto.arguments import TensorTypeHint
from ditto.configs import Limits, TensorRTConfig
from ditto.configs.build import BuildSettings
from ditto.engine import Assembly
from ditto.engine.config import LlmConfig, VisionConfig
from ditto.engine.spec import EngineSpec
from ditto.network.graph import Network
from ditto.network.weight import TensorSource
from ditto.passes.partition import Partition, PartitionMode, partition
from ditto.program import Program
from ditto.targets.part import ModelPart


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
    def check(self, settings: BuildSettings) -> None:
        """Check settings before any work.

        Raises:
            MissingLibraryError: the library that this target compiles with is not installed.
            ConfigError: the target does not support a setting.
        """

    def check_limits(self, limits: Limits, prompt_rows: int) -> None:
        """Check limits against the constraints of this target.

        Args:
            prompt_rows: image tokens that one request needs, 0 if unknown.
        Raises:
            ConfigError: the limits are inconsistent.
        """
        del limits, prompt_rows

    def check_family(self, model_type: str, assembly: Assembly | None, inputs: Sequence[str]) -> None:
        """Check that what runs this target's engines knows a family of vision-language models.

        Args:
            assembly: how the embeddings of tiles become those of an image; None if they are those of an image.
            inputs: names of the vision engine's inputs.
        Raises:
            ConfigError: it does not.
        """
        del model_type, assembly, inputs

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
    def llm_inputs(
        self, limits: Limits, hidden_size: int, dtype: torch.dtype, position_axes: int = 1, has_spans: bool = False
    ) -> dict[str, TensorTypeHint]:
        """Inputs of the captured language model, in the order of its wrapper's forward.

        Args:
            hidden_size: width of the prompt embedding table.
            position_axes: positions of each token.
            has_spans: whether tokens of a prompt form spans, see `ditto.ops.spans`.
        Raises:
            UnsupportedFeature: the target's runtime does not provide one of the inputs.
        """

    @abstractmethod
    def llm_sizes(self, limits: Limits) -> dict[str, int]:
        """Sizes of the named dimensions at which masks are classified; `sequence` is the maximum length."""

    @abstractmethod
    def specs(self, part: ModelPart, settings: BuildSettings) -> tuple[EngineSpec, ...]:
        """Engines of a part of a model; all share its weights, and the first has its name."""

    def joins_projections(self, part: ModelPart, settings: BuildSettings) -> bool:
        """Whether linear layers that read the same tensor are joined."""
        del part, settings
        return True

    @abstractmethod
    def lower(self, part: ModelPart, program: Program, spec: EngineSpec) -> Network:
        """Lower a part to the network of one of its engines, with the inputs that the target adds.

        The network is as lowered: the passes of the spec have not run.

        Raises:
            UnsupportedOperator, UnsupportedFeature: the model needs something that the target does not support.
        """

    @abstractmethod
    def config(self, part: ModelPart, network: Network) -> LlmConfig | VisionConfig:
        """Content of a part's config.json.

        Args:
            network: network of its first engine.
        """

    def partition(self, network: Network, spec: EngineSpec) -> Partition:
        """The partition of an engine's network that is compiled, with one file for each of its networks."""
        if not self.has_own_session:
            return partition(network, PartitionMode.WHOLE)
        is_shared = spec.weights == "external"
        return partition(network, PartitionMode.SHARED_BLOCKS if is_shared else PartitionMode.EMBEDDED_BLOCKS)

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
    def compile(self, parts: Sequence[Network], spec: EngineSpec, source: TensorSource, paths: Sequence[Path]) -> str:
        """Build an engine, with one file for each network of its partition.

        Returns:
            The name and version of the library that compiled it.

        Raises:
            BuildError: the build failed.
        """
