"""TensorRT-LLM settings that do not follow from the model."""

from __future__ import annotations

from attrs import frozen

from ditto.errors import ConfigError


@frozen(kw_only=True)
class TrtllmConfig:
    """Settings of the `trtllm` target.

    Args:
        version: TensorRT-LLM version of the environment that compiles and runs the tree.
        tokens_per_block: block size of the paged KV cache, a power of two.
        gemm_plugin: compute matrix multiplications with TensorRT-LLM's Gemm plugin instead of TensorRT's own layer.
        use_paged_context_fmha: let context attention read the paged KV cache; required by KV reuse and chunked context.
    Raises:
        ConfigError: the attention plugin does not support this block size.
    """

    version: str = "0.19.0"
    tokens_per_block: int = 32
    gemm_plugin: bool = True
    use_paged_context_fmha: bool = True

    def __attrs_post_init__(self) -> None:
        size = self.tokens_per_block
        if size < 1 or size & (size - 1):
            raise ConfigError(f"tokens_per_block is {size}", remedy="give a power of two: 16, 32, 64 or 128")
