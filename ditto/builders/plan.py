"""Plan of a build: engines and required resources.

It is computed before any weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen
from loguru import logger

from ditto.builders.config_only import ConfigOnlySource
from ditto.builders.describe import Described, PartBuilder, common_target, describe, layer_counts
from ditto.builders.preflight import check_resources
from ditto.builders.source import ModelSource, Pretrained
from ditto.configs.build import BuildSettings
from ditto.engine.spec import EngineSpec
from ditto.errors import ModelError, UnsupportedOperator
from ditto.network import Network
from ditto.network.quantized import bytes_by_kind
from ditto.network.weight import Folded, Stored, Weight, leaves, weight_bytes
from ditto.targets import ModelPart, Target
from ditto.targets.compile import at_once
from ditto.units import size_text

# Memory of a process that describes models and compiles without weights, in bytes (benchmarks/README.md).
_BASE_MEMORY = 1_200_000_000
# Bytes of memory per byte of embedded weights being compiled; measured with TensorRT-RTX 1.6.
_MEMORY_PER_WEIGHT = 2.2
# Memory of the largest GPU available (B300), in bytes.
_LARGEST_GPU = 288_000_000_000
# Bytes of an engine file without weights: base, per layer, and per layer and additional profile.
# Measured with layers that all differ; identical layers share code.
_ENGINE_BASE, _ENGINE_PER_LAYER, _ENGINE_PER_PROFILE = 500_000, 52_000, 14_000


@frozen(kw_only=True)
class Refusal:
    """An unsupported feature of a model: cause, places in the model, and remedy."""

    cause: str
    places: list[str]
    remedy: str


@frozen
class Refused:
    """A part of a model that is refused, with the spec of its first engine and the reasons."""

    part: ModelPart
    spec: EngineSpec
    refusals: list[Refusal]


@frozen(kw_only=True)
class EnginePlan:
    """Plan of one engine. Sizes are in bytes.

    Args:
        spec: decisions about the engine.
        inputs, outputs: specs by name, without external weights; empty if the model is refused.
        layers: number of layers by kind; empty if the model is refused.
        parameters: number of values in the checkpoint tensors that it uses.
        weights: GPU memory of its constants, embedded or external; 0 if it shares the weights of another engine.
        weight_kinds: bytes of its constants by kind, the largest first; empty if the model is refused.
        cache: KV cache and other states at the chosen limits.
        engine: upper bound of the engine file; 0 if it is compiled elsewhere.
        memory: upper bound of resident memory during its build.
        refused: reasons why it cannot be built; empty if it can.
    """

    spec: EngineSpec
    inputs: dict[str, str]
    outputs: dict[str, str]
    layers: dict[str, int]
    parameters: int
    weights: int
    weight_kinds: dict[str, int]
    cache: int
    engine: int
    memory: int
    refused: list[Refusal]


@frozen(kw_only=True)
class Plan:
    """Plan of a tree. Sizes are in bytes.

    Args:
        model: the requested hub id or directory.
        shapes: source of the shapes: `checkpoint`, or `config.json` if the weights are not on this machine.
        settings: how the engines are built.
        compiled: whether engines are compiled here; if not, the tree holds networks, to be compiled elsewhere.
        parameters: number of parameters of all engines; shared ones count once.
        unused: checkpoint tensors that no engine uses.
        disk: upper bound of the bytes that the build writes.
        memory: upper bound of resident memory during the build.
    """

    model: str
    model_type: str
    target: str
    dtype: str
    shapes: str
    settings: BuildSettings
    compiled: bool
    engines: dict[str, EnginePlan]
    parameters: int
    unused: list[str]
    disk: int
    memory: int

    @property
    def weights(self) -> int:
        """Bytes of weights on the GPU."""
        return sum(engine.weights for engine in self.engines.values())

    @property
    def cache(self) -> int:
        """Bytes of the KV cache and other states on the GPU."""
        return sum(engine.cache for engine in self.engines.values())

    @property
    def refused(self) -> list[Refusal]:
        """Reasons why the tree cannot be built; empty if it can."""
        return [refusal for engine in self.engines.values() for refusal in engine.refused]

    @property
    def warnings(self) -> list[str]:
        """Warnings about a plan that can be built but is probably not intended."""
        needed = self.weights + self.cache
        if needed <= _LARGEST_GPU:
            return []
        return [
            f"weights and KV cache need {size_text(needed)} of a GPU, more than any GPU has "
            f"({size_text(_LARGEST_GPU)}): lower --batch or --max-seq-len"
        ]

    def lines(self) -> list[str]:
        """Summary lines: engines and required resources."""
        result = [f"plan: {self.model_type}, target {self.target}, {self.dtype}, {self.settings.text()}"]
        for name, engine in self.engines.items():
            count = sum(engine.layers.values())
            result.append(f"  {name}: {count} layers, {engine.parameters / 1e6:.0f} M parameters")
        result.append(
            f"  needs up to {size_text(self.disk)} of disk and {size_text(self.memory)} of memory here; on the GPU "
            f"{size_text(self.weights)} for weights, {size_text(self.cache)} for the KV cache"
        )
        return result


def plan(builders: Mapping[str, PartBuilder]) -> Plan:
    """Plan the tree of the builders of one model.

    Refusals are part of the plan and are not raised.

    Args:
        builders: builders by the directory of their engines.
    Raises:
        CheckpointError, ConfigError, MissingLibraryError: the model or the settings do not fit.
    """
    first, target = next(iter(builders.values())), common_target(builders)
    source = _readable(first.source)
    described: list[Described | Refused] = []
    for builder in builders.values():
        part = builder.with_source(source).part(target)
        try:
            described += describe(part, target, builder.build_settings)
        except ModelError as error:
            spec, *_ = target.specs(part, builder.build_settings)
            described.append(Refused(part, spec, _refusals(error)))
    return plan_of(source, first.model_type, target, first.build_settings, described)


def plan_of(
    source: ModelSource,
    model_type: str,
    target: Target,
    settings: BuildSettings,
    engines: Sequence[Described | Refused],
) -> Plan:
    """Plan of described engines."""
    compiled = target.cannot_compile is None
    accepted = [engine for engine in engines if isinstance(engine, Described)]
    parts = {engine.spec.name: target.partition(engine.network, engine.spec).networks for engine in accepted}
    plans = {
        engine.spec.name: _engine_plan(engine, parts[engine.spec.name], compiled)
        if isinstance(engine, Described)
        else _refused_plan(engine)
        for engine in engines
    }
    tensors = _stored(constant.weight for engine in accepted for constant in engine.network.constants())
    first = engines[0].spec
    return Plan(
        model=source.name,
        model_type=model_type,
        target=target.name,
        dtype=first.dtype,
        shapes="config.json" if isinstance(source, ConfigOnlySource) else "checkpoint",
        settings=settings,
        compiled=compiled,
        engines=plans,
        parameters=_count(constant.weight for engine in accepted for constant in engine.network.constants()),
        unused=source.unused(frozenset(tensors)) if len(accepted) == len(engines) else [],
        disk=sum(engine.engine for engine in plans.values()) + (_computed_bytes(parts.values()) if compiled else 0),
        memory=max(engine.memory for engine in plans.values()),
    )


def announce(plan: Plan, out: Path) -> None:
    """Log the plan of a build, and check disk space and memory.

    Raises:
        InsufficientResourcesError: this machine lacks the required disk space or memory.
    """
    for line in plan.lines():
        logger.info("{}", line)
    for warning in plan.warnings:
        logger.warning("{}", warning)
    check_resources(out, plan.disk, plan.memory)


def _readable(source: ModelSource) -> ModelSource:
    """`source` if its weights' headers are local, else a config-only source."""
    return ConfigOnlySource(source) if isinstance(source, Pretrained) and not source.has_weights else source


def _refused_plan(engine: Refused) -> EnginePlan:
    parameters = {id(each): each for each in engine.part.wrapper.parameters()}.values()
    return EnginePlan(
        spec=engine.spec,
        inputs={},
        outputs={},
        layers={},
        parameters=sum(each.numel() for each in parameters),
        weights=sum(each.numel() * each.dtype.itemsize for each in parameters),
        weight_kinds={},
        cache=engine.part.cache_bytes(),
        engine=0,
        memory=_BASE_MEMORY,
        refused=engine.refusals,
    )


def _engine_plan(engine: Described, parts: Sequence[Network], compiled: bool) -> EnginePlan:
    """Plan of an engine; weights and KV cache count for the first engine of a part."""
    network, spec = engine.network, engine.spec
    inside = sum(map(_bytes, parts))
    per_layer = _ENGINE_PER_LAYER + _ENGINE_PER_PROFILE * (len(spec.profiles) - 1)
    code = _ENGINE_BASE * len(parts) + per_layer * sum(len(part.nodes) for part in parts)
    return EnginePlan(
        spec=spec,
        inputs={name: str(spec) for name, spec in network.inputs.items()},
        outputs={name: str(network.value(value).spec) for name, value in network.outputs.items()},
        layers=layer_counts(network),
        parameters=_count(constant.weight for constant in network.constants()),
        # External weights are shared by all engines of a part; segments may share some embedded ones.
        weights=max(_bytes(network), inside) if spec.is_first else inside,
        weight_kinds=bytes_by_kind(constant.weight for constant in network.constants()),
        cache=engine.part.cache_bytes(network) if spec.is_first else 0,
        engine=code + inside if compiled else 0,
        memory=_BASE_MEMORY + (int(_concurrent_bytes(map(_bytes, parts)) * _MEMORY_PER_WEIGHT) if compiled else 0),
        refused=[],
    )


def _refusals(error: ModelError) -> list[Refusal]:
    if not isinstance(error, UnsupportedOperator):
        return [Refusal(cause=error.cause, places=[str(error.where or "")], remedy=error.remedy or "")]
    return [
        Refusal(
            cause=f"`{op}` has no lowering",
            places=list(dict.fromkeys(str(place) for place in places)),
            remedy=f"register one with `@lowers({op})`",
        )
        for op, places in error.uses.items()
    ]


def _stored(weights: Iterable[Weight]) -> dict[str, Stored]:
    return {leaf.name: leaf for weight in weights for leaf in leaves(weight) if isinstance(leaf, Stored)}


def _count(weights: Iterable[Weight]) -> int:
    """Number of values in the checkpoint tensors that weights are computed from; those of packed words count."""
    found: dict[str, int] = {}
    for weight in weights:
        found.update(_values(weight))
    return sum(found.values())


def _values(weight: Weight) -> dict[str, int]:
    if isinstance(weight, Stored):
        return {weight.name: math.prod(weight.shape)}
    found = {name: count for part in weight.parts for name, count in _values(part).items()}
    if isinstance(weight, Folded) and weight.op == "unpack":
        found = dict.fromkeys(found, math.prod(weight.shape))
    return found


def _bytes(network: Network) -> int:
    return sum(weight_bytes(constant.weight) for constant in network.constants())


def _computed_bytes(engines: Iterable[Iterable[Network]]) -> int:
    """Bytes of computed constants, which stay on disk until their segment is written."""

    def computed(network: Network) -> int:
        return sum(weight_bytes(each.weight) for each in network.constants() if not each.weight.is_view)

    return max((_concurrent_bytes(map(computed, parts)) for parts in engines), default=0)


def _concurrent_bytes(sizes: Iterable[int]) -> int:
    """Upper bound of the total size of segments that are compiled at the same time."""
    largest = sorted(sizes, reverse=True)
    return sum(largest[: at_once(len(largest))])
