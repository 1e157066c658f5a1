"""LLaVA 1.5 and similar models: CLIP-like tower, MLP projector, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor, nn
from typing_extensions import override

from ditto.errors import CheckpointError
from ditto.families.encoder import Encoder, pair, tile
from ditto.families.mistral3 import PixtralPreprocessor, pixtral
from ditto.families.multimodal import MultimodalModel
from ditto.families.native import NativeSizeModel, check_unmerged
from ditto.families.preprocessor import Preprocessor, TilePreprocessor, model_config
from ditto.wrappers.features import embeddings, features_owner
from ditto.wrappers.llava import LlavaVisionWrapper
from ditto.wrappers.pixtral import PixtralFeatures

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
# Vision tower that packs the patches of all images into one row.
_OF_ANY_SIZE = "pixtral"


@frozen
class LlavaPreprocessor(TilePreprocessor):
    """Preprocessor that completes the settings of older processor files."""

    @override
    def configured(self, directory: str | Path | None) -> Preprocessor:
        """For a model with Pixtral's tower, the preprocessor of its patches."""
        if directory is None or (Path(directory).is_dir() and not Path(directory, "config.json").is_file()):
            return self
        tower = model_config(directory).vision_config.model_type
        return PixtralPreprocessor().configured(directory) if tower == _OF_ANY_SIZE else self

    @override
    def complete(self, processor: Any, directory: Any) -> None:
        names = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
        stated, _ = processor.get_processor_dict(directory)
        missing = [name for name in names if stated.get(name) is None]
        if not missing:
            return
        import transformers

        automatic: Any = transformers.AutoConfig
        try:
            config = automatic.from_pretrained(directory, trust_remote_code=False)
            vision, strategy = config.vision_config, config.vision_feature_select_strategy
        except Exception as error:
            raise ValueError(f"it does not state {missing[0]}, and neither does a config.json beside it") from error
        patch, *others = set(pair("patch_size", vision.patch_size))
        if others:
            sizes = list(vision.patch_size)
            raise ValueError(f"it does not state patch_size, and config.json states {sizes}, which is not square")
        own = {
            "patch_size": patch,
            "vision_feature_select_strategy": strategy,
            "num_additional_image_tokens": _tokens_before(vision),
        }
        for name in missing:
            setattr(processor, name, own[name])


@frozen(kw_only=True, slots=False)
class LlavaModel(MultimodalModel):
    """`LlavaForConditionalGeneration`.

    ```python
    LlavaModel.from_pretrained("llava-hf/llava-1.5-7b-hf").with_batch(4).build_all("engines/llava-1.5-7b-hf")
    ```
    """

    model_type: ClassVar[str] = "llava"
    needs_transformers: ClassVar[int] = 4
    preprocessor: ClassVar[Preprocessor] = LlavaPreprocessor()

    @classmethod
    @override
    def variant(cls, config: Any) -> Any:
        return PixtralLlavaModel if config.vision_config.model_type == _OF_ANY_SIZE else cls

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        if config.vision_config.model_type == _OF_ANY_SIZE:
            return PixtralLlavaModel.encoder(config)
        _check(config)
        size = pair("image_size", config.vision_config.image_size)
        return Encoder(
            inputs={"input": tile(getattr(config.vision_config, "num_channels", 3), *size)},
            module=_vision,
            rows=_rows(config),
        )

    @classmethod
    @override
    def features(cls, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        owner: Any = features_owner(model)
        return embeddings(owner.get_image_features(**inputs, **_selection(model.config)))


@frozen(kw_only=True, slots=False)
class PixtralLlavaModel(NativeSizeModel):
    """`LlavaForConditionalGeneration` with Pixtral's tower: each patch of an image becomes a token."""

    model_type: ClassVar[str] = "llava"
    preprocessor: ClassVar[Preprocessor] = PixtralPreprocessor()

    @classmethod
    @override
    def encoder(cls, config: Any) -> Encoder:
        if config.vision_feature_select_strategy != "full":
            raise CheckpointError(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}: the first patch of an "
                "image would be dropped",
                remedy="give `full` in config.json",
            )
        _check_layers(config)
        check_unmerged(config)
        return pixtral(config, PixtralFeatures)


def _vision(model: nn.Module) -> nn.Module:
    parts: Any = getattr(model, "model", model)  # transformers 5 nests them one level deeper
    return LlavaVisionWrapper(parts.vision_tower, parts.multi_modal_projector, *_selection(model.config).values())


def _selection(config: Any) -> dict[str, Any]:
    """Arguments that transformers 4.51 does not read from the configuration itself."""
    return {
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


def _tokens_before(vision: Any) -> int:
    """Number of tokens that a tower puts in front of the patches."""
    return _BEFORE_PATCHES.get(vision.model_type, 0) + getattr(vision, "num_register_tokens", 0)


def _rows(config: Any) -> int:
    """Number of image tokens of one image."""
    vision = config.vision_config
    height, width = pair("image_size", vision.image_size)
    patch_height, patch_width = pair("patch_size", vision.patch_size)
    patches = (height // patch_height) * (width // patch_width)
    dropped = 1 if config.vision_feature_select_strategy == "default" else 0  # the first token, of any kind
    return _tokens_before(vision) + patches - dropped


def _check(config: Any) -> None:
    """Check that a configuration is supported.

    Raises:
        CheckpointError: it is not.
    """
    _check_pairs(config.vision_config)
    strategy = config.vision_feature_select_strategy
    if strategy not in ("default", "full"):
        raise CheckpointError(
            f"vision_feature_select_strategy is {strategy!r}", remedy="give `default` or `full` in config.json"
        )
    _check_layers(config)
    if not _rows(config):
        raise CheckpointError(
            "an image becomes no features: it is one patch, which vision_feature_select_strategy 'default' drops",
            remedy="give `full` in config.json, or check image_size and patch_size",
        )


def _check_layers(config: Any) -> None:
    """Check that the tower has the layers whose features are taken."""
    count = config.vision_config.num_hidden_layers
    layer = config.vision_feature_layer
    chosen = [layer] if isinstance(layer, int) else layer
    if not chosen or not all(-count - 1 <= index <= count for index in chosen):
        raise CheckpointError(
            f"vision_feature_layer is {layer}, the tower has {count} layers",
            remedy=f"give one or several from {-count - 1} to {count} in config.json",
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
