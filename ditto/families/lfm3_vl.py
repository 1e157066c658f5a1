"""LFM3-VL: images in native size, convolutions over their patches between layers of attention."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder
from ditto.families.native import NativePreprocessor, NativeSizeModel, by_token, number, pixels
from ditto.families.preprocessor import Preprocessor
from ditto.wrappers.neighbours import ConvolvedFeatures


@frozen
class Lfm3VlPreprocessor(NativePreprocessor):
    """Preprocessor that states the neighbours of each patch, whose tokens have one position each."""

    multimodal_rope: ClassVar[bool] = False

    @override
    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        side, (rows, columns) = number(self.config, "conv_kernel_size"), grid[0, 1:].tolist()
        order = self._order(grid)
        # The number of each patch, counted from 1, in the order of the tokens; 0 for the border.
        numbers = (order.argsort() + 1).view(rows, columns)
        around = pad(numbers, [side // 2] * 4).unfold(0, side, 1).unfold(1, side, 1).reshape(rows * columns, -1)
        return {**super().of_grid(grid), "neighbours": around[order]}


@frozen(kw_only=True, slots=False)
class Lfm3VlModel(NativeSizeModel):
    """`Lfm3VlForConditionalGeneration`."""

    model_type: ClassVar[str] = "lfm3_vl"
    preprocessor: ClassVar[Preprocessor] = Lfm3VlPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        side = number(config, "conv_kernel_size")
        if side % 2 == 0:
            raise CheckpointError(
                f"`vision_config.conv_kernel_size` is {side}, which has no centre", remedy="give an odd number"
            )
        inputs = {
            "pixel_values": pixels(config),
            "position_ids": by_token(config, 2),
            "neighbours": by_token(config, side * side),
        }
        return Encoder(inputs=inputs, module=ConvolvedFeatures)
