"""DeepSeek-VL: one tower of small images; the larger model has another one of the same images in high resolution."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, square_tiles, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.wrappers.features import HighResolutionFeatures, ImageFeatures


@frozen(kw_only=True, slots=False)
class DeepseekVlModel(MultimodalModel):
    """`DeepseekVLForConditionalGeneration`."""

    model_type: ClassVar[str] = "deepseek_vl"

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return square_tiles(config.vision_config, ImageFeatures)


@frozen(kw_only=True, slots=False)
class DeepseekVlHybridModel(MultimodalModel):
    """`DeepseekVLHybridForConditionalGeneration`."""

    model_type: ClassVar[str] = "deepseek_vl_hybrid"
    preprocessor: ClassVar[Preprocessor] = TilePreprocessor(
        {"input": "pixel_values", "high_resolution": "high_res_pixel_values"}
    )

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        low, high = config.vision_config, config.high_res_vision_config
        encoder = square_tiles(low, HighResolutionFeatures)
        if high.model_type != "sam_vision_model" or not high.global_attn_indexes:
            raise CheckpointError(
                f"its tower of high resolution is a {high.model_type!r} model with the global layers "
                f"{high.to_dict().get('global_attn_indexes')}",
                remedy="use a checkpoint with a SAM tower that has global layers",
            )
        inputs = {**encoder.inputs, "high_resolution": tile(high.num_channels, high.image_size, high.image_size)}
        return Encoder(inputs=inputs, module=encoder.module, rows=encoder.rows)
