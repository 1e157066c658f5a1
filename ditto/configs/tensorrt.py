"""Settings of TensorRT's network and builder, under TensorRT's own names."""

from __future__ import annotations

from attrs import Factory, frozen

from ditto.errors import ConfigError


@frozen(kw_only=True)
class TensorRTNetworkCreationFlags:
    """Flags of `Builder.create_network`.

    Args:
        strongly_typed: keep every tensor in the dtype that the network declares. With `False`, TensorRT may lower
            precision where the builder's flags allow it; for libraries without weak typing (TensorRT-RTX,
            TensorRT 11) the network declares the same precision explicitly instead.
    """

    strongly_typed: bool = True


@frozen(kw_only=True)
class TensorRTBuilderConfig:
    """Settings of `IBuilderConfig`.

    Args:
        fp16, bf16: let TensorRT compute in half precision (weakly typed networks only; at most one of them).
        tf32: let TensorRT round the inputs of float32 matrix multiplications to TF32, which is TensorRT's default.
            Off here, so that a float32 engine computes in float32; TensorRT-RTX 1.6 rounds whatever it is.
        builder_optimization_level: 0 (fastest build) to 5, or None for TensorRT's own default.
        max_aux_streams: maximum number of auxiliary streams, or None for TensorRT's own default.
        workspace_bytes: limit of workspace memory in bytes, or None for TensorRT's own default.
    Raises:
        ConfigError: a value is out of range, or both fp16 and bf16 are set.
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
    """TensorRT settings that do not follow from the model.

    Raises:
        ConfigError: fp16 or bf16 is set on a strongly typed network, where TensorRT ignores or rejects it.
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
