"""Tiny random vision-language models with processors of the real classes, for transformers 5."""

from __future__ import annotations

import inspect
import json
import string
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from attrs import frozen
from PIL import Image

from ditto.text.loading import NoVideos, without_videos
from tests.support.models import made, rope

VOCABULARY = 192
TEXT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
# Height and width of images: landscape, portrait, square, tiny, low, and a strip.
SIZES = {
    "landscape": (60, 100),
    "portrait": (90, 56),
    "square": (64, 64),
    "tiny": (5, 3),
    "low": (9, 30),
    "strip": (24, 150),
}


def tokenizer(*special: str, **named: str) -> Any:
    """A tokenizer of single characters and some special tokens.

    Args:
        named: special tokens that it also has as attributes.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [
        "<unk>",
        "<s>",
        "</s>",
        "<pad>",
        *special,
        *named.values(),
        *string.ascii_letters,
        *string.digits,
        *" .,:?\n",
    ]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=[*special, *named.values()],
        **({"extra_special_tokens": named} if named else {}),
    )


@frozen
class Family:
    """A tiny model of a family.

    Args:
        processor: makes its processor.
        model: makes the model, for the id of the image token.
        tiled: whether larger images become several tiles.
        placeholder: text of an image in a prompt.
        image_token: text of an image token; None for that of an image.
        nests_images: whether its processor takes a list of images for each prompt.
        images: numbers of images of the prompts of a batch.
        before_prompt: whether the processor itself puts the image before the prompt.
        asks_kinds: whether its processor has to be asked for the kinds of tokens, which the model needs.
        takes_tiny: whether Hugging Face's own model takes an image of a single token.
        written: image tokens of an image that Hugging Face's users write into a prompt.
    """

    processor: Callable[[], Any]
    model: Callable[[int], Any]
    tiled: bool = False
    placeholder: str = "<image>"
    image_token: str | None = None
    nests_images: bool = False
    images: tuple[int, ...] = (1, 2, 0)
    before_prompt: bool = False
    asks_kinds: bool = False
    takes_tiny: bool = True
    written: int = 1

    def save(self, directory: Path) -> Any:
        """Write a checkpoint; returns the model."""
        with without_videos():
            processor = self.processor()
            save_processor(processor, directory)
        model = self.model(processor.tokenizer.convert_tokens_to_ids(self.image_token or self.placeholder))
        model.generation_config.eos_token_id = None
        model.save_pretrained(directory)
        return model

    def load_processor(self, directory: Path) -> Any:
        """The processor of a checkpoint, by transformers."""
        with without_videos():
            return hf.AutoProcessor.from_pretrained(directory)


def save_processor(processor: Any, directory: Path) -> None:
    """Write a processor's files; transformers itself writes none of a processor without its video part."""
    if not hasattr(processor, "video_processor"):
        processor.save_pretrained(directory)
        return
    for part in (processor.tokenizer, processor.image_processor):
        part.save_pretrained(directory)
    if hasattr(processor, "feature_extractor"):  # in the file of the image processor, as in checkpoints
        file = directory / "preprocessor_config.json"
        pixels = json.loads(file.read_text())
        file.write_text(json.dumps({**json.loads(processor.feature_extractor.to_json_string()), **pixels}))
    stated = {name: getattr(processor, name, None) for name in inspect.signature(type(processor)).parameters}
    settings = {name: value for name, value in stated.items() if isinstance(value, (int, str))}
    settings["processor_class"] = type(processor).__name__
    (directory / "processor_config.json").write_text(json.dumps(settings))


def images(*names: str) -> list[Image.Image]:
    """Noisy images of named sizes."""
    generator = torch.Generator().manual_seed(7)
    pixels = [torch.randint(256, (*SIZES[name], 3), generator=generator) for name in names]
    return [Image.fromarray(each.byte().numpy()) for each in pixels]


def llama(**settings: Any) -> Any:
    return hf.LlamaConfig(**{**TEXT, **rope(), **settings})


def qwen2(**settings: Any) -> Any:
    return hf.Qwen2Config(**{**TEXT, **rope(), **settings})


def qwen3(**settings: Any) -> Any:
    return hf.Qwen3Config(**{**TEXT, **rope(), "head_dim": 12, **settings})


def _internvl(image: int) -> Any:
    vision = hf.InternVLVisionConfig(**{**VISION, "layer_scale_init_value": 0.5})
    config = hf.InternVLConfig(
        vision_config=vision, text_config=qwen2(), image_token_id=image, image_seq_length=4, tie_word_embeddings=False
    )
    return made(hf.InternVLForConditionalGeneration, config)


def _internvl_processor() -> Any:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tiles = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, max_patches=4)
    return hf.InternVLProcessor(tiles, tokenizer(**names), None, image_seq_length=4)


def _qianfan_ocr(image: int) -> Any:
    vision = hf.QianfanOCRVisionConfig(**{**VISION, "layer_scale_init_value": 0.5})
    config = hf.QianfanOCRConfig(vision_config=vision, text_config=qwen3(), image_token_id=image, image_seq_length=4)
    return made(hf.QianfanOCRForConditionalGeneration, config)


def _qianfan_ocr_processor() -> Any:
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tiles = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, max_patches=4)
    return hf.QianfanOCRProcessor(tiles, tokenizer("<image>", **names), image_seq_length=4)


def _vipllava(image: int) -> Any:
    vision = hf.CLIPVisionConfig(**VISION, projection_dim=32)
    config = hf.VipLlavaConfig(
        vision_config=vision, text_config=llama(), image_token_id=image, vision_feature_layer=[-1, -2]
    )
    return made(hf.VipLlavaForConditionalGeneration, config)


def _llava(image: int) -> Any:
    vision = hf.CLIPVisionConfig(**VISION, projection_dim=32)
    config = hf.LlavaConfig(vision_config=vision, text_config=llama(), image_token_index=image)
    return made(hf.LlavaForConditionalGeneration, config)


MANY_PINPOINTS = [[28 * rows, 28 * columns] for rows in range(1, 5) for columns in range(1, 5)]
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def llava_next(image: int, vision: Any, text: Any, **settings: Any) -> Any:
    settings = {"image_token_index": image, "image_grid_pinpoints": PINPOINTS, **settings}
    config = hf.LlavaNextConfig(vision_config=vision, text_config=text, **settings)
    return made(hf.LlavaNextForConditionalGeneration, config)


def clip(**settings: Any) -> Any:
    return hf.CLIPVisionConfig(**{**VISION, "projection_dim": 32, **settings})


def _granite_vision(image: int) -> Any:
    text = hf.GraniteConfig(**{**TEXT, **rope()}, embedding_multiplier=3.0, logits_scaling=2.0)
    return llava_next(image, siglip(), text, vision_feature_layer=[-2, -1], vision_feature_select_strategy="full")


def granite4_vision(image: int, vision: Any = None, **settings: Any) -> Any:
    text = {**TEXT, **rope(), "num_hidden_layers": 4, "embedding_multiplier": 3.0, "logits_scaling": 2.0}
    config = hf.Granite4VisionConfig(
        vision_config=vision or siglip(hidden_size=64),
        text_config={**text, "residual_multiplier": 0.7, "attention_multiplier": 0.4},
        qformer_config={"intermediate_size": 48, "use_qformer_text_input": False},
        image_token_index=image,
        image_grid_pinpoints=PINPOINTS,
        downsample_rate="1/2",
        deepstack_layer_map=[[0, 2], [-1, 0]],
        spatial_target_layers=[3, 1],
        **{"vision_feature_select_strategy": "full", **settings},
    )
    return made(hf.Granite4VisionForConditionalGeneration, config)


def _granite4_vision_processor() -> Any:
    given = llava_next_processor(tokens_before=0)
    return hf.Granite4VisionProcessor(
        given.image_processor,
        given.tokenizer,
        patch_size=7,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
    )


def llava_next_processor(side: int = 28, patch: int = 7, tokens_before: int = 1, **settings: Any) -> Any:
    size = {"height": side, "width": side}
    pixels = hf.LlavaNextImageProcessor(
        **{"size": size, "crop_size": size, "image_grid_pinpoints": PINPOINTS, **settings}
    )
    return hf.LlavaNextProcessor(
        pixels,
        tokenizer("<image>"),
        patch_size=patch,
        vision_feature_select_strategy="default" if tokens_before else "full",
        num_additional_image_tokens=tokens_before,
    )


def _llava_next_video(image: int) -> Any:
    config = hf.LlavaNextVideoConfig(
        vision_config=clip(), text_config=llama(), image_token_index=image, image_grid_pinpoints=PINPOINTS
    )
    return made(hf.LlavaNextVideoForConditionalGeneration, config)


def _llava_next_video_processor() -> Any:
    image = llava_next_processor()
    with without_videos():
        return hf.LlavaNextVideoProcessor(
            image_processor=image.image_processor,
            tokenizer=tokenizer("<image>", "<video>"),
            patch_size=7,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )


def llava_onevision(image: int, vision: Any, **settings: Any) -> Any:
    settings = {"image_token_index": image, "video_token_index": image + 1, **settings}
    config = hf.LlavaOnevisionConfig(vision_config=vision, tie_word_embeddings=False, **settings)
    return made(hf.LlavaOnevisionForConditionalGeneration, config)


def llava_onevision_processor(side: int = 28, patch: int = 7, most: int = 9, **settings: Any) -> Any:
    pixels = hf.LlavaOnevisionImageProcessor(size={"height": side, "width": side}, **settings)
    return hf.LlavaOnevisionProcessor(
        pixels,
        tokenizer("<image>", "<video>"),
        None,
        num_image_tokens=(side // patch) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{most}",
    )


def _llava_onevision(image: int) -> Any:
    settings = {"image_grid_pinpoints": MANY_PINPOINTS, "vision_aspect_ratio": "anyres_max_2"}
    return llava_onevision(image, siglip(vision_use_head=False), text_config=qwen2(), **settings)


def _llava_onevision_processor() -> Any:
    return llava_onevision_processor(most=2, image_grid_pinpoints=MANY_PINPOINTS)


def _llava_processor() -> Any:
    pixels = hf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return hf.LlavaProcessor(
        pixels,
        tokenizer("<image>"),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _idefics3(kind: str) -> Callable[[int], Any]:
    def model(image: int) -> Any:
        vision = getattr(hf, f"{kind}VisionConfig")(**VISION)
        settings = {"text_config": llama(), "image_token_id": image, "scale_factor": 2, "tie_word_embeddings": False}
        config = getattr(hf, f"{kind}Config")(vision_config=vision, **settings, pad_token_id=3)
        return made(getattr(hf, f"{kind}ForConditionalGeneration"), config)

    return model


def _idefics3_processor() -> Any:
    tiles = hf.Idefics3ImageProcessor(size={"longest_edge": 84}, max_image_size={"longest_edge": 28})
    extra = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    special = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *extra)
    return hf.Idefics3Processor(tiles, tokenizer(*special), image_seq_len=4)


def _granite_docling(image: int) -> Any:
    vision = hf.GraniteDoclingVisionConfig(
        **VISION, out_hidden_size=48, scale_factor=2, deepstack_visual_indexes=[0, 1], use_fine_route=True
    )
    text = hf.GraniteDoclingTextConfig(**{**TEXT, **rope()}, embedding_multiplier=3.0, logits_scaling=2.0)
    config = hf.GraniteDoclingConfig(vision_config=vision, text_config=text, image_token_id=image, pad_token_id=3)
    return made(hf.GraniteDoclingForConditionalGeneration, config)


def _granite_docling_processor() -> Any:
    tiles = hf.GraniteDoclingImageProcessor(size={"height": 28, "width": 28}, max_patches=4)
    extra = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    special = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", *extra)
    return hf.GraniteDoclingProcessor(tiles, special, image_seq_len=4)


def _idefics2(image: int) -> Any:
    vision = hf.Idefics2VisionConfig(**{**VISION, "image_size": 56})
    former = {"resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4, "resampler_head_dim": 12}
    former = hf.Idefics2PerceiverConfig(**former, num_key_value_heads=2, hidden_size=48)
    config = hf.Idefics2Config(
        vision_config=vision, perceiver_config=former, text_config=mistral(), image_token_id=image
    )
    return made(hf.Idefics2ForConditionalGeneration, config)


def _idefics2_processor() -> Any:
    pixels = hf.Idefics2ImageProcessor(size={"shortest_edge": 20, "longest_edge": 56}, do_image_splitting=True)
    names = {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}
    return hf.Idefics2Processor(pixels, tokenizer("<end_of_utterance>", **names), image_seq_len=5)


def mistral(**settings: Any) -> Any:
    return hf.MistralConfig(**{**TEXT, **rope(), "sliding_window": None, **settings})


def _aria(image: int) -> Any:
    vision = hf.Idefics3VisionConfig(**{**VISION, "image_size": 980, "patch_size": 140})
    experts = {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}
    config = hf.AriaConfig(
        vision_config=vision,
        text_config=hf.AriaTextConfig(**{**TEXT, **rope(), **experts}),
        image_token_index=image,
        projector_patch_to_query_dict={49: 5},
    )
    return made(hf.AriaForConditionalGeneration, config)


def _aria_processor() -> Any:
    pixels = hf.AriaImageProcessor(max_image_size=980, min_image_size=336)
    return hf.AriaProcessor(pixels, tokenizer(image_token="<image>"), size_conversion={980: 5})


def cohere2(**settings: Any) -> Any:
    return hf.Cohere2Config(**{**TEXT, **rope(), "sliding_window": 16, **settings})


def siglip(**settings: Any) -> Any:
    return hf.SiglipVisionConfig(**{**VISION, **settings})


def _aya_vision(image: int) -> Any:
    config = hf.AyaVisionConfig(
        vision_config=siglip(),
        text_config=cohere2(),
        image_token_index=image,
        downsample_factor=2,
        alignment_intermediate_size=64,
    )
    return made(hf.AyaVisionForConditionalGeneration, config)


def _aya_vision_processor() -> Any:
    tiles = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, max_patches=4)
    special = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    text = tokenizer(*special, "TILE", "TILE_GLOBAL")
    return hf.AyaVisionProcessor(tiles, text, patch_size=7, img_size=28, downsample_factor=2)


def _janus(image: int) -> Any:
    vision = hf.JanusVisionConfig(**{**VISION, "mlp_ratio": 2, "projection_dim": 48, "num_image_tokens": 16})
    settings = {"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "channel_multiplier": [1, 1]}
    codes = hf.JanusVQVAEConfig(**settings, latent_channels=32, image_token_embed_dim=48, projection_dim=48)
    config = hf.JanusConfig(vision_config=vision, text_config=llama(), vq_config=codes, image_token_id=image)
    return made(hf.JanusForConditionalGeneration, config)


def _janus_processor() -> Any:
    pixels = hf.JanusImageProcessor(size={"height": 28, "width": 28}, min_size=4)
    names = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    return hf.JanusProcessor(pixels, tokenizer(**names), num_image_tokens=16)


def _deepseek_vl(image: int) -> Any:
    config = hf.DeepseekVLConfig(vision_config=siglip(vision_use_head=False), text_config=llama(), image_token_id=image)
    return made(hf.DeepseekVLForConditionalGeneration, config)


def _deepseek_vl_processor() -> Any:
    pixels = hf.DeepseekVLImageProcessor(size={"height": 28, "width": 28}, min_size=4)
    return hf.DeepseekVLProcessor(pixels, tokenizer(image_token="<image>"), num_image_tokens=16)


def sam(**settings: Any) -> dict[str, Any]:
    """Settings of a tower with relative positions: one layer in windows that do not fill the grid, and a global one."""
    tower = {**VISION, "num_attention_heads": 2, "mlp_dim": 48, "output_channels": 8, "num_channels": 3}
    return {**tower, "image_size": 56, "window_size": 3, "global_attn_indexes": [1], **settings}


def _deepseek_vl_hybrid(image: int) -> Any:
    config = hf.DeepseekVLHybridConfig(
        vision_config=siglip(vision_use_head=False),
        high_res_vision_config=hf.SamVisionConfig(**sam()),
        text_config=llama(),
        image_token_id=image,
    )
    return made(hf.DeepseekVLHybridForConditionalGeneration, config)


def _deepseek_vl_hybrid_processor() -> Any:
    sizes = {"size": {"height": 28, "width": 28}, "high_res_size": {"height": 56, "width": 56}}
    pixels = hf.DeepseekVLHybridImageProcessor(**sizes, min_size=4)
    return hf.DeepseekVLHybridProcessor(pixels, tokenizer(image_token="<image>"), num_image_tokens=16)


def _deepseek_ocr2(image: int) -> Any:
    tower = {**sam(), "image_size": 64, "patch_size": 1, "window_size": 14, "num_attention_heads": 1}
    tower = hf.DeepseekOcr2SamVisionConfig(**tower, downsample_channels=[12, 32])
    former = {**TEXT, **rope(), "hidden_size": 32}
    experts = {"n_routed_experts": 4, "n_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"], **_EXPERTS}
    config = hf.DeepseekOcr2Config(
        vision_config=hf.DeepseekOcr2VisionConfig(
            sam_config=tower, encoder_config=hf.DeepseekOcr2VisionEncoderConfig(**former)
        ),
        text_config=hf.DeepseekOcr2TextConfig(**{**TEXT, **rope(), **experts, "max_position_embeddings": 8192}),
        image_token_id=image,
    )
    return made(hf.DeepseekOcr2ForConditionalGeneration, config)


def _deepseek_ocr2_processor() -> Any:
    pixels = hf.DeepseekOcr2ImageProcessorPil(size={"height": 64, "width": 64}, tile_size=48)
    return hf.DeepseekOcr2Processor(pixels, tokenizer(image_token="<image>"), patch_size=1)


def _got_ocr2(image: int) -> Any:
    vision = hf.GotOcr2VisionConfig(**sam())
    config = hf.GotOcr2Config(vision_config=vision, text_config=qwen2(), image_token_index=image)
    return made(hf.GotOcr2ForConditionalGeneration, config)


def _got_ocr2_processor() -> Any:
    hf.GotOcr2Processor.num_image_tokens = 4  # of the class, for images of 1024 pixels: its files cannot say it
    pixels = hf.GotOcr2ImageProcessor(size={"height": 56, "width": 56})
    return hf.GotOcr2Processor(pixels, tokenizer("<imgpad>"))


def _perception_lm(image: int) -> Any:
    tower = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": [28, 28], "patch_size": 7, "global_pool": ""}
    tower = {**tower, "use_post_transformer_norm": False, "init_values": 0.1, "ref_feat_shape": [4, 4]}
    vision = hf.TimmWrapperConfig(
        architecture="vit_pe_core_large_patch14_336", model_args=tower, do_pooling=False, label_names=[]
    )
    config = hf.PerceptionLMConfig(
        vision_config=vision,
        text_config=llama(),
        image_token_id=image,
        video_token_id=image + 1,
        projector_pooling_ratio=2,
    )
    return made(hf.PerceptionLMForConditionalGeneration, config)


def _perception_lm_processor() -> Any:
    pixels = hf.PerceptionLMImageProcessor(tile_size=28, max_num_tiles=4)
    names = {"image_token": "<|image|>", "video_token": "<|video|>"}
    return hf.PerceptionLMProcessor(None, pixels, tokenizer(**names), patch_size=7, pooling_ratio=2)


def _fast_vlm(image: int) -> Any:
    tower = {"inference_mode": True, "layers": [1, 1, 1, 1, 1], "embed_dims": [8, 8, 16, 32, 32]}
    vision = hf.TimmWrapperConfig(
        architecture="fastvit_mci3", model_args=tower, do_pooling=True, hidden_size=64, label_names=[]
    )
    config = hf.FastVlmConfig(vision_config=vision, text_config=qwen2(), image_token_index=image, image_seq_length=4)
    model = made(hf.FastVlmForConditionalGeneration, config)
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):  # many in a row, which would grow beyond float16
            part.weight.data = torch.randn_like(part.weight) * part.weight[0].numel() ** -0.5
    return model


def _fast_vlm_processor() -> Any:
    side = {"height": 128, "width": 128}
    pixels = hf.CLIPImageProcessor(size={"shortest_edge": 128}, crop_size=side)
    return hf.LlavaProcessor(
        pixels,
        tokenizer("<image>"),
        patch_size=64,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
    )


def _pp_chart2table(image: int) -> Any:
    vision = {**sam(), "model_type": "pp_chart2table_vision"}
    config = hf.PPChart2TableConfig(vision_config=vision, text_config=qwen2(), image_token_index=image)
    return made(hf.GotOcr2ForConditionalGeneration, config)


def _pp_chart2table_processor() -> Any:
    pixels = hf.PPChart2TableImageProcessor(size={"height": 56, "width": 56})
    return hf.PPChart2TableProcessor(pixels, tokenizer("<imgpad>"))


def _video_llava(image: int) -> Any:
    vision = hf.CLIPVisionConfig(**VISION, projection_dim=32)
    config = hf.VideoLlavaConfig(
        vision_config=vision, text_config=llama(), image_token_index=image, video_token_index=5
    )
    return made(hf.VideoLlavaForConditionalGeneration, config)


def _video_llava_processor() -> Any:
    pixels = hf.VideoLlavaImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return hf.VideoLlavaProcessor(pixels, None, tokenizer("<image>", "<video>"), patch_size=7)


def _cohere2_vision(image: int) -> Any:
    config = hf.Cohere2VisionConfig(
        vision_config=siglip(),
        text_config=cohere2(),
        image_token_id=image,
        downsample_factor=2,
        alignment_intermediate_size=64,
    )
    return made(hf.Cohere2VisionForConditionalGeneration, config)


def _cohere2_vision_processor() -> Any:
    tiles = hf.Cohere2VisionImageProcessor(size={"height": 28, "width": 28}, max_patches=4, patch_size=2)
    names = {
        "image_token": "<|IMG_PATCH|>",
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    return hf.Cohere2VisionProcessor(tiles, tokenizer(**names))


def _blip_2(image: int) -> Any:
    vision = hf.Blip2VisionConfig(**VISION)
    former = {**TEXT, "num_attention_heads": 2, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    text = {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 48, "dropout": 0.0}
    config = hf.Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=hf.Blip2QFormerConfig(**former).to_dict(),
        text_config=hf.OPTConfig(**text).to_dict(),
        num_query_tokens=6,
        image_token_index=image,
    )
    return made(hf.Blip2ForConditionalGeneration, config)


def _blip_2_processor() -> Any:
    pixels = hf.BlipImageProcessor(size={"height": 28, "width": 28})
    return hf.Blip2Processor(pixels, tokenizer("<image>"), num_query_tokens=6)


def _instructblip(image: int) -> Any:
    former = {**TEXT, "num_attention_heads": 2, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    config = hf.InstructBlipConfig(
        vision_config=hf.InstructBlipVisionConfig(**VISION).to_dict(),
        qformer_config=hf.InstructBlipQFormerConfig(**former).to_dict(),
        text_config=llama().to_dict(),
        num_query_tokens=6,
        image_token_index=image,
    )
    return made(hf.InstructBlipForConditionalGeneration, config)


def _instructblip_processor() -> Any:
    from tokenizers.processors import TemplateProcessing

    prompts = tokenizer()
    prompts.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    pixels = hf.BlipImageProcessor(size={"height": 28, "width": 28})
    return hf.InstructBlipProcessor(pixels, tokenizer("<image>"), prompts, num_query_tokens=6)


def _mrope(sections: tuple[int, ...], **settings: Any) -> dict[str, Any]:
    """Settings of a language model with multimodal rope."""
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections), **settings}
    return {**TEXT, "rope_parameters": rotary}


# Towers of images in native size: 14 by 14 pixels become a token.
NATIVE = {"depth": 2, "num_heads": 2, "patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2}
_NATIVE_PIXELS = {"patch_size": 7, "merge_size": 2, "size": {"shortest_edge": 28 * 28, "longest_edge": 84 * 84}}


def _native(kind: str, text: dict[str, Any], vision: dict[str, Any], cls: str = "") -> Callable[[int], Any]:
    """Args: cls: the model's class; by default that of the configuration."""

    def model(image: int) -> Any:
        tower = {**NATIVE, "out_hidden_size": 48, "hidden_size": 32, "intermediate_size": 48, **vision}
        ids = {"image_token_id": image, "video_token_id": image + 1}
        config = getattr(hf, f"{kind}Config")(text_config=text, vision_config=tower, **ids)
        return made(getattr(hf, cls or f"{kind}ForConditionalGeneration"), config)

    return model


def _qwen_processor(kind: str = "Qwen2VL") -> Callable[[], Any]:
    def processor() -> Any:
        pixels = hf.Qwen2VLImageProcessor(**_NATIVE_PIXELS, temporal_patch_size=2)
        special = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
        return getattr(hf, f"{kind}Processor")(pixels, tokenizer(*special))

    return processor


_OMNI_TOKENS = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def _omni_processor() -> Any:
    pixels = hf.Qwen2VLImageProcessor(**_NATIVE_PIXELS, temporal_patch_size=2)
    audio = hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    return hf.Qwen2_5OmniProcessor(pixels, NoVideos(), audio, tokenizer(**_OMNI_TOKENS))


def _omni(image: int) -> Any:
    tower = {**NATIVE, **_WINDOWS, "out_hidden_size": 48, "hidden_size": 32, "intermediate_size": 48}
    audio = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    audio |= {"num_mel_bins": 8, "max_source_positions": 50, "n_window": 4, "output_dim": 48}
    named = {"video_token_id": "video", "audio_token_id": "audio"}
    named |= {"vision_start_token_id": "vision_bos", "vision_end_token_id": "vision_eos"}
    named |= {"audio_start_token_id": "audio_bos", "audio_end_token_id": "audio_eos"}
    ids = tokenizer(**_OMNI_TOKENS).convert_tokens_to_ids
    config = hf.Qwen2_5OmniThinkerConfig(
        text_config=_mrope((1, 2, 3)),
        vision_config=tower,
        audio_config=audio,
        image_token_id=image,
        **{name: ids(_OMNI_TOKENS[f"{token}_token"]) for name, token in named.items()},
    )
    return made(hf.Qwen2_5OmniThinkerForConditionalGeneration, config)


def _cohere_compass_processor() -> Any:
    pixels = hf.CohereCompassImageProcessorPil(**_NATIVE_PIXELS, temporal_patch_size=2)
    special = ("<|IMAGE_PAD|>", "<|VIDEO_PAD|>", "<|VISION_START|>", "<|VISION_END|>")
    return hf.CohereCompassProcessor(pixels, tokenizer(*special))


def _glm_processor(kind: str, pixels_of: str = "") -> Callable[[], Any]:
    def processor() -> Any:
        pixels = getattr(hf, f"{pixels_of or kind}ImageProcessor")(**_NATIVE_PIXELS, temporal_patch_size=2)
        special = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")
        return getattr(hf, f"{kind}Processor")(pixels, tokenizer(*special))

    return processor


def _paddleocr_processor() -> Any:
    pixels = hf.PaddleOCRVLImageProcessor(**_NATIVE_PIXELS)
    return hf.PaddleOCRVLProcessor(pixels, tokenizer(image_token="<|IMAGE_PLACEHOLDER|>", video_token="<video>"))


def _paddleocr(image: int) -> Any:
    vision = {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    return _native("PaddleOCRVL", {**_mrope((2, 2, 2)), "head_dim": 12}, vision)(image)


PIXTRAL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def pixtral(**settings: Any) -> Any:
    return hf.PixtralVisionConfig(**{**PIXTRAL, "patch_size": 7, "image_size": 84, **settings})


def _pixtral_pixels(side: int) -> Any:
    return hf.PixtralImageProcessor(patch_size={"height": side, "width": side}, size={"longest_edge": 84})


def pixtral_processor(merge: int) -> Any:
    special = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    return hf.PixtralProcessor(_pixtral_pixels(7), tokenizer(*special), patch_size=7, spatial_merge_size=merge)


def _mistral3(image: int) -> Any:
    text = hf.MistralConfig(**{**TEXT, **rope(), "head_dim": 12, "sliding_window": None})
    config = hf.Mistral3Config(
        vision_config=pixtral(), text_config=text, image_token_index=image, tie_word_embeddings=False
    )
    return made(hf.Mistral3ForConditionalGeneration, config)


def _llava_pixtral(image: int) -> Any:
    settings = {"vision_feature_layer": [-1, -2], "vision_feature_select_strategy": "full"}
    config = hf.LlavaConfig(vision_config=pixtral(), text_config=llama(), image_token_index=image, **settings)
    return made(hf.LlavaForConditionalGeneration, config)


def _lighton_ocr(image: int) -> Any:
    text = hf.Qwen3Config(**{**TEXT, **rope(), "head_dim": 12})
    settings = {"image_token_id": image, "tie_word_embeddings": False}
    config = hf.LightOnOcrConfig(vision_config=pixtral(), text_config=text, **settings)
    return made(hf.LightOnOcrForConditionalGeneration, config)


def _lighton_ocr_processor() -> Any:
    names = {"image_token": "<image>", "image_break_token": "<break>", "image_end_token": "<end>"}
    return hf.LightOnOcrProcessor(_pixtral_pixels(14), tokenizer(**names), patch_size=7, spatial_merge_size=2)


def _gemma3(image: int) -> Any:
    text = hf.Gemma3TextConfig(
        **{**TEXT, "num_hidden_layers": 3, "head_dim": 12, "sliding_window": 3, "query_pre_attn_scalar": 12},
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    config = hf.Gemma3Config(
        vision_config=siglip(vision_use_head=False),
        text_config=text,
        image_token_index=image,
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
    )
    return made(hf.Gemma3ForConditionalGeneration, config)


def _gemma3_processor() -> Any:
    pixels = hf.Gemma3ImageProcessor(size={"height": 28, "width": 28})
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    return hf.Gemma3Processor(pixels, tokenizer(**names), image_seq_length=4)


_GEMMA4_TEXT = {**TEXT, "num_hidden_layers": 4, "head_dim": 12, "global_head_dim": 16, "sliding_window": 12}
_GEMMA4_TEXT |= {"layer_types": ["sliding_attention", "full_attention"] * 2}
_GEMMA4_TOKENS = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>", "audio_token": "<audio>"}
_GEMMA4_TOKENS |= {"boa_token": "<boa>", "eoa_token": "<eoa>"}
_GEMMA4_IDS = {"boi_token_id": None, "eoi_token_id": None, "boa_token_id": None, "eoa_token_index": None}


def _gemma4(**settings: Any) -> Callable[[int], Any]:
    def model(image: int) -> Any:
        vision = hf.Gemma4VisionConfig(
            **{**PIXTRAL, "patch_size": 4, "pooling_kernel_size": 2, "position_embedding_size": 80},
            num_key_value_heads=2,
            head_dim=16,
            standardize=True,
        )
        text = hf.Gemma4TextConfig(**{**_GEMMA4_TEXT, "hidden_size_per_layer_input": 0, **settings})
        ids = {"image_token_id": image, "audio_token_id": image + 3, "video_token_id": 85, **_GEMMA4_IDS}
        config = hf.Gemma4Config(text_config=text, vision_config=vision, audio_config=None, **ids)
        found = made(hf.Gemma4ForConditionalGeneration, config)
        found.model.vision_tower.std_bias.normal_()
        found.model.vision_tower.std_scale.uniform_(0.5, 1.5)
        return found

    return model


def _gemma4_processor() -> Any:
    pixels = hf.Gemma4ImageProcessorPil(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    sounds = hf.Gemma4AudioFeatureExtractor()
    return hf.Gemma4Processor(sounds, pixels, tokenizer(**_GEMMA4_TOKENS), NoVideos(), image_seq_length=70)


def _gemma4_unified(image: int) -> Any:
    sizes = {"patch_size": 4, "pooling_kernel_size": 2, "mm_posemb_size": 80}
    vision = hf.Gemma4UnifiedVisionConfig(**sizes, mm_embed_dim=40, output_proj_dims=40)
    text = hf.Gemma4UnifiedTextConfig(**_GEMMA4_TEXT)
    ids = {"image_token_id": image, "audio_token_id": 88, "video_token_id": 85, **_GEMMA4_IDS}
    config = hf.Gemma4UnifiedConfig(text_config=text, vision_config=vision, audio_config=None, **ids)
    return made(hf.Gemma4UnifiedForConditionalGeneration, config)


def _gemma4_unified_processor() -> Any:
    pixels = hf.Gemma4UnifiedImageProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    sounds = hf.Gemma4UnifiedAudioFeatureExtractor()
    return hf.Gemma4UnifiedProcessor(sounds, pixels, tokenizer(**_GEMMA4_TOKENS), NoVideos(), image_seq_length=70)


def _paligemma(text: Any) -> Callable[[int], Any]:
    def model(image: int) -> Any:
        vision = siglip(vision_use_head=False)
        config = hf.PaliGemmaConfig(
            vision_config=vision, text_config=text(), image_token_index=image, projection_dim=48, hidden_size=48
        )
        return made(hf.PaliGemmaForConditionalGeneration, config)

    return model


def _gemma() -> Any:
    return hf.GemmaConfig(**{**TEXT, **rope(), "head_dim": 12, "num_key_value_heads": 1})


def _gemma2() -> Any:
    text = {**TEXT, **rope(), "num_hidden_layers": 3, "head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 5}
    return hf.Gemma2Config(
        **text, layer_types=["sliding_attention", "full_attention", "sliding_attention"], attn_logit_softcapping=5.0
    )


def _paligemma_processor() -> Any:
    pixels = hf.SiglipImageProcessor(size={"height": 28, "width": 28}, image_seq_length=16)
    return hf.PaliGemmaProcessor(pixels, tokenizer(image_token="<image>"))


_GLM = _mrope((1, 1, 1), partial_rotary_factor=0.5)
_GLM_OCR = {**_mrope((2, 2, 2)), "head_dim": 12}
_EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
_GLM_MOE = {**_GLM, **_EXPERTS, "n_routed_experts": 4}
_QWEN3_TOWER = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
_QWEN3_TEXT = {**_mrope((2, 2, 2)), "head_dim": 12}

# Layers with a window have m-rope, the others no positions.
_COMPASS_TEXT = {**TEXT, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 12}
_COMPASS_TEXT |= {
    "rope_parameters": {"sliding_attention": _mrope((2, 2, 2))["rope_parameters"], "full_attention": None}
}
_COMPASS_TEXT |= {"logit_scale": 0.5}

_QWEN35_TEXT = {**_QWEN3_TEXT, "head_dim": 24, "layer_types": ["linear_attention", "full_attention"]}
_QWEN35_TEXT["rope_parameters"] = {**_QWEN35_TEXT["rope_parameters"], "partial_rotary_factor": 0.5}
_QWEN35_TEXT |= {"linear_key_head_dim": 8, "linear_value_head_dim": 12}
_QWEN35_TEXT |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
_QWEN35_TOWER = {"num_position_embeddings": 16}

_WINDOWS = {"window_size": 28, "fullatt_block_indexes": [1]}
_EXAONE = {**TEXT, **rope(), "model_type": "exaone4", "layer_types": ["sliding_attention", "full_attention"]}
_EXAONE |= {"sliding_window": 16, "sliding_window_pattern": 2}


def _hyperclovax_vision(image: int) -> Any:
    vision = hf.Qwen2_5_VLVisionConfig(**{**NATIVE, "hidden_size": 32, "intermediate_size": 48}, **_WINDOWS)
    vision.out_hidden_size = 40
    text = hf.HyperCLOVAXConfig(**{**TEXT, **rope()}, logits_scaling=0.5, embedding_multiplier=3.0)
    ids = {"image_token_id": image, "video_token_id": image + 1, "tie_word_embeddings": False}
    config = hf.HyperCLOVAXVisionV2Config(vision_config=vision, text_config=text, **ids)
    return made(hf.HyperCLOVAXVisionV2ForConditionalGeneration, config)


def _video_llama_3(image: int) -> Any:
    vision = hf.VideoLlama3VisionConfig(**PIXTRAL, patch_size=14)
    ids = {"image_token_id": image, "video_token_id": image + 1}
    config = hf.VideoLlama3Config(vision_config=vision, text_config=qwen2(), **ids)
    return made(hf.VideoLlama3ForConditionalGeneration, config)


def _video_llama_3_processor() -> Any:
    pixels = hf.VideoLlama3ImageProcessor(
        patch_size=14, merge_size=1, size={"shortest_edge": 28 * 28, "longest_edge": 84 * 84}
    )
    return hf.VideoLlama3Processor(pixels, tokenizer("<|image_pad|>", "<|video_pad|>"))


def _cosmos3_edge(image: int) -> Any:
    vision = hf.Cosmos3EdgeVisionConfig(**PIXTRAL, patch_size=7, num_patches=16)
    text = hf.Cosmos3EdgeTextConfig(**_mrope((2, 2, 2)), head_dim=12)
    ids = {"image_token_id": image, "video_token_id": image + 1, "projector_hidden_size": 40}
    config = hf.Cosmos3EdgeConfig(vision_config=vision, text_config=text, **ids)
    return made(hf.Cosmos3EdgeForConditionalGeneration, config)


def _cosmos3_edge_processor() -> Any:
    pixels = hf.Cosmos3EdgeImageProcessor(**_NATIVE_PIXELS, temporal_patch_size=1)
    special = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    return hf.Cosmos3EdgeProcessor(pixels, tokenizer(*special))


def _muse_glimmer(image: int) -> Any:
    vision = hf.MuseGlimmerVisionConfig(
        **{**PIXTRAL, "num_hidden_layers": 3},
        patch_size=7,
        pos_emb_height=4,
        pos_emb_width=4,
        layer_types=["window_attention", "full_attention", "window_attention"],
    )
    text = hf.MuseGlimmerTextConfig(**{**TEXT, **rope()}, head_dim=12, sliding_window=16)
    settings = {"out_hidden_size": 128, "projector_hidden_size": 40, "tie_word_embeddings": False}
    config = hf.MuseGlimmerConfig(vision_config=vision, text_config=text, image_token_id=image, **settings)
    return made(hf.MuseGlimmerForConditionalGeneration, config)


def _muse_glimmer_processor() -> Any:
    pixels = hf.MuseGlimmerImageProcessor(patch_size=7, merge_size=2, temporal_patch_size=2, max_image_tokens=36)
    special = ("<|patch|>", "<|image_start|>", "<|image_end|>", "<|video|>", "<|vid_frame_separator|>")
    return hf.MuseGlimmerProcessor(pixels, None, tokenizer(*special, "<|vid_start|>", "<|vid_end|>"))


def _kimi_k25(image: int) -> Any:
    latent = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, **_EXPERTS}
    text = hf.DeepseekV3Config(**{**TEXT, **rope(), **latent, **experts, "num_key_value_heads": 4})
    vision = hf.Kimi_K25VisionConfig(**PIXTRAL, patch_size=7, pos_emb_height=4, pos_emb_width=4)
    settings = {"projection_hidden_size": 32, "tie_word_embeddings": False, "video_token_id": image + 1}
    config = hf.Kimi_K25Config(vision_config=vision, text_config=text, image_token_id=image, **settings)
    return made(hf.Kimi_K25ForConditionalGeneration, config)


def _kimi_k25_processor() -> Any:
    size = {"max_height": 24, "max_width": 24}
    pixels = hf.Kimi_K25ImageProcessor(patch_size=7, merge_size=2, size=size, max_patches=144)
    return hf.Kimi_K25Processor(pixels, tokenizer("<|media_pad|>", "<|kimi_k25_video_placeholder|>"))


def _hunyuan_vl(image: int) -> Any:
    vision = hf.HunYuanVLVisionConfig(**PIXTRAL, patch_size=7, max_image_size=28, text_hidden_size=48)
    text = hf.HunYuanVLTextConfig(**_mrope((1, 2, 1, 2)), head_dim=12, tie_word_embeddings=False)
    settings = {"image_token_id": image, "tie_word_embeddings": False}
    config = hf.HunYuanVLConfig(vision_config=vision, text_config=text, **settings)
    return made(hf.HunYuanVLForConditionalGeneration, config)


def _hunyuan_vl_processor() -> Any:
    pixels = hf.HunYuanVLImageProcessor(**_NATIVE_PIXELS, temporal_patch_size=1)
    names = {"image_token": "<image>", "image_start_token": "<start>", "image_end_token": "<end>"}
    return hf.HunYuanVLProcessor(pixels, tokenizer(**names))


def _lfm3_vl(image: int) -> Any:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    vision = {"hidden_size": 32, "intermediate_size": 48, "patch_size": 7, "temporal_patch_size": 2, **heads}
    kinds = ["conv", "full_attention", "sliding_attention"]
    text = hf.Lfm3Config(**{**TEXT, "num_hidden_layers": 3}, head_dim=12, sliding_window=16, layer_types=kinds)
    config = hf.Lfm3VlConfig(
        vision_config=hf.Lfm3VlVisionConfig(**vision, layer_types=["conv", "full_attention", "conv"]),
        text_config=text,
        image_token_id=image,
        video_token_id=image + 1,
        projector_hidden_size=40,
    )
    return made(hf.Lfm3VlForConditionalGeneration, config)


def _minicpm(kind: str, patch: int = 7, **settings: Any) -> Callable[[int], Any]:
    def model(image: int) -> Any:
        sizes = {"image_size": 5 * patch, "patch_size": patch, "num_hidden_layers": 3}
        vision = getattr(hf, f"{kind}VisionConfig")(**{**VISION, **sizes})
        text = hf.Qwen3_5TextConfig(**_QWEN35_TEXT)
        ids = {"image_token_id": image, "video_token_id": image + 1, "tie_word_embeddings": False}
        config = getattr(hf, f"{kind}Config")(
            vision_config=vision, text_config=text, insert_layer_id=1, **ids, **settings
        )
        return made(getattr(hf, f"{kind}ForConditionalGeneration"), config)

    return model


_MINICPM_TOKENS = {
    "image_token": "<unit>",
    "video_token": "<video>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _minicpm_processor(kind: str, pixels: str = "MiniCPMV4_6ImageProcessorPil", **settings: Any) -> Callable[[], Any]:
    def processor() -> Any:
        slices = getattr(hf, pixels)(**{"scale_resolution": 56, "patch_size": 7, "max_slice_nums": 4, **settings})
        return getattr(hf, f"{kind}Processor")(slices, NoVideos(), tokenizer(**_MINICPM_TOKENS))

    return processor


def _canvas_ids() -> dict[str, int]:
    """Ids of the tokens around slices, of which positions on a canvas follow."""
    ids = tokenizer(**_MINICPM_TOKENS).convert_tokens_to_ids
    names = ("image_start", "image_end", "slice_start", "slice_end")
    return {f"{name}_id": ids(_MINICPM_TOKENS[f"{name}_token"]) for name in names} | {"newline_id": ids("\n")}


FAMILIES: dict[str, Family] = {
    "aria": Family(_aria_processor, _aria),
    "aya_vision": Family(_aya_vision_processor, _aya_vision, tiled=True, image_token="<|IMG_PATCH|>"),
    "blip-2": Family(_blip_2_processor, _blip_2, images=(1, 1, 1), before_prompt=True),
    "cohere_compass": Family(
        _cohere_compass_processor,
        _native("CohereCompass", _COMPASS_TEXT, _QWEN3_TOWER),
        placeholder="<|IMAGE_PAD|>",
    ),
    "cosmos3_edge": Family(_cosmos3_edge_processor, _cosmos3_edge, placeholder="<|image_pad|>", asks_kinds=True),
    "deepseek_ocr2": Family(_deepseek_ocr2_processor, _deepseek_ocr2),
    "deepseek_vl": Family(_deepseek_vl_processor, _deepseek_vl),
    "deepseek_vl_hybrid": Family(_deepseek_vl_hybrid_processor, _deepseek_vl_hybrid),
    "got_ocr2": Family(_got_ocr2_processor, _got_ocr2, placeholder="<imgpad>", images=(1, 2, 1)),
    "exaone4_5": Family(
        _qwen_processor("Exaone4_5_"),
        _native("Exaone4_5_", _EXAONE, {**_WINDOWS, "num_key_value_heads": 1}),
        placeholder="<|image_pad|>",
    ),
    "granite_docling": Family(_granite_docling_processor, _granite_docling, tiled=True),
    "granite4_vision": Family(_granite4_vision_processor, granite4_vision),
    "granite_vision": Family(lambda: llava_next_processor(tokens_before=0), _granite_vision),
    "hunyuan_vl": Family(_hunyuan_vl_processor, _hunyuan_vl, placeholder="<start><image><end>", image_token="<image>"),
    "hyperclovax_vision_v2": Family(
        _qwen_processor("HyperCLOVAXVisionV2"), _hyperclovax_vision, placeholder="<|image_pad|>"
    ),
    "idefics2": Family(_idefics2_processor, _idefics2, tiled=True),
    "idefics3": Family(_idefics3_processor, _idefics3("Idefics3"), tiled=True),
    "instructblip": Family(_instructblip_processor, _instructblip, images=(1, 1, 1), before_prompt=True),
    "internvl": Family(_internvl_processor, _internvl, tiled=True, placeholder="<IMG_CONTEXT>"),
    "glm46v": Family(_glm_processor("Glm46V"), _native("Glm46V", _GLM, {"image_size": 28}), placeholder="<|image|>"),
    "gemma3": Family(_gemma3_processor, _gemma3, placeholder="<start_of_image>", image_token="<image_soft_token>"),
    "gemma4": Family(
        _gemma4_processor,
        _gemma4(hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY, num_kv_shared_layers=2),
    ),
    "gemma4_with_spans": Family(_gemma4_processor, _gemma4(use_bidirectional_attention="vision")),
    "glm4v": Family(_glm_processor("Glm4v"), _native("Glm4v", _GLM, {"image_size": 28}), placeholder="<|image|>"),
    "glm4v_moe": Family(
        _glm_processor("Glm4v"), _native("Glm4vMoe", _GLM_MOE, {"image_size": 28}), placeholder="<|image|>"
    ),
    "glmga": Family(
        _glm_processor("Glm46V", "Glmga"),
        _native("Glmga", _GLM, {"image_size": 28}, "Glm46VForConditionalGeneration"),
        placeholder="<|image|>",
    ),
    "glm_ocr": Family(_glm_processor("Glm46V"), _native("GlmOcr", _GLM_OCR, {}), placeholder="<|image|>"),
    "janus": Family(_janus_processor, _janus),
    "lfm3_vl": Family(_qwen_processor("Lfm3Vl"), _lfm3_vl, placeholder="<|image_pad|>"),
    "lighton_ocr": Family(_lighton_ocr_processor, _lighton_ocr),
    "llava": Family(_llava_processor, _llava),
    "llava_onevision": Family(_llava_onevision_processor, _llava_onevision, nests_images=True),
    "llava_next_video": Family(_llava_next_video_processor, _llava_next_video),
    "llava_next": Family(llava_next_processor, lambda image: llava_next(image, clip(), llama())),
    "minicpmv4_6": Family(_minicpm_processor("MiniCPMV4_6"), _minicpm("MiniCPMV4_6"), tiled=True, placeholder="<unit>"),
    "minicpmv4_7": Family(
        _minicpm_processor("MiniCPMV4_7"),
        lambda image: _minicpm("MiniCPMV4_7", **_canvas_ids())(image),
        tiled=True,
        placeholder="<unit>",
    ),
    "paligemma": Family(_paligemma_processor, _paligemma(_gemma), images=(1, 2, 1)),
    "paligemma2": Family(_paligemma_processor, _paligemma(_gemma2), images=(1, 2, 1)),
    "paddleocr_vl": Family(_paddleocr_processor, _paddleocr, placeholder="<|IMAGE_PLACEHOLDER|>"),
    "pp_chart2table": Family(
        _pp_chart2table_processor, _pp_chart2table, placeholder="<imgpad>", images=(1, 2, 1), written=4
    ),
    "qianfan_ocr": Family(_qianfan_ocr_processor, _qianfan_ocr, tiled=True, image_token="<IMG_CONTEXT>"),
    "qwen2_5_omni_thinker": Family(
        _omni_processor, _omni, placeholder="<|vision_bos|><|IMAGE|><|vision_eos|>", image_token="<|IMAGE|>"
    ),
    "qwen2_5_vl": Family(
        _qwen_processor("Qwen2_5_VL"),
        _native("Qwen2_5_VL", _mrope((1, 2, 3)), _WINDOWS),
        placeholder="<|image_pad|>",
    ),
    "qwen2_vl": Family(
        _qwen_processor(),
        _native("Qwen2VL", _mrope((1, 2, 3)), {"embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2}),
        placeholder="<|image_pad|>",
    ),
    "qwen3_5": Family(
        _qwen_processor("Qwen3VL"),
        _native("Qwen3_5", _QWEN35_TEXT, _QWEN35_TOWER),
        placeholder="<|image_pad|>",
    ),
    "qwen3_5_moe": Family(
        _qwen_processor("Qwen3VL"),
        _native(
            "Qwen3_5Moe",
            {**_QWEN35_TEXT, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32},
            _QWEN35_TOWER,
        ),
        placeholder="<|image_pad|>",
    ),
    "qwen3_vl": Family(
        _qwen_processor("Qwen3VL"),
        _native("Qwen3VL", _QWEN3_TEXT, _QWEN3_TOWER),
        placeholder="<|image_pad|>",
    ),
    "qwen3_vl_moe": Family(
        _qwen_processor("Qwen3VL"),
        _native("Qwen3VLMoe", {**_QWEN3_TEXT, **_EXPERTS, "num_experts": 4}, _QWEN3_TOWER),
        placeholder="<|image_pad|>",
    ),
    "smolvlm": Family(_idefics3_processor, _idefics3("SmolVLM"), tiled=True),
    "video_llama_3": Family(_video_llama_3_processor, _video_llama_3, placeholder="<|image_pad|>"),
    "video_llava": Family(_video_llava_processor, _video_llava),
    "vipllava": Family(_llava_processor, _vipllava),
}


def _lfm2_vl_processor() -> Any:
    sizes = {"encoder_patch_size": 7, "tile_size": 28, "max_tiles": 4, "max_pixels_tolerance": 1.0}
    pixels = hf.Lfm2VlImageProcessor(**sizes, min_image_tokens=1, max_image_tokens=9)
    special = ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    cuts = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    return hf.Lfm2VlProcessor(pixels, tokenizer(*special, *cuts))


def _lfm2_vl(image: int) -> Any:
    vision = hf.Siglip2VisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=7,
        num_patches=16,
        vision_use_head=False,
    )
    text = hf.Lfm2Config(**{**TEXT, **rope()}, layer_types=["conv", "full_attention"])
    config = hf.Lfm2VlConfig(vision_config=vision, text_config=text, image_token_id=image, projector_hidden_size=40)
    return made(hf.Lfm2VlForConditionalGeneration, config)


# Processors of these need torchvision.
WITH_TORCHVISION: dict[str, Family] = {
    "cohere2_vision": Family(_cohere2_vision_processor, _cohere2_vision, tiled=True, placeholder="<|IMG_PATCH|>"),
    "gemma4_unified": Family(_gemma4_unified_processor, _gemma4_unified),
    "lfm2_vl": Family(_lfm2_vl_processor, _lfm2_vl, tiled=True),
    "muse_glimmer": Family(_muse_glimmer_processor, _muse_glimmer, placeholder="<|patch|>"),
    "kimi_k25": Family(_kimi_k25_processor, _kimi_k25, placeholder="<|media_pad|>"),
    "llava_pixtral": Family(lambda: pixtral_processor(1), _llava_pixtral, placeholder="[IMG]"),
    "minicpm_ocr": Family(
        _minicpm_processor("MiniCPMOcr", "MiniCPMOcrImageProcessor", patch_size=28),
        _minicpm("MiniCPMOcr", 28, downsample_mode="4x"),
        tiled=True,
        placeholder="<unit>",
    ),
    "mistral3": Family(lambda: pixtral_processor(2), _mistral3, placeholder="[IMG]", takes_tiny=False),
}
if find_spec("torchvision") is not None:
    FAMILIES.update(WITH_TORCHVISION)

# Towers of these are of timm.
if find_spec("timm") is not None:
    FAMILIES["fast_vlm"] = Family(_fast_vlm_processor, _fast_vlm)
    FAMILIES["perception_lm"] = Family(_perception_lm_processor, _perception_lm, tiled=True, placeholder="<|image|>")
