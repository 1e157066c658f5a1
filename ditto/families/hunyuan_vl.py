"""HunYuan-VL and HunyuanOCR: images in native size, whose rows end with an embedding, multimodal rope."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import Self, override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import NativeSizeModel, by_token, merge_size, number
from ditto.families.preprocessor import Preprocessor
from ditto.families.qwen3_vl import InterpolatingPreprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.native import HunYuanFeatures

_ROWS = "image_rows"
# Embeddings beside those of patches: the end of a row, the begin and the end of an image.
_NEWLINE, _BEGIN, _END = 0, 1, 2


@frozen
class HunYuanVlPreprocessor(InterpolatingPreprocessor):
    """Preprocessor of patches that come row by row, which states where the other embeddings stand."""

    row_by_row: ClassVar[bool] = True

    @override
    def placeholder(self, processor: Any) -> str:
        return f"{processor.image_start_token}{processor.image_token}{processor.image_end_token}"

    @override
    def side(self) -> int:
        return number(self.config, "max_image_size") // number(self.config, "patch_size")

    @override
    def item(self, patches: Tensor, grid: Tensor) -> EncoderItem:
        rows, columns = (grid[0, 1:] // merge_size(self.config)).tolist()
        count = rows * columns
        tokens = torch.arange(count).unflatten(0, (rows, columns))
        lines = torch.cat([tokens, torch.full((rows, 1), count + _NEWLINE)], dim=1).flatten()
        order = torch.cat([torch.tensor([count + _BEGIN]), lines, torch.tensor([count + _END])])
        return EncoderItem({**super().item(patches, grid).inputs, "order": order.int()})


@frozen(kw_only=True, slots=False)
class HunYuanVlModel(NativeSizeModel):
    """`HunYuanVLForConditionalGeneration`."""

    model_type: ClassVar[str] = "hunyuan_vl"
    preprocessor: ClassVar[Preprocessor] = HunYuanVlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        mode = config.vision_config.interpolate_mode
        if mode != "bilinear":
            raise CheckpointError(
                f"`vision_config.interpolate_mode` is {mode!r}",
                remedy="use a model that interpolates positions bilinearly",
            )
        values = number(config, "num_channels") * number(config, "patch_size") ** 2
        taps = {
            "interp_indices": by_token(config, 4),
            "interp_weights": by_token(config, 4, dtype=torch.float32),
        }
        order = TensorTypeHint((DynamicDimension.up_to(_ROWS, 4),), torch.int32)
        inputs = {"pixel_values": by_token(config, values, dtype=torch.float16), **taps, "order": order}
        return Encoder(inputs=inputs, module=HunYuanFeatures)

    @property
    @override
    def max_image_rows(self) -> int:
        # An image of a single column has as many ends of rows as tokens.
        return 2 * self.max_image_tokens + 2

    @override
    def _sized(self) -> Self:
        sized = super()._sized()
        return evolve(sized, vision=sized.vision.with_dimension(DynamicDimension.up_to(_ROWS, self.max_image_rows)))
