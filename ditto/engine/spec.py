"""Engine specification: all decisions about an engine before its network is known, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from ditto.configs import TensorRTConfig
from ditto.configs.build import BuildSettings, WeightPlacement
from ditto.engine.profile import Phase, Profile

T = TypeVar("T")
DecodeAttention = Literal["sums", "products"]


def _immutable(items: Sequence[T]) -> Sequence[T]:
    return tuple(items)


@frozen
class PassSpec:
    """A network pass: its class, and its parameters as JSON values."""

    kind: str
    parameters: dict[str, Any]

    def text(self) -> str:
        """The pass as `Kind(parameter=value, ...)`."""
        parameters = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.kind}({parameters})" if parameters else self.kind


@frozen(kw_only=True)
class EngineSpec:
    """Decisions about an engine.

    Equal specs and equal networks give equal engines.

    Args:
        name: name of the component.
        part: the part of the model that it runs, `vision` or `llm`; its first engine has its name.
        dtype: the model's dtype in this engine, e.g. `float16`.
        profiles: optimization profiles, in the engine's order.
        weights: `embedded`, or `external`: large weights are engine inputs.
        tuning: the compute capability whose tuning it has, or `none`.
        passes: passes over the network, in order.
        kv_length_step: multiple to which the runtime rounds up the KV cache length, where the engine reads only that
            length, given by its cache slot input. None where the engine reads the whole cache.
        decode_attention: how separate engines compute attention of single tokens, `sums` along the last axis or
            `products` of matrices; both engines of a cache have its layout. None for other engines.
        tensorrt: TensorRT's own settings.
        compute_capabilities: GPUs to build for; empty for the target's default.
    """

    name: str
    part: str
    dtype: str
    profiles: Sequence[Profile] = field(converter=_immutable)
    weights: WeightPlacement
    tuning: str = "none"
    passes: Sequence[PassSpec] = field(converter=_immutable)
    kv_length_step: int | None = None
    decode_attention: DecodeAttention | None = None
    tensorrt: TensorRTConfig
    compute_capabilities: Sequence[str] = field(converter=_immutable)

    @property
    def is_first(self) -> bool:
        """Whether it is the first engine of its part; config.json and kept weights are in its directory."""
        return self.name == self.part

    @property
    def settings(self) -> BuildSettings:
        """The build settings that the engine depends on."""
        capabilities = tuple(self.compute_capabilities)
        return BuildSettings(weights=self.weights, tensorrt=self.tensorrt, compute_capabilities=capabilities)

    @property
    def phases(self) -> frozenset[Phase]:
        """The kinds of work that the engine does."""
        return frozenset(profile.phase for profile in self.profiles)
