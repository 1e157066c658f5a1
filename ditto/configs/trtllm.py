"""Choices of a TensorRT-LLM engine that do not follow from the model."""

from __future__ import annotations

from attrs import frozen

from ditto.errors import ConfigError


@frozen(kw_only=True)
class TrtllmConfig:
    """What the `trtllm` target may be told.

    Args:
        version: of TensorRT-LLM, which must be that of the environment that compiles and runs the tree.
        tokens_per_block: of the paged KV cache.
        gemm_plugin: matrix products by TensorRT-LLM's Gemm plugin instead of TensorRT's own layer.
        use_paged_context_fmha: context attention reads the paged cache, which KV reuse and chunked context need.
    Raises:
        ConfigError: a block of a size that the attention plugin does not know.
    """

    version: str = "0.19.0"
    tokens_per_block: int = 32
    gemm_plugin: bool = True
    use_paged_context_fmha: bool = True

    def __attrs_post_init__(self) -> None:
        size = self.tokens_per_block
        if size < 1 or size & (size - 1):
            raise ConfigError(f"tokens_per_block is {size}", remedy="give a power of two: 16, 32, 64 or 128")
