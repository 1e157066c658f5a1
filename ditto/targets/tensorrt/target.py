"""Plugin-free target: native attention, KV cache and rotary layers of TensorRT or TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve, frozen
from typing_extensions import override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.bindings import Library, load_native
from ditto.configs import Limits, TensorRTConfig
from ditto.configs.build import BuildSettings, refuse_settings
from ditto.engine import Phase
from ditto.engine.config import BuildConfig, LlmConfig, PluginConfig, PretrainedConfig, VisionConfig
from ditto.engine.spec import EngineSpec
from ditto.errors import UnsupportedFeature
from ditto.lowering import Lowering, Operand, lower, table
from ditto.lowering.experts import experts_of_few
from ditto.network.graph import Network
from ditto.network.layers import Dequantize
from ditto.network.weight import TensorSource
from ditto.ops.spans import SPAN_IDS
from ditto.passes import SIMPLIFY
from ditto.passes.spec import specs_of
from ditto.program import Program
from ditto.targets.compile import check_settings, compile_networks
from ditto.targets.part import LanguagePart, ModelPart, VisionPart
from ditto.targets.target import Target
from ditto.targets.tensorrt.lowering import Decoder, attention
from ditto.targets.tensorrt.profiles import (
    combined_decode_profiles,
    decode_profiles,
    prefill_profiles,
    vision_profiles,
)
from ditto.targets.tensorrt.separate import Decode, Prefill
from ditto.targets.tensorrt.tuning import TUNINGS, Tuning
from ditto.targets.vision_config import vision_config

# TensorRT-LLM version of the config file format.
_CONFIG_FORM = "0.19.0"


# Decoders by the phases of their engine.
_DECODERS: Mapping[frozenset[Phase], type[Decoder]] = {
    frozenset({Phase.PREFILL, Phase.DECODE}): Decoder,
    frozenset({Phase.PREFILL}): Prefill,
    frozenset({Phase.DECODE}): Decode,
}


@frozen
class NativeTarget(Target):
    """Plugin-free target with padded rows [batch, sequence].

    Prefill and decode are profiles of one engine, or separate engines over one KV cache.

    Args:
        library: the TensorRT library that compiles.
    """

    library: Library

    @override
    def check(self, settings: BuildSettings) -> None:
        if settings.tuning not in ("auto", "none"):
            measured = tuple(TUNINGS) if self.library == "tensorrt_rtx" else ()
            refuse_settings(settings, self.name, {"tuning": ("none", "auto", *measured)})
        check_settings(load_native(self.library), settings.tensorrt, settings.compute_capabilities)

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
    def llm_inputs(
        self, limits: Limits, hidden_size: int, dtype: torch.dtype, position_axes: int = 1, has_spans: bool = False
    ) -> dict[str, TensorTypeHint]:
        batch = DynamicDimension.up_to("batch", limits.max_batch_size)
        sequence = DynamicDimension.up_to("sequence", limits.max_input_len)
        axes = (position_axes,) if position_axes > 1 else ()
        inputs = {
            "input_ids": TensorTypeHint((batch, sequence), torch.int32),
            "position_ids": TensorTypeHint((*axes, batch, sequence), torch.int32),
            "last_token_ids": TensorTypeHint((batch,), torch.int32),
        }
        if limits.max_prompt_embedding_table_size:
            rows = DynamicDimension.up_to("prompt_rows", limits.max_prompt_embedding_table_size)
            inputs["prompt_embedding_table"] = TensorTypeHint((rows, hidden_size), dtype)
        if has_spans:
            inputs[SPAN_IDS] = TensorTypeHint((batch, sequence), torch.int32)
        return inputs

    def tuned_for(self, settings: BuildSettings) -> str:
        """The compute capability whose tuning engines get, or `none`.

        TensorRT times its kernels during the build, so only TensorRT-RTX is tuned.
        """
        if settings.tuning != "auto":
            return settings.tuning
        if self.library != "tensorrt_rtx":
            return "none"
        capabilities = settings.compute_capabilities or _present_gpu()
        return capabilities[0] if len(capabilities) == 1 and capabilities[0] in TUNINGS else "none"

    @override
    def specs(self, part: ModelPart, settings: BuildSettings) -> tuple[EngineSpec, ...]:
        is_specialized = settings.profiles == "specialized"
        capability = self.tuned_for(settings)
        tuning = TUNINGS.get(capability, Tuning.none())
        spec = EngineSpec(
            name=part.name,
            part=part.name,
            dtype=part.dtype_name,
            profiles=(),
            weights=settings.weights,
            tuning=capability,
            passes=specs_of(SIMPLIFY),
            tensorrt=settings.tensorrt,
            compute_capabilities=settings.compute_capabilities,
        )
        if isinstance(part, VisionPart):
            profiles = vision_profiles(part.dimensions, is_specialized)
            return (evolve(spec, profiles=profiles, passes=specs_of(tuning.vision_passes())),)
        assert isinstance(part, LanguagePart)
        prompts = prefill_profiles(part.limits, is_specialized)
        if settings.engines == "combined":  # no form has been measured that is fast for prefill and decode
            steps = combined_decode_profiles(part.limits, is_specialized)
            return (evolve(spec, profiles=(*prompts, *steps), tuning="none"),)
        step = tuning.kv_length_step
        group = part.decoder.num_attention_heads // part.decoder.num_key_value_heads
        spec = evolve(spec, decode_attention=tuning.decode_attention(part.limits.max_batch_size, group))
        return (
            evolve(spec, profiles=prompts, passes=specs_of(tuning.prefill_passes())),
            evolve(
                spec,
                name=f"{part.name}-decode",
                profiles=decode_profiles(part.limits, step, is_specialized),
                passes=specs_of(tuning.decode_passes()),
                kv_length_step=step,
            ),
        )

    @override
    def joins_projections(self, part: ModelPart, settings: BuildSettings) -> bool:
        # On dynamic profiles TensorRT-RTX runs separate layers of a vision tower as fast and compiles them sooner, see
        # "On an H200" in benchmarks/NOTES.md.
        is_dynamic = isinstance(part, VisionPart) and settings.profiles == "dynamic"
        return not (is_dynamic and self.library == "tensorrt_rtx")

    @override
    def lower(self, part: ModelPart, program: Program, spec: EngineSpec) -> Network:
        network = self._lowered(part, program, spec)
        layers = sum(isinstance(node.layer, Dequantize) for node in network.nodes)
        if spec.weights == "external" and layers:
            raise UnsupportedFeature(
                f"the {spec.name} network has {layers} quantised linear layers, whose weights are embedded in engines",
                remedy="build with --weights embedded: as engine inputs, quantised weights are slower than float ones",
            )
        return network

    def _lowered(self, part: ModelPart, program: Program, spec: EngineSpec) -> Network:
        if isinstance(part, VisionPart):
            lowerings = {**table(), torch.ops.ditto.attention.default: attention}
            return lower(program, lowerings, part.weight_of, spec.name)
        assert isinstance(part, LanguagePart)
        known: dict[str, Operand] = {}
        if spec.phases == {Phase.DECODE}:
            # Each row has one token, which is text.
            program, known = program.at_size("sequence", 1), {"last_token_ids": 0, SPAN_IDS: 0}
        net = Lowering(Network(spec.name), program, part.weight_of, known)
        form: dict[str, Any] = {} if spec.decode_attention is None else {"decode_attention": spec.decode_attention}
        lowerings = _DECODERS[spec.phases](net, part.limits.max_seq_len, **form).table()
        if spec.phases == {Phase.DECODE}:
            lowerings = {**lowerings, **experts_of_few(part.limits.max_batch_size)}
        return lower(program, lowerings, part.weight_of, spec.name, net)

    @override
    def config(self, part: ModelPart, network: Network) -> LlmConfig | VisionConfig:
        if isinstance(part, VisionPart):
            (output,) = network.outputs.values()
            return vision_config(part.model_type, part.max_images, network.value(output).spec)
        assert isinstance(part, LanguagePart)
        limits = part.limits
        return LlmConfig(
            version=_CONFIG_FORM,
            pretrained_config=PretrainedConfig(**asdict(part.decoder), dtype=part.dtype_name),
            build_config=BuildConfig(
                max_input_len=limits.max_input_len,
                max_seq_len=limits.max_seq_len,
                opt_batch_size=(limits.max_batch_size + 1) // 2,
                max_batch_size=limits.max_batch_size,
                max_num_tokens=limits.max_num_tokens,
                opt_num_tokens=min(limits.max_batch_size, limits.max_num_tokens),
                max_prompt_embedding_table_size=limits.max_prompt_embedding_table_size,
                kv_cache_type="CONTINUOUS",
                plugin_config=PluginConfig(dtype=part.dtype_name),
            ),
        )

    @property
    @override
    def cannot_compile(self) -> None:
        """Always None: `check` rejects machines that cannot compile."""

    @override
    def compile(self, parts: Sequence[Network], spec: EngineSpec, source: TensorSource, paths: Sequence[Path]) -> str:
        trt = load_native(self.library)
        compile_networks(parts, spec.profiles, source, trt, spec.tensorrt, spec.compute_capabilities, paths)
        return f"{self.library} {trt.version}"


def _present_gpu() -> tuple[str, ...]:
    """Compute capability of the GPU of this machine; empty without one."""
    return ("{}.{}".format(*torch.cuda.get_device_capability()),) if torch.cuda.is_available() else ()
