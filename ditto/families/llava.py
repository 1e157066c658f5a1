"""LLaVA 1.5 and similar models: CLIP-like tower, MLP projector, decoder."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen
from torch import nn
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.multimodal import MultimodalModel, pair
from ditto.wrappers.llava import LlavaVisionWrapper

# Tokens in front of the patches, without registers: a class token; DeiT also has a distillation token.
_BEFORE_PATCHES = {
    "beit": 1,
    "clip_vision_model": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
    "vit": 1,
}
# Vision towers whose classes accept only single numbers as sizes, and those that arrange patches in a square.
_OF_ONE_NUMBER = ("clip_vision_model", "siglip_vision_model")
_OF_SQUARE_IMAGES = ("dinov2", "dinov2_with_registers")


@frozen(kw_only=True, slots=False)
class LlavaModel(MultimodalModel):
    """`LlavaForConditionalGeneration`.

    ```python
    LlavaModel.from_pretrained("llava-hf/llava-1.5-7b-hf").with_batch(4).build_all("engines/llava-1.5-7b-hf")
    ```
    """

    model_type: ClassVar[str] = "llava"

    @staticmethod
    @override
    def vision_wrapper(model: nn.Module) -> nn.Module:
        parts: Any = getattr(model, "model", model)  # transformers 5 nests them one level deeper
        config: Any = model.config
        return LlavaVisionWrapper(
            parts.vision_tower,
            parts.multi_modal_projector,
            config.vision_feature_layer,
            config.vision_feature_select_strategy,
        )

    @staticmethod
    @override
    def pixel_shape(config: Any) -> tuple[int, int, int]:
        vision = config.vision_config
        return getattr(vision, "num_channels", 3), *pair("image_size", vision.image_size)

    @staticmethod
    @override
    def tokens_per_image(config: Any) -> int:
        _, height, width = LlavaModel.pixel_shape(config)
        patch_height, patch_width = pair("patch_size", config.vision_config.patch_size)
        patches = (height // patch_height) * (width // patch_width)
        registers = getattr(config.vision_config, "num_register_tokens", 0)
        before = _BEFORE_PATCHES.get(config.vision_config.model_type, 0) + registers
        dropped = 1 if config.vision_feature_select_strategy == "default" else 0  # the first token, of any kind
        return before + patches - dropped

    @classmethod
    @override
    def check_config(cls, config: Any) -> None:
        _check_pairs(config.vision_config)
        strategy = config.vision_feature_select_strategy
        if strategy not in ("default", "full"):
            raise CheckpointError(
                f"vision_feature_select_strategy is {strategy!r}", remedy="give `default` or `full` in config.json"
            )
        count = config.vision_config.num_hidden_layers
        layer = config.vision_feature_layer
        chosen = [layer] if isinstance(layer, int) else layer
        if not chosen or not all(-count - 1 <= index <= count for index in chosen):
            raise CheckpointError(
                f"vision_feature_layer is {layer}, the tower has {count} layers",
                remedy=f"give one or several from {-count - 1} to {count} in config.json",
            )
        if not cls.tokens_per_image(config):
            raise CheckpointError(
                "an image becomes no features: it is one patch, which vision_feature_select_strategy 'default' drops",
                remedy="give `full` in config.json, or check image_size and patch_size",
            )


def _check_pairs(vision: Any) -> None:
    """Check that the tower's class in transformers accepts the form of its sizes."""
    for name in ("image_size", "patch_size"):
        stated, sides = getattr(vision, name), pair(name, getattr(vision, name))
        if not isinstance(stated, int) and vision.model_type in _OF_ONE_NUMBER:
            raise CheckpointError(
                f"`vision_config.{name}` is {list(sides)}; a {vision.model_type} tower of transformers accepts one "
                "number for both sides.",
                remedy=f"give {sides[0]} in config.json"
                if sides[0] == sides[1]
                else "use a tower of square images and patches",
            )
        if name == "image_size" and sides[0] != sides[1] and vision.model_type in _OF_SQUARE_IMAGES:
            raise CheckpointError(
                f"`vision_config.{name}` is {list(sides)}; a {vision.model_type} tower of transformers accepts square "
                "images alone.",
                remedy="use a tower of square images",
            )
