"""PerceptionLM: a tower of timm, tiles of one size and a view of the whole image, pooled."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any, ClassVar

from attrs import frozen
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, tile
from ditto.families.idefics3 import Idefics3Preprocessor
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor
from ditto.families.timm_tower import timm_tower
from ditto.wrappers.features import GroupedImageFeatures


@frozen(kw_only=True, slots=False)
class PerceptionLmModel(MultimodalModel):
    """`PerceptionLMForConditionalGeneration`, without videos."""

    model_type: ClassVar[str] = "perception_lm"
    preprocessor: ClassVar[Preprocessor] = Idefics3Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        tower, ratio = timm_tower(config.vision_config), config.projector_pooling_ratio
        if not hasattr(tower, "patch_embed") or not hasattr(tower, "num_prefix_tokens"):
            raise CheckpointError(
                f"its tower {config.vision_config.architecture!r} is not a transformer of patches",
                remedy="use a checkpoint with a perception encoder",
            )
        embedding = tower.patch_embed
        tokens = embedding.num_patches + tower.num_prefix_tokens - bool(config.vision_use_cls_token)
        side = isqrt(tokens)
        if side**2 != tokens:
            raise CheckpointError(
                f"a tile becomes {tokens} features, which do not fill a square",
                remedy="check vision_use_cls_token and vision_config.model_args in config.json",
            )
        return Encoder(
            inputs={"input": tile(embedding.proj.in_channels, *embedding.img_size)},
            module=GroupedImageFeatures,
            rows=(side // ratio) ** 2,
        )

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        if processor.get("vision_input_type", "thumb+tile") != "thumb+tile":
            return 1
        return processor.get("max_num_tiles", 36) + 1  # the whole image is one more tile
