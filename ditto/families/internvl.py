"""InternVL and Qianfan-OCR: tiles of one size, pixel shuffle, MLP projector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, pair, tile, tiles_and_view
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.wrappers.features import ImageFeatures


@frozen(kw_only=True, slots=False)
class InternVlModel(MultimodalModel):
    """`InternVLForConditionalGeneration`: InternVL 2.5, 3 and 3.5 in the form of transformers."""

    model_type: ClassVar[str] = "internvl"

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        height, width = pair("image_size", vision.image_size)
        patch_height, patch_width = pair("patch_size", vision.patch_size)
        ratio = config.downsample_ratio
        rows, columns = height // patch_height * ratio, width // patch_width * ratio
        if config.vision_feature_select_strategy != "default" or rows != columns or rows != int(rows):
            raise CheckpointError(
                f"a tile has {height // patch_height} by {width // patch_width} patches, downsample_ratio is {ratio} "
                f"and vision_feature_select_strategy {config.vision_feature_select_strategy!r}",
                remedy="use square tiles whose patches downsample_ratio divides, and the strategy `default`",
            )
        return Encoder(
            inputs={"input": tile(vision.num_channels, height, width)}, module=ImageFeatures, rows=int(rows * columns)
        )

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        return tiles_and_view(processor)


@frozen
class QianfanOcrPreprocessor(TilePreprocessor):
    """Preprocessor whose processor has another token for the place of an image than for its embeddings."""

    @override
    def placeholder(self, processor: Any) -> str:
        return str(processor.image_placeholder_token)

    @override
    def image_token_id(self, processor: Any) -> int | None:
        return int(processor.image_token_id)


@frozen(kw_only=True, slots=False)
class QianfanOcrModel(InternVlModel):
    """`QianfanOCRForConditionalGeneration`."""

    model_type: ClassVar[str] = "qianfan_ocr"
    preprocessor: ClassVar[Preprocessor] = QianfanOcrPreprocessor()
