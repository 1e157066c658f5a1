"""FastVLM: a convolutional tower of timm, each place of whose last grid is an image token."""

from __future__ import annotations

from math import isqrt
from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, TilePreprocessor
from ditto.families.timm_tower import timm_tower
from ditto.wrappers.features import ImageFeatures


@frozen(kw_only=True, slots=False)
class FastVlmModel(MultimodalModel):
    """`FastVlmForConditionalGeneration`."""

    model_type: ClassVar[str] = "fast_vlm"
    preprocessor: ClassVar[Preprocessor] = TilePreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        tower, rows = timm_tower(config.vision_config), config.image_seq_length
        if not getattr(tower, "feature_info", None) or isqrt(rows) ** 2 != rows:
            raise CheckpointError(
                f"an image becomes {rows} image tokens of the tower {config.vision_config.architecture!r}, which are "
                "not a square grid",
                remedy="check image_seq_length in config.json, and use a checkpoint with a FastViT tower",
            )
        side = isqrt(rows) * tower.feature_info[-1]["reduction"]
        channels = (config.vision_config.model_args or {}).get("in_chans", 3)
        return Encoder(inputs={"input": tile(channels, side, side)}, module=ImageFeatures, rows=rows)
