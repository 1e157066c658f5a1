"""From a part of a model to the networks of its engines: capture, rewrite, lower, passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from attrs import frozen
from typing_extensions import Self

from ditto.builders.source import ModelSource
from ditto.capture import export
from ditto.configs.build import BuildSettings
from ditto.dumps import dump, dumping_part
from ditto.engine import Tokens, TreeLimits
from ditto.engine.spec import EngineSpec
from ditto.errors import ConfigError
from ditto.garbage import without_collection
from ditto.network import Network, check, network_text
from ditto.passes import run_passes
from ditto.passes.spec import passes_of
from ditto.program import program_text
from ditto.rewrite import rewrite
from ditto.targets import ModelPart, Target


class PartBuilder(Protocol):
    """What a build needs of a builder."""

    @property
    def source(self) -> ModelSource:
        """Source of the model."""
        ...

    @property
    def model_type(self) -> str:
        """Hugging Face's name of the model's family (`model_type`)."""
        ...

    @property
    def build_settings(self) -> BuildSettings:
        """How the engines are built."""
        ...

    def with_source(self, source: ModelSource) -> Self:
        """Use `source` as the source of the model."""
        ...

    def resolved_target(self) -> Target:
        """The target, after a check of its library and settings."""
        ...

    def part(self, target: Target) -> ModelPart:
        """The part of the model that the engines run."""
        ...

    def tree_limits(self, target: Target) -> TreeLimits:
        """Limits of the engines, as the tree records them."""
        ...

    def tokens(self) -> Tokens | None:
        """Token ids needed to run the engines; None without a language model."""
        ...

    def settings(self) -> dict[str, Any]:
        """Settings for the manifest."""
        ...


@frozen
class Described:
    """An engine that is not compiled yet: the part that it runs, its spec and its network."""

    part: ModelPart
    spec: EngineSpec
    network: Network


def describe(part: ModelPart, target: Target, settings: BuildSettings) -> tuple[Described, ...]:
    """Describe the engines of a part of a model.

    Raises:
        ModelError: the model does something that no engine can.
    """
    with dumping_part(part.name), without_collection():
        longest = part.sizes["sequence"] if part.positions is not None else None
        program = export(part.wrapper, part.inputs, part.output_names, part.prefix, part.dtype, longest)
        dump("captured", lambda: program_text(program))
        joins = target.joins_projections(part, settings)
        rewrite(program, part.sizes, part.positions, joins, part.attentions, part.spans)
        described: list[Described] = []
        for spec in target.specs(part, settings):
            lowered = target.lower(part, program, spec)
            dump(f"network of {spec.name}", partial(network_text, lowered))
            network = run_passes(lowered, passes_of(spec.passes))
            check(network)
            described.append(Described(part, spec, network))
        part.check(described[0].network)
    return tuple(described)


def common_target(builders: Mapping[str, PartBuilder]) -> Target:
    """The target of the builders of one tree.

    Raises:
        ConfigError, MissingLibraryError: building for it is not possible, or the builders have different targets or
            models.
    """
    first, *others = builders.values()
    target = first.resolved_target()
    for other in others:
        if other.source is not first.source:
            raise ConfigError("the builders have different models", remedy="build them from one model")
        if other.resolved_target() != target:
            raise ConfigError("the builders have different targets", remedy="give all builders of a model one target")
    return target


def layer_counts(network: Network) -> dict[str, int]:
    """Number of layers by kind."""
    return dict(sorted(Counter(type(node.layer).__name__ for node in network.nodes).items()))
