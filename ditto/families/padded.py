"""Families whose images are padded to one size, with a mask: Idefics2 and Aria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.errors import CheckpointError, PromptError, TreeError
from ditto.families.encoder import Encoder, tile
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, model_config
from ditto.runtime.encoding import EncoderItem, EncoderShapes
from ditto.wrappers.idefics3 import AriaFeatures, Idefics2Features, patch_positions


@frozen(kw_only=True)
class PaddedPreprocessor(Preprocessor):
    """Preprocessor of images that the engine takes padded to a square, with the position of each patch.

    Args:
        mask: name of the processor's mask of pixels.
        tower: module and class in transformers of the tower's embeddings, which compute positions.
        whole: whether a patch with padding in it is left out.
        grouped: whether a further axis groups the images of a prompt.
        vision: the tower's configuration; None until `configured`.
    """

    mask: str
    tower: tuple[str, str]
    whole: bool = False
    grouped: bool = False
    vision: Any = None

    @override
    def configured(self, directory: str | Path | None) -> PaddedPreprocessor:
        if directory is None:
            return self
        return evolve(self, vision=model_config(directory).vision_config)

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        pixels = inputs["pixel_values"].flatten(0, -4)
        given = inputs.get(self.mask)
        masks = torch.ones_like(pixels[:, 0]) if given is None else given.flatten(0, -3)
        return [self._item(*each) for each in zip(pixels, masks.bool(), strict=True)]

    def _item(self, pixels: Tensor, mask: Tensor) -> EncoderItem:
        if self.vision is None:
            raise TreeError(
                "the tree has no config.json of the model, from which the positions of patches follow",
                remedy="build the tree from a checkpoint directory, or name that with --hf-model",
            )
        side, patch = self.vision.image_size, self.vision.patch_size
        below, right = (side - size for size in mask.shape)
        if min(below, right) < 0:
            raise PromptError(
                f"the processor makes images of {list(mask.shape)} pixels; the vision engine takes at most {side}",
                remedy="let the processor make smaller images, as in the model's own settings",
            )
        by_patch = pad(mask, (0, right, 0, below)).unflatten(0, (-1, patch)).unflatten(2, (-1, patch))
        seen = by_patch.all(3).all(1) if self.whole else by_patch.any(3).any(1)
        module, name = self.tower
        embeddings = getattr(import_module(f"transformers.models.{module}"), name)
        positions = patch_positions(embeddings, self.vision, seen[None])[0].int()
        return EncoderItem(
            {
                "input": pad(pixels, (0, right, 0, below)),
                "position_ids": torch.where(seen.flatten(), positions, -1),
            }
        )

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        pixels = torch.stack([item.inputs["input"] for item in items])
        seen = torch.stack([item.inputs["position_ids"] for item in items]) >= 0
        side, patch = self.vision.image_size // self.vision.patch_size, self.vision.patch_size
        mask = seen.unflatten(1, (side, side)).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        found = {"pixel_values": pixels, self.mask: mask}
        return {name: tensor[None] if self.grouped else tensor for name, tensor in found.items()}

    @override
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        size = [int(str(each)) for each in shapes.item_shape("input")]
        whole = torch.ones(size[1:], dtype=torch.bool)
        return [self._item(torch.randn(size, generator=generator), whole) for _ in range(count)]


@frozen(kw_only=True, slots=False)
class Idefics2Model(MultimodalModel):
    """`Idefics2ForConditionalGeneration`."""

    model_type: ClassVar[str] = "idefics2"
    preprocessor: ClassVar[Preprocessor] = PaddedPreprocessor(
        mask="pixel_attention_mask",
        tower=("idefics2.modeling_idefics2", "Idefics2VisionEmbeddings"),
        whole=True,
        grouped=True,
    )

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        return Encoder(
            inputs=_inputs(config.vision_config),
            module=Idefics2Features,
            rows=config.perceiver_config.resampler_n_latents,
        )

    @classmethod
    @override
    def most_tiles(cls, config: Any, processor: Mapping[str, Any]) -> int:
        return 5 if processor.get("do_image_splitting", False) else 1  # four quarters and the whole image


@frozen(kw_only=True, slots=False)
class AriaModel(MultimodalModel):
    """`AriaForConditionalGeneration`."""

    model_type: ClassVar[str] = "aria"
    preprocessor: ClassVar[Preprocessor] = PaddedPreprocessor(
        mask="pixel_mask", tower=("idefics3.modeling_idefics3", "Idefics3VisionEmbeddings")
    )

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        vision, layer = config.vision_config, config.vision_feature_layer
        layers = getattr(vision, "num_hidden_layers", 0)
        if vision.model_type != "idefics3_vision" or not isinstance(layer, int) or not -layers - 1 <= layer <= layers:
            raise CheckpointError(
                f"its tower is a {vision.model_type!r} model of {layers} layers, vision_feature_layer is {layer}",
                remedy="use a checkpoint with the tower of Idefics3, and one of its layers",
            )
        inputs, queries = _inputs(vision), config.projector_patch_to_query_dict
        patches = inputs["position_ids"].shape[1]
        if patches not in queries:
            raise CheckpointError(
                f"an image has {patches} patches; projector_patch_to_query_dict is {queries}",
                remedy="check image_size, patch_size and projector_patch_to_query_dict in config.json",
            )
        return Encoder(inputs=inputs, module=AriaFeatures, rows=queries[patches])


def _inputs(vision: Any) -> dict[str, TensorTypeHint]:
    """Pixels of square images, and positions of their patches."""
    side, patch = vision.image_size, vision.patch_size
    if not isinstance(side, int) or not isinstance(patch, int) or side % patch:
        raise CheckpointError(
            f"images have {side} pixels along each side, patches {patch}",
            remedy="check image_size and patch_size in config.json: patches have to fill the image",
        )
    positions = TensorTypeHint((DynamicDimension.up_to("batch", 1), (side // patch) ** 2), torch.int32)
    return {"input": tile(vision.num_channels, side, side), "position_ids": positions}
