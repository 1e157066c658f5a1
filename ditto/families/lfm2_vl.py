"""LFM2-VL: tiles and images of any size, interpolated position embeddings, patches merged by a projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import Self, override

from ditto.arguments import DynamicDimension
from ditto.engine import IMAGE_TOKENS
from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import LimitedSizeModel, NativePreprocessor, by_token, merge_size, number
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.native import NaflexFeatures


@frozen
class Lfm2VlPreprocessor(NativePreprocessor):
    """Preprocessor of patches that come row by row, padded, with the rows and columns of each tile or image."""

    row_by_row: ClassVar[bool] = True
    multimodal_rope: ClassVar[bool] = False

    @override
    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

        entries = number(self.config, "num_patches")
        side = int(entries**0.5)
        # Resizing a table is linear: that of one-hot entries gives each patch's shares of them.
        table, patches = torch.eye(entries).view(side, side, entries), int(grid.prod())
        resized: Any = Siglip2VisionEmbeddings.resize_positional_embeddings
        (shares,) = resized(table, grid[:, 1:], patches)
        return {**super().of_grid(grid), "position_shares": shares[self._order(grid)]}

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        shapes = inputs["spatial_shapes"]
        grids = torch.cat([torch.ones_like(shapes[:, :1]), shapes], dim=1)
        rows = zip(inputs["pixel_values"], grids, strict=True)
        return [self.item(patches[: int(grid.prod())], grid[None]) for patches, grid in rows]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        patches, grids = zip(*(self.patches(item) for item in items), strict=True)
        return {
            "pixel_values": pad_sequence(list(patches), batch_first=True),
            "pixel_attention_mask": pad_sequence([torch.ones(len(each)).int() for each in patches], batch_first=True),
            "spatial_shapes": torch.cat(grids)[:, 1:],
        }


@frozen(kw_only=True, slots=False)
class Lfm2VlModel(LimitedSizeModel):
    """`Lfm2VlForConditionalGeneration`.

    The checkpoint's processor limits the size of images and tiles.
    """

    model_type: ClassVar[str] = "lfm2_vl"
    preprocessor: ClassVar[Preprocessor] = Lfm2VlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision = config.vision_config
        if vision.model_type != "siglip2_vision_model":
            raise CheckpointError(
                f"its tower is a {vision.model_type!r} model", remedy="use a checkpoint with the tower of SigLIP 2"
            )
        entries = number(config, "num_patches")
        if int(entries**0.5) ** 2 != entries:
            raise CheckpointError(
                f"its table of positions has {entries} entries, which is not a square",
                remedy="check vision_config.num_patches in config.json",
            )
        values = number(config, "num_channels") * number(config, "patch_size") ** 2
        inputs = {
            "pixel_values": by_token(config, values, dtype=torch.float16),
            "position_shares": by_token(config, entries, dtype=torch.float32),
        }
        return Encoder(inputs=inputs, module=NaflexFeatures)

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        if not processor.get("do_image_splitting", True):
            return 1
        return int(processor.get("max_tiles", 10)) + bool(processor.get("use_thumbnail", True))

    @property
    @override
    def max_image_tokens(self) -> int:
        """Tokens of the largest tile, or of the largest image that is not cut into tiles."""
        processor, config = self.llm.source.image_processor, self.llm.source.config
        side = int(processor.get("tile_size", 512)) // (number(config, "patch_size") * merge_size(config))
        return max(int(processor.get("max_image_tokens", 256)), side * side)

    @override
    def _sized(self) -> Self:
        tokens = self.max_image_tokens
        return evolve(
            self,
            llm=evolve(self.llm, prompt_rows=tokens * self.max_tiles * self.max_images),
            vision=self.vision.with_dimension(DynamicDimension.up_to(IMAGE_TOKENS, tokens)),
        )
