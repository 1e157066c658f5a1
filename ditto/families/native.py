"""Families whose images keep their native size: packed patches, and positions along several axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from typing_extensions import Self, override

from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.configs.build import positive
from ditto.engine import IMAGE_TOKENS
from ditto.errors import CheckpointError, ConfigError, PromptError, TreeError
from ditto.families.multimodal import MultimodalModel
from ditto.families.preprocessor import Preprocessor, model_config
from ditto.runtime.encoding import EncodedPrompt, EncoderItem, EncoderShapes, TokenPositions


@frozen
class NativePreprocessor(Preprocessor):
    """Preprocessor of packed patches, whose grid the processor gives: by default time, height and width.

    Args:
        model: the model's class without parameters, which computes token positions; None until `configured`.
    """

    row_by_row: ClassVar[bool] = False
    """Whether the processor's patches come row by row; else those of a token come after each other."""

    multimodal_rope: ClassVar[bool] = True
    """Whether tokens have positions along several axes, by the model's `get_rope_index`."""

    grid_input: ClassVar[str] = "image_grid_thw"
    """Name of the model's input that holds the grids."""

    model: Any = None

    @property
    def config(self) -> Any:
        """The model's configuration.

        Raises:
            TreeError: it is not known.
        """
        if self.model is None:
            raise TreeError(
                "the tree has no config.json of the model, from which positions of image tokens follow",
                remedy="build the tree from a checkpoint directory, or name that with --hf-model",
            )
        return self.model.config

    @override
    def configured(self, directory: str | Path | None) -> NativePreprocessor:
        return self if directory is None else evolve(self, model=_without_parameters(directory))

    def of_grid(self, grid: Tensor) -> dict[str, Tensor]:
        """Inputs of the vision engine that follow from an image's grid.

        Args:
            grid: int64 [1, 3], time, height and width in patches.
        Returns:
            Tensors [patches, ...] by name; with `position_ids` [patches, 2], row and column of each patch.
        """
        return {"position_ids": self._rows_and_columns(grid)}

    def _rows_and_columns(self, grid: Tensor) -> Tensor:
        """Row and column of each patch, those of a token after each other: int64 [patches, 2]."""
        from transformers.vision_utils import get_vision_position_ids

        return get_vision_position_ids(grid, merge_size(self.config))

    @override
    def encode(
        self, processor: Any, text: str, images: Sequence[Any], *, add_special_tokens: bool = True
    ) -> EncodedPrompt:
        # Some models write the frames of a video as images, after this token.
        start = getattr(self.config, "video_start_token_id", None)
        if start is not None and str(processor.tokenizer.convert_ids_to_tokens(start)) in text:
            raise PromptError("the prompt has a place for video", remedy="leave it out: engines take text and images")
        return super().encode(processor, text, images, add_special_tokens=add_special_tokens)

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        grids = inputs[self.grid_input]
        patches = inputs["pixel_values"].split(grids.prod(-1).tolist())
        return [self.item(part, grid[None]) for part, grid in zip(patches, grids, strict=True)]

    def item(self, patches: Tensor, grid: Tensor) -> EncoderItem:
        """The vision engine's inputs for an image: its patches [patches, ...], and its grid [1, 3]."""
        if self.row_by_row:
            patches = patches[self._order(grid)]
        return self._by_token({"pixel_values": patches, **self.of_grid(grid)})

    def _order(self, grid: Tensor) -> Tensor:
        """The row by row number of each patch, those of a token after each other: int64 [patches]."""
        rows, columns = self._rows_and_columns(grid).unbind(-1)
        return rows * grid[0, 2] + columns

    def _by_token(self, tensors: Mapping[str, Tensor]) -> EncoderItem:
        unit = merge_size(self.config) ** 2
        return EncoderItem({name: _narrow(tensor.unflatten(0, (-1, unit))) for name, tensor in tensors.items()})

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        patches, grids = zip(*(self.patches(item) for item in items), strict=True)
        return {"pixel_values": torch.cat(patches), self.grid_input: torch.cat(grids)}

    def patches(self, item: EncoderItem) -> tuple[Tensor, Tensor]:
        """The inverse of `item`: patches [patches, ...] of an image, and its grid [1, 3]."""
        corner = item.inputs["position_ids"].flatten(0, 1).amax(0).long() + 1
        patches, grid = item.inputs["pixel_values"].flatten(0, 1), torch.tensor([[1, *corner]])
        return patches[self._order(grid).argsort()] if self.row_by_row else patches, grid

    @override
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        side = math.isqrt(shapes.largest[IMAGE_TOKENS]) * merge_size(self.config)
        values = [int(str(size)) for size in shapes.inputs["pixel_values"].shape[2:]]
        patches = [torch.randn(side * side, *values, generator=generator) for _ in range(count)]
        return [self.item(each, torch.tensor([[1, side, side]])) for each in patches]

    @override
    def token_inputs(self, is_image: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": is_image.long()} if self.multimodal_rope else super().token_inputs(is_image)

    @override
    def positions(self, token_ids: Sequence[int], inputs: Mapping[str, Tensor]) -> TokenPositions | None:
        if self.grid_input not in inputs or not self.multimodal_rope:
            return None
        grids, ids = inputs[self.grid_input], torch.tensor([list(token_ids)])
        is_image = ids == self.config.image_token_id
        starts = int((is_image[0].int().diff(prepend=torch.zeros(1, dtype=torch.int32)) == 1).sum())
        if starts != len(grids):
            raise PromptError(
                f"{len(grids)} images become {starts} spans of image tokens: some follow each other directly, "
                "and the model could not tell them apart",
                remedy="write text between them, or what the model's chat template puts around each image",
            )
        kinds = self.token_inputs(is_image)
        found, delta = self.model.get_rope_index(ids, **kinds, **{self.grid_input: grids})
        return TokenPositions(found[:, 0].int(), int(delta))


@frozen(kw_only=True, slots=False)
class NativeSizeModel(MultimodalModel):
    """Base class of families whose vision engine takes one image of any size in each call.

    Args:
        max_image_size: height and width in pixels of the largest image; another one may have the same area.
    """

    preprocessor: ClassVar[Preprocessor]

    max_image_size: tuple[int, int] = (1024, 1024)

    def with_max_image_size(self, height: int, width: int) -> Self:
        """Accept images of up to `height` by `width` pixels, or as many in another form.

        The prompt table and the prompt length grow with it. Larger images are refused, and never shrunk.
        """
        size = (positive("the height of the largest image", height), positive("its width", width))
        return evolve(self, max_image_size=size)._sized()

    @override
    def with_max_tiles(self, maximum: int) -> Self:
        raise ConfigError(
            f"{self.model_type!r} models do not cut images into tiles", remedy="limit images with --max-image-size"
        )

    @override
    def with_vision_batch(self, maximum: int) -> Self:
        raise ConfigError(
            f"the vision engine of {self.model_type!r} models takes one image in each call", remedy="leave it out"
        )

    @property
    def max_image_tokens(self) -> int:
        """Tokens of the largest image."""
        config = self.llm.source.config
        side = number(config, "patch_size") * merge_size(config)
        height, width = self.max_image_size
        return math.ceil(height / side) * math.ceil(width / side)

    @property
    def max_image_rows(self) -> int:
        """Embeddings of the largest image: those of its tokens, and those between them."""
        return self.max_image_tokens

    @override
    def _sized(self) -> Self:
        tokens = self.max_image_tokens
        return evolve(
            self,
            llm=evolve(self.llm, prompt_rows=self.max_image_rows * self.max_images),
            vision=self.vision.with_dimension(DynamicDimension.up_to(IMAGE_TOKENS, tokens)),
        )


@frozen(kw_only=True, slots=False)
class LimitedSizeModel(NativeSizeModel):
    """Base class of families whose checkpoint's image processor limits the size of images itself."""

    @override
    def with_max_image_size(self, height: int, width: int) -> Self:
        raise ConfigError(
            f"the image processor of {self.model_type!r} models limits images itself",
            remedy="leave out --max-image-size",
        )


def number(config: Any, name: str) -> int:
    """A setting of the vision tower that has to be one number.

    Raises:
        CheckpointError: it is not.
    """
    return _checked(f"vision_config.{name}", getattr(config.vision_config, name, None))


def merge_size(config: Any) -> int:
    """Patches along each side of the square that becomes an image token; 1 where the configuration states none.

    Raises:
        CheckpointError: it is not a number.
    """
    vision = config.vision_config
    if hasattr(vision, "model_patch_size"):  # the processor merges
        return 1
    if hasattr(vision, "window_kernel_size"):  # a merger in the tower, which it may leave out, and one behind it
        return 2 if getattr(config, "downsample_mode", None) == "4x" else 4
    own = [
        (vision, f"vision_config.{name}", name)
        for name in ("spatial_merge_size", "merge_size", "merge_kernel_size", "pooling_kernel_size")
    ]
    of_model = [(config, name, name) for name in ("spatial_merge_size", "downsample_factor")]
    for part, title, name in [*own, *of_model]:
        if hasattr(part, name):
            found = getattr(part, name)
            sides = set(found) if isinstance(found, (tuple, list)) else {found}
            return _checked(title, found if len(sides) > 1 else sides.pop())
    return 1


def check_unmerged(config: Any) -> None:
    """Check that a model whose patches are image tokens states no merging of patches, which transformers would ignore.

    Raises:
        CheckpointError: it does.
    """
    side = merge_size(config)
    if side != 1:
        raise CheckpointError(
            f"config.json states that {side} by {side} patches become an image token, and the model merges none",
            remedy="take the merge size out of config.json, if the checkpoint is of this model",
        )


def _checked(name: str, found: Any) -> int:
    if not isinstance(found, int) or found < 1:
        raise CheckpointError(f"`{name}` is {found!r}", remedy="give a number of at least 1")
    return found


def pixels(config: Any) -> TensorTypeHint:
    """Type of flattened patches of one or more frames: [image tokens, patches of a token, values]."""
    values = [number(config, name) for name in ("in_channels", "temporal_patch_size", "patch_size", "patch_size")]
    return by_token(config, math.prod(values), dtype=torch.float16)


def square_pixels(config: Any) -> TensorTypeHint:
    """Type of square patches: [image tokens, patches of a token, channels, height, width]."""
    patch = number(config, "patch_size")
    return by_token(config, number(config, "num_channels"), patch, patch, dtype=torch.float16)


def by_token(config: Any, *shape: int, dtype: torch.dtype = torch.int32) -> TensorTypeHint:
    """Type of an input with a value of some shape for each patch: [image tokens, patches of a token, *shape]."""
    return TensorTypeHint((DynamicDimension.up_to(IMAGE_TOKENS, 2), merge_size(config) ** 2, *shape), dtype)


def _narrow(tensor: Tensor) -> Tensor:
    """A tensor whose integers are int32, as in engines."""
    return tensor if tensor.is_floating_point() else tensor.int()


def _without_parameters(directory: str | Path) -> Any:
    """The model class of a configuration, as an object that has its methods and no parameters.

    Raises:
        TreeError: transformers does not know the configuration.
    """
    import transformers

    config = model_config(directory)
    if type(config) not in transformers.MODEL_MAPPING:
        raise TreeError(
            f"transformers has no model for a {type(config).__name__}",
            where=str(directory),
            remedy="install the version of transformers that the tree was built with",
        )
    model_class: Any = transformers.MODEL_MAPPING[type(config)]
    model: Any = model_class.__new__(model_class)
    nn.Module.__init__(model)
    model.config = config
    return model
