"""Plugin-free target: native attention, KV cache and rotary layers of TensorRT or TensorRT-RTX."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from attrs import asdict, frozen
from typing_extensions import override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.bindings import Library, load_native
from ditto.configs import Limits, TensorRTConfig
from ditto.engine import Phase, Profile
from ditto.engine.config import BuildConfig, LlmConfig, PluginConfig, PretrainedConfig, VisionConfig
from ditto.lowering import Lowering, lower, table
from ditto.network.graph import Network
from ditto.network.weight import TensorSource
from ditto.passes import NetworkPass
from ditto.program import Program
from ditto.targets.compile import check_settings, compile_networks
from ditto.targets.target import DecoderConfig, LlmEngine, Target, WeightOf
from ditto.targets.tensorrt.apart import KV_LENGTH, Decode, Prefill
from ditto.targets.tensorrt.lowering import Decoder, attention
from ditto.targets.tensorrt.tuning import TUNINGS, Tuning


def buckets(maximum: int) -> tuple[int, ...]:
    """Batch sizes with their own static-shape profile: powers of two, and the maximum.

    Kernels for static shapes are faster; other batch sizes use the next larger profile.
    """
    powers = itertools.takewhile(lambda size: size < maximum, (1 << power for power in itertools.count()))
    return (*powers, maximum)


def _common(limits: Limits) -> dict[str, DynamicDimension]:
    common = {"batch": DynamicDimension.up_to("batch", limits.max_batch_size)}
    if limits.max_prompt_embedding_table_size:
        common["prompt_rows"] = DynamicDimension.up_to("prompt_rows", limits.max_prompt_embedding_table_size)
    return common


def _any_prompts(limits: Limits) -> Profile:
    """Profile for prompts of any length."""
    return Profile(
        Phase.PREFILL, {**_common(limits), "sequence": DynamicDimension.up_to("sequence", limits.max_input_len)}
    )


def _typical_prompts(limits: Limits) -> Iterator[Profile]:
    """Static-shape profiles for prompts of the typical length.

    TensorRT-RTX has faster matrix multiplications for them, see "On an H200" in benchmarks/NOTES.md.
    """
    length = limits.opt_input_len
    for rows in buckets(limits.max_batch_size) if length else ():
        fixed = {name: _fixed(name, size) for name, size in (("batch", rows), ("sequence", length))}
        yield Profile(Phase.PREFILL, {**_common(limits), **fixed})


def _kv_lengths(limits: Limits, step: int) -> Iterator[DynamicDimension]:
    """Ranges of KV lengths for decode: any length, and static ones after a typical prompt.

    Static lengths are 2 to 4 % faster on H200, see "A block at a time, on an H200" in benchmarks/NOTES.md.
    """
    yield DynamicDimension.up_to(KV_LENGTH, limits.max_seq_len)
    if limits.opt_input_len:
        first = limits.opt_input_len // step + 1
        for slots in dict.fromkeys(min(step * steps, limits.max_seq_len) for steps in (first, first + 1)):
            yield _fixed(KV_LENGTH, slots)


def _fixed(name: str, size: int) -> DynamicDimension:
    return DynamicDimension(name, size, size, size)


# TensorRT-LLM version of the config file format.
_CONFIG_FORM = "0.19.0"


@frozen
class NativeTarget(Target):
    """Plugin-free target with padded rows [batch, sequence].

    Prefill and decode are profiles of one engine or, with external weights, separate engines, with profiles for batch
    sizes and typical prompts.

    Args:
        library: the TensorRT library that compiles.
    """

    library: Library

    @override
    def check(self, config: TensorRTConfig, capabilities: Sequence[str]) -> None:
        check_settings(load_native(self.library), config, capabilities)

    @override
    def explicit_dtype(self, config: TensorRTConfig) -> torch.dtype | None:
        if config.network_creation_flags.strongly_typed or load_native(self.library).is_weakly_typed:
            return None
        if config.builder_config.fp16:
            return torch.float16
        return torch.bfloat16 if config.builder_config.bf16 else None

    @override
    def llm_sizes(self, limits: Limits) -> dict[str, int]:
        return {"batch": 2, "sequence": limits.max_seq_len, "prompt_rows": 2}

    @override
    def llm_inputs(self, limits: Limits, hidden_size: int, dtype: torch.dtype) -> dict[str, TensorTypeHint]:
        batch = DynamicDimension.up_to("batch", limits.max_batch_size)
        sequence = DynamicDimension.up_to("sequence", limits.max_input_len)
        inputs = {
            "input_ids": TensorTypeHint((batch, sequence), torch.int32),
            "position_ids": TensorTypeHint((batch, sequence), torch.int32),
            "last_token_ids": TensorTypeHint((batch,), torch.int32),
        }
        if limits.max_prompt_embedding_table_size:
            rows = DynamicDimension.up_to("prompt_rows", limits.max_prompt_embedding_table_size)
            inputs["prompt_embedding_table"] = TensorTypeHint((rows, hidden_size), dtype)
        return inputs

    @override
    def lower_llm(
        self, program: Program, weight_of: WeightOf, decoder_config: DecoderConfig, limits: Limits
    ) -> Network:
        del decoder_config
        net = Lowering(Network("llm"), program, weight_of)
        decoder = Decoder(net, limits.max_seq_len)
        return lower(program, decoder.table(), weight_of, "llm", net)

    @override
    def lower_vision(self, program: Program, weight_of: WeightOf) -> Network:
        return lower(program, {**table(), torch.ops.ditto.attention.default: attention}, weight_of, "vision")

    @property
    def tuning(self) -> Tuning:
        """Tuning of engines with static-shape profiles.

        For TensorRT-RTX only, as TensorRT times its kernels during the build. Only one GPU has been measured, so its
        values apply to every GPU.
        """
        return TUNINGS["9.0"] if self.library == "tensorrt_rtx" else Tuning.none()

    @override
    def vision_passes(self, outside: bool) -> tuple[NetworkPass, ...]:
        return (self.tuning if outside else Tuning.none()).vision_passes()

    @override
    def joins_vision(self, outside: bool) -> bool:
        # On dynamic profiles TensorRT-RTX runs separate layers as fast and compiles them sooner, see "On an H200" in
        # benchmarks/NOTES.md.
        return outside or self.library != "tensorrt_rtx"

    @override
    def llm_profiles(self, limits: Limits, layers: int) -> tuple[Profile, ...]:
        del layers
        return _any_prompts(limits), Profile(Phase.DECODE, {**_common(limits), "sequence": _fixed("sequence", 1)})

    @override
    def apart(self, limits: Limits) -> tuple[LlmEngine, LlmEngine]:
        def prefill(program: Program, weight_of: WeightOf) -> Network:
            net = Lowering(Network("llm"), program, weight_of)
            prompts = Prefill(net, limits.max_seq_len)
            return lower(program, prompts.table(), weight_of, "llm", net)

        def decode(program: Program, weight_of: WeightOf) -> Network:
            step = program.at_size("sequence", 1)
            net = Lowering(Network("decode"), step, weight_of)
            network = lower(step, Decode(net, limits.max_seq_len).table(), weight_of, "decode", net)
            del network.inputs["last_token_ids"]  # each row has one token
            return network

        common = _common(limits)
        steps = (
            Profile(Phase.DECODE, {**common, KV_LENGTH: kv_length, "batch": _fixed("batch", rows)})
            for rows in buckets(limits.max_batch_size)
            for kv_length in _kv_lengths(limits, self.tuning.kv_length_step)
        )
        prompts = (_any_prompts(limits), *_typical_prompts(limits))
        return (
            LlmEngine(prefill, self.tuning.prefill_passes(), prompts),
            LlmEngine(decode, self.tuning.decode_passes(), tuple(steps), self.tuning.kv_length_step),
        )

    @override
    def vision_profiles(self, dimensions: Sequence[DynamicDimension], outside: bool) -> tuple[Profile, ...]:
        if not outside or len(dimensions) != 1:
            return super().vision_profiles(dimensions, outside)
        (batch,) = dimensions
        return tuple(Profile(Phase.ENCODE, {batch.name: _fixed(batch.name, count)}) for count in buckets(batch.max))

    @override
    def llm_config(self, network: Network, decoder_config: DecoderConfig, limits: Limits, dtype: str) -> LlmConfig:
        del network
        opt_batch = (limits.max_batch_size + 1) // 2
        return LlmConfig(
            version=_CONFIG_FORM,
            pretrained_config=PretrainedConfig(**asdict(decoder_config), dtype=dtype),
            build_config=BuildConfig(
                max_input_len=limits.max_input_len,
                max_seq_len=limits.max_seq_len,
                opt_batch_size=opt_batch,
                max_batch_size=limits.max_batch_size,
                max_num_tokens=limits.max_num_tokens,
                opt_num_tokens=min(limits.max_batch_size, limits.max_num_tokens),
                max_prompt_embedding_table_size=limits.max_prompt_embedding_table_size,
                kv_cache_type="CONTINUOUS",
                plugin_config=PluginConfig(dtype=dtype),
            ),
        )

    @override
    def vision_config(self, model_type: str, max_batch_size: int, output_shape: list[int], dtype: str) -> VisionConfig:
        return VisionConfig(
            precision=dtype, model_type=model_type, max_batch_size=max_batch_size, output_shape=output_shape
        )

    @property
    @override
    def cannot_compile(self) -> None:
        """Always None: `check` rejects machines that cannot compile."""

    @override
    def compile(
        self,
        parts: Sequence[Network],
        profiles: Sequence[Profile],
        source: TensorSource,
        config: TensorRTConfig,
        capabilities: Sequence[str],
        paths: Sequence[Path],
    ) -> str:
        trt = load_native(self.library)
        compile_networks(parts, profiles, source, trt, config, capabilities, paths)
        return f"{self.library} {trt.version}"
