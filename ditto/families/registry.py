"""Registry of families by Hugging Face's `model_type`: Ditto's own, and those of other packages."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.errors import ConfigError
from ditto.families.reasons import REASONS

if TYPE_CHECKING:  # each family is imported when it is needed
    from ditto.builders import LlmBuilder
    from ditto.families.multimodal import MultimodalModel

GROUP = "ditto.families"
"""Entry point group of families of other packages; the name of an entry point is the `model_type`."""

_OWN = {
    "aria": "padded:AriaModel",
    "aya_vision": "aya_vision:AyaVisionModel",
    "blip-2": "blip_2:Blip2Model",
    "cohere2_vision": "aya_vision:Cohere2VisionModel",
    "cohere_compass": "qwen3_vl:CohereCompassModel",
    "cosmos3_edge": "cosmos3_edge:Cosmos3EdgeModel",
    "deepseek_ocr2": "deepseek_ocr2:DeepseekOcr2Model",
    "deepseek_vl": "deepseek_vl:DeepseekVlModel",
    "deepseek_vl_hybrid": "deepseek_vl:DeepseekVlHybridModel",
    "exaone4_5": "qwen2_vl:Exaone45Model",
    "fast_vlm": "fast_vlm:FastVlmModel",
    "gemma3": "gemma3:Gemma3Model",
    "gemma4": "gemma4:Gemma4Model",
    "gemma4_unified": "gemma4:Gemma4UnifiedModel",
    "glm46v": "glm4v:Glm46vModel",
    "glm4v": "glm4v:Glm4vModel",
    "glm4v_moe": "glm4v:Glm4vMoeModel",
    "glm_ocr": "glm4v:GlmOcrModel",
    "glmga": "glm4v:GlmgaModel",
    "got_ocr2": "got_ocr2:GotOcr2Model",
    "hunyuan_vl": "hunyuan_vl:HunYuanVlModel",
    "hyperclovax_vision_v2": "qwen2_vl:HyperClovaXVisionModel",
    "granite4_vision": "granite4_vision:Granite4VisionModel",
    "granite_docling": "granite_docling:GraniteDoclingModel",
    "idefics2": "padded:Idefics2Model",
    "idefics3": "idefics3:Idefics3Model",
    "instructblip": "blip_2:InstructBlipModel",
    "internvl": "internvl:InternVlModel",
    "janus": "janus:JanusModel",
    "kimi_k25": "kimi_k25:KimiK25Model",
    "lfm2_vl": "lfm2_vl:Lfm2VlModel",
    "lfm3_vl": "lfm3_vl:Lfm3VlModel",
    "lighton_ocr": "mistral3:LightOnOcrModel",
    "llava": "llava:LlavaModel",
    "llava_next": "llava_next:LlavaNextModel",
    "llava_next_video": "llava_next:LlavaNextVideoModel",
    "llava_onevision": "llava_onevision:LlavaOnevisionModel",
    "minicpm_ocr": "minicpm_v:MiniCpmOcrModel",
    "minicpmv4_6": "minicpm_v:MiniCpmV46Model",
    "minicpmv4_7": "minicpm_v:MiniCpmV47Model",
    "mistral3": "mistral3:Mistral3Model",
    "muse_glimmer": "muse_glimmer:MuseGlimmerModel",
    "paddleocr_vl": "paddleocr_vl:PaddleOcrVlModel",
    "paligemma": "paligemma:PaliGemmaModel",
    "perception_lm": "perception_lm:PerceptionLmModel",
    "pp_chart2table": "got_ocr2:Chart2TableModel",
    "qianfan_ocr": "internvl:QianfanOcrModel",
    "qwen2_5_omni_thinker": "qwen2_vl:Qwen25OmniModel",
    "qwen2_5_vl": "qwen2_vl:Qwen25VlModel",
    "qwen2_vl": "qwen2_vl:Qwen2VlModel",
    "qwen3_5": "qwen3_vl:Qwen35Model",
    "qwen3_5_moe": "qwen3_vl:Qwen35MoeModel",
    "qwen3_vl": "qwen3_vl:Qwen3VlModel",
    "qwen3_vl_moe": "qwen3_vl:Qwen3VlMoeModel",
    "smolvlm": "idefics3:SmolVlmModel",
    "video_llama_3": "video_llama_3:VideoLlama3Model",
    "video_llava": "video_llava:VideoLlavaModel",
    "vipllava": "vipllava:VipLlavaModel",
}


@cache
def find_family(model_type: str) -> type[MultimodalModel] | None:
    """The family of a model type; None if there is none.

    Raises:
        ConfigError: another package registers it, and it cannot be imported.
    """
    if model_type in _OWN:
        module, _, name = _OWN[model_type].partition(":")
        return getattr(import_module(f"ditto.families.{module}"), name)
    entry = _others().get(model_type)
    if entry is None:
        return None
    try:
        return entry.load()
    except Exception as error:
        raise ConfigError(
            f"the family {model_type!r} of {entry.value!r} cannot be imported: {error}",
            remedy="mend or uninstall the package that registers it",
        ) from error


def supported_types() -> list[str]:
    """Model types that have a family."""
    return sorted({*_OWN, *_others()})


def family_of(
    model: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> MultimodalModel | LlmBuilder:
    """Settings for a vision-language or text model in a directory or on the hub.

    Raises:
        CheckpointError: the model does not exist.
        ConfigError: it belongs to no supported family and is not a causal language model.
    """
    from ditto.builders import LlmBuilder, Pretrained
    from ditto.builders.classes import is_text_model
    from ditto.checkpoint.formats import raw_config

    source = Pretrained(str(model), "AutoModelForCausalLM", revision, trust_remote_code)
    stated = str(raw_config(source.text_directory).get("model_type"))
    # Before the configuration is read, which may have another form than those of supported models.
    if stated in REASONS and stated not in _others() and not trust_remote_code:
        raise _unsupported(stated, f": {REASONS[stated]}", model)
    config = source.config
    family = find_family(config.model_type)
    if family is not None:
        return family.from_pretrained(str(model), revision=revision)
    if not is_text_model(config) and not (trust_remote_code and "AutoModelForCausalLM" in _code_of(config)):
        raise _unsupported(config.model_type, _reason(config), model)
    return LlmBuilder.from_pretrained(str(model), revision=revision, trust_remote_code=trust_remote_code)


def _unsupported(model_type: str, reason: str, model: str | Path) -> ConfigError:
    return ConfigError(
        f"model type {model_type!r} is not supported{reason}",
        where=str(model),
        remedy=f"supported: {', '.join(supported_types())}, and text-only causal language models",
    )


@cache
def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _reason(config: Any) -> str:
    from ditto.builders.classes import has_other_inputs

    if config.model_type in REASONS:
        return f": {REASONS[config.model_type]}"
    if getattr(config, "is_encoder_decoder", False):
        return ": it is an encoder-decoder"
    return ": it is not a model of text alone" if has_other_inputs(config) else ""


def _code_of(config: Any) -> dict[str, Any]:
    return getattr(config, "auto_map", None) or {}
