"""The runtime half of a family: from prompts and images to token ids and inputs of the vision engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor
from typing_extensions import override

from ditto.errors import PromptError, TreeError
from ditto.ops.spans import SpanRule
from ditto.runtime.encoding import EncodedPrompt, EncoderItem, EncoderShapes, TokenPositions

# Outputs of processors that follow from the token ids.
_OF_TOKENS = frozenset({"input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids"})


def model_config(directory: str | Path) -> Any:
    """The model's configuration that a tree holds, or a hub id has.

    Raises:
        TreeError: transformers cannot read it.
    """
    import transformers

    automatic: Any = transformers.AutoConfig
    try:
        return automatic.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:
        raise TreeError(
            f"transformers cannot read the model's configuration: {error}",
            where=str(directory),
            remedy="check config.json there",
        ) from error


@frozen
class Preprocessor(ABC):
    """What a family does with the outputs of its checkpoint's own processor."""

    needs_image: ClassVar[bool] = False
    """Whether each prompt has an image."""

    spans: ClassVar[SpanRule | None] = None
    """Which tokens of a prompt with images attend to each other in both directions; None if all tokens are causal."""

    next_type: ClassVar[int] = 0
    """Value of the `token_inputs` of tokens after the prompt."""

    def configured(self, directory: str | Path | None) -> Preprocessor:
        """The same for the model whose config.json is in a directory or on the hub.

        Args:
            directory: None if it is not known.
        Raises:
            TreeError: the preprocessor needs the configuration, and it cannot be read.
        """
        del directory
        return self

    def placeholder(self, processor: Any) -> str:
        """Text that stands for one image in a prompt."""
        return str(getattr(processor, "image_token", None) or "<image>")

    def image_token_id(self, processor: Any) -> int | None:
        """Id of the image token, of which one stands for each row of the image embeddings; None if unknown."""
        stated = getattr(processor, "image_token_id", None)
        if stated is not None:
            return int(stated)
        return processor.tokenizer.convert_tokens_to_ids(self.placeholder(processor))

    def complete(self, processor: Any, directory: Any) -> None:  # noqa: B027
        """Set attributes that older processor files lack and the model's configuration states.

        Raises:
            Exception: neither states them.
        """

    def images_of_prompt(self, images: Sequence[Any]) -> list[Any]:
        """The images of one prompt, in the form that the processor takes."""
        return list(images)

    def encode(
        self, processor: Any, text: str, images: Sequence[Any], *, add_special_tokens: bool = True
    ) -> EncodedPrompt:
        """Token ids and tensors of one prompt, with as many placeholders as images.

        Args:
            add_special_tokens: False for a text that holds the special tokens of its beginning.
        """
        given = self.images_of_prompt(images) if images else None
        options = {} if add_special_tokens else {"add_special_tokens": False}
        found = dict(processor(text=[text], images=given, return_tensors="pt", **options))
        ids = tuple(int(token) for token in found["input_ids"][0])
        if not images:
            return EncodedPrompt(ids)
        inputs = {name: tensor for name, tensor in found.items() if name not in _OF_TOKENS}
        return EncodedPrompt(ids, inputs, tuple(self.items(inputs)), self.positions(ids, inputs), self._spans(found))

    def _spans(self, found: Mapping[str, Any]) -> Tensor | None:
        """Span ids of the tokens of a prompt with images, from the processor's outputs."""
        if self.spans is None:
            return None
        if self.spans.input not in found:
            raise PromptError(
                f"the processor does not return {self.spans.input}, which say which tokens are of an image",
                remedy=f"let it return {self.spans.input}, as in the model's own settings",
            )
        return self.spans.spans(found[self.spans.input])[0]

    @abstractmethod
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        """Items of the vision engine for the inputs of Hugging Face's model, in the order of the image tokens."""

    @abstractmethod
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        """Inputs of Hugging Face's model for the images of one prompt, given as items."""

    @abstractmethod
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        """Random items, for verification and measurement without images."""

    def positions(self, token_ids: Sequence[int], inputs: Mapping[str, Tensor]) -> TokenPositions | None:
        """Positions of a prompt's tokens; None if they are the tokens' indices.

        Args:
            token_ids: of one prompt.
            inputs: inputs of Hugging Face's model for its images.
        """
        del token_ids, inputs
        return None

    def reserved(self) -> frozenset[int]:
        """Ids of tokens that announce an image or another medium, and that random prompts leave out."""
        return frozenset()

    def token_inputs(self, is_image: Tensor) -> dict[str, Tensor]:
        """Further inputs of Hugging Face's model that follow from the token ids.

        Args:
            is_image: bool [B, S], whether each token is an image token.
        """
        return {} if self.spans is None else {self.spans.input: self.spans.types(self.spans.of_prompt(is_image))}


@frozen
class TilePreprocessor(Preprocessor):
    """Preprocessor of images that come as tiles of one size.

    Args:
        names: names of the model's inputs in transformers, by the names of the engine's inputs. They are floating
            [..., channels, height, width] and have the same leading axes.
    """

    names: Mapping[str, str] = field(factory=lambda: {"input": "pixel_values"})

    @override
    def items(self, inputs: Mapping[str, Tensor]) -> list[EncoderItem]:
        tiles = {name: inputs[known].flatten(0, -4) for name, known in self.names.items()}
        return [EncoderItem(dict(zip(tiles, tensors))) for tensors in zip(*tiles.values(), strict=True)]

    @override
    def model_inputs(self, items: Sequence[EncoderItem]) -> dict[str, Tensor]:
        return {known: torch.stack([item.inputs[name] for item in items]) for name, known in self.names.items()}

    @override
    def sample(self, shapes: EncoderShapes, count: int, generator: torch.Generator) -> list[EncoderItem]:
        sizes = {name: [int(str(size)) for size in shapes.item_shape(name)] for name in self.names}
        return [
            EncoderItem({name: torch.randn(size, generator=generator) for name, size in sizes.items()})
            for _ in range(count)
        ]
