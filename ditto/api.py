"""Functional interface to the builders: one function per kind of engine.

The environment variable `DITTO_TARGET` names the default target of these two functions (`trtllm`, `tensorrt`,
`tensorrt-rtx`, `auto`). The builders themselves read no environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ditto.arguments import TensorTypeHint
from ditto.builders import InMemory, LlmBuilder, VisionBuilder
from ditto.builders.engine import EngineBuilder
from ditto.configs import AUTO, TensorRTConfig
from ditto.engine import EngineTree
from ditto.errors import ConfigError

__all__ = ["build_llm_engine", "build_multimodal_engine"]


def build_llm_engine(
    model: nn.Module,
    output_dir: str | Path,
    *,
    lm_head: nn.Module | None = None,
    max_batch_size: int = 1,
    max_input_len: int | None = None,
    max_seq_len: int | None = None,
    max_num_tokens: int | None = None,
    max_prompt_embedding_table_size: int = 0,
    target: str | None = None,
    trt_config: TensorRTConfig | None = None,
) -> EngineTree:
    """Build an engine from a language model in memory.

    Args:
        model: a causal language model (`model.language_model` of a LLaVA in transformers 4.51), a complete
            vision-language model, or a bare decoder (`model.model.language_model` in transformers 5) with `lm_head`.
        output_dir: directory for config.json and rank0.engine.
        lm_head: the output embedding of a bare decoder.
        max_batch_size, max_input_len, max_seq_len, max_num_tokens: limits; omitted ones follow from the model.
        max_prompt_embedding_table_size: image tokens over the whole batch; 0 for a model without images.
        target: `trtllm`, `tensorrt`, `tensorrt-rtx` or `auto`; None for the value of `DITTO_TARGET`, else `auto`.
        trt_config: TensorRT's own settings.
    Raises:
        DittoError: it failed; `output_dir` is as it was.
    """
    builder = LlmBuilder.from_model(model, lm_head=lm_head).with_batch(max_batch_size)
    if max_input_len is not None:
        builder = builder.with_max_input_len(max_input_len)
    if max_seq_len is not None:
        builder = builder.with_max_seq_len(max_seq_len)
    if max_num_tokens is not None:
        builder = builder.with_max_num_tokens(max_num_tokens)
    builder = builder.with_prompt_table(max_prompt_embedding_table_size)
    return _build(builder, output_dir, target, trt_config)


def build_multimodal_engine(
    model: nn.Module,
    output_dir: str | Path,
    *,
    max_batch_size: int,
    input_specs: Sequence[TensorTypeHint],
    input_names: Sequence[str],
    output_names: Sequence[str],
    model_type: str,
    target: str | None = None,
    trt_config: TensorRTConfig | None = None,
) -> EngineTree:
    """Build an engine from a vision tower and projector in memory.

    Args:
        model: a module whose forward has positional inputs and returns one tensor or a tuple.
        output_dir: directory for config.json and model.engine.
        max_batch_size: images per call; the maximum of the first axis of each input.
        input_specs, input_names: types and names of the forward's arguments, in order.
        output_names: names of the returned tensors, in order.
        model_type: Hugging Face's name of the model family, which TensorRT-LLM's multimodal runner reads.
        target: as in `build_llm_engine`.
        trt_config: TensorRT's own settings.
    Raises:
        DittoError: it failed; `output_dir` is as it was.
    """
    if len(input_specs) != len(input_names):
        raise ConfigError(f"{len(input_specs)} input specs have {len(input_names)} names", remedy="give one name each")
    inputs = dict(zip(input_names, input_specs, strict=True))
    for name, hint in inputs.items():
        batch = hint.dynamic.get(0)
        if batch is not None and batch.max != max_batch_size:
            raise ConfigError(
                f"input {name} goes up to {batch.max} items, max_batch_size is {max_batch_size}",
                remedy="make them equal",
            )
    builder = VisionBuilder(
        source=InMemory(model, type(model).__name__),
        max_batch_size=max_batch_size,
        family=model_type,
        inputs=inputs,
        output_names=tuple(output_names),
    )
    return _build(builder, output_dir, target, trt_config)


def _build(
    builder: EngineBuilder, output_dir: str | Path, target: str | None, trt_config: TensorRTConfig | None
) -> EngineTree:
    builder = builder.with_target(target or os.environ.get("DITTO_TARGET") or AUTO)
    if trt_config is not None:
        builder = builder.with_tensorrt(trt_config)
    return builder.build(output_dir)
