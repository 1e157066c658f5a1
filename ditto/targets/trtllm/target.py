"""The TensorRT-LLM target: packed tokens, paged KV cache, attention plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import asdict, evolve, frozen
from loguru import logger
from typing_extensions import override

from ditto.arguments import TensorTypeHint
from ditto.bindings import is_installed, load_plugins, plugins_version
from ditto.configs import Limits, TensorRTConfig, TrtllmConfig
from ditto.configs.build import BuildSettings, refuse_settings
from ditto.engine import Assembly, Phase, Profile
from ditto.engine.config import LlmConfig, VisionConfig
from ditto.engine.spec import EngineSpec
from ditto.errors import ConfigError, UnsupportedFeature
from ditto.lowering import Lowering, lower, table
from ditto.network.graph import Network
from ditto.network.quantized import has_quantized
from ditto.network.weight import TensorSource
from ditto.passes import SIMPLIFY
from ditto.passes.spec import specs_of
from ditto.program import Program
from ditto.targets.compile import compile_networks
from ditto.targets.part import LanguagePart, ModelPart, VisionPart
from ditto.targets.target import Target
from ditto.targets.trtllm import inferred
from ditto.targets.trtllm.config import llm_config
from ditto.targets.trtllm.contract import (
    LAST_TOKENS,
    OTHER_RUNNER_TYPES,
    PROMPT_ROWS,
    RUNNER_TYPES,
    TOKENS,
    adjusted,
    pool_ranges,
    ranges,
)
from ditto.targets.trtllm.lowering import PackedDecoder, vision_attention
from ditto.targets.trtllm.packing import drop_batch, pack_attention
from ditto.targets.trtllm.versions import Version, version
from ditto.targets.vision_config import vision_config


def check_machine(wanted: Version, capabilities: Sequence[str], installed: str | None, here: str) -> None:
    """Check that a machine can compile engines for the requested version and GPU.

    Args:
        wanted: requested TensorRT-LLM version of the engines.
        capabilities: requested compute capabilities, empty for the GPU that compiles.
        installed: TensorRT-LLM version on the machine, None if it is unknown.
        here: compute capability of the machine's GPU.
    Raises:
        ConfigError: the version or the GPU differs.
    """
    if installed is not None and version(installed) != wanted:
        raise ConfigError(
            f"engines are wanted for TensorRT-LLM {wanted.name}, {installed} is installed",
            remedy="install that version here; or build for the installed one, with --trtllm-version",
        )
    if any(capability != here for capability in capabilities):
        raise ConfigError(
            f"engines are wanted for compute capability {', '.join(capabilities)}, this GPU has {here}",
            remedy="compile on the GPU that will run them; engines of one kind of GPU do not run on another",
        )


# TensorRT-LLM's runtime runs one engine with one profile, which holds its weights.
_SUPPORTED = {
    "weights": ("embedded",),
    "engines": ("combined",),
    "profiles": ("dynamic",),
    "tuning": ("none", "auto"),
}


@frozen
class TrtllmTarget(Target):
    """Engines for TensorRT-LLM's runtime.

    Args:
        options: its version, and settings that do not follow from the model.
    """

    has_own_session: ClassVar[bool] = False
    packs_tokens: ClassVar[bool] = True

    options: TrtllmConfig

    @property
    def version(self) -> Version:
        """Properties of the TensorRT-LLM version.

        Raises:
            ConfigError: Ditto does not support this version.
        """
        return version(self.options.version)

    @override
    def check(self, settings: BuildSettings) -> None:
        _ = self.version
        refuse_settings(settings, self.name, _SUPPORTED)
        capabilities = settings.compute_capabilities
        if len(capabilities) > 1:
            raise ConfigError(
                f"an engine of TensorRT-LLM is for one kind of GPU, not {', '.join(capabilities)}",
                remedy="build a tree for each",
            )
        if self.cannot_compile is None:
            here = "{}.{}".format(*torch.cuda.get_device_capability())
            check_machine(self.version, capabilities, plugins_version(), here)

    @override
    def check_limits(self, limits: Limits, prompt_rows: int) -> None:
        """Check the size of the prompt table.

        The runtime divides it equally among requests (contract, LLM 2.4).
        """
        rows, batch = limits.max_prompt_embedding_table_size, limits.max_batch_size
        if rows and rows // batch < max(prompt_rows, 1):
            needed = f"an image needs {prompt_rows}" if prompt_rows else "that is none"
            raise ConfigError(
                f"a prompt table of {rows} rows gives each of {batch} requests {rows // batch}; {needed}",
                remedy=f"give at least {max(prompt_rows, 1) * batch}, or leave the table's size to Ditto",
            )

    @override
    def check_family(self, model_type: str, assembly: Assembly | None, inputs: Sequence[str]) -> None:
        if model_type in RUNNER_TYPES and len(inputs) > 1:
            raise ConfigError(
                f"TensorRT-LLM's multimodal runner gives the vision engine of {model_type!r} models pixels alone; this "
                f"one needs {', '.join(inputs)}",
                remedy="build for the target tensorrt-rtx or tensorrt",
            )
        if model_type in RUNNER_TYPES and RUNNER_TYPES[model_type] == assembly:
            if model_type in inferred.TRANSPOSED_TYPES:
                logger.warning(
                    "TensorRT-LLM's runner takes the height of an image for its width: answers about images that are "
                    "not square differ from Hugging Face's"
                )
            return
        if model_type in OTHER_RUNNER_TYPES:
            raise ConfigError(
                f"Ditto does not build {model_type!r} models for TensorRT-LLM's multimodal runner: "
                f"{OTHER_RUNNER_TYPES[model_type]}",
                remedy="build for the target tensorrt-rtx or tensorrt",
            )
        what = "that assemble their images as this one" if model_type in RUNNER_TYPES else "at all"
        raise ConfigError(
            f"TensorRT-LLM's multimodal runner does not know {model_type!r} models {what}",
            remedy="build for the target tensorrt-rtx or tensorrt",
        )

    @override
    def adjusted(self, limits: Limits, dtype: torch.dtype) -> Limits:
        name = str(dtype).removeprefix("torch.")
        return adjusted(limits, self.options, name in inferred.FUSED_CONTEXT_DTYPES)

    @override
    def settings(self) -> dict[str, Any]:
        return {"trtllm": asdict(self.options)}

    @override
    def explicit_dtype(self, config: TensorRTConfig) -> torch.dtype | None:
        """Dtype of fp16 or bf16 settings.

        Engines are strongly typed, so that inputs and outputs have the precision that config.json declares.
        """
        if config.network_creation_flags.strongly_typed:
            return None
        if config.builder_config.fp16:
            return torch.float16
        return torch.bfloat16 if config.builder_config.bf16 else None

    @override
    def llm_inputs(
        self, limits: Limits, hidden_size: int, dtype: torch.dtype, position_axes: int = 1, has_spans: bool = False
    ) -> dict[str, TensorTypeHint]:
        if has_spans:
            raise UnsupportedFeature(
                "tokens of an image attend to each other in both directions, which attention of TensorRT-LLM does not",
                remedy="build for the target tensorrt-rtx or tensorrt",
            )
        if position_axes > 1:
            raise UnsupportedFeature(
                "the model has multimodal rope, whose inputs Ditto does not give to TensorRT-LLM",
                remedy="build for the target tensorrt-rtx or tensorrt",
            )
        known = ranges(limits, self.options)
        inputs = {
            "input_ids": TensorTypeHint((known[TOKENS],), torch.int32),
            "position_ids": TensorTypeHint((known[TOKENS],), torch.int32),
            "last_token_ids": TensorTypeHint((known[LAST_TOKENS],), torch.int32),
        }
        if limits.max_prompt_embedding_table_size:
            inputs["prompt_embedding_table"] = TensorTypeHint((known[PROMPT_ROWS], hidden_size), dtype)
        return inputs

    @override
    def llm_sizes(self, limits: Limits) -> dict[str, int]:
        """Sizes for capture, where the packed tokens are one sequence of maximum length."""
        return {TOKENS: limits.max_seq_len, "sequence": limits.max_seq_len, LAST_TOKENS: 1, PROMPT_ROWS: 1}

    @override
    def specs(self, part: ModelPart, settings: BuildSettings) -> tuple[EngineSpec, ...]:
        if isinstance(part, LanguagePart):
            sizes = {**ranges(part.limits, self.options), **pool_ranges(part.decoder.num_hidden_layers, self.version)}
            profile = Profile(Phase.MIXED, sizes)
        else:
            assert isinstance(part, VisionPart)
            profile = Profile(Phase.ENCODE, {dimension.name: dimension for dimension in part.dimensions})
        spec = EngineSpec(
            name=part.name,
            part=part.name,
            dtype=part.dtype_name,
            profiles=(profile,),
            weights=settings.weights,
            passes=specs_of(SIMPLIFY),
            tensorrt=settings.tensorrt,
            compute_capabilities=settings.compute_capabilities,
        )
        return (spec,)

    @override
    def lower(self, part: ModelPart, program: Program, spec: EngineSpec) -> Network:
        if isinstance(part, LanguagePart):
            return self._lower_decoder(part, program, spec)
        lowerings = {**table(), torch.ops.ditto.attention.default: vision_attention}
        network = lower(program, lowerings, part.weight_of, spec.name)
        _refuse_quantized(network)
        (output,) = network.outputs.items()
        if output[0] != self.version.vision_output:
            network.outputs = {self.version.vision_output: output[1]}
        return network

    def _lower_decoder(self, part: LanguagePart, program: Program, spec: EngineSpec) -> Network:
        pack_attention(program, "position_ids")
        drop_batch(program)
        net = Lowering(Network(spec.name), program, part.weight_of)
        decoder = PackedDecoder(net, part.decoder, part.limits, self.options)
        network = lower(program, decoder.table(), part.weight_of, spec.name, net)
        decoder.check_layers()
        _refuse_quantized(network)
        return network

    @override
    def config(self, part: ModelPart, network: Network) -> LlmConfig | VisionConfig:
        if isinstance(part, LanguagePart):
            return llm_config(network, part.decoder, part.limits, self.options, self.version, part.dtype_name)
        assert isinstance(part, VisionPart)
        (output,) = network.outputs.values()
        return vision_config(part.model_type, part.max_images, network.value(output).spec)

    @property
    @override
    def cannot_compile(self) -> str | None:
        if not is_installed("tensorrt_llm") or not is_installed("tensorrt"):
            return "TensorRT-LLM is not installed here"
        return None if torch.cuda.is_available() else "TensorRT builds on a machine with a GPU only, and here is none"

    @override
    def compile(self, parts: Sequence[Network], spec: EngineSpec, source: TensorSource, paths: Sequence[Path]) -> str:
        trt = load_plugins()
        strongly = TensorRTConfig(builder_config=evolve(spec.tensorrt.builder_config, fp16=False, bf16=False))
        # TensorRT builds for the GPU that is present; `check` has compared it.
        compile_networks(parts, spec.profiles, source, trt, strongly, (), paths)
        return f"tensorrt {trt.version}, tensorrt_llm {plugins_version()}"


def _refuse_quantized(network: Network) -> None:
    """Refuse quantised weights.

    Raises:
        UnsupportedFeature: the network has some.
    """
    found = sum(has_quantized(constant.weight) for constant in network.constants())
    if found:
        raise UnsupportedFeature(
            f"the {network.name} network has {found} quantised weights, for which engines of TensorRT-LLM need plugins "
            "that are not supported",
            remedy="build for a target without plugins (tensorrt-rtx, tensorrt), or from a float checkpoint",
        )
