"""Reasons why vision-language models of transformers have no family."""

from __future__ import annotations

from collections.abc import Mapping

_CROSS_ATTENTION = "its decoder reads images by cross-attention"
_CODES = "images become tokens of a codebook"
_INDEX = "its decoder chooses keys by an index, whose own keys it keeps"
_ENCODER_DECODER = "it is an encoder-decoder"
_TWO_SIZES = "its tower takes tiles of one size and a view of the whole image of another"
_NO_ENCODER = "its language model is supported alone; Ditto has no encoder for its images yet"
_VIDEO = "it is made for videos"
_OTHER_MODALITY = "it takes other inputs than text and images"

REASONS: Mapping[str, str] = {
    "blip": _CROSS_ATTENTION,
    "chameleon": _CODES,
    "cosmos3_omni": _OTHER_MODALITY,
    "dots3_note": _INDEX,
    "emu3": _CODES,
    "ernie4_5_vl_moe": "image tokens have experts of their own in its decoder",
    "evolla": _OTHER_MODALITY,
    "florence2": _ENCODER_DECODER,
    "fuyu": "it has no tower: patches of any number go into the decoder",
    "gemma3n": "its decoder has further embeddings of each token for each layer, which image tokens lack",
    "git": _CROSS_ATTENTION,
    "glm5_next": _INDEX,
    "hy_v4_vl": _INDEX,
    "idefics": _CROSS_ATTENTION,
    "instructblipvideo": _VIDEO,
    "kosmos-2": "each of its image tokens has an id of its own",
    "kosmos-2.5": "it has positions of its own",
    "llama4": _NO_ENCODER,
    "minimax_m3_vl": _INDEX,
    "mistral4": "transformers lists it among models that take images, and it takes none",
    "mistral_large4": _INDEX,
    "mllama": _CROSS_ATTENTION,
    "molmo2": "features of its images are added to the embedding of the image token",
    "muse_spark": "each of its experts has a norm behind it",
    "nemotron_h_omni": _OTHER_MODALITY,
    "ovis2": "features of its own stand in place of the tokens around an image",
    "pi0": "it is made for actions of a robot",
    "pix2struct": _ENCODER_DECODER,
    "pp_formulanet": _ENCODER_DECODER,
    "qwen3_omni_moe_thinker": _OTHER_MODALITY,
    "qwen4_exp": _INDEX,
    "shieldgemma2": "it classifies images: transformers loads no language model from its checkpoints",
    "step3p7": _TWO_SIZES,
    "t5gemma2": _ENCODER_DECODER,
    "udop": _ENCODER_DECODER,
    "unlimited_ocr": _TWO_SIZES,
    "vision-encoder-decoder": _ENCODER_DECODER,
}
"""By `model_type`; a model that gets a family leaves this table."""
