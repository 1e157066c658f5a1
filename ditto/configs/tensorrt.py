"""Settings of TensorRT's network and builder, under the names that TensorRT uses."""

from __future__ import annotations

from attrs import Factory, frozen

from ditto.errors import ConfigError


@frozen(kw_only=True)
class TensorRTNetworkCreationFlags:
    """Flags of `Builder.create_network`.

    Args:
        strongly_typed: keep every tensor in the dtype that the network states. With `False` TensorRT may lower
            precision where the builder's flags allow; libraries without weak typing (TensorRT-RTX, TensorRT 11) get
            the same precision stated explicitly instead.
    """

    strongly_typed: bool = True


@frozen(kw_only=True)
class TensorRTBuilderConfig:
    """Settings of `IBuilderConfig`.

    Args:
        fp16, bf16: let TensorRT compute in half precision (weakly typed networks only; at most one of them).
        tf32: let TensorRT round float32 matrix products to TF32, as TensorRT does by default. Off here: an engine
            built in float32 computes in float32.
        builder_optimization_level: 0 (fastest build) to 5, or None for TensorRT's own default.
        max_aux_streams: None for TensorRT's own default.
        workspace_bytes: limit of scratch memory, or None for TensorRT's own default.
    Raises:
        ConfigError: a value out of its range, or both fp16 and bf16.
    """

    fp16: bool = False
    bf16: bool = False
    tf32: bool = False
    builder_optimization_level: int | None = None
    max_aux_streams: int | None = None
    workspace_bytes: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.fp16 and self.bf16:
            raise ConfigError("fp16 and bf16 are both set", remedy="choose one of them")
        level = self.builder_optimization_level
        if level is not None and not 0 <= level <= 5:
            raise ConfigError(f"builder_optimization_level is {level}", remedy="give 0 to 5, or None")
        for name in ("max_aux_streams", "workspace_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} is {value}", remedy="give a number of at least 0, or None")


@frozen(kw_only=True)
class TensorRTConfig:
    """Everything that is TensorRT's own choice rather than the model's.

    Raises:
        ConfigError: precision flags on a strongly typed network, where TensorRT ignores or refuses them.
    """

    network_creation_flags: TensorRTNetworkCreationFlags = Factory(TensorRTNetworkCreationFlags)
    builder_config: TensorRTBuilderConfig = Factory(TensorRTBuilderConfig)

    def __attrs_post_init__(self) -> None:
        precise = self.builder_config.fp16 or self.builder_config.bf16
        if self.network_creation_flags.strongly_typed and precise:
            raise ConfigError(
                "fp16/bf16 need a weakly typed network",
                remedy="set strongly_typed=False, or build the model in that dtype and leave the flag out",
            )
