"""LLaVA-OneVision: images of any resolution of many tiles, shrunk; several images of a prompt are one tile each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.llava_next import AssembledPreprocessor, LlavaNextModel
from ditto.families.preprocessor import Preprocessor
from ditto.runtime.encoding import EncoderItem


@frozen
class OnevisionPreprocessor(AssembledPreprocessor):
    """Preprocessor of images that are assembled from tiles if they are alone in their prompt."""

    @override
    def complete(self, processor: Any, directory: Any) -> None:
        """Do nothing: the processor computes its image tokens in another way than LLaVA's."""

    @override
    def images_of_prompt(self, images: Sequence[Any]) -> list[Any]:
        return [list(images)]  # the processor takes images that are not nested for those of several prompts

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        counts = inputs["batch_num_images"].tolist()
        alone = [count == 1 for count in counts for _ in range(count)]
        return [
            item if cut else evolve(item, inputs={name: tiles[:1] for name, tiles in item.inputs.items()})
            for item, cut in zip(super().items(inputs), alone, strict=True)
        ]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        return {**super().model_inputs(items), "batch_num_images": torch.ones(len(items), dtype=torch.int64)}


@frozen(kw_only=True, slots=False)
class LlavaOnevisionModel(LlavaNextModel):
    """`LlavaOnevisionForConditionalGeneration`, without videos."""

    model_type: ClassVar[str] = "llava_onevision"
    preprocessor: ClassVar[Preprocessor] = OnevisionPreprocessor()

    @classmethod
    @override
    def shrink_above(cls, config: Any) -> int | None:
        stated = re.fullmatch(r"anyres_max_([1-9]\d*)", config.vision_aspect_ratio)
        if stated is None:
            raise CheckpointError(
                f"vision_aspect_ratio is {config.vision_aspect_ratio!r}", remedy="give `anyres_max_N` in config.json"
            )
        return int(stated[1])

    @property
    @override
    def tiles_per_request(self) -> int:
        return max(self.max_tiles, self.max_images)

    @property
    @override
    def image_tokens_per_request(self) -> int:
        assembly = self.vision.assembly
        assert assembly is not None  # `encoder` states one
        return max(assembly.most_rows(self.max_tiles), self.max_images * assembly.rows_of_view)
