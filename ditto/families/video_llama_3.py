"""VideoLLaMA3 for images, which keep their native size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError, PromptError
from ditto.families.encoder import Encoder
from ditto.families.native import NativePreprocessor, NativeSizeModel, by_token, check_unmerged, number
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem
from ditto.wrappers.native import VideoLlama3Features

_SIZES = "image_merge_sizes"


@frozen
class VideoLlama3Preprocessor(NativePreprocessor):
    """Preprocessor of patches that are not merged."""

    multimodal_rope: ClassVar[bool] = False

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        if bool((inputs[_SIZES] != 1).any()):
            raise PromptError(
                f"the processor merges {int(inputs[_SIZES].max())} patches along each side, the engine takes them one "
                "by one",
                remedy="set `merge_size` to 1 in preprocessor_config.json",
            )
        return super().items(inputs)

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        return {**super().model_inputs(items), _SIZES: torch.ones(len(items), dtype=torch.int64)}


@frozen(kw_only=True, slots=False)
class VideoLlama3Model(NativeSizeModel):
    """`VideoLlama3ForConditionalGeneration`."""

    model_type: ClassVar[str] = "video_llama_3"
    preprocessor: ClassVar[Preprocessor] = VideoLlama3Preprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        check_unmerged(config)
        values = number(config, "num_channels") * number(config, "patch_size") ** 2
        pixels = by_token(config, values, dtype=torch.float16)
        return Encoder(inputs={"pixel_values": pixels, "position_ids": by_token(config, 2)}, module=VideoLlama3Features)

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        merged = processor.get("merge_size", 1)
        if merged != 1:
            raise CheckpointError(
                f"`merge_size` of the image processor is {merged!r}: the model averages the patches of images",
                remedy="use a model whose images keep all patches",
            )
        return super().most_tiles(config, processor)
