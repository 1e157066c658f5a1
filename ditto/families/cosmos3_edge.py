"""Cosmos 3 Edge: images in native size, antialiased position embeddings, multimodal rope."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from typing_extensions import override

from ditto.families.encoder import Encoder
from ditto.families.native import NativePreprocessor, NativeSizeModel, by_token, merge_size, number
from ditto.families.preprocessor import Preprocessor
from ditto.wrappers.native import Cosmos3EdgeFeatures


@frozen
class Cosmos3EdgePreprocessor(NativePreprocessor):
    """Preprocessor that states each patch's position embedding as a sum over the whole table."""

    @override
    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        from transformers.models.cosmos3_edge import modeling_cosmos3_edge

        side = math.isqrt(number(self.config, "num_patches"))
        # What the model's own function does to a table of unit vectors are the weights.
        units = torch.eye(side * side).unflatten(0, (side, side))
        embeddings: Any = modeling_cosmos3_edge.Cosmos3EdgeVisionEmbeddings
        weights = embeddings.resize_positional_embeddings(units, grid, merge_size(self.config))
        return {**super().of_grid(grid), "position_weights": weights}


@frozen(kw_only=True, slots=False)
class Cosmos3EdgeModel(NativeSizeModel):
    """`Cosmos3EdgeForConditionalGeneration`."""

    model_type: ClassVar[str] = "cosmos3_edge"
    preprocessor: ClassVar[Preprocessor] = Cosmos3EdgePreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        values = number(config, "num_channels") * number(config, "patch_size") ** 2
        entries = math.isqrt(number(config, "num_patches")) ** 2
        inputs = {
            "pixel_values": by_token(config, values, dtype=torch.float16),
            "position_weights": by_token(config, entries, dtype=torch.float32),
        }
        return Encoder(inputs=inputs, module=Cosmos3EdgeFeatures)
