"""TensorRT-LLM's plugins as network layers."""

from ditto.targets.trtllm.plugins.gemm import Gemm
from ditto.targets.trtllm.plugins.gpt_attention import GPTAttention, attention_inputs

__all__ = ["GPTAttention", "Gemm", "attention_inputs"]
